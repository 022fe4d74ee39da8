"""One attempt at an ask: from what the server did to what follows from it."""

import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from rrtf.endpoint.line import Line, TooLong, Unreachable
from rrtf.endpoint.messages import Ask, Endpoint, Reply, body, parse, path

LONGEST_WAIT = 900.0  # seconds that a Retry-After may ask for before we rather stop
AGAIN = (408, 409, 425, 429)  # of the 4xx, those that another attempt may mend; and all 5xx
SHOWN = 300  # characters of a server's message in ours


class Again(Exception):
    """Another attempt may bring a reply.

    `wait` is what the server asked for in seconds, 0 where it did not say; `unreachable` where
    there was no connection at all.
    """

    def __init__(self, reason: str, *, wait: float = 0.0, unreachable: bool = False):
        super().__init__(reason)
        self.wait, self.unreachable = wait, unreachable


class Refused(Exception):
    """No attempt will bring a reply to this ask; others may get theirs."""


def read_key(endpoint: Endpoint) -> str:
    """The key in the environment, or nothing; ValueError for what no header can carry."""
    secret = os.environ.get(endpoint.api_key_env, "").strip()
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        raise ValueError(f"${endpoint.api_key_env} holds no key: blanks or characters beyond ASCII")
    return secret


def headers(secret: str) -> dict[str, str]:
    """What goes with every request; `secret` only where there is one."""
    plain = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # so that the limit of bytes is one of memory too
        "User-Agent": "rrtf",
    }
    return plain | ({"Authorization": f"Bearer {secret}"} if secret else {})


def largest(asks: Sequence[Ask]) -> int:
    """Bytes that a valid answer stays under: long tokens, escaped, and much around them."""
    return (1 << 20) + 256 * sum(ask.max_tokens for ask in asks)


def attempt(
    line: Line, asks: Sequence[Ask], endpoint: Endpoint, secret: str, *, timeout: float
) -> list[Reply]:
    """The replies to asks that go out as one, or what `exchange` raises."""
    bounds = {"timeout": timeout, "limit": largest(asks)}
    sent = body(asks, endpoint)
    answer = exchange(line, path(asks[0]), sent, endpoint, secret, **bounds)
    try:
        return parse(answer, len(asks))
    except ValueError as error:
        raise Again(_shown(str(error), secret)) from None


def exchange(
    line: Line,
    where: str,
    sent: bytes,
    endpoint: Endpoint,
    secret: str,
    *,
    timeout: float,
    limit: int,
) -> bytes:
    """The JSON that answers a POST to the path `where`.

    `Again`, or `Refused`, or an OSError that says why to ask nothing more.
    """
    try:
        bounds = {"timeout": timeout, "limit": limit}
        answer = line.exchange("POST", where, headers(secret), sent, **bounds)
    except TooLong:
        raise Again(f"more than {limit} bytes") from None
    except TimeoutError:
        raise Again(f"no whole answer within {timeout:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise OSError(f"{endpoint.base_url}: its certificate is not trusted: {error}") from None
    except http.client.IncompleteRead:
        raise Again("the answer was cut off") from None
    except http.client.HTTPException as error:
        raise Again(f"no HTTP: {_shown(repr(error), secret)}") from None
    except OSError as error:
        said = error.strerror or str(error)
        raise Again(said, unreachable=isinstance(error, Unreachable)) from None
    if answer.status != 200:
        _complain(answer, line, where, endpoint, secret)
    kind = answer.headers.get("content-type", "none").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Again(f"content type {_shown(kind, secret)} instead of application/json")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise Again("a compressed body, which was not asked for")
    return answer.body


def _complain(answer, line: Line, where: str, endpoint: Endpoint, secret: str) -> None:
    """Raises what follows from a status that is not 200."""
    status, said = answer.status, _message(answer.body, secret)
    what = f"HTTP {status}" + (f": {said}" if said else "")
    if status in AGAIN or status >= 500:
        wait = retry_after(answer.headers.get("retry-after", ""))
        if wait > LONGEST_WAIT:
            raise OSError(
                f"{endpoint.base_url} asks to come back in {wait:.0f} s ({what}); what came is "
                "saved, the same command goes on from there"
            )
        raise Again(what, wait=wait)
    if status in (401, 402, 403):
        given = "the key in" if secret else "there is no key in"
        raise PermissionError(
            f"{endpoint.base_url} lets nobody in without its key, and {given} "
            f"${endpoint.api_key_env} {'was not accepted' if secret else '(set it)'}: {what}"
        )
    if status == 404:
        raise FileNotFoundError(
            f"{endpoint.base_url}: no model {endpoint.model!r} there, or no {where} under this "
            f"address, which mostly ends in /v1 ({what}){_listed(served(line, secret), secret)}"
        )
    if 200 < status < 300:
        raise Again(f"HTTP {status} instead of 200")
    if status < 400:
        place = _shown(answer.headers.get("location", "nowhere"), secret)
        raise OSError(f"{endpoint.base_url} refers to {place} (HTTP {status}): give that address")
    raise Refused(what)


def served(line: Line, secret: str) -> list[str]:
    """The models that the server says it has; none where it does not say so."""
    try:
        answer = line.exchange("GET", "/models", headers(secret), timeout=10, limit=1 << 20)
        return [str(entry["id"]) for entry in json.loads(answer.body)["data"]]
    except (OSError, http.client.HTTPException, TooLong, ValueError, KeyError, TypeError):
        return []


def _listed(names: Sequence[str], secret: str) -> str:
    return f"; it serves {_shown(', '.join(names), secret)}" if names else ""


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
