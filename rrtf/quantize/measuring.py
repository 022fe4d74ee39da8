"""What one process does with one variant of one model: it makes it, asks it or times it, and ends.

Every job has its process, so a library that crashes costs a row of the table and no more, and the
peak memory of a process that times is that of running the model, not of making it.
"""

import ctypes
import gc
import json
import math
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rrtf import prompts, store
from rrtf.cluster import end_with_parent
from rrtf.engines import Decoding, Generator, UnsupportedModel
from rrtf.quantize.table import Measured
from rrtf.quantize.variants import held, make, open_variant, weight_bytes, weights_hash
from rrtf.records import Response

KEPT = 0.5  # of full precision's share of answers that parse, or are not empty


def fault(entry: Measured, full: Measured, *, nll_margin: float) -> str:
    """Why the answers of `entry` are no measurement of a working model, or `''`.

    The likelihood of the references has to be finite and within `nll_margin` nats per token of
    full precision's; at least half as many greedy answers as of full precision have to be more
    than blanks and have to be Python. `full` itself is only asked for a finite likelihood and one
    answer of each kind.
    """
    if math.isinf(entry.nll) or (math.isnan(entry.nll) and not math.isnan(full.nll)):
        return f"the references have a likelihood of {entry.nll} nats per token"
    if entry.nll > full.nll + nll_margin:
        return (
            f"NLL {entry.nll:.2f} nats per token, {entry.nll - full.nll:.2f} above full "
            f"precision's, more than the {nll_margin:g} of a working model"
        )
    kinds = {
        "more than blanks": lambda answer: bool(answer.text.strip()),
        "Python": lambda answer: prompts.parses(answer.program),
    }
    for what, holds in kinds.items():
        own, least = _share(entry.greedy, holds), KEPT * _share(full.greedy, holds)
        if own == 0:
            return f"none of its {len(entry.greedy)} answers is {what}"
        if own < least:
            return f"{100 * own:.0f} % of its answers are {what}, fewer than {100 * least:.0f} %"
    return ""


def _share(responses: Sequence[Response], holds: Callable[[Response], bool]) -> float:
    return sum(map(holds, responses)) / len(responses)


TIMED_TOKENS = 33
CANDIDATES = 8  # prompts whose answers are looked at for one long enough to time
LIGHT = 1e9  # bytes of weights below which the libraries' own memory would hide the model's
LIBRARIES = ("torch", "transformers", "tokenizers", "ctranslate2", "gptqmodel", "auto-gptq")


def serve() -> None:
    """Reads a job from standard input, does it and writes the result file.

    Whatever a library raises ends the process with one line that says so.
    """
    job = json.load(sys.stdin)
    end_with_parent(job["parent"])
    work = {"make": _made, "answer": _answered, "time": _timed}[job["what"]]
    started = time.monotonic()
    try:
        found = work(job, (job["variant"], Path(job["model"]), Path(job["output"])))
        spent = {"wall": time.monotonic() - started, "cpu": time.process_time()}
        store.write_json(Path(job["result"]), found | {"seconds": spent})
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))


Place = tuple[str, Path, Path]  # variant, model, where the variant lies


def _made(job: Mapping[str, Any], place: Place) -> dict[str, Any]:
    make(*place, calibration=job["calibration"])
    if told := held(*place, threads=job["threads"]):
        shutil.rmtree(place[2])
        raise UnsupportedModel(told)
    return {"weight_bytes": weight_bytes(*place), "weights_sha256": weights_hash(*place)}


def _answered(job: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Greedy and sampled answers to the prompts, and the likelihood of the references."""
    engine = open_variant(*place, threads=job["threads"])
    longest, seed = job["max_new_tokens"], job["seed"]
    ways = {
        "greedy": (1, Decoding(0.0, 1.0, longest, seed)),
        "sampled": (job["n"], Decoding(job["temperature"], job["top_p"], longest, seed)),
    }
    answers = {
        name: [
            [[answer.text, answer.n_tokens, answer.finish_reason] for answer in row]
            for row in engine.generate(job["prompts"], n=n, decoding=way, stops=job["stops"])
        ]
        for name, (n, way) in ways.items()
    }
    nll = negative_log_likelihood(engine, job["prompts"], job["references"])
    return {"engine": engine.name, "nll": nll, **answers}


def negative_log_likelihood(
    engine: Generator, texts: Sequence[str], references: Sequence[str]
) -> float | None:
    """Nats per token of the references that there are; None without any."""
    pairs = [(text, answer) for text, answer in zip(texts, references, strict=True) if answer]
    if not pairs:
        return None
    scores = engine.score(*(list(side) for side in zip(*pairs, strict=True)))
    return -sum(total for total, _ in scores) / sum(n for _, n in scores)


def _timed(job: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Milliseconds per token by batch size, and the memory that running the model took."""

    def load() -> Generator:
        return open_variant(*place, threads=job["threads"])

    engine, memory = loaded_alone(load, light=job["weight_bytes"] < LIGHT)
    ms, peaks = {}, {}
    for size in sorted(job["batch_sizes"]):  # so that a peak is that of this size
        ms[size] = ms_per_token(engine, job["prompts"], size, repetitions=job["repetitions"])
        peaks[size] = memory()
    return {
        "engine": engine.name,
        "ms": ms,
        "memory_bytes": peaks,
        "device": device_name(engine.device),
        "threads": job["threads"],
        "versions": _versions(),
    }


def ms_per_token(
    engine: Generator, texts: Sequence[str], size: int, *, repetitions: int
) -> list[float]:
    """Milliseconds per step of a batch of `size` rows, once per repetition, reading not counted.

    The time of a long answer less that of its first token, which ends the reading of the prompt:
    engines differ in whether they read equal prompts more than once. All rows are one prompt, so
    that no engine has to pad or to split the batch: of those of about median length the one with
    the longest answer. ValueError where all of these end at their first token.
    """
    greedy = Decoding(0.0, 1.0, TIMED_TOKENS, 0)
    middle, ordered = len(texts) // 2, sorted(texts, key=len)
    near = ordered[max(0, middle - CANDIDATES // 2) :][:CANDIDATES]
    answers = engine.generate(near, n=1, decoding=greedy, stops=())
    steps = [row[0].n_tokens + (row[0].finish_reason == "stop") for row in answers]
    if max(steps) < 2:
        raise ValueError("every answer ends at its first token; there is no time per token")
    rows = [near[steps.index(max(steps))]] * size

    def spent(tokens: int) -> float:
        started = time.perf_counter()
        engine.generate(rows, n=1, decoding=replace(greedy, max_new_tokens=tokens), stops=())
        return time.perf_counter() - started

    found = [spent(TIMED_TOKENS) - spent(1) for _ in range(repetitions + 1)]
    return [1000 * seconds / (max(steps) - 1) for seconds in found[1:]]  # the first warms up


Memory = Callable[[], tuple[int, int]]


def loaded_alone(load: Callable[[], Generator], *, light: bool) -> tuple[Generator, Memory]:
    """An engine, and a function that tells the peak of its memory since before it was loaded.

    (bytes above what was there before, bytes in all): resident memory of this process on a CPU;
    on a GPU what torch allocated and reserved, and of a library that allocates by itself what the
    device has less of. A `light` model on a CPU is opened, closed and opened again, because the
    first one brings libraries in that take more than it does.
    """
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        engine = load()
        if engine.device != "cpu":
            return engine, lambda: _peak_on_gpu(before, free)
    elif light:
        engine = load()
        del engine
        _give_back()
    _forget_peak()
    before = _resident()[0]
    return load(), lambda: (max(0, _resident()[1] - before), _resident()[1])


def _peak_on_gpu(before: int, free: int) -> tuple[int, int]:
    import torch

    above, whole = torch.cuda.max_memory_allocated() - before, torch.cuda.max_memory_reserved()
    if above:
        return above, whole
    taken = free - torch.cuda.mem_get_info()[0]
    return taken, taken


def _give_back() -> None:
    """Memory that is free but still this process's goes back to the system (glibc)."""
    gc.collect()
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _forget_peak() -> None:
    """Sets this process's peak of resident memory to what it is now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # the peak then covers loading the libraries as well


def _resident() -> tuple[int, int]:
    """Resident memory of this process: now, and at its peak, in bytes.

    Not from `getrusage` where there is a better source: its peak is inherited from the parent.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak, peak
    lines = (line.split() for line in status.read_text(encoding="utf-8").splitlines())
    fields = {words[0]: words[1] for words in lines if len(words) == 3 and words[2] == "kB"}
    return 1024 * int(fields["VmRSS:"]), 1024 * int(fields["VmHWM:"])


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _versions() -> dict[str, str]:
    """Python and the libraries that this process loaded."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        if name.replace("-", "_") in sys.modules:
            found[name] = metadata.version(name)
    return found
