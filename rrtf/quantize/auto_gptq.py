"""The auto-gptq lane: the paper's quantiser in an environment of its own.

auto-gptq is archived (last release March 2024) and needs a transformers of the year after; the
lane is a second Python with `requirements-auto-gptq.lock` (`make auto-gptq`) that is only spoken
to by `auto_gptq_lane.py`, run by path. What it wrote is migrated and run by gptqmodel.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrtf import config, store
from rrtf.engines import UnsupportedModel
from rrtf.quantize import gptq

PROGRAM = Path(__file__).with_name("auto_gptq_lane.py")
PINS = {"auto-gptq": "0.7.1", "transformers": "4.52.4"}  # what decides whether it works at all
REPAIR = (
    "make it with `make auto-gptq`, or name the Python of one in RRTF_AUTO_GPTQ; "
    "gptq-int8 and gptq-int4 (gptqmodel) need no lane"
)


def python() -> Path:
    """The lane's Python: $RRTF_AUTO_GPTQ, else that of `.venv-auto-gptq`.

    FileNotFoundError where there is none; the message says what can.
    """
    named = os.environ.get("RRTF_AUTO_GPTQ")
    found = Path(named) if named else config.home() / ".venv-auto-gptq"
    if found.is_dir():
        found = found / "bin/python"
    if not found.exists():
        raise FileNotFoundError(f"{found}: the auto-gptq lane is not there; {REPAIR}")
    return found


def check_lane() -> dict[str, str | None]:
    """package -> version in the lane; ValueError where they are not the pinned ones."""
    found = ask("versions")
    wrong = [
        f"{name} {found[name] or 'is missing'} (needs {wanted})"
        for name, wanted in PINS.items()
        if found[name] != wanted
    ]
    if wrong:
        raise ValueError(f"{python()}: the auto-gptq lane has {', '.join(wrong)}; {REPAIR}")
    return found


def ask(action: str, **job: Any) -> dict[str, Any]:
    """The answer of the lane's program to one job.

    `UnsupportedModel` where auto-gptq does not know the architecture, OSError with the last line
    it wrote where it fails in another way.
    """
    with tempfile.TemporaryDirectory(prefix="rrtf-auto-gptq-") as scratch:
        result = Path(scratch) / "result.json"
        job |= {"action": action, "result": str(result), "threads": 1}
        done = subprocess.run(
            [str(python()), "-I", str(PROGRAM)],  # -I: none of this Python's paths
            input=json.dumps(job),
            cwd=scratch,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode == 0 and result.exists():
            return store.read_json(result)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    reason = lines[-1][:300] if lines else f"exit status {done.returncode}"
    if done.returncode == 3:
        raise UnsupportedModel(f"auto-gptq does not know this model ({reason}); take gptq-int8")
    raise OSError(f"the auto-gptq lane failed: {reason}")


def make(folder: Path, output: Path, *, bits: int, calibration: Sequence[str]) -> None:
    """Quantises the model in `folder` in the lane; `output` is auto-gptq's own checkpoint.

    Its folder `gptqmodel` holds the same weights migrated. Errors as in `gptq.make`, and those of
    a lane that is missing or has other versions.
    """
    gptq.check(folder, calibration)
    versions = check_lane()
    rows = gptq.tokens(folder, calibration)
    with tempfile.TemporaryDirectory(prefix="rrtf-auto-gptq-") as scratch:
        ask(
            "quantise",
            model=str(gptq.for_transformers_4(folder, Path(scratch) / "model")),
            output=str(output.resolve()),
            bits=bits,
            group_size=gptq.GROUP,
            batch_size=gptq.ROWS,
            rows=rows,
        )
    gptq.copy_tokenizer(folder, output)
    gptq.to_gptqmodel(output, output / "gptqmodel")
    gptq.record(output, calibration, rows, bits=bits, versions=versions)


def nll(folders: Sequence[Path], pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """Nats per token of the tails of (head, tail) token ids, by auto-gptq, per checkpoint."""
    models = [str(folder.resolve()) for folder in folders]
    return ask("nll", models=models, pairs=[list(pair) for pair in pairs])["nll"]


def open_engine(folder: Path, output: Path, *, threads: int) -> Any:
    """auto-gptq's weights behind a `Generator`: migrated, and run by gptqmodel's kernels."""
    engine = gptq.open_engine(folder, output / "gptqmodel", threads=threads)
    engine.name = f"auto-gptq-by-{engine.name}"
    return engine
