"""vLLM, in an environment of its own: a server that is started here, or pointed to.

$RRTF_VLLM names the `vllm` command of that environment, or its python; $RRTF_VLLM_OPTIONS holds
further options of `vllm serve`. Not covered: servers over several machines (start one, and point
to it).
"""

import hashlib
import os
import shlex
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rrtf.engines import Completion, Decoding, Message, endpoint
from rrtf.engines.endpoint import AskingEngine, Endpoint, saving

HOST = "127.0.0.1"
KEY = "VLLM_API_KEY"  # the variable that the server itself takes its key from
CONCURRENCY = 64  # the server batches what is under way
SHOWN = 15  # last lines of a server's log in an error
LOOK = 0.5  # seconds between two looks whether it is up
ENDING = 2.0  # seconds that a server whose requests fail may take to be seen to end
TELL = 30.0  # seconds between two lines that say how far it is
KEEPER = Path(__file__).with_name("keeper.py")
INSTALL = (
    "install vLLM in an environment of its own (python -m venv DIR; DIR/bin/pip install "
    "vllm==0.32.0) and set RRTF_VLLM=DIR/bin/vllm, or point to a running server: "
    "vllm@http://HOST:8000/v1"
)


def command() -> list[str]:
    """How `vllm serve` is called here; FileNotFoundError that says what to install."""
    named = os.environ.get("RRTF_VLLM", "")
    if not named:
        raise FileNotFoundError(f"$RRTF_VLLM is not set: {INSTALL}")
    if not (Path(named).is_file() and os.access(named, os.X_OK)):
        raise FileNotFoundError(f"$RRTF_VLLM: {named} is no program: {INSTALL}")
    if Path(named).name.startswith("python"):
        return [named, "-m", "vllm.entrypoints.cli.main", "serve"]
    return [named, "serve"]


def environment(program: str) -> dict[str, str]:
    """Ours without what would lead vLLM to our packages, and without its reports to its makers."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OMP_NUM_THREADS"}
    found = {name: value for name, value in os.environ.items() if name not in ours}
    tools = str(Path(program).absolute().parent)  # ninja and others that it calls by name
    found["PATH"] = os.pathsep.join([tools, found.get("PATH", os.defpath)])
    return found | {"VLLM_NO_USAGE_STATS": "1"}


def content_name(model: str | Path) -> str:
    """What a model is called in requests, and so in recorded replies.

    A local folder by its name and the sha256 of its files: another model in its place is another.
    """
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    total = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"{folder.resolve().name}-{total.hexdigest()[:12]}"


class Server:
    """A `vllm serve` that ends with this object, and with this process, however that ends.

    `port` 0 takes a free one. FileNotFoundError without the environment; OSError where the port is
    taken, where the server ends while it loads (with the last lines of its log), and where it is
    not up after `start_seconds`.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        log: Path,
        port: int = 0,
        tensor_parallel: int = 1,
        prefix_caching: bool = True,
        start_seconds: float = 1800.0,
    ):
        called = command()
        port = _free(port)
        self.model, self.log = model, log
        self.place = Endpoint(f"http://{HOST}:{port}/v1", content_name(model), KEY, vllm=True)
        options = ["--host", HOST, "--port", str(port), "--served-model-name", self.place.model]
        options += ["--tensor-parallel-size", str(tensor_parallel)]
        options += [f"--{'' if prefix_caching else 'no-'}enable-prefix-caching"]
        options += shlex.split(os.environ.get("RRTF_VLLM_OPTIONS", ""))
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(KEEPER), *called, str(model), *options],
                env=environment(called[0]),
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, and we end the server
            )
        self.close = weakref.finalize(self, _end, self._process)
        try:
            self._wait(start_seconds)
        except BaseException:
            self.close()
            raise

    def _wait(self, seconds: float) -> None:
        started = told = time.monotonic()
        while not endpoint.ready(self.place):
            self.check()
            now = time.monotonic()
            if now - started > seconds:
                raise OSError(f"vllm: {self.model} is not up after {seconds:g} s{self.last()}")
            if now - told >= TELL:
                line = self.last(1).strip()
                print(f"vllm: loading {self.model}, {now - started:.0f} s: {line}", file=sys.stderr)
                told = now
            time.sleep(LOOK)

    def check(self, seconds: float = 0.0) -> None:
        """OSError with the last lines of the log where the server has ended, or does meanwhile."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(seconds)
            raise OSError(f"vllm: the server of {self.model} ended (exit code {code}){self.last()}")

    def last(self, lines: int = SHOWN) -> str:
        """The end of the log, and above it where it lies, if it is more than one line."""
        text = self.log.read_bytes()[-65536:].decode("utf-8", "replace")
        end = "\n".join(text.splitlines()[-lines:])
        return f"; the last lines of {self.log}:\n{end}" if lines > 1 else end


def _free(port: int) -> int:
    """`port`, or one that nobody uses; OSError where somebody uses it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise OSError(
                f"vllm: port {port} of {HOST} cannot be had ({error.strerror}): name another, or "
                f"0 for a free one; if your server runs there, vllm@http://{HOST}:{port}/v1"
            ) from None
        return probe.getsockname()[1]


def _end(process: subprocess.Popen) -> None:
    """The keeper ends the server once it reads the end of this pipe."""
    with suppress(OSError):
        process.stdin.close()
    process.wait()


class VllmEngine(AskingEngine):
    """Samples and scores by a vLLM server at `place`; `server` is the one that was started here."""

    def __init__(
        self,
        place: Endpoint,
        *,
        replies: Path,
        server: Server | None = None,
        concurrency: int = CONCURRENCY,
        attempts: int = 6,
        timeout: float = 1800.0,
    ):
        limits = {"concurrency": concurrency, "attempts": attempts, "timeout": timeout}
        super().__init__(f"vllm-{place.model}", saving(place, replies, **limits))
        self.place, self.server, self.concurrency = place, server, concurrency

    def generate(
        self, prompts: Sequence[str], *, n: int, decoding: Decoding, stops: Sequence[str]
    ) -> list[list[Completion]]:
        """As `AskingEngine`; where our server ended meanwhile, its log says why."""
        try:
            return super().generate(prompts, n=n, decoding=decoding, stops=stops)
        except OSError:
            if self.server:
                self.server.check(ENDING)
            raise

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        """As the protocol has it; nothing is recorded. ValueError for a chat message."""
        if any(isinstance(prompt, Message) for prompt in prompts):
            raise ValueError(f"{self.name} scores raw texts; a chat message has no fixed tokens")
        heads, tails = self._tokens(prompts, special=True), self._tokens(answers, special=False)
        pairs = list(zip(heads, tails, strict=True))
        asked = {"model": self.place.model, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
        requests = [("/completions", asked | {"prompt": h + t}) for h, t in pairs if t]
        replies = iter(endpoint.call(self.place, requests, concurrency=self.concurrency))
        return [self._score(len(h), t, next(replies)) if t else (0.0, 0) for h, t in pairs]

    def _score(self, length: int, tail: list[int], reply: Any) -> tuple[float, int]:
        """(log-probability, tokens) of the tokens behind the first `length` in a reply."""
        try:
            found = reply["choices"][0]["prompt_logprobs"][length:]
            # By token: the likeliest one stands beside the one that is there.
            values = [row[str(token)]["logprob"] for row, token in zip(found, tail, strict=True)]
        except (KeyError, IndexError, TypeError, ValueError):
            raise OSError(
                f"{self.place.base_url}: an answer without the prompt_logprobs of its prompt; is "
                "this vLLM? The engines transformers, ctranslate2 and gptbigcode score as well"
            ) from None
        return sum(values), len(tail)

    def _tokens(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        root = replace(self.place, base_url=self.place.base_url.rstrip("/").removesuffix("/v1"))
        asked = {"model": self.place.model, "add_special_tokens": special}
        requests = [("/tokenize", asked | {"prompt": text}) for text in texts if text]
        replies = iter(endpoint.call(root, requests, concurrency=self.concurrency))
        return [next(replies)["tokens"] if text else [] for text in texts]


def start(model: str | Path, *, replies: Path, **options) -> VllmEngine:
    """The engine of `vllm`: a server of our own, ended with the engine; options as `Server`.

    Its log is `vllm.log` in the folder `replies`.
    """
    server = Server(model, log=replies / "vllm.log", **options)
    return VllmEngine(server.place, replies=replies, server=server)


def point(address: str, model: str, *, replies: Path, **options) -> VllmEngine:
    """The engine of `vllm@ADDRESS`; options as `VllmEngine`."""
    return VllmEngine(Endpoint(address, model, KEY, vllm=True), replies=replies, **options)
