"""What a model is asked when it evolves, answers and tests: the texts of `data/prompts`, filled in.

Fields are put in by replacing `{name}`, in one pass, so that tasks may hold braces of their own.
"""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from rrtf import config
from rrtf.engines import Decoding
from rrtf.engines.endpoint import Ask, Reply
from rrtf.records import Instruction

Asker = Callable[[Sequence[Ask]], list[Reply]]
FILE = "prompts/evolve.toml"
_FIELD = re.compile(r"\{(method|task|head|count)\}")


def freely(seed: int) -> Decoding:
    """How a stage draws replies: answers that are all one would agree on nothing.

    `seed` is joined with the row's id, so no two rows share one.
    """
    return Decoding(temperature=1.0, top_p=0.95, max_new_tokens=1024, seed=seed)


@cache
def wording() -> dict:
    """The file as it stands: a section per request, `methods`, `traces`."""
    return tomllib.loads(config.data_text(FILE))


@cache
def version() -> str:
    """`1-4f2a90c1`: the file's version and the beginning of its hash."""
    text = config.data_text(FILE)
    return f"{wording()['version']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def methods() -> tuple[str, ...]:
    """The five in-depth methods, in the order of their weights."""
    return tuple(wording()["methods"])


def task_text(row: Instruction) -> str:
    """The task as one text: what is asked, then the input it comes with, if any."""
    return (
        f"{row.instruction.strip()}\n\nInput:\n{row.input.strip()}"
        if row.input
        else (row.instruction.strip())
    )


def evolve_ask(parent: Instruction, method: str, child_id: str, decoding: Decoding) -> Ask:
    """Asks for `parent` made harder by `method`; ValueError for a method that is none."""
    if method not in wording()["methods"]:
        raise ValueError(f"unknown method {method!r}: expected {', '.join(methods())}")
    fields = {"method": wording()["methods"][method], "task": task_text(parent)}
    return _ask("evolve", fields, decoding, child_id)


def answer_ask(row: Instruction, decoding: Decoding) -> Ask:
    """Asks for a Python function that solves the task."""
    return _ask("answer", {"task": task_text(row)}, decoding, row.task_id)


def again_ask(task_id: str, head: str, number: int, decoding: Decoding) -> Ask:
    """Asks for independent answer `number` to the function whose signature is `head`."""
    return _ask("again", {"head": head.rstrip()}, decoding, task_id, number)


def inputs_ask(task_id: str, head: str, count: int, decoding: Decoding) -> Ask:
    """Asks for the arguments of `count` calls, as literals."""
    return _ask("inputs", {"head": head.rstrip(), "count": str(count)}, decoding, task_id)


def _ask(kind: str, fields: Mapping[str, str], decoding: Decoding, *keys: str | int) -> Ask:
    said = wording()[kind]
    user = _FIELD.sub(lambda match: fields[match[1]], said["user"]).strip()
    return Ask(
        messages=(("system", said["system"]), ("user", user)),
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        max_tokens=decoding.max_new_tokens,
        seed=config.derive_seed(decoding.seed, kind, *keys) % 2**31,  # what every server takes
    )
