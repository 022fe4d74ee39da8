"""GPTQ through gptqmodel: weights in 8 or 4 bits, from a recorded calibration set.

Not covered: mixed bit widths, activation order. On a CPU GPTQ saves space, not time.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rrtf import store
from rrtf.engines import UnsupportedModel, device
from rrtf.quantize import migrate

GROUP = 128  # weights that share a scale
ROWS = 8  # calibration texts per forward pass


def make(folder: Path, output: Path, *, bits: int, calibration: Sequence[str]) -> None:
    """Quantises the model in `folder` to `bits` bits (8 or 4) in groups of 128 weights.

    The same texts give the same weights, bit by bit. ValueError for an empty calibration set and
    for widths that are no multiple of a group.
    """
    check(folder, calibration)
    rows = tokens(folder, calibration)
    GPTQModel = _library()
    from gptqmodel import QuantizeConfig

    # In memory it is bit-deterministic; the packing named "original" needs no compiler.
    settings = QuantizeConfig(
        bits=bits, group_size=GROUP, offload_to_disk=False, pack_impl="original"
    )
    masked = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows]
    source, target = folder.resolve(), output.resolve()
    # It writes logs where it is started.
    with tempfile.TemporaryDirectory(prefix="rrtf-gptq-") as scratch, contextlib.chdir(scratch):
        quantised = _loaded(GPTQModel, source, settings)
        quantised.quantize(masked, batch_size=ROWS, calibration_data_min_length=1)
        quantised.save(str(target))
    versions = {name: version(name) for name in ("gptqmodel", "transformers", "torch")}
    record(output, calibration, rows, bits=bits, versions=versions)


def _loaded(GPTQModel: Any, folder: Path, settings: Any) -> Any:
    try:
        return GPTQModel.load(str(folder), settings)
    except TypeError as error:
        raise UnsupportedModel(
            f"{folder}: gptqmodel does not know this kind of model ({error}); take ctranslate2-int8"
        ) from error


def record(
    output: Path,
    calibration: Sequence[str],
    rows: Sequence[Sequence[int]],
    *,
    bits: int,
    versions: Mapping[str, str | None],
) -> None:
    """Writes `calibration.json`: what was calibrated on, and how."""
    texts = json.dumps(list(calibration), ensure_ascii=False)
    entry = {
        "texts": len(rows),
        "tokens": sum(len(row) for row in rows),
        "sha256": hashlib.sha256(texts.encode()).hexdigest(),
        "settings": {"bits": bits, "group_size": GROUP, "batch_size": ROWS},
        "versions": dict(versions),
    }
    store.write_json(output / "calibration.json", entry)


def check(folder: Path, calibration: Sequence[str]) -> None:
    """ValueError where there is nothing to calibrate on, or a width that groups do not divide."""
    if isinstance(calibration, str) or not any(text.strip() for text in calibration):
        raise ValueError(
            "GPTQ needs calibration texts and there are none; give problems with prompts, or "
            "take ctranslate2-int8, which needs no calibration"
        )
    found = widths(folder)
    if not found:
        raise ValueError(f"{folder}: no linear layers to quantise; take ctranslate2-int8")
    for name, width in found.items():
        if width % GROUP:
            raise ValueError(
                f"{folder}: {name} reads {width} values, which is no multiple of the {GROUP} "
                "weights of a GPTQ group; take ctranslate2-int8, which has no groups"
            )


def widths(folder: Path) -> dict[str, int]:
    """name -> number of inputs of each linear layer inside the blocks; no weights are read."""
    from torch.nn import Linear

    model = migrate.skeleton(store.read_json(folder / "config.json"))
    head = model.get_output_embeddings()
    return {
        name: module.in_features
        for name, module in model.named_modules()
        if isinstance(module, Linear) and module is not head
    }


def tokens(folder: Path, calibration: Sequence[str]) -> list[list[int]]:
    """The token ids of the calibration texts that are not blank, cut to the model's positions."""
    from transformers import AutoConfig

    from rrtf.engines.transformers import open_tokenizer, positions_of

    tokenizer = open_tokenizer(folder)
    positions = positions_of(AutoConfig.from_pretrained(folder))
    return [tokenizer(text)["input_ids"][:positions] for text in calibration if text.strip()]


def open_engine(folder: Path, output: Path, *, threads: int) -> Any:
    """The GPTQ checkpoint in `output` behind a `Generator`; its name says which kernel runs."""
    from rrtf.engines.transformers import TransformersEngine

    loaded = _library().load(str(output.resolve()), device=device()).model
    engine = TransformersEngine(folder, threads=threads, loaded=loaded)
    kernels = {type(module).__name__ for module in loaded.modules() if hasattr(module, "qweight")}
    engine.name = f"gptqmodel-{'+'.join(sorted(kernels))}-{engine.name}"
    return engine


def _library() -> Any:
    """gptqmodel's `GPTQModel`; its default number of workers takes two cores down."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # read at import
    try:
        from gptqmodel import GPTQModel
    except ImportError as error:
        raise ValueError(
            f"gptqmodel cannot be imported ({error}); install it (pip install gptqmodel==7.6.0) "
            "or take ctranslate2-int8"
        ) from None
    return GPTQModel
