"""GPTQ: weights in 8 or 4 bits from a recorded calibration set, by gptqmodel or by auto-gptq.

auto-gptq, the paper's quantiser, is archived (last release March 2024) and needs a transformers of
the year after. So it has a lane: a second Python with `requirements-auto-gptq.lock` (`make
auto-gptq`) that is only spoken to by `auto_gptq_lane.py`, run by path. What it wrote is migrated
and run by gptqmodel. Not covered: mixed bit widths, activation order. On a CPU GPTQ saves space,
not time.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rrtf import config, store
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
    settings, quantised, tensors = _opened(source)
    _head(source, settings, tensors, own=False)
    kept = {name: value for name, value in quantised.items() if name not in THEIRS_ONLY}
    kept |= {"quant_method": "gptq", "checkpoint_format": "gptq"}
    if "torch_dtype" in settings:
        settings["dtype"] = settings.pop("torch_dtype")
    return _write(source, output, tensors, "model.safetensors", settings, kept)


def to_auto_gptq(source: Path, output: Path) -> Path:
    """Writes the gptqmodel checkpoint in `source` to `output` as auto-gptq reads it.

    A tied output layer is written out; the settings are those of transformers 4. Errors as in
    `to_gptqmodel`; ValueError too for what auto-gptq cannot express (`dynamic`, a quantised
    output layer).
    """
    settings, quantised, tensors = _opened(source)
    for name in ("dynamic", "lm_head"):
        if quantised.get(name):
            raise ValueError(f"{source}: `{name}` is set, which auto-gptq has no place for")
    _head(source, settings, tensors, own=True)
    wanted = {**(quantised.get("meta") or {}), **quantised}
    kept = {name: wanted[name] for name in SHARED if wanted.get(name) is not None}
    base = f"gptq_model-{kept['bits']}bit-{kept['group_size']}g"
    kept |= {"model_name_or_path": None, "model_file_base_name": base}
    kept |= {"is_marlin_format": False, "quant_method": "gptq"}
    return _write(source, output, tensors, f"{base}.safetensors", older(settings), kept)


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


def older(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model as transformers 4 names them.

    It would take unknown names for absent and go on with its defaults: the precision, and the
    base of the rotary positions. ValueError where positions differ by kind of layer.
    """
    found = dict(settings)
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


def skeleton(settings: Mapping[str, Any]) -> Any:
    """The unquantised model of these settings, with shapes and without weights.

    `UnsupportedModel` where transformers has no such causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = {name: value for name, value in settings.items() if name != "quantization_config"}
    kind = plain.pop("model_type", "")
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **plain))
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise UnsupportedModel(
            f"model_type {kind!r} is no causal language model that transformers knows ({reason}...)"
        ) from None


def _ends(settings: Mapping[str, Any]) -> tuple[str, str, bool]:
    """(name of the embedding's weight, of the output layer's, whether they are one)."""
    model = skeleton(settings)
    names = {id(module): name for name, module in model.named_modules()}
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    return f"{names[id(first)]}.weight", f"{names[id(last)]}.weight", first.weight is last.weight


def _head(source: Path, settings: Mapping[str, Any], tensors: dict[str, Any], *, own: bool) -> None:
    """Writes out the output layer where the embedding is it (`own`), or leaves it out there."""
    first, last, tied = _ends(settings)
    if own and last not in tensors:
        if not tied:
            raise ValueError(f"{source}: no {last}, and config.json does not tie it to {first}")
        tensors[last] = tensors[first].clone()
    elif not own and tied and last in tensors:
        if not tensors[first].equal(tensors[last]):
            raise ValueError(
                f"{source}: {last} differs from {first}, but config.json ties them; "
                "set tie_word_embeddings to false there if the two were trained apart"
            )
        del tensors[last]


def _opened(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(config.json without its quantisation, the quantisation, name -> tensor) of a checkpoint."""
    import torch
    from safetensors.torch import load_file

    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder}: not a checkpoint (no config.json)")
    settings = store.read_json(folder / "config.json")
    quantised = settings.pop("quantization_config", None) or {}
    if (folder / "quantize_config.json").exists():
        quantised = quantised | store.read_json(folder / "quantize_config.json")
    _check_layout(folder, quantised)
    files = sorted(folder.glob("*.safetensors"))
    pickled = [path.name for path in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))]
    if not files:
        raise FileNotFoundError(
            f"{folder / pickled[0]}: pickled weights are never opened; where you trust them, save "
            "them again with auto-gptq: model.save_quantized(FOLDER, use_safetensors=True)"
            if pickled else f"{folder}: no .safetensors weights"
        )  # fmt: skip
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    for name, order in tensors.items():  # without activation order auto-gptq reads no `g_idx`
        if name.endswith(".g_idx"):
            size = quantised["group_size"] if quantised["group_size"] > 0 else len(order)
            if not torch.equal(order.long(), torch.arange(len(order)) // size):
                raise ValueError(f"{folder}: {name} is not in groups of {size} as they lie")
    return settings, quantised, tensors


def _check_layout(folder: Path, quantised: Mapping[str, Any]) -> None:
    if not quantised:
        raise ValueError(
            f"{folder}: not a quantised checkpoint (no quantize_config.json, and no "
            "quantization_config in config.json)"
        )
    if quantised.get("is_marlin_format") or quantised.get("awq_gemm_checkpoint"):
        raise ValueError(f"{folder}: a Marlin or AWQ layout; only plain GPTQ weights are migrated")
    layout = quantised.get("checkpoint_format") or quantised.get("format") or "gptq"
    method = quantised.get("quant_method") or "gptq"
    if (method, layout) != ("gptq", "gptq"):
        raise ValueError(f"{folder}: {method} in the layout {layout}; only gptq is migrated")
    if quantised.get("desc_act"):
        raise ValueError(f"{folder}: desc_act (activation order) is not migrated")


def _write(
    source: Path,
    output: Path,
    tensors: Mapping[str, Any],
    file: str,
    settings: Mapping[str, Any],
    quantised: Mapping[str, Any],
) -> Path:
    """Writes a checkpoint to `output`, with the tokenizer of `source`; returns `output`."""
    from safetensors.torch import save

    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    store.write_bytes(output / file, save(contiguous, metadata={"format": "pt"}))
    store.write_json(output / "config.json", {**settings, "quantization_config": dict(quantised)})
    store.write_bytes(
        output / "quantize_config.json", json.dumps(quantised, indent=2).encode() + b"\n"
    )
    copy_tokenizer(source, output)
    return output


GROUP = 128  # weights that share a scale
ROWS = 8  # calibration texts per forward pass


def make(
    folder: Path, output: Path, *, bits: int, calibration: Sequence[str], lane: bool = False
) -> None:
    """Quantises the model in `folder` to `bits` bits (8 or 4) in groups of 128 weights.

    The same texts give the same weights, bit by bit. In the lane `output` is auto-gptq's own
    checkpoint, its folder `gptqmodel` holds the same weights migrated. ValueError for an empty
    calibration set and for widths that are no multiple of a group; errors of a lane that is
    missing or has other versions.
    """
    check(folder, calibration)
    rows = tokens(folder, calibration)
    versions = (_made_in_lane if lane else _made)(folder, output.resolve(), bits, rows)
    texts = json.dumps(list(calibration), ensure_ascii=False)
    entry = {
        "texts": len(rows),
        "tokens": sum(len(row) for row in rows),
        "sha256": hashlib.sha256(texts.encode()).hexdigest(),
        "settings": {"bits": bits, "group_size": GROUP, "batch_size": ROWS},
        "versions": versions,
    }
    store.write_json(output / "calibration.json", entry)


def _made(folder: Path, output: Path, bits: int, rows: list[list[int]]) -> dict[str, str]:
    """Quantises with gptqmodel; the versions that decided the result."""
    GPTQModel = _library()
    from gptqmodel import QuantizeConfig

    # In memory it is bit-deterministic; the packing named "original" needs no compiler.
    settings = QuantizeConfig(
        bits=bits, group_size=GROUP, offload_to_disk=False, pack_impl="original"
    )
    masked = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows]
    source = folder.resolve()
    # It writes logs where it is started.
    with tempfile.TemporaryDirectory(prefix="rrtf-gptq-") as scratch, contextlib.chdir(scratch):
        quantised = _loaded(GPTQModel, source, settings)
        quantised.quantize(masked, batch_size=ROWS, calibration_data_min_length=1)
        quantised.save(str(output))
    return {name: version(name) for name in ("gptqmodel", "transformers", "torch")}


def _made_in_lane(folder: Path, output: Path, bits: int, rows: list[list[int]]) -> dict[str, Any]:
    """The same with auto-gptq; what is wrong with the lane is said first."""
    versions = check_lane()
    with tempfile.TemporaryDirectory(prefix="rrtf-auto-gptq-") as scratch:
        model = str(for_transformers_4(folder, Path(scratch) / "model"))
        how = {"bits": bits, "group_size": GROUP, "batch_size": ROWS, "rows": rows}
        ask("quantise", model=model, output=str(output), **how)
    copy_tokenizer(folder, output)
    to_gptqmodel(output, output / "gptqmodel")
    return versions


def _loaded(GPTQModel: Any, folder: Path, settings: Any) -> Any:
    try:
        return GPTQModel.load(str(folder), settings)
    except TypeError as error:
        raise UnsupportedModel(
            f"{folder}: gptqmodel does not know this kind of model ({error}); take ctranslate2-int8"
        ) from error


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


def open_engine(folder: Path, output: Path, *, threads: int, lane: bool = False) -> Any:
    """The GPTQ checkpoint in `output` behind a `Generator`; its name says which kernel runs.

    auto-gptq's weights are run by gptqmodel too, migrated.
    """
    from rrtf.engines.transformers import TransformersEngine

    made = output / "gptqmodel" if lane else output
    loaded = _library().load(str(made.resolve()), device=device()).model
    engine = TransformersEngine(folder, threads=threads, loaded=loaded)
    kernels = {type(module).__name__ for module in loaded.modules() if hasattr(module, "qweight")}
    by = "auto-gptq-by-" if lane else ""
    engine.name = f"{by}gptqmodel-{'+'.join(sorted(kernels))}-{engine.name}"
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
    told = reason(done.returncode, done.stderr)
    if done.returncode == 3:
        raise UnsupportedModel(f"auto-gptq does not know this model ({told}); take gptq-int8")
    raise OSError(f"the auto-gptq lane failed: {told}")


def reason(status: int, told: str) -> str:
    """The last line a failed process wrote, or how it ended."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    if status < 0:
        return f"killed by signal {-status}"
    return lines[-1][:300] if lines else f"exit status {status}"
