"""The blocks a model is sharded by: which modules `fully_shard` wraps, and what each rank holds.

FSDP2 shards parameters unit by unit: every repeated block of the model is a unit, and the root is
the last one, with all that no block holds (embeddings, final norm, output head). A unit is gathered
when it computes and freed afterwards. Works on any device, also `meta`; changes nothing.
"""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

ROOT = ""  # the name of the root in `named_modules`


def units(model: "Module") -> list[str]:
    """Names of the modules to wrap, in the order to wrap them: each block, then the root `""`.

    Blocks are the classes that transformers names as not to be split (`_no_split_modules`), the
    outermost where one holds another. ValueError where a model names none or has none of them.
    """
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if type(module).__name__ in kinds and not inside:
            found.append(name)
    if not found:
        named = ", ".join(sorted(kinds)) or "none named"
        raise ValueError(f"{type(model).__name__}: no blocks to shard by ({named})")
    return [*found, ROOT]


def members(model: "Module", names: Sequence[str]) -> "dict[str, list[tuple[str, Parameter]]]":
    """Unit -> its parameters (name, tensor), as `fully_shard` groups them: in the innermost unit.

    A tied parameter counts once, where it stands first. ValueError for one that two units share or
    that no unit holds: such a model cannot be sharded this way.
    """
    held: dict[str, list] = {name: [] for name in names}
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = _innermost(name, names)
        if owners.setdefault(id(parameter), owner) != owner:
            first = owners[id(parameter)]
            raise ValueError(f"{name}: shared by the units {first or 'root'} and {owner or 'root'}")
        if all(parameter is not other for _, other in held[owner]):
            held[owner].append((name, parameter))
    return held


def _innermost(name: str, names: Sequence[str]) -> str:
    holding = [unit for unit in names if unit == ROOT or name.startswith(f"{unit}.")]
    if not holding:
        raise ValueError(f"{name}: in none of the units {', '.join(names)}")
    return max(holding, key=len)


def held_elements(parameters: "Sequence[tuple[str, Parameter]]", shards: int) -> int:
    """Elements of `parameters` that the fullest of `shards` ranks holds.

    FSDP2 cuts the first dimension as `torch.chunk` does: rank 0 holds the first ceil(rows / shards)
    rows of every parameter.
    """
    return sum(prod(first_shard(parameter, shards)) for _, parameter in parameters)


def first_shard(parameter: "Parameter", shards: int) -> tuple[int, ...]:
    """The shape of what rank 0 of `shards` holds of a parameter."""
    if not parameter.dim():
        return ()
    return (-(-parameter.shape[0] // shards), *parameter.shape[1:])
