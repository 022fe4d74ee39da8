"""Every variant made, asked and timed in processes of their own; what was done is not done again.

A result is found again by what it depends on: the model's files, the texts, the settings, the
code that measures and the libraries' versions. Asking runs side by side, timing alone.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from rrtf import config, engines, prompts, store
from rrtf.quantize import gptq, measuring
from rrtf.quantize.table import Measured, Settings, sources
from rrtf.quantize.variants import parts, weight_bytes, weights_hash
from rrtf.records import Problem, Response

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
PROGRAM = "from rrtf.quantize.measuring import serve; serve()"
LIBRARIES = ("torch", "transformers", "ctranslate2", "gptqmodel")
MODULES = {"make": "variants", "answer": "measuring", "time": "measuring"}
THREADS = 1  # of a measured model
Tick = Callable[[int, int], None] | None
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Result:
    """What a process found, as JSON has it."""

    found: dict[str, Any]


class Failed(Exception):
    """A process that ended without a result; says why."""


class Jobs:
    """Processes that work on the variants of one model under `folder`, each up to `timeout` s."""

    def __init__(self, model: str | Path, folder: Path, *, timeout: float):
        self.model = engines.model_folder(model).resolve()
        self.folder, self.timeout = folder.resolve(), timeout
        self.identity = store.sha256(self.model)
        self.running: set[subprocess.Popen] = set()

    def output(self, variant: str) -> Path:
        """Where the files of a variant lie."""
        return self.folder / variant

    def make(self, variant: str, calibration: Sequence[str]) -> Measured:
        """Makes a variant in `output`, unless what lies there was made of the same.

        ValueError for a folder that holds something else.
        """
        if variant == "full":  # lies there already
            facts = variant, self.model, self.output(variant)
            size, digest = weight_bytes(*facts), weights_hash(*facts)
            return Measured(variant, "ok", weight_bytes=size, weights_sha256=digest)
        job: dict[str, Any] = {"what": "make", "variant": variant, "threads": THREADS}
        job["calibration"] = list(calibration) if "gptq" in parts(variant)[0] else []
        place, marker = self.output(variant), self.folder / f".{variant}.json"
        if place.exists() and not marker.exists():
            raise ValueError(f"{place}: exists and no quantisation made it; name another folder")
        shard = store.shard_path(self.folder / ".results", self._key(job))
        if not (place.exists() and store.read_json(marker) == shard.name):
            shard.unlink(missing_ok=True)
            store.write_json(marker, shard.name)  # what appears there from now on is of this job
        found = self._done(job)
        if "failure" in found:
            return Measured(variant, found["failure"])
        seconds = {"make": found["seconds"]}
        size, digest = found["weight_bytes"], found["weights_sha256"]
        return Measured(variant, "ok", weight_bytes=size, weights_sha256=digest, seconds=seconds)

    def result(self, entry: Measured, what: str, **asked: Any) -> dict[str, Any]:
        """What a process of kind `what` found of a variant that was made, or its `failure`."""
        job = {"what": what, "variant": entry.variant, "threads": THREADS}
        job |= {"weights": entry.weights_sha256, "weight_bytes": entry.weight_bytes, **asked}
        return self._done(job)

    def _key(self, job: Mapping[str, Any]) -> list[Any]:
        """All that the result of a job depends on."""
        return [dict(job), self.identity, _code(MODULES[job["what"]]), _versions()]

    def _done(self, job: dict[str, Any]) -> dict[str, Any]:
        """The saved result of a job, or that of a process that does it now."""
        folder = self.folder / ".results"
        try:
            ended = store.through_shards(
                folder,
                [job],
                key=self._key,
                kind=Result,
                work=lambda _, put: put(0, [self._work(job)]),
            )
            return ended[0].found
        except Failed as error:
            return {"failure": f"failed: {error}"}

    def _work(self, job: dict[str, Any]) -> Result:
        place = {"model": str(self.model), "output": str(self.output(job["variant"]))}
        with tempfile.TemporaryDirectory(prefix="rrtf-quantize-") as scratch:
            result = Path(scratch) / "result.json"
            failure = self._run(job | place | {"result": str(result)}, scratch)
            if failure or not result.exists():
                raise Failed(failure or "no result")
            return Result(store.read_json(result))

    def _run(self, job: Mapping[str, Any], scratch: str) -> str:
        """Why the process of a job failed, or `''`; libraries leave their logs in `scratch`."""
        paths = [str(config.home()), *filter(None, sys.path)]
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ
            | ENVIRONMENT
            | config.environment()
            | {"PYTHONPATH": os.pathsep.join(paths)},
            cwd=scratch,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # so that what it starts in turn ends with it
        )
        self.running.add(child)
        try:
            _, told = child.communicate(
                json.dumps(job | {"parent": os.getpid()}), timeout=self.timeout
            )
        except subprocess.TimeoutExpired:
            return f"not done after {self.timeout:g} s"
        finally:
            self.running.discard(child)
            _end(child)
        return gptq.reason(child.returncode, told) if child.returncode else ""

    def side_by_side(
        self, work: Callable[[str], Found], variants: Sequence[str], workers: int, tick: Tick
    ) -> list[Found]:
        """`work` on all `variants`, `workers` at a time; an interruption ends their processes.

        What it does in this process has to bear threads, as Python's own parser does not.
        """
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(work, variant) for variant in variants]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    if tick:
                        tick(done, len(variants))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in list(self.running):
                    _end(child)
                raise
        return [future.result() for future in futures]


def _end(child: subprocess.Popen) -> None:
    """Kills a process that still runs, and those that it started."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@cache
def _code(module: str) -> str:
    """The hash of the code that does the work of a module of this package."""
    return store.code(store.parse(f"import rrtf.quantize.{module}", module))


@cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def measure(
    variants: Sequence[str],
    problems: Sequence[Problem],
    settings: Settings,
    *,
    model: str | Path,
    calibration: Sequence[str],
    folder: Path,
    progress: Tick = None,
) -> list[Measured]:
    """Makes, asks and times every variant of `model`; the first one is what others are held to.

    Greedy and sampled answers to `problems`; GPTQ reads the texts of `calibration`. Variants lie
    under `folder`. Several processes at a time make and ask, on a GPU one; timing has the machine
    to itself, and only what answers like a model is timed (`measuring.fault`). ValueError for an
    unknown variant or one that comes twice.
    """
    check_variants(variants)
    ask = engines.asker(model, settings.prompt_format)
    texts = [ask(problem) for problem in problems]
    asked = {
        "prompts": texts,
        "references": [_continuation(problem) for problem in problems],
        "stops": list(prompts.stops(problems, settings.prompt_format)),
        "max_new_tokens": settings.max_new_tokens,
        "n": settings.n_samples,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": settings.seed,
    }
    jobs = Jobs(model, folder, timeout=settings.timeout)

    def work(variant: str) -> tuple[Measured, dict[str, Any]]:
        made = jobs.make(variant, calibration)
        return made, jobs.result(made, "answer", **asked) if made.ok else {"failure": made.status}

    steps = 2 * len(variants)
    both = progress and (lambda done, total: progress(done, steps))
    both_of = jobs.side_by_side(work, variants, engines.processes(settings.workers), both)
    found = [_answered(*one, problems, settings.temperature) for one in both_of]
    timed = {"prompts": texts, "batch_sizes": list(settings.batch_sizes)}
    timed["repetitions"] = settings.repetitions
    for at, entry in enumerate(found):
        found[at] = _timed(jobs, _checked(entry, found[0], settings.nll_margin), timed)
        if progress:
            progress(len(variants) + at + 1, steps)
    return found


def calibration(name: str, variants: Sequence[str], ask: engines.Asker) -> list[str]:
    """The texts GPTQ reads: of lines with a `text`, or of problems with their references.

    ValueError where a variant needs them and there are none, and for a line that is neither.
    """
    if not name:
        if needed := [variant for variant in variants if "gptq" in variant]:
            raise ValueError(
                f"{needed[0]} needs --calibration FILE: lines with a text, or with prompt and "
                "canonical_solution, of problems that it will not be evaluated on; "
                "ctranslate2-int8 needs none"
            )
        return []
    texts = [_text(row, f"{name}:{number}", ask) for number, row in store.read_rows(Path(name))]
    if not texts:
        raise ValueError(f"{name}: no lines to calibrate on")
    return texts


def _text(row: Any, where: str, ask: engines.Asker) -> str:
    if isinstance(row, Mapping) and isinstance(row.get("text"), str) and row["text"].strip():
        return row["text"]
    try:
        problem = store.from_row({"task_id": "", "entry_point": "", "tests": "", **row}, Problem)
    except (TypeError, ValueError):
        problem = None
    if problem is None or not isinstance(problem.prompt, str) or not problem.prompt.strip():
        raise ValueError(f"{where}: expected a text, or prompt and canonical_solution")
    return with_reference(problem, ask)


def check_variants(variants: Sequence[str]) -> None:
    """ValueError for an unknown variant, for one that comes twice, and for none."""
    if not variants:
        raise ValueError("no variants: name at least one")
    for variant in variants:
        parts(variant)
        if list(variants).count(variant) > 1:
            raise ValueError(f"variant {variant!r}: it comes twice")


def calibration_texts(
    problems: Sequence[Problem], *, model: str | Path, prompt_format: str
) -> list[str]:
    """What GPTQ reads: the prompts as the model is asked, followed by their references."""
    ask = engines.asker(model, prompt_format)
    return [with_reference(problem, ask) for problem in problems]


def with_reference(problem: Problem, ask: engines.Asker) -> str:
    """The prompt as a model is asked, followed by the reference."""
    return ask(problem) + _continuation(problem)


def _continuation(problem: Problem) -> str:
    """The reference as it follows the prompt, whose last line break is left to the model."""
    return "\n" + problem.reference.strip("\n") if problem.reference else ""


def _answered(
    made: Measured, found: Mapping[str, Any], problems: Sequence[Problem], temperature: float
) -> Measured:
    if "failure" in found:
        return replace(made, status=found["failure"])
    greedy, drawn = sources(made.variant, temperature)
    return replace(
        made,
        engine=found["engine"],
        nll=math.nan if found["nll"] is None else found["nll"],
        greedy=_responses(problems, found["greedy"], greedy, 0.0),
        sampled=_responses(problems, found["sampled"], drawn, temperature),
        seconds=made.seconds | {"answer": found["seconds"]},
    )


def _responses(
    problems: Sequence[Problem], answers: Sequence[Any], source: str, temperature: float
) -> tuple[Response, ...]:
    read = [[engines.Completion(*answer) for answer in row] for row in answers]
    return tuple(prompts.responses(problems, read, source=source, temperature=temperature))


def _checked(entry: Measured, full: Measured, nll_margin: float) -> Measured:
    """`entry`, failed and without answers where they are no working model's."""
    fault = measuring.fault(entry, full, nll_margin=nll_margin) if entry.ok and full.ok else ""
    return replace(entry, status=f"failed: {fault}", greedy=(), sampled=()) if fault else entry


def _timed(jobs: Jobs, entry: Measured, asked: Mapping[str, Any]) -> Measured:
    if not entry.ok:
        return entry
    found = jobs.result(entry, "time", **asked)
    if "failure" in found:
        return replace(entry, status=found["failure"], greedy=(), sampled=())
    seconds = entry.seconds | {"time": found.pop("seconds")}
    return replace(entry, time=found, seconds=seconds)
