"""`transformers serve` on this machine, for tests that ask a real server."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# A base model has no chat template, without which the server answers 500: here the messages alone,
# and of one that asks for code no more than the code, which such a model continues.
TEMPLATE = (
    "{% for message in messages %}"
    "{{ message.content.split('```python\n')[-1].split('\n```')[0] }}{% endfor %}"
)


def chat_copy(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a base model that takes messages, and that `transformers serve` draws from.

    The server looks at the temperature only where the model's own settings sample, and keeps to
    their 50 likeliest tokens unless they say otherwise.
    """
    folder = tmp_path_factory.mktemp("served") / model.name
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    settings = folder / "generation_config.json"
    drawing = json.loads(settings.read_text()) | {"do_sample": True, "top_k": 0}
    settings.write_text(json.dumps(drawing))
    return folder


@contextmanager
def transformers_serve(folder: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """(the running process, its address); the model goes by the name of its folder."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason=f"transformers serve needs {package}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command = [sys.executable, "-c", program, "serve", folder.name, *where]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=folder.parent, env=os.environ, **quiet) as process:
        try:
            _wait(process, f"http://127.0.0.1:{port}/health")
            yield process, f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def _wait(process: subprocess.Popen, address: str, seconds: float = 300) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            direct.open(address, timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"transformers serve did not start (exit code {process.poll()})")
