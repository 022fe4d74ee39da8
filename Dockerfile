# docker build -t rrtf .  &&  docker run --rm -v "$PWD/reports:/rrtf/reports" rrtf
# The sandbox runs candidates under Landlock and seccomp, which Docker's default profile allows;
# where it does not, the run stops and says which level it found.
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /rrtf
COPY requirements.lock .
ARG PIP_ARGS=""
RUN pip install --no-cache-dir $PIP_ARGS -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .
CMD ["make", "reports", "SYSTEM=1"]
