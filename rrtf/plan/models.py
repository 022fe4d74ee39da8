"""Any model as a shape: built from its configuration on the meta device, without its weights.

Parameters are counted on the modules that transformers itself builds, so the count is exact for
every architecture it knows; of a mixture's experts a token computes a share. Not
covered: adapters of experts, which are no linear layers to transformers; architectures that need
code of their own from the hub.
"""

import json
import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrtf import config, engines

if TYPE_CHECKING:
    from torch.nn import Linear
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that a plan rests on. `source` is the command that measured it, or why it is so."""

    name: str
    value: float
    unit: str
    measured: bool
    source: str


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, or one core of a CPU.

    `memory` in bytes, `bandwidth` of it in bytes per second; `flops` per second at its best in
    bfloat16; `train` and `generate` are the shares of them that training and generation reach;
    `watts` while it works.
    """

    name: str
    memory: float
    bandwidth: float
    flops: float
    watts: float
    train: float
    generate: float
    usable: float
    source: str

    @property
    def cpu(self) -> bool:
        return self.name == "cpu"


@cache
def facts() -> dict[str, Fact]:
    """All entries of `data/measured.toml` by name; each says what measured it or why it is so."""
    table = tomllib.loads(config.data_text("measured.toml"))
    return {
        name: Fact(
            name,
            float(row["value"]),
            row["unit"],
            "command" in row,
            row.get("command") or row["assumed"],
        )
        for name, row in table.items()
    }


@cache
def _devices() -> dict[str, dict]:
    return tomllib.loads(config.data_text("devices.toml"))


def devices() -> tuple[str, ...]:
    """The names that `device` knows."""
    return tuple(_devices())


def device(name: str, **changes: float | None) -> Device:
    """The device `name`, with those of its figures replaced that are not None.

    `memory` in GB, `bandwidth` in GB/s, `flops` in TFLOP/s, as the file has them.
    ValueError for another name.
    """
    if name not in _devices():
        raise ValueError(f"unknown device {name!r}: expected one of {', '.join(_devices())}")
    row = {k: v for k, v in _devices()[name].items() if k != "profiles"}
    row |= {key: value for key, value in changes.items() if value is not None}
    units = {"memory": 1e9, "bandwidth": 1e9, "flops": 1e12}
    row |= {key: row[key] * unit for key, unit in units.items()}
    return Device(name=name, **row)


def device_of(profile: str) -> str:
    """The device a profile is planned for unless another is named."""
    return next(name for name, row in _devices().items() if profile in row["profiles"])


def measured_on_cpu(cpu: Device) -> Device:
    """A core with the rates that were measured here, in place of shares of a peak."""
    rates = {key: facts()[f"cpu_{key}_flops"].value for key in ("train", "generate")}
    best = max(rates.values())
    shares = {key: rate / best for key, rate in rates.items()}
    return replace(cpu, flops=best, **shares)


@dataclass(frozen=True, slots=True)
class Shape:
    """What memory and FLOPs depend on. `linear` are the weights of all linear layers but the output
    head's, `experts` what a token's share of a mixture's experts adds to them, `head` the head's;
    `attention` is heads x width of a head, `key_value` the same
    of the key/value heads.
    """

    parameters: int
    linear: int
    head: int
    layers: int
    hidden: int
    attention: int
    key_value: int
    vocabulary: int
    positions: int
    experts: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """A model to plan for: its name, where its configuration comes from, and the configuration."""

    name: str
    origin: str
    settings: "PretrainedConfig"


@cache
def table() -> dict[str, dict[str, Any]]:
    """Hub name -> configuration, for the models of `data/models.toml`."""
    entries = tomllib.loads(config.data_text("models.toml"))
    return {
        name: {k: v for k, v in fields.items() if k not in ("names", "parameters")}
        for fields in entries.values()
        for name in fields["names"]
    }


def find(name: str | Path) -> Known:
    """The configuration of a shipped model, a folder, a `config.json`, or a name of table or hub.

    ValueError for what is no configuration that transformers knows, FileNotFoundError for a name
    that is nowhere.
    """
    resolved = engines.resolve_model(name)
    path = Path(resolved)
    if path.is_dir():
        path = path / "config.json"
        if not path.exists():
            raise FileNotFoundError(f"{path.parent}: not a model folder (no config.json)")
    if path.is_file():
        return Known(str(name), "config.json", _parse(_read(path), str(path)))
    if str(name) in table():
        fields = table()[str(name)]
        return Known(str(name), "data/models.toml", _parse(fields, str(name)))
    return Known(str(name), "the hub", _from_hub(str(name)))


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: expected an object with the fields of a configuration")
    return fields


def _parse(fields: dict[str, Any], where: str) -> "PretrainedConfig":
    from transformers import CONFIG_MAPPING

    kind = fields.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"{where}: model_type {kind!r} is none that transformers knows")
    tokens = {"bos_token_id": 0, "eos_token_id": 0} | fields
    try:
        return CONFIG_MAPPING[kind].from_dict(tokens)
    except Exception as error:  # each architecture checks its fields in its own way
        raise ValueError(f"{where}: not a configuration of {kind} ({error})") from None


def _from_hub(name: str) -> "PretrainedConfig":
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{name}: no such folder, file or model name (owner/name)")
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name)
    except Exception as error:  # the hub client raises a dozen unrelated classes
        reason = " ".join(str(error).split())[:160]
        raise FileNotFoundError(
            f"{name}: not in data/models.toml, and the hub gave no configuration ({reason}); "
            "a config.json of it is enough: --model FILE"
        ) from None


def build(settings: "PretrainedConfig") -> "PreTrainedModel":
    """The causal language model of `settings` on the meta device: shapes, no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(settings)
    except ValueError as error:
        raise ValueError(f"{settings.model_type}: no causal language model ({error})") from None


def linears(model: "PreTrainedModel") -> "dict[str, Linear]":
    """The linear layers by name, without the output head."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    kinds = (nn.Linear, Conv1D)
    found = {n: m for n, m in model.named_modules() if isinstance(m, kinds) and m is not head}
    if not found:
        raise ValueError(f"{type(model).__name__}: no linear layers to plan by")
    return found


EXPERTS = re.compile(r"\bexperts\.|\bmlp\.(in|out)put_linear\.")


def _experts(model: "PreTrainedModel") -> int:
    """`Shape.experts`: all of them where no router says how many a token takes.

    transformers stacks the experts of a mixture, (experts, ...), and its routers have `top_k`.
    """
    taken = [m.top_k for m in model.modules() if isinstance(getattr(m, "top_k", None), int)]
    stacks = (p for name, p in model.named_parameters() if EXPERTS.search(name) and p.dim() > 1)
    return sum(p.numel() // len(p) * max(taken, default=len(p)) for p in stacks)


def shape(model: "PreTrainedModel") -> Shape:
    """The shape of a model, on whatever device it is."""
    settings = model.config.get_text_config()
    heads = settings.num_attention_heads
    width = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    shared = getattr(settings, "num_key_value_heads", None) or heads
    if getattr(settings, "multi_query", False):
        shared = 1
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=sum(layer.weight.numel() for layer in linears(model).values()),
        head=model.get_output_embeddings().weight.numel(),
        layers=settings.num_hidden_layers,
        hidden=settings.hidden_size,
        attention=heads * width,
        key_value=shared * width,
        vocabulary=settings.vocab_size,
        positions=getattr(settings, "max_position_embeddings", 0) or 0,
        experts=_experts(model),
    )
