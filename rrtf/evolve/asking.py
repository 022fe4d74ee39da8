"""What a model is asked when it evolves, answers and tests: the texts of `data/prompts`, filled in.

Fields are put in by replacing `{name}`, in one pass, so that tasks may hold braces of their own.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from rrtf import config
from rrtf.engines.endpoint import Ask
from rrtf.records import Instruction

FILE = "prompts/evolve.toml"
_FIELD = re.compile(r"\{(method|task|head|count)\}")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are drawn; `seed` is joined with the row's id, so no two rows share one."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int


def sampling(seed: int) -> Sampling:
    """How a stage draws replies: freely, because answers that are all one agree on nothing."""
    return Sampling(temperature=1.0, top_p=0.95, max_tokens=1024, seed=seed)


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


def evolve_ask(parent: Instruction, method: str, child_id: str, sampling: Sampling) -> Ask:
    """Asks for `parent` made harder by `method`; ValueError for a method that is none."""
    if method not in wording()["methods"]:
        raise ValueError(f"unknown method {method!r}: expected {', '.join(methods())}")
    fields = {"method": wording()["methods"][method], "task": task_text(parent)}
    return _ask("evolve", fields, sampling, child_id)


def answer_ask(row: Instruction, sampling: Sampling) -> Ask:
    """Asks for a Python function that solves the task."""
    return _ask("answer", {"task": task_text(row)}, sampling, row.task_id)


def again_ask(task_id: str, head: str, number: int, sampling: Sampling) -> Ask:
    """Asks for independent answer `number` to the function whose signature is `head`."""
    return _ask("again", {"head": head.rstrip()}, sampling, task_id, number)


def inputs_ask(task_id: str, head: str, count: int, sampling: Sampling) -> Ask:
    """Asks for the arguments of `count` calls, as literals."""
    return _ask("inputs", {"head": head.rstrip(), "count": str(count)}, sampling, task_id)


def _ask(kind: str, fields: Mapping[str, str], sampling: Sampling, *keys: str | int) -> Ask:
    said = wording()[kind]
    user = _FIELD.sub(lambda match: fields[match[1]], said["user"]).strip()
    return Ask(
        messages=(("system", said["system"]), ("user", user)),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=config.derive_seed(sampling.seed, kind, *keys) % 2**31,  # what every server takes
    )
