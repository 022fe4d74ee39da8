"""The variants of a model: made, opened, weighed and hashed."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrtf import engines, store
from rrtf.quantize import gptq

VARIANTS = (
    "full",
    "ctranslate2-float32",
    "ctranslate2-int8",
    "ctranslate2-int16",
    "ctranslate2-float16",
    "ctranslate2-bfloat16",
    "gptq-int8",
    "gptq-int4",
    "auto-gptq-int8",
    "auto-gptq-int4",
)


def make(variant: str, model: str | Path, output: Path, *, calibration: Sequence[str]) -> None:
    """Writes `variant` of the model folder `model` to the folder `output`, whole or not at all.

    Nothing for `full`. GPTQ reads the texts of `calibration` and leaves beside its weights what
    they were (`calibration.json`). ValueError where this machine or this model does not allow the
    variant; the message says what can be made.
    """
    library, precision = parts(variant)
    if library == "full":
        return
    _check_source(Path(model))
    beside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        if library == "ctranslate2":
            from rrtf.engines.ctranslate2 import check_precision, convert

            check_precision(precision)
            convert(Path(model), beside, precision=precision)
        else:
            how = {"bits": int(precision.removeprefix("int")), "lane": library == "auto-gptq"}
            gptq.make(Path(model), beside, calibration=calibration, **how)
        shutil.rmtree(output, ignore_errors=True)
        beside.rename(output)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _check_source(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder}: not a model folder (no config.json)")
    if "quantization_config" in store.read_json(folder / "config.json"):
        raise ValueError(f"{folder}: already quantised; give the model in full precision")


def open_variant(
    variant: str, model: str | Path, output: Path, *, threads: int
) -> engines.Generator:
    """An engine that runs what `make` wrote to `output`; its `name` says what really computes.

    FileNotFoundError where nothing was made.
    """
    library, precision = parts(variant)
    if library == "full":
        from rrtf.engines.transformers import TransformersEngine

        return TransformersEngine(Path(model), threads=threads)
    _weights(variant, model, output)
    if library == "ctranslate2":
        from rrtf.engines.ctranslate2 import CTranslate2Engine

        return CTranslate2Engine(Path(model), threads=threads, dtype=precision, converted=output)
    lane = library == "auto-gptq"
    return gptq.open_engine(Path(model), output, threads=threads, lane=lane)


def held(variant: str, model: str | Path, output: Path, *, threads: int) -> str:
    """Why what `make` wrote does not compute what `model` says, but for its rounding, or `''`.

    Held as engines are (`rrtf.engines.holding`): within what rounding to as many bits loses, and
    exactly where no weights are rounded: CTranslate2's conversion in float32, GPTQ's modules with
    the full weights put back.
    """
    library, precision = parts(variant)
    if library == "full":
        return ""
    from rrtf.engines import holding

    folder = Path(model)
    if library == "ctranslate2" and (told := engines.fault("ctranslate2", folder)):
        return told
    engine = open_variant(variant, model, output, threads=threads)
    engine.precision = precision
    told = holding.compare(engine, folder)
    if told or library == "ctranslate2":
        return told
    gptq.put_back(engine, folder)
    return holding.compare(engine, folder)


def weight_bytes(variant: str, model: str | Path, output: Path) -> int:
    """Bytes of the weight files.

    Of `full`, which may lie on disk in another precision than it computes in, those in memory.
    """
    files = _weights(variant, model, output)
    if variant != "full":
        return sum(file.stat().st_size for file in files)
    size = 2 if engines.device() == "cuda" else 4  # what TransformersEngine computes in
    shapes = (entry["shape"] for file in files for entry in engines.weight_header(file).values())
    return sum(size * math.prod(shape) for shape in shapes)


def weights_hash(variant: str, model: str | Path, output: Path) -> str:
    """sha256 over the weights: names, types, shapes and bytes of the tensors, in order of name.

    Settings, versions and dates that lie beside the weights do not count.
    """
    files = _weights(variant, model, output)
    if files[0].suffix == ".bin":  # CTranslate2 writes nothing but the weights
        return store.sha256(files[0])
    places = {name: file for file in files for name in engines.weight_header(file)}
    digest = hashlib.sha256()
    for name in sorted(places):
        _add_tensor(digest, places[name], name)
    return digest.hexdigest()


def _weights(variant: str, model: str | Path, output: Path) -> list[Path]:
    """The files with the weights of a variant; FileNotFoundError where there are none."""
    library, _ = parts(variant)
    folder = Path(model) if library == "full" else output
    found = sorted(folder.glob("model.bin" if library == "ctranslate2" else "*.safetensors"))
    if not found:
        raise FileNotFoundError(f"{folder}: no weights of {variant} there")
    return found


def _add_tensor(digest: Any, path: Path, name: str) -> None:
    entry = engines.weight_header(path)[name]
    digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
    start, stop = entry["data_offsets"]
    with path.open("rb") as file:
        begin = 8 + int.from_bytes(file.read(8), "little")
        file.seek(begin + start)
        left = stop - start
        while left:
            block = file.read(min(left, 1 << 24))
            digest.update(block)
            left -= len(block)


def parts(variant: str) -> tuple[str, str]:
    """(library, precision) of a variant's name; ValueError for one that is not in `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    library, _, precision = variant.rpartition("-") if variant != "full" else (variant, "", "")
    return library, precision


def round_to(weights: Any, *, bits: int) -> tuple[Any, float]:
    """(whole numbers, scale) with weights close to scale x whole: symmetric rounding to nearest.

    `weights` is a tensor of one group; the largest magnitude becomes 2^(bits - 1) - 1.
    """
    top = 2 ** (bits - 1) - 1
    scale = weights.abs().max().item() / top
    return (weights / scale).round().clamp(-top - 1, top).to(int), scale
