"""Stage 08: the trained model smaller and faster, and what that costs (section 4.4, Table 4).

Every variant is made and measured in a process of its own: a library that crashes becomes a row
that says so. Not covered: quantisation on a GPU, and activations (all variants are weight-only
except CTranslate2's int8, which quantises activations as they come).
"""

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrtf import asking, config, prompts, store
from rrtf.quantize.table import Measured, detectable, differences, records, rows, shown, timing
from rrtf.quantize.variants import VARIANTS, round_to
from rrtf.records import Problem, Response

__all__ = [
    "VARIANTS",
    "Measured",
    "detectable",
    "differences",
    "measure",
    "records",
    "round_to",
    "rows",
    "shown",
    "timing",
]


def measure(
    variants: Sequence[str],
    problems: Sequence[Problem],
    *,
    model: str | Path,
    calibration: Sequence[Problem],
    folder: Path,
    prompt_format: str,
    max_new_tokens: int,
    batch_sizes: Sequence[int],
    timeout: float,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measured]:
    """Makes and measures every variant of `model` under `folder`, one after the other.

    Greedy answers to `problems`; GPTQ calibrates on prompts and references of `calibration`. A
    variant that was measured before with the same settings and weights is only read. ValueError
    for an unknown variant.
    """
    for variant in variants:
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    ask = asking.asker(model, prompt_format)
    job = {
        "model": str(Path(model).resolve()),
        "prompts": [ask(problem) for problem in problems],
        "references": [_continuation(problem) for problem in problems],
        "calibration": [ask(problem) + _continuation(problem) for problem in calibration],
        "stops": list(prompts.stops(problems, prompt_format)),
        "max_new_tokens": max_new_tokens,
        "batch_sizes": list(batch_sizes),
        "seed": seed,
    }
    weights = store.sha256(Path(model))
    measured = []
    for done, variant in enumerate(variants, start=1):
        found = _in_process(job | {"variant": variant}, weights, folder, timeout=timeout)
        measured.append(_measured(variant, found, problems))
        if progress:
            progress(done, len(variants))
    return measured


def _continuation(problem: Problem) -> str:
    """The reference as it follows the prompt, whose last line break is left to the model."""
    return "\n" + problem.reference.strip("\n") if problem.reference else ""


def _in_process(job: dict, weights: str, folder: Path, *, timeout: float) -> dict[str, Any]:
    """The result of `variants.serve` for one job, or `{"status": "failed: ..."}`."""
    text = json.dumps(job | {"weights": weights}, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    result = folder / f"{job['variant']}-{key}.json"
    if result.exists():
        return store.read_json(result)
    folder.mkdir(parents=True, exist_ok=True)
    job = job | {
        "result": str(result.resolve()),
        "output": str((folder / job["variant"]).resolve()),
    }
    settings = {"OMP_NUM_THREADS": "1", "GPTQMODEL_CPU_WORKERS": "2", "TORCHDYNAMO_DISABLE": "1"}
    settings["PYTHONPATH"] = os.pathsep.join([str(config.home()), *filter(None, sys.path)])
    try:
        done = _run(job, settings, timeout)
    except subprocess.TimeoutExpired:
        return {"status": f"failed: not done after {timeout:g} s"}
    if done.returncode == 0 and result.exists():
        return store.read_json(result)
    return {"status": f"failed: {_reason(done)}"}


def _run(job: dict, settings: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess:
    """`serve` on one job, in a folder that is thrown away: gptqmodel leaves its logs there."""
    with tempfile.TemporaryDirectory(prefix="rrtf-quantize-") as scratch:
        return subprocess.run(
            [sys.executable, "-c", "from rrtf.quantize.variants import serve; serve()"],
            input=json.dumps(job),
            env=os.environ | settings,
            cwd=scratch,
            timeout=timeout,
            capture_output=True,
            text=True,
            errors="replace",
        )


def _reason(done: subprocess.CompletedProcess) -> str:
    """The last line a failed process wrote, or how it ended."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    return lines[-1][:300] if lines else f"exit status {done.returncode}"


def _measured(variant: str, found: Mapping[str, Any], problems: Sequence[Problem]) -> Measured:
    if found["status"] != "ok":
        return Measured(variant, found["status"])
    responses = tuple(
        Response(
            problem.task_id, variant, 0, text, prompts.extract(problem, text), n_tokens, reason
        )
        for problem, (text, n_tokens, reason) in zip(problems, found["answers"], strict=True)
    )
    return Measured(
        variant=variant,
        status="ok",
        engine=found["engine"],
        size_mb=found["size_mb"],
        nll=math.nan if found["nll"] is None else found["nll"],
        responses=responses,
        ms={int(size): tuple(values) for size, values in found["ms"].items()},
        seconds=found["seconds"],
    )
