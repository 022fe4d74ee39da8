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

THEIRS_ONLY = (
    "is_marlin_format",
    "model_file_base_name",
    "model_name_or_path",
    "awq_gemm_checkpoint",
)
SHARED = ("bits", "group_size", "desc_act", "sym", "damp_percent", "static_groups")
SHARED += ("true_sequential",)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")
TOKENIZER += ("merges.txt", "tokenizer.model", "added_tokens.json", "chat_template.jinja")
TOKENIZER += ("generation_config.json",)


def to_gptqmodel(source: Path, output: Path) -> Path:
    """Writes the auto-gptq checkpoint in `source` to `output` as gptqmodel reads it.

    A tied output layer is left out, as it is there. FileNotFoundError without safetensors
    (pickled `.bin` weights are never opened), ValueError for layouts that are not covered.
    """
    config, quantised = _settings(source)
    if quantised.get("is_marlin_format") or quantised.get("awq_gemm_checkpoint"):
        raise ValueError(f"{source}: a Marlin or AWQ layout; only plain GPTQ weights are migrated")
    _check_layout(source, quantised)
    tensors = _tensors(source)
    _check_groups(source, tensors, quantised)
    _untie(source, config, tensors)
    kept = {name: value for name, value in quantised.items() if name not in THEIRS_ONLY}
    kept |= {"quant_method": "gptq", "checkpoint_format": "gptq"}
    if "torch_dtype" in config:
        config["dtype"] = config.pop("torch_dtype")
    _write(output, tensors, "model.safetensors", config, kept)
    copy_tokenizer(source, output)
    return output


def to_auto_gptq(source: Path, output: Path) -> Path:
    """Writes the gptqmodel checkpoint in `source` to `output` as auto-gptq reads it.

    A tied output layer is written out; the settings are those of transformers 4. Errors as in
    `to_gptqmodel`; ValueError too for what auto-gptq cannot express (`dynamic`, a quantised
    output layer).
    """
    config, quantised = _settings(source)
    _check_layout(source, quantised)
    for name in ("dynamic", "lm_head"):
        if quantised.get(name):
            raise ValueError(f"{source}: `{name}` is set, which auto-gptq has no place for")
    tensors = _tensors(source)
    _check_groups(source, tensors, quantised)
    _tie(source, config, tensors)
    wanted = {**(quantised.get("meta") or {}), **quantised}
    kept = {name: wanted[name] for name in SHARED if wanted.get(name) is not None}
    base = f"gptq_model-{kept['bits']}bit-{kept['group_size']}g"
    kept |= {"model_name_or_path": None, "model_file_base_name": base}
    kept |= {"is_marlin_format": False, "quant_method": "gptq"}
    _write(output, tensors, f"{base}.safetensors", older(config), kept)
    copy_tokenizer(source, output)
    return output


def for_transformers_4(folder: Path, output: Path) -> Path:
    """`output` shows the model of `folder` with settings that transformers 4 understands."""
    output.mkdir(parents=True)
    for file in folder.resolve().iterdir():
        if file.name.endswith((".safetensors", ".safetensors.index.json")):
            (output / file.name).symlink_to(file)
    if not any(output.iterdir()):
        raise FileNotFoundError(f"{folder}: no .safetensors weights to quantise")
    store.write_json(output / "config.json", older(store.read_json(folder / "config.json")))
    return output


def older(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model as transformers 4 names them.

    It would take unknown names for absent and go on with its defaults: the precision, and the
    base of the rotary positions. ValueError where positions differ by kind of layer.
    """
    found = dict(config)
    found["torch_dtype"] = found.pop("dtype", None) or found.get("torch_dtype")
    rope = found.pop("rope_parameters", None)
    if rope and "rope_theta" not in rope:
        raise ValueError("rope_parameters differ by kind of layer: auto-gptq knows no such model")
    if rope:
        found["rope_theta"] = rope["rope_theta"]
        if "partial_rotary_factor" in rope:
            found["partial_rotary_factor"] = rope["partial_rotary_factor"]
        if rope.get("rope_type", "default") != "default":
            found["rope_scaling"] = {n: v for n, v in rope.items() if n != "rope_theta"}
    return found


def copy_tokenizer(source: Path, output: Path) -> None:
    """Copies the files of the tokenizer and of generation that there are."""
    for name in TOKENIZER:
        if (source / name).exists():
            store.write_bytes(output / name, (source / name).read_bytes())


def skeleton(config: Mapping[str, Any]) -> Any:
    """The unquantised model of these settings, with shapes and without weights.

    `UnsupportedModel` where transformers has no such causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = {name: value for name, value in config.items() if name != "quantization_config"}
    kind = plain.pop("model_type", "")
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **plain))
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise UnsupportedModel(
            f"model_type {kind!r} is no causal language model that transformers knows ({reason}...)"
        ) from None


def _ends(config: Mapping[str, Any]) -> tuple[str, str, bool]:
    """(name of the embedding's weight, of the output layer's, whether they are one)."""
    model = skeleton(config)
    names = {id(module): name for name, module in model.named_modules()}
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    return f"{names[id(first)]}.weight", f"{names[id(last)]}.weight", first.weight is last.weight


def _untie(source: Path, config: Mapping[str, Any], tensors: dict[str, Any]) -> None:
    """Leaves out the output layer where the embedding is it."""
    first, last, tied = _ends(config)
    if not tied or last not in tensors:
        return
    if not tensors[first].equal(tensors[last]):
        raise ValueError(
            f"{source}: {last} differs from {first}, but config.json ties them; "
            "set tie_word_embeddings to false there if the two were trained apart"
        )
    del tensors[last]


def _tie(source: Path, config: Mapping[str, Any], tensors: dict[str, Any]) -> None:
    """Writes out the output layer where the embedding is it."""
    first, last, tied = _ends(config)
    if last in tensors:
        return
    if not tied:
        raise ValueError(f"{source}: no {last}, and config.json does not tie it to {first}")
    tensors[last] = tensors[first].clone()


def _settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config.json without its quantisation, the quantisation, `quantize_config.json` first)."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder}: not a checkpoint (no config.json)")
    config = store.read_json(folder / "config.json")
    quantised = config.pop("quantization_config", None) or {}
    if (folder / "quantize_config.json").exists():
        quantised = quantised | store.read_json(folder / "quantize_config.json")
    if not quantised:
        raise ValueError(
            f"{folder}: not a quantised checkpoint (no quantize_config.json, and no "
            "quantization_config in config.json)"
        )
    return config, quantised


def _check_layout(folder: Path, quantised: Mapping[str, Any]) -> None:
    layout = quantised.get("checkpoint_format") or quantised.get("format") or "gptq"
    method = quantised.get("quant_method") or "gptq"
    if (method, layout) != ("gptq", "gptq"):
        raise ValueError(f"{folder}: {method} in the layout {layout}; only gptq is migrated")
    if quantised.get("desc_act"):
        raise ValueError(f"{folder}: desc_act (activation order) is not migrated")


def _tensors(folder: Path) -> dict[str, Any]:
    """name -> tensor of all safetensors files of a folder."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    pickled = [path.name for path in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))]
    if not files and pickled:
        raise FileNotFoundError(
            f"{folder / pickled[0]}: pickled weights are never opened; where you trust them, save "
            "them again with auto-gptq: model.save_quantized(FOLDER, use_safetensors=True)"
        )
    if not files:
        raise FileNotFoundError(f"{folder}: no .safetensors weights")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _check_groups(folder: Path, tensors: Mapping[str, Any], quantised: Mapping[str, Any]) -> None:
    """Without activation order auto-gptq takes groups as they lie and reads no `g_idx`."""
    import torch

    for name, order in tensors.items():
        if name.endswith(".g_idx"):
            size = quantised["group_size"] if quantised["group_size"] > 0 else len(order)
            if not torch.equal(order.long(), torch.arange(len(order)) // size):
                raise ValueError(f"{folder}: {name} is not in groups of {size} as they lie")


def _write(
    output: Path,
    tensors: Mapping[str, Any],
    file: str,
    config: Mapping[str, Any],
    quantised: Mapping[str, Any],
) -> None:
    from safetensors.torch import save

    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    store.write_bytes(output / file, save(contiguous, metadata={"format": "pt"}))
    store.write_json(output / "config.json", {**config, "quantization_config": dict(quantised)})
    store.write_bytes(
        output / "quantize_config.json", json.dumps(quantised, indent=2).encode() + b"\n"
    )


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

    model = skeleton(store.read_json(folder / "config.json"))
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


def put_back(engine: Any, folder: Path) -> None:
    """Gives an engine of `open_engine` the weights of the full model, in float32.

    What is left of the quantisation are settings and the library's own modules. Layers that it
    does not quantise get theirs too: it may have saved them in fewer bits.
    """
    import torch

    from rrtf.engines.transformers import TransformersEngine

    full = TransformersEngine(folder, threads=torch.get_num_threads(), dtype="float32").model
    names = [name for name, module in engine.model.named_modules() if hasattr(module, "qweight")]
    for name in names:
        engine.model.set_submodule(name, full.get_submodule(name))
    engine.model.float().load_state_dict(full.state_dict(), strict=False)
    engine.precision = "float32"


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
