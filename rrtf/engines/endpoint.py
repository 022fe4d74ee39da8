"""Asking any OpenAI-compatible endpoint: vLLM, `transformers serve`, a hosted API.

`ask` sends many requests at a time and saves each reply the moment it came, so that a killed run
goes on where it was; `recorded` reads what was saved. Connections are those of the `openai`
client; what its errors mean (`Client`), the journal, the spend limit and the order of requests
(`Work`) are ours. Servers that take no seed, `max_completion_tokens` for `max_tokens`, or no
temperature are asked as they want it (`Dialect`). Not covered: streamed replies, SOCKS. A server's
sampling may not follow the seed (that of `transformers serve` does not once requests run side by
side): the saved replies are what repeats.
"""

import asyncio
import fcntl
import hashlib
import ipaddress
import json
import math
import os
import re
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rrtf import store
from rrtf.config import derive_seed
from rrtf.engines import (
    NO_ROOM,
    REFUSED,
    Completion,
    Decoding,
    Message,
    check_sampling,
    first_stop,
    note,
    prompt_keys,
    served_name,
)
from rrtf.prompts import has_end_token

FIELDS = ("seed", "max_tokens", "max_completion_tokens", "temperature", "top_p")
_OF_VALUES = re.compile(
    r"between|range|less|greater|at (least|most)|large|small|maximum|minimum|exceed|[<>]|negative",
    re.IGNORECASE,
)
TOO_LONG = re.compile(
    r"context.?(length|window|size)|too long|too many (input )?tokens|max_model_len", re.IGNORECASE
)
MOST_STOPS = 4  # stop sequences that hosted APIs take, and vLLM 0.32
# vLLM takes what a request does not say from the model's generation_config.json.
VLLM = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "return_token_ids": True,
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: what is to be answered and how to sample.

    Either `messages`, (role, content) pairs that the server puts into its chat template, or
    `prompt`, a text to be continued as it is. `temperature` 0 is greedy; `top_p` lies in (0, 1];
    `max_tokens` bounds the answer, which may end at one of `stops` (a server may cut them off, or
    go on behind them); asks that differ in their `seed` alone are different asks.
    """

    messages: tuple[tuple[str, str], ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int = 0
    prompt: str = ""
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came: `finish_reason` as the server named it (`stop`, `length`, ...).

    `completion_tokens` as the server counts: where it lists them (vLLM) without the one that ends
    the text, elsewhere mostly with it; 0 where it does not count. Of answers that came together,
    the first has the `prompt_tokens`. `error` says why no text came after all attempts; it is empty
    for a good reply. `refused`: further attempts are in vain, because of what was asked.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    error: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask: `base_url` ends before `/chat/completions`, as in `http://127.0.0.1:8000/v1`.

    The key is read from the environment variable `api_key_env` when it is needed and is kept
    nowhere; where the variable is not set, none is sent. `vllm`: the server is one, and answers
    asks with consecutive seeds together. Recordings name the model by `recorded_as`, where the
    name that the server has for it does not do.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    vllm: bool = False
    recorded_as: str = ""


def check(ask: Ask, where: str) -> None:
    """ValueError that names the first field of `ask` that no endpoint could answer."""
    whole = all(isinstance(text, str) for pair in ask.messages for text in pair)
    if not whole or any(len(pair) != 2 for pair in ask.messages):
        raise ValueError(f"{where}: messages: expected (role, content) pairs of text")
    if bool(ask.messages) == bool(ask.prompt):
        raise ValueError(f"{where}: expected either messages or a prompt")
    if not all(ask.stops):
        raise ValueError(f"{where}: stops: an empty stop sequence")
    if not (math.isfinite(ask.temperature) and ask.temperature >= 0):
        raise ValueError(f"{where}: temperature = {ask.temperature}: expected 0 or more")
    if not 0 < ask.top_p <= 1:
        raise ValueError(f"{where}: top_p = {ask.top_p}: expected a value in (0, 1]")
    if ask.max_tokens < 1:
        raise ValueError(f"{where}: max_tokens = {ask.max_tokens}: at least 1 is needed")


def path(ask: Ask) -> str:
    """Where under the address an ask goes: chat, or raw text."""
    return "/completions" if ask.prompt else "/chat/completions"


def _request(ask: Ask, model: str) -> dict[str, Any]:
    """What an ask says to every server."""
    request: dict[str, Any] = {
        "model": model,
        "temperature": float(ask.temperature),
        "top_p": float(ask.top_p),
        "max_tokens": ask.max_tokens,
        "seed": ask.seed,
    }
    if ask.stops:
        request["stop"] = list(ask.stops)
    if ask.prompt:
        return request | {"prompt": ask.prompt}
    pairs = [{"role": role, "content": content} for role, content in ask.messages]
    return request | {"messages": pairs}


def body(asks: Sequence[Ask], endpoint: Endpoint, without: Collection[str] = ()) -> dict[str, Any]:
    """What is sent for asks that differ in their consecutive seeds alone.

    vLLM gives the answers of one request the seeds `seed`, `seed` + 1, ...; others get one ask.
    `without`: fields that the server does not take (`Dialect`).
    """
    request = _request(asks[0], endpoint.model)
    if "stop" in request:
        request["stop"] = request["stop"][:MOST_STOPS]
    if endpoint.vllm:
        request |= {"n": len(asks), **VLLM}
    if "max_tokens" in without:
        request["max_completion_tokens"] = request["max_tokens"]
    return {name: value for name, value in request.items() if name not in without}


class Dialect:
    """The fields that a server does not take, as its refusals tell."""

    def __init__(self, address: str):
        self.address = address
        self.without: set[str] = set()

    def learn(self, refusal: str, sent: Collection[str]) -> bool:
        """Whether a refusal names a field that was sent and that it can be asked without.

        That is noted once. What is out of a range is no such field: the user has to see to it.
        """
        fields = [name for name in FIELDS if re.search(rf"\b{name}\b", refusal)]
        named = [name for name in fields if name in sent]
        if not named or _OF_VALUES.search(refusal) or TOO_LONG.search(refusal):
            return False
        new = not self.without.issuperset(named)
        self.without.update(named)
        if new:
            instead = ["with max_completion_tokens instead"] * ("max_tokens" in named)
            told = " and ".join([f"without {', '.join(named)}", *instead])
            note(f"{self.address} is asked {told}: {refusal}")
        return True


@cache
def dialect(endpoint: Endpoint) -> Dialect:
    """What this process has learnt of an endpoint."""
    return Dialect(endpoint.base_url)


def key(ask: Ask, model: str) -> str:
    """The name of an ask of a model: the sha256 of what it says, whichever server it goes to."""
    return hashlib.sha256(json.dumps(_request(ask, model), sort_keys=True).encode()).hexdigest()


def most_tokens(ask: Ask) -> int:
    """What a reply can cost: a token has at least one byte, a message some tokens around it."""
    prompt = sum(16 + len(content.encode("utf-8", "replace")) for _, content in ask.messages)
    return prompt + len(ask.prompt.encode("utf-8", "replace")) + ask.max_tokens


def parse(data: bytes, count: int = 1) -> list[Reply]:
    """The `count` replies in the body of an answer; ValueError says what is wrong with it.

    A `content` of null (a refusal; a model that thought until its tokens ran out) is no text.
    Tokens that the server does not count are 0, and a text without a reason has come to its end.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not whole JSON ({error})") from None
    if isinstance(answer, dict) and answer.get("error"):
        raise ValueError(f"an error in place of a reply: {json.dumps(answer['error'])}")
    choices = _field(answer, "choices", list) or [None]
    if len(choices) != count:
        raise ValueError(f"{len(choices)} answers instead of {count}")
    texts = [_text(choice) for choice in choices]
    usage = answer.get("usage") or {}
    named = ("prompt_tokens", "completion_tokens")
    counts = [_field(usage, name, int) if _given(usage, name) else 0 for name in named]
    if min(counts) < 0:
        raise ValueError(f"usage of {min(counts)} tokens")
    reasons = [_reason(choice) for choice in choices]
    listed = count > 1 or isinstance(choices[0].get("token_ids"), list)
    tokens = [_tokens(choice) for choice in choices] if listed else counts[1:]
    prompts = [counts[0]] + [0] * (count - 1)
    return [Reply(*fields) for fields in zip(texts, reasons, prompts, tokens, strict=True)]


def _given(value: Any, name: str) -> bool:
    return not isinstance(value, dict) or value.get(name) is not None


def _reason(choice: Any) -> str:
    named = _given(choice, "finish_reason")
    return _unicode(_field(choice, "finish_reason", str)) if named else "stop"


def _text(choice: Any) -> str:
    if isinstance(choice, dict) and "text" in choice:
        return _unicode(_field(choice, "text", str))
    message = _field(choice, "message", dict)
    return _unicode("" if message.get("content", "") is None else _field(message, "content", str))


def _tokens(choice: dict[str, Any]) -> int:
    """Generated tokens but for the one that ends the text: vLLM names a stop sequence only."""
    ended = _reason(choice) == "stop" and not isinstance(choice.get("stop_reason"), str)
    return max(0, len(_field(choice, "token_ids", list)) - ended)


def _field(value: Any, name: str, kind: type) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ValueError(f"JSON without {name} ({kind.__name__})")
    return found


def _unicode(text: str) -> str:
    """`text` with U+FFFD for halves of surrogate pairs, which no file could hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def to_row(name: str, reply: Reply) -> dict[str, Any]:
    """A good reply as the journal has it, by the key of its ask."""
    return {
        "key": name,
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }


def from_row(row: dict[str, Any], where: str) -> tuple[str, Reply]:
    """The inverse of `to_row`; ValueError names the place of a row that is none."""
    try:
        words = [_field(row, name, str) for name in ("key", "text", "finish_reason")]
        counts = [_field(row, name, int) for name in ("prompt_tokens", "completion_tokens")]
    except ValueError as error:
        raise ValueError(f"{where}: no reply: {error}; delete the line to go on") from None
    return words[0], Reply(*words[1:], *counts)


SYNC_SECONDS = 5.0  # a power cut loses at most this much


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a journal in the order of their coming; none where there is no file.

    A last line without its end is left out. ValueError names the line that is not a JSON object.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in store.lines(file, str(path)):
            if line.endswith(b"\n"):
                yield _row(line, f"{path}:{number}")


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON line ({error}); delete the line to go on") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a JSON object; delete the line to go on")
    return row


class Journal:
    """A journal opened for appending, by one thread.

    OSError where the file cannot be written, or where another process has it open.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise OSError(
                f"{path}: another process is writing to it; wait for its end, or name another place"
            ) from error
        self._size = self._whole()
        os.ftruncate(self._file, self._size)
        self._synced = time.monotonic()

    def _whole(self) -> int:
        """Bytes up to the end of the last whole line."""
        end = os.fstat(self._file).st_size
        while end:
            start = max(0, end - (1 << 16))
            at = os.pread(self._file, end - start, start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
        return 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one row; after an OSError (a full disk, say) the file is as it was before."""
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        try:
            self._write(line)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise OSError(error.errno, f"cannot write {self.path}: {error.strerror}") from error
        self._size += len(line)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._synced = time.monotonic()
            os.fdatasync(self._file)

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        """Brings all rows to the disk and gives the lock back."""
        os.fdatasync(self._file)
        os.close(self._file)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


LONGEST_WAIT = 900.0  # seconds that a Retry-After may ask for before we rather stop
AGAIN = (408, 409, 425, 429)  # of the 4xx, those that another attempt may mend; and all 5xx
SHOWN = 300  # characters of a server's message in ours


class Refused(Exception):
    """No attempt will bring a reply to this ask; others may get theirs."""


class Again(Exception):
    """Another attempt may bring a reply.

    `wait` is what the server asked for in seconds, 0 where it did not say; `unreachable` where
    there was no connection at all.
    """

    def __init__(self, reason: str, *, wait: float = 0.0, unreachable: bool = False):
        super().__init__(reason)
        self.wait, self.unreachable = wait, unreachable


class SpendLimit(OSError):
    """The tokens allowed are spent. What came is saved; with a higher limit it goes on."""


def check_address(base_url: str) -> None:
    """ValueError for what is no address of an endpoint, or holds a secret."""
    parts = urlsplit(base_url)
    if parts.username or parts.password or parts.query or parts.fragment:
        shown = f"{parts.scheme}://...@{parts.hostname}" if parts.username else parts.hostname
        raise ValueError(
            f"{shown}: an address with a password, `?` or `#`; the key belongs in the environment"
        )
    try:
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        port_fits = False
    plain = base_url.isascii() and base_url.isprintable() and " " not in base_url
    if parts.scheme not in ("http", "https") or not parts.hostname or not (port_fits and plain):
        raise ValueError(f"{base_url!r}: expected an address like http://127.0.0.1:8000/v1")


def is_loopback(host: str) -> bool:
    """Whether `host` names this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_key(endpoint: Endpoint) -> str:
    """The key in the environment, or nothing; ValueError for what no header can carry."""
    secret = os.environ.get(endpoint.api_key_env, "").strip()
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        raise ValueError(f"${endpoint.api_key_env} holds no key: blanks or characters beyond ASCII")
    return secret


_LIMIT: ContextVar[int] = ContextVar("bytes that the reply under way may have")


async def _bounded(response: Any) -> None:
    """Reads the body of an httpx response; ValueError where it goes beyond `_LIMIT`."""
    limit, size, pieces = _LIMIT.get(), 0, []
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ValueError("a compressed body, which was not asked for")
    told = response.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limit:
        raise ValueError(f"more than {limit} bytes")
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > limit:
            raise ValueError(f"more than {limit} bytes")
        pieces.append(piece)
    response._content = b"".join(pieces)  # what `aread` looks for first


class Client:
    """`openai.AsyncOpenAI` for one endpoint: single attempts, whose troubles are told as ours.

    No redirect is followed, and no proxy of the environment stands before this very machine.
    `async with` closes it; ValueError for a key that no header can carry.
    """

    def __init__(self, endpoint: Endpoint, timeout: float):
        import httpx
        import openai

        self.endpoint, self.timeout, self.secret = endpoint, timeout, read_key(endpoint)
        self.root = endpoint.base_url.rstrip("/")
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        here = is_loopback(urlsplit(endpoint.base_url).hostname)
        way = {"transport": httpx.AsyncHTTPTransport(limits=limits)} if here else {"limits": limits}
        hooks = {"response": [_bounded]}
        headers = {"Accept-Encoding": "identity"}  # so that a bound of bytes is one of memory
        # What the environment holds for OpenAI is nothing to other servers.
        headers |= dict.fromkeys(["OpenAI-Organization", "OpenAI-Project"], openai.Omit())
        # The client takes a missing key from the single request alone.
        self.options = {"headers": {} if self.secret else {"Authorization": openai.Omit()}}
        self.inner = openai.AsyncOpenAI(
            api_key=self.secret or "none",
            base_url=endpoint.base_url,
            max_retries=0,
            timeout=None,
            http_client=httpx.AsyncClient(event_hooks=hooks, timeout=None, **way),
            default_headers=headers,
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.inner.close()

    async def post(self, where: str, request: Mapping[str, Any], limit: int) -> bytes:
        """What answers `request` at the path `where`, of at most `limit` bytes.

        `Again`, or `Refused`, or an OSError that says why to ask nothing more.
        """
        import httpx
        import openai

        _LIMIT.set(limit)
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self.inner.post(
                    self.root + where, body=request, cast_to=httpx.Response, options=self.options
                )
        except TimeoutError:
            raise Again(f"no whole answer within {self.timeout:g} s") from None
        except openai.APIStatusError as error:
            answer = error.response
        except openai.APIConnectionError as error:
            raise self._broken(error.__cause__) from None
        if answer.status_code != 200:
            await self._complain(answer, where)
        return answer.content

    def _broken(self, cause: BaseException | None) -> Exception:
        """What a connection that was not had, or broke, comes to."""
        import httpx

        said = _shown(str(cause) or repr(cause), self.secret)
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return OSError(f"{self.endpoint.base_url}: its certificate is not trusted: {said}")
        return Again(said, unreachable=isinstance(cause, (httpx.ConnectError, httpx.ProxyError)))

    async def _complain(self, answer: Any, where: str) -> None:
        """Raises what follows from a status that is not 200."""
        place, status = self.endpoint.base_url, answer.status_code
        said = _message(answer.content, self.secret)
        what = f"HTTP {status}" + (f": {said}" if said else "")
        if status in AGAIN or status >= 500:
            wait = retry_after(answer.headers.get("retry-after", ""))
            if wait > LONGEST_WAIT:
                raise OSError(
                    f"{place} asks to come back in {wait:.0f} s ({what}); what came is saved, the "
                    "same command goes on from there"
                )
            raise Again(what, wait=wait)
        if status in (401, 402, 403):
            given, taken = ("the key in", "was not accepted") if self.secret else (
                "there is no key in", "(set it)")  # fmt: skip
            raise PermissionError(
                f"{place} lets nobody in without its key, and {given} "
                f"${self.endpoint.api_key_env} {taken}: {what}"
            )
        if status == 404:
            names = _shown(", ".join(await self.served()), self.secret)
            raise FileNotFoundError(
                f"{place}: no model {self.endpoint.model!r} there, or no {where} under this "
                f"address, which mostly ends in /v1 ({what})" + (names and f"; it serves {names}")
            )
        if status < 300:
            raise Again(f"HTTP {status} instead of 200")
        if status < 400:
            other = _shown(answer.headers.get("location", "nowhere"), self.secret)
            raise OSError(f"{place} refers to {other} (HTTP {status}): give that address")
        raise Refused(what)

    async def served(self) -> list[str]:
        """The models that the server says it has; none where it does not say so."""
        import openai

        _LIMIT.set(1 << 20)
        try:
            async with asyncio.timeout(10):
                listed = await self.inner.get(
                    f"{self.root}/models", cast_to=object, options=self.options
                )
            return [str(entry["id"]) for entry in listed["data"]]
        except (OSError, openai.OpenAIError, ValueError, KeyError, TypeError):
            return []


def _message(data: bytes, secret: str) -> str:
    """The sentence in the body of an error: OpenAI's form, FastAPI's, or what there is."""
    text = data[:65536].decode("utf-8", "replace")
    try:
        found = json.loads(text)
        for name in ("error", "message", "detail"):
            found = found.get(name, found) if isinstance(found, dict) else found
        text = found if isinstance(found, str) else json.dumps(found)
    except (ValueError, RecursionError):
        pass
    return _shown(text, secret)


def _shown(text: str, secret: str) -> str:
    """A server's text as it may stand in a message: one line, short, without the key."""
    line = " ".join((text.replace(secret, "(key)") if secret else text).split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for (a number or a date), 0 for anything else."""
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def largest(asks: Sequence[Ask]) -> int:
    """Bytes that a valid answer stays under: long tokens, escaped, and much around them."""
    return (1 << 20) + 256 * sum(ask.max_tokens for ask in asks)


async def attempt(asks: Sequence[Ask], client: Client) -> list[Reply]:
    """The replies to asks that go out as one, or what `Client.post` raises."""
    learnt = dialect(client.endpoint)
    while True:
        request = body(asks, client.endpoint, learnt.without)
        try:
            answer = await client.post(path(asks[0]), request, largest(asks))
            return parse(answer, len(asks))
        except Refused as refusal:
            if not learnt.learn(str(refusal), request):
                raise
        except ValueError as error:
            raise Again(_shown(str(error), client.secret)) from None


FILE = "replies.jsonl"
FRUITLESS = 20  # requests in a row without a reply after which the endpoint counts as broken
PATIENCE = 10  # times as many attempts where the server itself says when to come back
BACKOFF = 1.0  # seconds between the first two attempts
LONGEST_PAUSE = 60.0  # seconds between two attempts, unless the server asks for more
TICK = 0.2  # seconds between two calls of `progress`
Progress = Callable[[int, int, int, int, float], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the requests of a call keep to: how many at a time, attempts for each, seconds between
    two, seconds for one, and tokens in all (0: no bound)."""

    concurrency: int
    attempts: int
    interval: float
    timeout: float
    tokens: int


class Work:
    """Asks out and replies in, each saved before it counts; the first error stops all work.

    `spent` tokens are gone already. `replies` by key and `error` are the result.
    """

    def __init__(
        self,
        asks: Mapping[str, Ask],
        endpoint: Endpoint,
        journal: Journal,
        limits: Limits,
        spent: int,
    ):
        self.asks, self.journal, self.limits = asks, journal, limits
        self.address, self.spent, self.before = endpoint.base_url, spent, spent
        self.replies: dict[str, Reply] = {}
        self.error: BaseException | None = None
        self._client = Client(endpoint, limits.timeout)
        self._waiting = deque(_groups(asks) if endpoint.vllm else [(name,) for name in asks])
        self._answered = self._fruitless = self._pledged = 0
        self._next = 0.0  # monotonic seconds before which no request goes out
        self._changed, self._stopped = asyncio.Condition(), asyncio.Event()

    async def run(self) -> None:
        """All of it. Where an error stops it, replies under way are waited for and saved."""
        async with self._client:
            workers = min(self.limits.concurrency, len(self._waiting))
            await asyncio.gather(*(self._serve() for _ in range(workers)))

    async def _serve(self) -> None:
        try:
            while (names := await self._take()) is not None:
                replies = await self._patiently(names)
                if replies is None:
                    return
                await self._put(dict(zip(names, replies, strict=True)))
        except Exception as error:  # raised again where `ask` was called
            async with self._changed:
                self._stop(error)

    async def _take(self) -> tuple[str, ...] | None:
        """The keys of the next request; None when none is left or all work has stopped.

        While a request could exceed the budget together with those under way, it waits for them.
        """
        async with self._changed:
            while self._waiting and not self._stopped.is_set():
                cost, most = self._cost(self._waiting[0]), self.limits.tokens
                if not most or self.spent + self._pledged + cost <= most:
                    self._pledged += cost
                    return self._waiting.popleft()
                if self._pledged:
                    await self._changed.wait()
                    continue
                left = f"{sum(map(len, self._waiting))} of {len(self.asks)} asks were not sent"
                told = f"{self.spent} of at most {most} tokens are spent and the next ask may take "
                told += f"{cost}: {left}; what came is saved, and with a higher limit the same "
                self._stop(SpendLimit(f"{self.address}: {told}command goes on from there"))
            return None

    def _cost(self, names: Collection[str]) -> int:
        return sum(most_tokens(self.asks[name]) for name in names) if self.limits.tokens else 0

    async def _put(self, replies: Mapping[str, Reply]) -> None:
        """Saves and counts the replies to one request: too many errors in a row stop all work.

        One that the server refuses tells against it only while it has answered nothing: prompts
        that are too long can stand side by side.
        """
        for name, reply in replies.items():
            if not reply.error:
                self.journal.append(to_row(name, reply))
        async with self._changed:
            self.replies |= replies
            self._pledged -= self._cost(replies)
            first = next(iter(replies.values()))
            spent = sum(one.prompt_tokens + one.completion_tokens for one in replies.values())
            self.spent += spent
            self._answered += 0 if first.error else len(replies)
            self._fruitless = self._fruitless + 1 if first.error else 0
            if self.limits.tokens and not first.error and not spent:
                told = "does not tell the tokens of its replies (no usage), so at most "
                told += f"{self.limits.tokens} tokens cannot be kept to; ask without such a limit"
                self._stop(SpendLimit(f"{self.address}: {told}"))
            known = not first.refused or not self._answered + self.before
            if self._fruitless >= FRUITLESS and known:
                told = f"{self._fruitless} asks in a row without a reply; the last: {first.error}"
                kept = "what came is saved, the same command goes on from there"
                self._stop(OSError(f"{self.address}: {told} ({kept})"))
            self._changed.notify_all()

    def _stop(self, error: BaseException) -> None:
        self.error = self.error or error
        self._stopped.set()
        self._changed.notify_all()

    async def _pause(self, seconds: float) -> bool:
        """Waits, but no longer than the work goes on; whether it does."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)
        return not self._stopped.is_set()

    async def _turn(self) -> bool:
        """Waits for one's turn: none while the server rests; whether the work goes on."""
        while (left := self._next - time.monotonic()) > 0 and await self._pause(left):
            pass
        self._next = max(self._next, time.monotonic() + self.limits.interval)
        return not self._stopped.is_set()

    async def _patiently(self, names: Sequence[str]) -> list[Reply] | None:
        """The replies to the asks of one request, after as many attempts as it takes.

        None where the work stopped meanwhile; ConnectionError where there never was a connection.
        """
        failed, most = 0, self.limits.attempts
        for number in range(1, PATIENCE * most + 1):
            if not await self._turn():
                return None
            try:
                return await attempt([self.asks[name] for name in names], self._client)
            except Refused as refusal:
                return [Reply("", "", 0, 0, error=str(refusal), refused=True)] * len(names)
            except Again as again:
                last = again
            failed += not last.wait
            if last.wait:
                self._next = max(self._next, time.monotonic() + last.wait)
            if failed == most:
                break
            doubled = 0 if last.wait else failed - 1
            if not await self._pause(last.wait + pause(names[0], number, doubled=doubled)):
                return None
        if last.unreachable:
            raise ConnectionError(
                f"{self.address}: no connection in {number} attempts ({last}); is the server up, "
                "and is this its address? What came is saved, the same command goes on from there"
            )
        error = f"no reply in {number} attempts; the last: {last}"
        return [Reply("", "", 0, 0, error=error)] * len(names)

    def outlook(self, seconds: float) -> tuple[int, int, int, int, float]:
        """(asks done, asks, tokens, tokens to come, seconds to come) after `seconds` of work."""
        done, tokens = len(self.replies), self.spent - self.before
        left = len(self.asks) - done
        to_come = round(tokens / self._answered * left) if self._answered else 0
        return done, len(self.asks), tokens, to_come, seconds / done * left if done else 0.0


def pause(name: str, number: int, *, doubled: int) -> float:
    """Seconds after the attempt of this number, with the jitter that belongs to it alone."""
    jitter = 0.5 + derive_seed(0, name, number) / 2**64
    return min(LONGEST_PAUSE, BACKOFF * 2**doubled) * jitter


def _beside(work: Coroutine, tick: Callable[[], None] = lambda: None) -> Any:
    """What `work` returns, in a thread with a loop of its own: a notebook's runs already here.

    `tick` is called meanwhile; its error, or an interruption, ends the work at once.
    """
    loop = asyncio.new_event_loop()
    try:
        with ThreadPoolExecutor(1) as pool:
            task = loop.create_task(work)
            running = pool.submit(loop.run_until_complete, task)
            try:
                while wait([running], timeout=TICK).not_done:
                    tick()
                tick()
                return running.result()
            except BaseException:
                loop.call_soon_threadsafe(task.cancel)
                raise
    finally:
        loop.close()


def ask(
    asks: Sequence[Ask],
    *,
    endpoint: Endpoint,
    replies: Path,
    concurrency: int,
    attempts: int = 6,
    timeout: float = 120.0,
    requests_per_minute: float = 0,
    max_spend_tokens: int = 0,
    progress: Progress | None = None,
) -> list[Reply]:
    """The replies to `asks`, in their order; equal asks are sent once and share theirs.

    A reply is saved in the folder `replies` as it comes, under the sha256 of model and ask; what
    is there is not asked again, and where all is there no connection is made. vLLM gets asks that
    differ in consecutive seeds alone, one after the other in `asks`, as one request for several
    answers. At most `concurrency` requests are under way. Each has `timeout` seconds from
    connecting to its last byte, and up to `attempts` attempts, BACKOFF seconds apart, doubling up
    to a minute, times a jitter between 0.5 and 1 that follows from the ask. A Retry-After holds
    back all requests, and an attempt that brought one does not count (up to ten times `attempts`).
    An ask that stays without reply has `Reply.error` and is asked again by the next call.
    `requests_per_minute` counts every attempt (0: no limit). `max_spend_tokens` bounds the tokens
    of all replies in the folder, those of earlier calls too: an ask is sent only if the longest
    answer would still fit (what a server charges for an attempt that broke is not known here).
    `progress` gets (asks done, asks, tokens, tokens to come, seconds to come) of this call.

    Errors: ValueError for options, asks or addresses out of range; PermissionError for a key that
    is missing or not accepted; FileNotFoundError where there is no such model; ConnectionError
    where nobody answers; `SpendLimit`; OSError for a folder that another process is filling or
    that cannot be written, and for an endpoint that fails ask after ask. All name the address or
    path. Replies that are under way when one is raised are waited for and saved: the same call
    goes on.
    """
    _check(endpoint, asks, concurrency, attempts, timeout, requests_per_minute, max_spend_tokens)
    names = [key(one, endpoint.recorded_as or endpoint.model) for one in asks]
    wanted = dict(zip(names, asks, strict=True))
    found, _ = _saved(replies / FILE, wanted)
    if len(found) < len(wanted):
        read_key(endpoint)
        with Journal(replies / FILE) as journal:
            found, spent = _saved(replies / FILE, wanted)
            missing = {name: one for name, one in wanted.items() if name not in found}
            interval = 60 / requests_per_minute if requests_per_minute else 0.0
            limits = Limits(concurrency, attempts, interval, timeout, max_spend_tokens)
            work, started = Work(missing, endpoint, journal, limits, spent), time.monotonic()

            def tick() -> None:
                if progress:
                    progress(*work.outlook(time.monotonic() - started))

            _beside(work.run(), tick)
            if work.error:
                raise work.error
            found |= work.replies
    return [found[name] for name in names]


def _groups(asks: Mapping[str, Ask]) -> list[tuple[str, ...]]:
    """The keys of asks that follow each other and differ in consecutive seeds alone, together."""
    groups: list[list[str]] = []
    for name, one in asks.items():
        last = asks[groups[-1][-1]] if groups else None
        if last and one == replace(last, seed=last.seed + 1):
            groups[-1].append(name)
        else:
            groups.append([name])
    return [tuple(group) for group in groups]


def recorded(folder: Path) -> dict[str, Reply]:
    """Every reply saved in `folder` or below it, by the key of its ask and model.

    FileNotFoundError where there is none.
    """
    paths = sorted(folder.rglob(FILE))
    if not paths:
        raise FileNotFoundError(f"{folder}: no recorded replies ({FILE}) there or below")
    rows = ((row, f"{path}:{n}") for path in paths for n, row in enumerate(read(path), start=1))
    return dict(from_row(row, where) for row, where in rows)


def call(
    endpoint: Endpoint,
    requests: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    concurrency: int,
    timeout: float = 120.0,
) -> list[Any]:
    """The JSON that the server answers to (path, body) of each POST: sent once, not saved.

    ValueError for what the server refuses; errors else as `ask`.
    """

    async def one(client: Client, turn: asyncio.Semaphore, where: str, request: Mapping) -> Any:
        try:
            async with turn:
                return json.loads(await client.post(where, request, 1 << 28))
        except Refused as refusal:
            raise ValueError(f"{endpoint.base_url}{where}: {refusal}") from None
        except (Again, ValueError) as error:
            raise OSError(f"{endpoint.base_url}{where}: {error}") from None

    async def work() -> list[Any]:
        turn = asyncio.Semaphore(concurrency)
        async with Client(endpoint, timeout) as client:
            return await asyncio.gather(*(one(client, turn, *request) for request in requests))

    return _beside(work())


def _check(endpoint, asks, concurrency, attempts, timeout, per_minute, tokens) -> None:
    check_address(endpoint.base_url)
    if not endpoint.model:
        raise ValueError(f"{endpoint.base_url}: which model? its name is empty")
    for name, value, least in (("concurrency", concurrency, 1), ("attempts", attempts, 1)):
        if value < least:
            raise ValueError(f"{name} = {value}: at least {least} is needed")
    for name, value in (("requests_per_minute", per_minute), ("max_spend_tokens", tokens)):
        if value < 0:
            raise ValueError(f"{name} = {value}: expected a limit, or 0 for none")
    if not timeout > 0:
        raise ValueError(f"timeout = {timeout}: expected seconds, more than 0")
    for number, one in enumerate(asks, start=1):
        check(one, f"ask {number}")


def _saved(path: Path, wanted: Mapping[str, Ask]) -> tuple[dict[str, Reply], int]:
    """The replies to `wanted` in a journal, and the tokens of all that it holds."""
    found, tokens = {}, 0
    for number, row in enumerate(read(path), start=1):
        name, reply = from_row(row, f"{path}:{number}")
        tokens += reply.prompt_tokens + reply.completion_tokens
        if name in wanted:
            found[name] = reply
    return found, tokens


SEEDS = 2**30  # every server takes these, and the few above them for further samples
TELLING = 8  # prompts whose samples are all alike before a server counts as one that draws none


def make_asks(
    prompts: Sequence[str], *, n: int, decoding: Decoding, stops: Sequence[str]
) -> list[Ask]:
    """The `n` asks of every prompt, prompt by prompt, with consecutive seeds.

    The first seed follows from that of `decoding`, the prompt, and how often it came before; a
    greedy answer has none to depend on. ValueError for options out of range and an empty prompt.
    """
    check_sampling(decoding, n)
    drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p}
    drawn |= {"max_tokens": decoding.max_new_tokens, "stops": tuple(stops)}
    asks, keys = [], prompt_keys(prompts)
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number} is empty: the model has nothing to continue")
        greedy = not decoding.temperature
        first = 0 if greedy else derive_seed(decoding.seed, *keys[number]) % SEEDS
        chat = isinstance(prompt, Message)
        asked = {"messages": (("user", str(prompt)),)} if chat else {"prompt": prompt}
        asks += [Ask(seed=first + k, **drawn, **asked) for k in range(n)]
    return asks


def completion(reply: Reply, stops: Sequence[str]) -> Completion:
    """A reply as a `Completion`: cut at the first stop sequence, if the server did not."""
    if reply.error:
        return Completion("", 0, NO_ROOM if TOO_LONG.search(reply.error) else REFUSED + reply.error)
    at = first_stop(reply.text, stops)
    if at < 0:
        return Completion(reply.text, reply.completion_tokens, reply.finish_reason)
    return Completion(reply.text[:at], reply.completion_tokens, "stop")


class AskingEngine:
    """An engine that gets its answers by `ask`, from a server or a recording."""

    device = "remote"

    def __init__(self, name: str, ask: Callable[[Sequence[Ask]], list[Reply]]):
        self.name, self.ask = name, ask

    def generate(
        self, prompts: Sequence[str], *, n: int, decoding: Decoding, stops: Sequence[str]
    ) -> list[list[Completion]]:
        """As the protocol has it; OSError where no reply came.

        A prompt that the server refuses has no answer: `NO_ROOM` where it is too long, else
        `REFUSED` and what the server says.
        """
        if marked := sum(map(has_end_token, prompts)):
            note(f"{self.name}: {marked} of {len(prompts)} {_MARKED}")
        replies = self.ask(make_asks(prompts, n=n, decoding=decoding, stops=stops))
        rows = [replies[at : at + n] for at in range(0, len(replies), n)]
        self._check(rows)
        found = [[completion(reply, stops) for reply in row] for row in rows]
        rows = [row for row in rows if not any(reply.error for reply in row)]
        alike = n > 1 and bool(rows) and all(len({one.text for one in row}) == 1 for row in rows)
        if alike and len(set(prompts)) >= TELLING and decoding.temperature >= 0.5:
            warnings.warn(f"{self.name}: {_UNDRAWN.format(n=n)}", stacklevel=2)
        return found

    def _check(self, rows: Sequence[Sequence[Reply]]) -> None:
        failed = [one.error for row in rows for one in row if one.error and not one.refused]
        if failed:
            reasons = "; ".join(f"{count} x {why}" for why, count in Counter(failed).most_common())
            raise OSError(
                f"{self.name}: no reply to {len(failed)} of {sum(map(len, rows))} requests: "
                f"{reasons}"
            )

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        """ValueError: what comes from here has no probabilities of given texts."""
        raise ValueError(
            f"{self.name} does not score given texts; the engines transformers, ctranslate2, "
            "gptbigcode and vllm do"
        )


_MARKED = (
    "prompts hold what looks like a special token, which this server may read as one; the engines "
    "that run here read it as text"
)
_UNDRAWN = (
    "the {n} samples of every prompt are one text, so this server seems to draw none "
    "(`transformers serve` draws only where the model's generation_config.json has "
    '"do_sample": true, and "top_k": 0 for no limit of its own)'
)


def saving(place: Endpoint, replies: Path, **options) -> Callable[[Sequence[Ask]], list[Reply]]:
    """`endpoint.ask` with a journal of its own below `replies` for every list of asks.

    What two processes ask at a time is in two files, and none grows with all that came before.
    """

    def saved(asks: Sequence[Ask]) -> list[Reply]:
        names = "".join(key(one, place.recorded_as or place.model) for one in asks)
        folder = replies / hashlib.sha256(names.encode()).hexdigest()[:16]
        return ask(asks, endpoint=place, replies=folder, **options)

    return saved


def open_server(
    address: str,
    model: str,
    *,
    replies: Path,
    api_key_env: str = "OPENAI_API_KEY",
    concurrency: int = 8,
    attempts: int = 6,
    timeout: float = 600.0,
) -> AskingEngine:
    """The engine of `openai@ADDRESS`; no connection is made before the first prompt."""
    place = Endpoint(address, model, api_key_env)
    limits = {"concurrency": concurrency, "attempts": attempts, "timeout": timeout}
    return AskingEngine(f"openai-{model}", saving(place, replies, **limits))


VLLM_KEY = "VLLM_API_KEY"  # the variable that vLLM's server itself takes its key from


class VllmEngine(AskingEngine):
    """Samples and scores by a running vLLM server; nothing of a score is recorded."""

    def __init__(self, place: Endpoint, *, replies: Path, concurrency: int, **limits):
        kept = saving(place, replies, concurrency=concurrency, **limits)
        super().__init__(f"vllm-{place.recorded_as}", kept)
        self.place, self.concurrency = place, concurrency

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        """As the protocol has it. ValueError for a chat message."""
        if any(isinstance(prompt, Message) for prompt in prompts):
            raise ValueError(f"{self.name} scores raw texts; a chat message has no fixed tokens")
        heads, tails = self._tokens(prompts, special=True), self._tokens(answers, special=False)
        pairs = list(zip(heads, tails, strict=True))
        asked = {"model": self.place.model, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
        requests = [("/completions", asked | {"prompt": h + t}) for h, t in pairs if t]
        replies = iter(call(self.place, requests, concurrency=self.concurrency))
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
        replies = iter(call(root, requests, concurrency=self.concurrency))
        return [next(replies)["tokens"] if text else [] for text in texts]


def open_vllm(
    address: str,
    model: str,
    *,
    replies: Path,
    concurrency: int = 64,  # the server batches what is under way
    attempts: int = 6,
    timeout: float = 1800.0,
) -> VllmEngine:
    """The engine of `vllm@ADDRESS`; no connection is made before the first prompt."""
    place = Endpoint(address, model, VLLM_KEY, True, served_name("vllm", model))
    limits = {"concurrency": concurrency, "attempts": attempts, "timeout": timeout}
    return VllmEngine(place, replies=replies, **limits)


def open_recording(folder: Path, model: str) -> AskingEngine:
    """The engine of `replay@FOLDER`: holds all replies recorded below it, and asks nobody.

    FileNotFoundError where there are none.
    """
    found = recorded(folder)
    return AskingEngine(f"replay-{model}", partial(_look_up, found, folder, model))


def _look_up(found: dict[str, Reply], folder: Path, model: str, asks: Sequence[Ask]) -> list[Reply]:
    names = [key(one, model) for one in asks]
    for name, one in zip(names, asks, strict=True):
        if name not in found:
            text = one.prompt or one.messages[-1][1]
            raise ValueError(
                f"{folder}: no recorded reply of {model!r} to {text[:60]!r} at temperature "
                f"{one.temperature:g}, top_p {one.top_p:g}, at most {one.max_tokens} tokens, "
                f"seed {one.seed}: replay@ answers what openai@ or vllm@ recorded with the very "
                "same model name, prompts and options; record it there first"
            )
    return [found[name] for name in names]
