"""What a plan takes from elsewhere: measured figures, assumptions, devices; each with its source.

`data/measured.toml` and `data/devices.toml` hold them; no such number stands in the code.
"""

import tomllib
from dataclasses import dataclass, replace
from functools import cache

from rrtf import config


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
