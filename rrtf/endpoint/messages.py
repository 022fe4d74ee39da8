"""What is asked and what comes back: the records, their JSON, and what makes a reply valid."""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: (role, content) pairs and how to sample.

    `temperature` 0 is greedy; `top_p` lies in (0, 1]; `max_tokens` bounds the answer; asks that
    differ in their `seed` alone are different asks.
    """

    messages: tuple[tuple[str, str], ...]
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came: `finish_reason` as the server named it (`stop`, `length`, ...).

    `error` says why no text came after all attempts; it is empty for a good reply.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask: `base_url` ends before `/chat/completions`, as in `http://127.0.0.1:8000/v1`.

    The key is read from the environment variable `api_key_env` when it is needed and is kept
    nowhere; where the variable is not set, none is sent.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"


def check(ask: Ask, where: str) -> None:
    """ValueError that names the first field of `ask` that no endpoint could answer."""
    whole = all(isinstance(text, str) for pair in ask.messages for text in pair)
    if not ask.messages or not whole or any(len(pair) != 2 for pair in ask.messages):
        raise ValueError(f"{where}: messages: expected (role, content) pairs of text")
    if not (math.isfinite(ask.temperature) and ask.temperature >= 0):
        raise ValueError(f"{where}: temperature = {ask.temperature}: expected 0 or more")
    if not 0 < ask.top_p <= 1:
        raise ValueError(f"{where}: top_p = {ask.top_p}: expected a value in (0, 1]")
    if ask.max_tokens < 1:
        raise ValueError(f"{where}: max_tokens = {ask.max_tokens}: at least 1 is needed")


def body(ask: Ask, model: str) -> bytes:
    """The JSON that is sent."""
    request = {
        "model": model,
        "messages": [{"role": role, "content": content} for role, content in ask.messages],
        "temperature": float(ask.temperature),
        "top_p": float(ask.top_p),
        "max_tokens": ask.max_tokens,
        "seed": ask.seed,
    }
    return json.dumps(request, sort_keys=True).encode()


def key(ask: Ask, model: str) -> str:
    """The name of an ask of a model: the sha256 of what is sent, whichever address it goes to."""
    return hashlib.sha256(body(ask, model)).hexdigest()


def most_tokens(ask: Ask) -> int:
    """What a reply can cost: a token has at least one byte, a message some tokens around it."""
    prompt = sum(16 + len(content.encode("utf-8", "replace")) for _, content in ask.messages)
    return prompt + ask.max_tokens


def parse(data: bytes) -> Reply:
    """The reply in the body of an answer; ValueError says what is wrong with it.

    A `content` of null (a refusal; a model that thought until its tokens ran out) is no text.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not whole JSON ({error})") from None
    if isinstance(answer, dict) and answer.get("error"):
        raise ValueError(f"an error in place of a reply: {json.dumps(answer['error'])}")
    choice = _field(answer, "choices", list)
    message = _field(choice[0] if choice else None, "message", dict)
    usage = _field(answer, "usage", dict)
    text = None if message.get("content", "") is None else _field(message, "content", str)
    counts = [_field(usage, name, int) for name in ("prompt_tokens", "completion_tokens")]
    if min(counts) < 0:
        raise ValueError(f"usage of {min(counts)} tokens")
    return Reply(_unicode(text or ""), _unicode(_field(choice[0], "finish_reason", str)), *counts)


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
