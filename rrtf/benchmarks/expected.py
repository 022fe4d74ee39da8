"""What references return: computed once in the sandbox, kept as literals under the user's cache.

A file is named by the hash of the reference, its entry point and the inputs, so a changed
reference or input is computed anew. It holds Python literals as JSON lines, never pickled objects.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrtf import config, store
from rrtf.benchmarks.literals import literal
from rrtf.sandbox import executor

MAX_CHUNK = 200_000  # characters of inputs in one program
MAX_VALUE = 300_000  # characters, about, of a value that can be written into a test
MAX_REPLY, MAX_SECONDS = 1_000_000, 10  # what one program gives at once; the next goes on
_WRAPPER = """

_rrtf_function = {entry_point}


def _rrtf_size(value):
    size, waiting = 0, [value]
    while waiting and size <= {largest}:
        value = waiting.pop()
        size += 9
        if isinstance(value, int):
            size += value.bit_length() // 3
        elif isinstance(value, (str, bytes)):
            size += len(value)
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            if len(value) > {largest}:
                return len(value)
            waiting += value
    return size


def _rrtf_results():
    import time
    results, total, end = [], 0, time.process_time() + {seconds}
    for inputs in {inputs}:
        if total > {most} or results and time.process_time() > end:
            break
        try:
            value = _rrtf_function(*inputs)
            size = _rrtf_size(value)
            results.append(("value", value) if size <= {largest} else ("large", size))
            total += size if size <= {largest} else 0
        except MemoryError:
            results.append(("large", 0))
        except Exception as error:
            results.append(("error", type(error).__name__))
    return results
"""


@dataclass(frozen=True, slots=True)
class Reference:
    """A program whose values are wanted: for every tuple of `inputs` those of `entry_point`."""

    task_id: str
    program: str
    entry_point: str
    inputs: tuple[tuple, ...]

    def key(self) -> str:
        """The name of its cached values."""
        text = literal((self.program, self.entry_point, self.inputs, _WRAPPER, MAX_VALUE))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Value:
    """What one call gave: its literal, or '' and the `kind` of a value that has none.

    `floats`: a float, or a non-empty list or tuple of floats. `error`: what was raised. `large`:
    longer than MAX_VALUE, or than memory.
    """

    literal: str
    kind: str = ""
    floats: bool = False
    error: str = ""
    large: bool = False


def values(
    references: Sequence[Reference],
    *,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **limits: float,
) -> list[list[Value]]:
    """Per reference the values of its inputs, from the cache or computed in the sandbox.

    `limits` are those of `sandbox.call`. RuntimeError names a reference that does not get through
    all of its inputs.
    """
    folder = folder or config.cache_dir() / "expected"
    paths = [folder / f"{reference.key()}.jsonl" for reference in references]
    missing = [at for at, path in enumerate(paths) if not path.exists()]
    computed = _compute([references[at] for at in missing], progress, limits)
    for at, found in zip(missing, computed, strict=True):
        store.write(paths[at], found)
    return [store.read(path, Value) for path in paths]


def _compute(references: Sequence[Reference], progress, limits: dict) -> list[list[Value]]:
    """All references at once, their inputs in chunks; what a chunk leaves over is a new one."""
    found: dict[tuple[int, int], list[Value]] = {}
    waiting = [chunk for at, r in enumerate(references) for chunk in _chunks(at, r.inputs)]
    while waiting:
        programs = [_program(references[at], inputs) for at, _, inputs in waiting]
        results = executor.call(programs, [()], progress=progress, **limits)
        left = []
        for (at, start, inputs), (result,) in zip(waiting, results, strict=True):
            if type(result.value) is not list or not result.value:
                why = result.error or "a value that is too large"
                raise RuntimeError(f"{references[at].task_id}: inputs {start} and on: {why}")
            found[at, start] = [_value(*pair) for pair in result.value]
            done = len(result.value)
            if done < len(inputs):
                left.append((at, start + done, inputs[done:]))
        waiting = left
    return [
        [v for key in sorted(k for k in found if k[0] == at) for v in found[key]]
        for at in range(len(references))
    ]


def _chunks(at: int, inputs: tuple[tuple, ...]) -> list[tuple[int, int, tuple[tuple, ...]]]:
    """(reference, first input, inputs) of parts whose literals have a bounded length."""
    chunks, start, size = [], 0, 0
    for number, each in enumerate(inputs):
        length = len(literal(each))
        if size + length > MAX_CHUNK and number > start:
            chunks.append((at, start, inputs[start:number]))
            start, size = number, 0
        size += length
    return [*chunks, (at, start, inputs[start:])] if inputs else []


def _program(reference: Reference, inputs: tuple[tuple, ...]) -> tuple[str, str]:
    wrapper = _WRAPPER.format(
        inputs=literal(inputs),
        entry_point=reference.entry_point,
        largest=MAX_VALUE,
        most=MAX_REPLY,
        seconds=MAX_SECONDS,
    )
    return reference.program + wrapper, "_rrtf_results"


def _value(how: str, value: object) -> Value:
    if how == "large":
        return Value("", large=True)
    if how == "error":
        return Value("", error=str(value))
    try:
        return Value(literal(value), floats=_floats(value))
    except ValueError:
        return Value("", kind=type(value).__name__)


def _floats(value: object) -> bool:
    if type(value) in (list, tuple) and value:
        return all(type(item) is float for item in value)
    return type(value) is float
