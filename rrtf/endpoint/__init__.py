"""Asking any OpenAI-compatible endpoint: vLLM, `transformers serve`, a hosted API.

`ask` sends many requests at a time and saves each reply the moment it came, so that a killed run
goes on where it was; `recorded` reads what was saved. Modules: `messages` (records and their
JSON), `line` (one connection, one deadline), `attempt` (what a server's behaviour means), `desk`
(what the workers share). Not covered: streamed replies, SOCKS, models that take
`max_completion_tokens` only. A server's sampling may not follow the seed (that of
`transformers serve` does not once requests run side by side): the saved replies are what repeats.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rrtf import config
from rrtf.endpoint.attempt import Again, Refused, attempt, exchange, read_key, served
from rrtf.endpoint.desk import Desk, Gate
from rrtf.endpoint.line import Line, check_address
from rrtf.endpoint.messages import Ask, Endpoint, Reply, check, from_row, key, to_row
from rrtf.journal import Journal, read

__all__ = ["Ask", "Endpoint", "Reply", "SpendLimit", "ask", "call", "key", "ready", "recorded"]

FILE = "replies.jsonl"
PATIENCE = 10  # times as many attempts where the server itself says when to come back
LONGEST_PAUSE = 60.0  # seconds between two attempts, unless the server asks for more
TICK = 0.2  # seconds between two calls of `progress`
Progress = Callable[[int, int, int, int, float], None]


def ask(
    asks: Sequence[Ask],
    *,
    endpoint: Endpoint,
    replies: Path,
    concurrency: int = 8,
    attempts: int = 6,
    timeout: float = 120.0,
    requests_per_minute: float = 0,
    max_spend_tokens: int = 0,
    backoff: float = 1.0,
    progress: Progress | None = None,
) -> list[Reply]:
    """The replies to `asks`, in their order; equal asks are sent once and share theirs.

    A reply is saved in the folder `replies` as it comes, under the sha256 of model and ask; what
    is there is not asked again, and where all is there no connection is made. vLLM gets asks that
    differ in consecutive seeds alone, one after the other in `asks`, as one request for several
    answers. At most `concurrency` requests are under way. Each has `timeout` seconds from
    connecting to its last byte, and up to `attempts` attempts, `backoff` seconds apart, doubling up
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
    names = [key(one, endpoint.model) for one in asks]
    wanted = dict(zip(names, asks, strict=True))
    found, _ = _saved(replies / FILE, wanted)
    if len(found) < len(wanted):
        secret = read_key(endpoint)
        with Journal(replies / FILE) as journal:
            found, spent = _saved(replies / FILE, wanted)
            missing = {name: one for name, one in wanted.items() if name not in found}
            groups = _groups(missing) if endpoint.vllm else [(name,) for name in missing]
            budget = {"budget": max_spend_tokens, "spent": spent}
            desk = Desk(missing, groups, endpoint.base_url, **budget)
            gate = Gate(60 / requests_per_minute if requests_per_minute else 0.0)
            once = partial(attempt, endpoint=endpoint, secret=secret, timeout=timeout)
            patience = partial(_patiently, once, gate, desk, attempts=attempts, backoff=backoff)
            lines = [Line(endpoint.base_url) for _ in range(min(concurrency, len(groups)))]
            _work(lines, desk, partial(_serve, patience, desk, journal), progress)
            found |= desk.replies
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
    endpoint: Endpoint, path: str, request: Mapping[str, Any], *, timeout: float = 120.0
) -> Any:
    """The JSON that the server answers to one POST: sent once, not saved.

    ValueError for what the server refuses; errors else as `ask`.
    """
    sent, bounds = json.dumps(request).encode(), {"timeout": timeout, "limit": 1 << 28}
    line = Line(endpoint.base_url)
    try:
        return json.loads(exchange(line, path, sent, endpoint, read_key(endpoint), **bounds))
    except Refused as refusal:
        raise ValueError(f"{endpoint.base_url}{path}: {refusal}") from None
    except (Again, ValueError) as error:
        raise OSError(f"{endpoint.base_url}{path}: {error}") from None
    finally:
        line.close()


def ready(endpoint: Endpoint) -> bool:
    """Whether the server is up and says that it has the model."""
    line = Line(endpoint.base_url)
    try:
        return endpoint.model in served(line, read_key(endpoint))
    finally:
        line.close()


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


def _work(
    lines: Sequence[Line], desk: Desk, serve: Callable[[Line], None], progress: Progress | None
) -> None:
    """A thread per line until nothing is left to do; raises what stopped the work.

    An interruption (or an error of `progress`) cuts the lines: nobody waits for their replies.
    """
    started = time.monotonic()
    # Futures, not Thread.join: one that Ctrl-C interrupts holds its thread for dead (Python 3.11).
    with ThreadPoolExecutor(max(1, len(lines))) as pool:
        running = {pool.submit(serve, line) for line in lines}
        try:
            while running:
                running = wait(running, timeout=TICK).not_done
                if progress:
                    progress(*desk.outlook(time.monotonic() - started))
        except BaseException as error:
            desk.stop(error)
            while running:
                for line in lines:
                    line.cut()
                running = wait(running, timeout=TICK).not_done
            raise
    if desk.error:
        raise desk.error


def _serve(patiently: Callable, desk: Desk, journal: Journal, line: Line) -> None:
    """One worker: takes asks and brings replies, each saved before it counts."""
    try:
        while (names := desk.take()) is not None:
            replies = patiently(line, names)
            if replies is None:
                return
            found = dict(zip(names, replies, strict=True))
            for name, reply in found.items():
                if not reply.error:
                    journal.append(to_row(name, reply))
            desk.put(found)
    except BaseException as error:  # raised again where `ask` was called
        desk.stop(error)
    finally:
        line.close()


def _patiently(
    once: Callable[[Line, Sequence[Ask]], list[Reply]],
    gate: Gate,
    desk: Desk,
    line: Line,
    names: Sequence[str],
    *,
    attempts: int,
    backoff: float,
) -> list[Reply] | None:
    """The replies to the asks of one request, after as many attempts as it takes.

    None where the work stopped meanwhile; ConnectionError where there never was a connection.
    """
    failed = 0
    for number in range(1, PATIENCE * attempts + 1):
        if not gate.through(desk.stopped):
            return None
        try:
            return once(line, [desk.asks[name] for name in names])
        except Refused as refusal:
            return [Reply("", "", 0, 0, error=str(refusal), refused=True)] * len(names)
        except Again as again:
            last = again
        failed += not last.wait
        if last.wait:
            gate.hold(last.wait)
        doubled = 0 if last.wait else failed - 1
        pause = last.wait + _pause(names[0], number, backoff, doubled=doubled)
        if failed == attempts or desk.stopped.wait(pause):
            break
    if desk.stopped.is_set() and failed < attempts:
        return None
    if last.unreachable:
        raise ConnectionError(
            f"{line.base_url}: no connection in {number} attempts ({last}); is the server up, "
            "and is this its address? What came is saved, the same command goes on from there"
        )
    error = f"no reply in {number} attempts; the last: {last}"
    return [Reply("", "", 0, 0, error=error)] * len(names)


def _pause(name: str, number: int, backoff: float, *, doubled: int) -> float:
    """Seconds after the attempt of this number, with the jitter that belongs to it alone."""
    jitter = 0.5 + config.derive_seed(0, name, number) / 2**64
    return min(LONGEST_PAUSE, backoff * 2**doubled) * jitter
