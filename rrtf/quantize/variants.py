"""One variant of one model: made, asked and timed, in the process it has for itself."""

import ctypes
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrtf import store

TIMED_TOKENS = 32
REPETITIONS = 5


def serve() -> None:
    """Reads a job from standard input, measures its variant, writes the result file.

    Whatever a library raises ends the process with one line that says so.
    """
    _die_with_parent()
    job = json.load(sys.stdin)
    try:
        store.write_json(Path(job["result"]), _result(job))
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))


def _die_with_parent() -> None:
    """A run that is killed leaves no process behind (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _result(job: Mapping[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    engine, size = build(
        job["variant"],
        Path(job["model"]),
        Path(job["output"]),
        calibration=job["calibration"],
    )
    how = {"n": 1, "temperature": 0.0, "top_p": 1.0, "seed": job["seed"]}
    answers = engine.generate(
        job["prompts"], stops=job["stops"], max_new_tokens=job["max_new_tokens"], **how
    )
    return {
        "status": "ok",
        "engine": engine.name,
        "size_mb": size / 1e6,
        "nll": _nll(engine, job["prompts"], job["references"]),
        "answers": [[row[0].text, row[0].n_tokens, row[0].finish_reason] for row in answers],
        "ms": {size: _ms_per_token(engine, job["prompts"], size) for size in job["batch_sizes"]},
        "seconds": time.monotonic() - started,
    }


def build(
    variant: str, model: Path, output: Path, *, calibration: Sequence[str]
) -> tuple[Any, int]:
    """(an engine that runs `variant` of `model`, bytes of its weights); makes it in `output`.

    The bytes are those of the weight file; of `full`, which may lie on disk in another precision
    than it computes in, those in memory.
    """
    library, _, precision = variant.partition("-")
    if library == "full":
        from rrtf.engines.transformers_engine import TransformersEngine

        engine = TransformersEngine(model)
        parameters = engine.model.parameters()
        return engine, sum(weight.numel() * weight.element_size() for weight in parameters)
    if library == "ctranslate2":
        from rrtf.engines.ctranslate2_engine import CTranslate2Engine, convert

        convert(model, output, precision=precision)
        engine = CTranslate2Engine(model, dtype=precision, converted=output)
        return engine, (output / "model.bin").stat().st_size
    return _gptq(model, output, bits=int(precision.removeprefix("int")), calibration=calibration)


def _gptq(model: Path, output: Path, *, bits: int, calibration: Sequence[str]) -> tuple[Any, int]:
    """GPTQ in groups of 128 weights. `offload_to_disk=False` makes it bit-deterministic, and
    `pack_impl="original"` needs no compiler."""
    from gptqmodel import GPTQModel, QuantizeConfig

    from rrtf.engines.transformers_engine import TransformersEngine, open_tokenizer

    tokenizer = open_tokenizer(model)
    rows = [dict(tokenizer(text)) for text in calibration]
    settings = QuantizeConfig(
        bits=bits, group_size=128, offload_to_disk=False, pack_impl="original"
    )
    quantised = GPTQModel.load(str(model), settings)
    quantised.quantize(rows, batch_size=8)
    quantised.save(str(output))
    loaded = GPTQModel.load(str(output), device="cpu").model
    engine = TransformersEngine(model, loaded=loaded)
    kernels = {type(m).__name__ for m in loaded.modules() if hasattr(m, "qweight")}
    engine.name = f"gptqmodel-{'+'.join(sorted(kernels))}-{engine.name}"
    return engine, sum(file.stat().st_size for file in output.glob("*.safetensors"))


def _nll(engine: Any, texts: Sequence[str], references: Sequence[str]) -> float | None:
    """Nats per token of the references that there are; None without any."""
    pairs = [(text, answer) for text, answer in zip(texts, references, strict=True) if answer]
    if not pairs:
        return None
    scores = engine.score(*(list(side) for side in zip(*pairs, strict=True)))
    return -sum(total for total, _ in scores) / sum(n for _, n in scores)


def _ms_per_token(engine: Any, texts: Sequence[str], size: int) -> list[float]:
    """Milliseconds per step of a batch of `size` rows, once per repetition, prefill included.

    All rows are one prompt, of median length, so that no engine has to pad or to split the batch.
    """
    rows = [sorted(texts, key=len)[len(texts) // 2]] * size
    how = {"n": 1, "temperature": 0.0, "top_p": 1.0, "stops": (), "seed": 0}
    found = []
    for _ in range(REPETITIONS + 1):
        started = time.perf_counter()
        answers = engine.generate(rows, max_new_tokens=TIMED_TOKENS, **how)
        steps = max(row[0].n_tokens + (row[0].finish_reason == "stop") for row in answers)
        found.append(1000 * (time.perf_counter() - started) / steps)
    return found[1:]  # the first one warms up


def round_to(weights: Any, *, bits: int) -> tuple[Any, float]:
    """(whole numbers, scale) with weights close to scale x whole: symmetric rounding to nearest.

    `weights` is a tensor of one group; the largest magnitude becomes 2^(bits - 1) - 1.
    """
    top = 2 ** (bits - 1) - 1
    scale = weights.abs().max().item() / top
    return (weights / scale).round().clamp(-top - 1, top).to(int), scale
