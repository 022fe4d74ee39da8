"""GPTQ through gptqmodel: weights in 8 or 4 bits, from a recorded calibration set.

Not covered: mixed bit widths, activation order. On a CPU GPTQ saves space, not time.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrtf import store

GROUP = 128  # weights that share a scale
ROWS = 8  # calibration texts per forward pass


def make(folder: Path, output: Path, *, bits: int, calibration: Sequence[str]) -> None:
    """Quantises the model in `folder` to `bits` bits (8 or 4) in groups of 128 weights.

    The same texts give the same weights, bit by bit. ValueError for an empty calibration set and
    for widths that no group divides.
    """
    check(folder, calibration)
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # read at import; without it two cores die
    from gptqmodel import GPTQModel, QuantizeConfig

    from rrtf.engines.transformers_engine import open_tokenizer

    tokenizer = open_tokenizer(folder)
    rows = [dict(tokenizer(text)) for text in calibration]
    # In memory it is bit-deterministic; the packing named "original" needs no compiler.
    settings = QuantizeConfig(
        bits=bits, group_size=GROUP, offload_to_disk=False, pack_impl="original"
    )
    quantised = GPTQModel.load(str(folder), settings)
    quantised.quantize(rows, batch_size=ROWS)
    quantised.save(str(output))
    record(output, calibration, rows, bits=bits)


def record(
    output: Path, calibration: Sequence[str], rows: Sequence[dict[str, Any]], *, bits: int
) -> None:
    """Writes `calibration.json`: what was calibrated on, and how."""
    texts = json.dumps(list(calibration), ensure_ascii=False)
    entry = {
        "texts": len(calibration),
        "tokens": sum(len(row["input_ids"]) for row in rows),
        "sha256": hashlib.sha256(texts.encode()).hexdigest(),
        "settings": {"bits": bits, "group_size": GROUP, "batch_size": ROWS},
    }
    store.write_json(output / "calibration.json", entry)


def check(folder: Path, calibration: Sequence[str]) -> None:
    """ValueError where GPTQ has nothing to calibrate on, or a width that no group divides."""
    if not any(text.strip() for text in calibration):
        raise ValueError(
            "GPTQ needs calibration texts and there are none; give problems with prompts, or "
            "take ctranslate2-int8, which needs no calibration"
        )
    for name, width in widths(folder).items():
        if width % GROUP:
            raise ValueError(
                f"{folder}: {name} reads {width} values, no multiple of the {GROUP} weights of "
                "a GPTQ group; take ctranslate2-int8, which has no groups"
            )


def widths(folder: Path) -> dict[str, int]:
    """name -> number of inputs of each linear layer inside the blocks; no weights are read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    head = model.get_output_embeddings()
    return {
        name: module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def open_engine(folder: Path, output: Path, *, threads: int) -> Any:
    """The GPTQ checkpoint in `output` behind a `Generator`; its name says which kernel runs."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    import torch
    from gptqmodel import GPTQModel

    from rrtf.engines.transformers_engine import TransformersEngine

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = GPTQModel.load(str(output), device=device).model
    engine = TransformersEngine(folder, threads=threads, loaded=loaded)
    kernels = {type(m).__name__ for m in loaded.modules() if hasattr(m, "qweight")}
    engine.name = f"gptqmodel-{'+'.join(sorted(kernels))}-{engine.name}"
    return engine
