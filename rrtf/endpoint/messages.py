"""What is asked and what comes back: the records, their JSON, and what makes a reply valid."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    the text, elsewhere mostly with it. Of answers that came together, the first has the
    `prompt_tokens`. `error` says why no text came after all attempts; it is empty for a good
    reply. `refused`: further attempts are in vain, because of what was asked.
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
    asks with consecutive seeds together.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    vllm: bool = False


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


def body(asks: Sequence[Ask], endpoint: Endpoint) -> bytes:
    """The JSON that is sent for asks that differ in their consecutive seeds alone.

    vLLM gives the answers of one request the seeds `seed`, `seed` + 1, ...; others get one ask.
    """
    request = _request(asks[0], endpoint.model)
    if "stop" in request:
        request["stop"] = request["stop"][:MOST_STOPS]
    if endpoint.vllm:
        request |= {"n": len(asks), **VLLM}
    return json.dumps(request, sort_keys=True).encode()


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
    usage = _field(answer, "usage", dict)
    counts = [_field(usage, name, int) for name in ("prompt_tokens", "completion_tokens")]
    if min(counts) < 0:
        raise ValueError(f"usage of {min(counts)} tokens")
    reasons = [_unicode(_field(choice, "finish_reason", str)) for choice in choices]
    listed = count > 1 or isinstance(choices[0].get("token_ids"), list)
    tokens = [_tokens(choice) for choice in choices] if listed else counts[1:]
    prompts = [counts[0]] + [0] * (count - 1)
    return [Reply(*fields) for fields in zip(texts, reasons, prompts, tokens, strict=True)]


def _text(choice: Any) -> str:
    if isinstance(choice, dict) and "text" in choice:
        return _unicode(_field(choice, "text", str))
    message = _field(choice, "message", dict)
    return _unicode("" if message.get("content", "") is None else _field(message, "content", str))


def _tokens(choice: dict[str, Any]) -> int:
    """Generated tokens but for the one that ends the text: vLLM names a stop sequence only."""
    ended = choice["finish_reason"] == "stop" and not isinstance(choice.get("stop_reason"), str)
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
