"""One model over several processes, and checkpoints that any number of processes can read.

The weights, gradients and optimiser states of every layer are split among the processes that
`torchrun` started (FSDP2, `fully_shard`), on GPUs with NCCL and on CPUs with gloo alike. A
checkpoint holds one safetensors file per process, each saying which part of which tensor it has;
torch.distributed.checkpoint puts them together for whatever number reads them.
Not covered: tensor or pipeline parallelism, offloading.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rrtf import store
from rrtf.cluster import end_with_parent

_LOG = logging.getLogger(__name__)
ROOT = ""  # the name of the root in `named_modules`
KEPT = 2  # checkpoints
Numbers = dict[str, dict[str, float]]


def units(model: nn.Module) -> list[str]:
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


def members(model: nn.Module, names: Sequence[str]) -> dict[str, list[tuple[str, nn.Parameter]]]:
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


def held_elements(parameters: Sequence[tuple[str, nn.Parameter]], shards: int) -> int:
    """Elements of `parameters` that the fullest of `shards` ranks holds.

    FSDP2 cuts the first dimension as `torch.chunk` does: rank 0 holds the first ceil(rows / shards)
    rows of every parameter.
    """
    return sum(prod(first_shard(parameter, shards)) for _, parameter in parameters)


def first_shard(parameter: nn.Parameter, shards: int) -> tuple[int, ...]:
    """The shape of what rank 0 of `shards` holds of a parameter."""
    if not parameter.dim():
        return ()
    return (-(-parameter.shape[0] // shards), *parameter.shape[1:])


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes of `torchrun` while the block runs; a process alone stays alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def torchrun(arguments: Sequence[str], *, processes: int, log: Path) -> Iterator[None]:
    """Runs python's `arguments` in processes of this machine; yields every second until they end.

    Whatever ends the caller's loop asks them to stop. What they write goes to `log`; RuntimeError
    with the first error in it where they fail.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), *arguments]
    with log.open("w", encoding="utf-8") as file:
        ends = partial(end_with_parent, os.getpid(), signal.SIGTERM)  # it passes that on
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, preexec_fn=ends)
    try:
        while process.poll() is None:
            time.sleep(1)
            yield
    finally:
        process.terminate()
        process.wait()
    if process.returncode:
        told = [line for line in log.read_text(encoding="utf-8").splitlines() if "rror: " in line]
        why = told[0].strip()[:300] if told else f"torchrun ended with {process.returncode}"
        raise RuntimeError(f"{log.stem}: {why}\n  all that it wrote: {log}; run again to go on")


def processes() -> int:
    """How many processes train one model together; 1 where there is only this one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process; the one that is 0 writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Returns when all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def passes(sizes: Sequence[int], *, processes: int, budget: int) -> list[list[list[int]]]:
    """For every process its forward passes in one update, each a list of places in the update.

    Together a pass holds at most `budget` tokens (0 = no limit), or one group that alone is
    larger. Every process has equally many, because they exchange weights in each: an empty list
    stands for a pass without weight.
    """
    places = [range(rank, len(sizes), processes) for rank in range(processes)]
    own = [list(filled(some, sizes, budget)) for some in places]
    most = max(map(len, own))
    return [some + [[]] * (most - len(some)) for some in own]


def filled(places: Sequence[int], sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """`places` in order, cut where `sizes` would exceed `budget` together (0 = no limit)."""
    some: list[int] = []
    for place in places:
        if some and budget and sum(sizes[k] for k in some) + sizes[place] > budget:
            yield some
            some = []
        some.append(place)
    if some:
        yield some


def total(values: Sequence[float]) -> list[float]:
    """The sums over the processes of numbers that each of them has."""
    if processes() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return tensor.tolist()


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that fills, while the block runs, with the first SIGINT or SIGTERM of this process.

    A second one does what it did before. Only the main thread of a process hears of signals.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _: Any) -> None:
        asked.append(number)
        _LOG.warning("stopping after this update, with a checkpoint; a second signal stops at once")
        for one, before in handlers.items():
            signal.signal(one, before)

    handlers = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for one, before in handlers.items():
            signal.signal(one, before)


def shard(
    root: nn.Module, layers: Iterable[nn.Module], *, device: torch.device, bfloat16: bool = False
) -> None:
    """Splits the parameters of `root` among the processes, `layers` each as a unit of its own.

    With `bfloat16` they are gathered in that precision; the parts that a process holds and the
    sums of gradients keep their own. The first process has the weights, the others have shapes
    (device `meta`) and receive theirs. Afterwards every process holds its part on `device`.
    RuntimeError if that is not so.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    weights = root.state_dict() if rank() == 0 else {}
    mesh = init_device_mesh(device.type, (processes(),))
    gathered_in = torch.bfloat16 if bfloat16 else None
    policy = MixedPrecisionPolicy(
        param_dtype=gathered_in, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for unit in (*layers, root):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    if rank():
        root.to_empty(device=device)
    spread = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(root, weights, options=spread)
    for buffer in root.buffers():
        dist.broadcast(buffer.view(torch.uint8) if buffer.dtype == torch.bool else buffer, src=0)
    require_sharded(root)


def reshard(root: nn.Module) -> None:
    """Gives up the weights that a forward pass without a backward pass has left whole."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(root, FSDPModule):
        root.reshard()


def require_sharded(root: nn.Module) -> None:
    """RuntimeError unless every parameter is split and this process holds a part of the whole."""
    bare = [name for name, p in root.named_parameters() if not isinstance(p, DTensor)]
    if bare:
        raise RuntimeError(f"not split among the processes: {', '.join(bare)}")
    own, whole = held(root)
    if own >= whole:
        raise RuntimeError(f"this process holds all {whole} parameters; expected a part of them")


def held(root: nn.Module) -> tuple[int, int]:
    """(parameters that this process holds, parameters of the model)."""
    parameters = list(root.parameters())
    own = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters)
    return own, sum(p.numel() for p in parameters)


def split_factors(optimizer: torch.optim.Optimizer) -> None:
    """Gives transformers' Adafactor the states of split weights, which it would make whole.

    The means of a matrix's rows are split as its rows are; every process has those of its columns.
    """
    from torch.distributed.tensor import Replicate

    for group in optimizer.param_groups:
        for parameter in group["params"]:
            zeros = torch.zeros_like(parameter.detach())
            state = {"step": 0, "RMS": 0}
            if parameter.ndim > 1:
                columns = zeros.mean(-2).redistribute(placements=[Replicate()])
                state |= {"exp_avg_sq_row": zeros.mean(-1), "exp_avg_sq_col": columns}
            else:
                state["exp_avg_sq"] = zeros
            optimizer.state[parameter] = state


def gathered(root: nn.Module) -> dict[str, Tensor]:
    """The state of `root`, whole: on the first process, on its CPU; elsewhere empty."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    if processes() == 1:
        return root.state_dict()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(root, options=options)
    return state if rank() == 0 else {}


def save(
    folder: Path, root: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Writes a checkpoint, `checkpoint-` and the number `update` of its `state`.

    What is trained and its optimiser states, every process its own part; `state.json`, which has
    those that are single numbers too, last. All but the newest `KEPT` checkpoints are removed.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageWriter, save

    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of a crash: the parts of other processes
        folder.mkdir(parents=True)
    wait()
    tensors, numbers = _state(root, optimizer)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save(tensors, storage_writer=writer, no_dist=processes() == 1)
    wait()
    if rank() == 0:
        store.write_json(folder / "state.json", {**state, "numbers": numbers})
        for old in _checkpoints(folder.parent)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


def resume(
    folder: Path, root: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Puts the newest whole checkpoint in `folder` into place, whoever wrote it; its state.

    None where there is no checkpoint.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    wait()
    newest = newest_checkpoint(folder)
    if newest is None:
        return None
    _make_state(optimizer)
    tensors, _ = _state(root, optimizer)
    reader = HuggingFaceStorageReader(str(newest))
    load(tensors, storage_reader=reader, no_dist=processes() == 1)
    state = store.read_json(newest / "state.json")
    for name, parameter in root.named_parameters():
        for key, value in state["numbers"].get(name, {}).items():
            found = optimizer.state[parameter][key]
            if isinstance(found, Tensor):
                found.fill_(value)
            else:
                optimizer.state[parameter][key] = type(found)(value)
    return state


def newest_checkpoint(
    folder: Path, *, state: str = "state.json", count: str = "update"
) -> Path | None:
    """The newest checkpoint that was written whole: its `state`, written last, is there and JSON.

    `count` is where the state says how many updates it is of.
    """
    for path in _checkpoints(folder):
        try:
            found = store.read_json(path / state)
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        if path.name == f"checkpoint-{found[count]}":
            return path
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """The newest first."""
    found = folder.glob("checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def _state(root: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Numbers]:
    """(tensors by name, numbers by parameter and name) of what is trained."""
    tensors, numbers = {}, {}
    for name, parameter in root.named_parameters():
        if not parameter.requires_grad:
            continue
        tensors[f"{name}/weight"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.ndim:
                tensors[f"{name}/{key}"] = value
            elif value is not None:
                numbers.setdefault(name, {})[key] = _number(value)
    return tensors, numbers


def _number(value: Any) -> float:
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.item() if isinstance(value, Tensor) else value


def _make_state(optimizer: torch.optim.Optimizer) -> None:
    """An update of size zero: optimisers make their state in their first update."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
