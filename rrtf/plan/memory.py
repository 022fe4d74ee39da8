"""Memory of one training step, by part, in bytes: what stays, and what a step needs on top.

Weights, gradients and optimiser states are counted parameter by parameter. Activations are not
estimated by a formula: the model is run once under fake tensors, which have shapes and no memory,
and what autograd keeps for the backward pass is added up. Where that cannot be done (some mixtures
of experts), a block keeps 34 bytes a token and number of its width (Korthikanti et al.,
arXiv:2205.05198, section 4.1, without the weights of attention).

    full       weights, gradients and AdamW's two moments in float32: 16 bytes a parameter
    adafactor  the second moment by rows and columns only (Shazeer & Stern, arXiv:1804.04235)
    lora       frozen weights in bfloat16, adapters on every linear layer (arXiv:2106.09685)
    qlora      the same with the linear layers in 4-bit NormalFloat (Dettmers et al.,
               arXiv:2305.14314): 0.5 byte, and 0.127 bits of doubly quantised scales, a weight

With several GPUs, weights, gradients and states are cut as FSDP2 cuts them (`rrtf.step.sharding`);
activations and logits are not. Not covered: fragmentation and the libraries' own memory, for which
a share of every GPU is left free, offloading, tensor and sequence parallelism.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rrtf.plan import models
from rrtf.step import likelihood, packing, sharding

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


NAME = "only_keeping"


class _Keep(torch.autograd.Function):
    """(B, H, T, D) queries, (B, G, S, D) keys and values -> (B, T, H, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(query.transpose(1, 2).shape, dtype=value.dtype)
        normaliser = query.new_empty(query.shape[:3], dtype=torch.float32)
        kept = (x.to(value.dtype) for x in (query, key, value))
        ctx.save_for_backward(*kept, out, normaliser)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError("there is nothing to go back through: shapes only")


def keep(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers that keeps what fused kernels keep.

    Of dropout these keep a random state, not a mask.
    """
    return _Keep.apply(query, key, value), None


def use(model: nn.Module) -> None:
    """Switches `model` to this attention, in place."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, keep)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


COUNTS = (*range(1, 9), *range(16, 4097, 8))  # of GPUs: up to a machine, then whole machines
METHODS = ("full", "adafactor", "lora", "qlora")
ADAPTED = ("lora", "qlora")
HALF, SINGLE = 2, 4  # bytes of a number in bfloat16 and in float32
FORMULA = 34
NF4 = 0.5 + 1 / 64 + SINGLE / (64 * 256)  # 4 bits, a byte of scale per 64, a float32 per 256 scales


@dataclass(frozen=True, slots=True)
class Way:
    """How a model is trained: method, activation checkpointing, rank of the adapters."""

    method: str
    checkpointing: bool
    rank: int


@dataclass(frozen=True, slots=True)
class Parts:
    """Bytes on one device at the peak of a step, when the backward pass begins. Gradients count
    in full: they are there when a batch is computed in several steps.

    `working`: bfloat16 copies of the weights (autocast), gradients on their way back as far as they
    are more than the logits, which are gone by then; on several devices gathered blocks.
    """

    weights: float
    gradients: float
    optimizer: float
    working: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class Step:
    """What one device computes at a time: `rows` groups of a prompt and its responses, packed.

    `prompt` and `response` in tokens, the end-of-text token of a response included.
    """

    rows: int
    prompt: int
    response: int
    responses: int
    bfloat16: bool = True
    dropout: float = field(kw_only=True)

    @property
    def length(self) -> int:
        """Tokens of one packed group: the last of a response is a target, never an input."""
        return self.prompt + self.responses * (self.response - 1)

    @property
    def predicted(self) -> int:
        """Tokens of all groups that get a log-probability."""
        return self.rows * self.responses * self.response


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes that autograd keeps of one pass: of each block, of the rest, of a block's input.

    `largest` of its tensors, which says how large gradients on their way back are. `counted`: by a
    pass, not by the formula that stands in where a model cannot make one.
    """

    block: float
    outside: float
    inputs: float
    largest: float
    counted: bool = True


def stored(
    model: "PreTrainedModel", method: str, *, shards: int = 1, rank: int = 16, bfloat16: bool = True
) -> dict[str, float]:
    """Bytes of weights, gradients and optimizer states on the fullest of `shards` devices.

    `rank` is that of the adapters of `lora` and `qlora`; buffers stay whole on every device.
    """
    shapes = {name: sharding.first_shard(p, shards) for name, p in model.named_parameters()}
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    learned = list(shapes.values())
    if method in ADAPTED:
        learned = adapters(model, rank, shards=shards)
        quantised = (
            {f"{name}.weight" for name in models.linears(model)} if method == "qlora" else ()
        )
        frozen = HALF if bfloat16 else SINGLE
        weights = sum(prod(s) * (NF4 if n in quantised else frozen) for n, s in shapes.items())
        weights += SINGLE * sum(map(prod, learned))
    else:
        weights = SINGLE * sum(map(prod, learned))
    states = _adafactor if method == "adafactor" else _adamw
    return {
        "weights": weights + buffers,
        "gradients": SINGLE * sum(map(prod, learned)),
        "optimizer": SINGLE * sum(map(states, learned)),
    }


def adapters(model: "PreTrainedModel", rank: int, *, shards: int = 1) -> list[tuple[int, ...]]:
    """The shapes of LoRA's A (rank, in) and B (out, rank) on every linear layer but the head."""
    shapes = []
    for layer in models.linears(model).values():
        out, width = layer.weight.shape
        shapes += [(-(-rank // shards), width), (-(-out // shards), rank)]
    return shapes


def _adamw(shape: Sequence[int]) -> int:
    """Two moments of the parameter's shape and its count of steps."""
    return 2 * prod(shape) + 1


def _adafactor(shape: Sequence[int]) -> int:
    """Sums over rows and over columns of a matrix, all of a vector; and the norm of the update."""
    if len(shape) < 2:
        return prod(shape) + 1
    return prod(shape[:-1]) + prod(shape[:-2]) * shape[-1] + 1


def saved(settings: "PretrainedConfig", step: Step, *, frozen: bool = False) -> Saved:
    """What autograd keeps of a pass over `step`, of a model with one block and with two.

    `frozen`: the weights are bfloat16 (LoRA), else float32 and cast as they are used.
    """
    text = settings.to_json_string(use_diff=False)
    return _saved(text, type(settings), step, frozen)


@lru_cache(maxsize=64)
def _saved(text: str, kind: type, step: Step, frozen: bool) -> Saved:
    from torch._subclasses.fake_tensor import FakeTensorMode

    settings = kind.from_dict(json.loads(text))
    packing.set_dropout(settings, step.dropout)
    numbers = step.rows * step.length * settings.get_text_config().hidden_size
    inputs = numbers * (HALF if frozen and step.bfloat16 else SINGLE)
    try:
        with FakeTensorMode():
            (one, largest), (two, _) = (_kept(_short(settings, n), step, frozen) for n in (1, 2))
    except Exception:  # whatever an architecture does that shapes alone cannot answer
        return Saved(
            FORMULA * numbers, outside=inputs, inputs=inputs, largest=4 * inputs, counted=False
        )
    return Saved(two - one, outside=one - (two - one), inputs=inputs, largest=largest)


def _short(settings: "PretrainedConfig", layers: int) -> "PretrainedConfig":
    short = copy.deepcopy(settings)
    text = short.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return short


def _kept(settings: "PretrainedConfig", step: Step, frozen: bool) -> tuple[float, float]:
    """Bytes that autograd keeps of one pass, without parameters and their bfloat16 copies, and
    those of its largest tensor.
    """
    from transformers import AutoModelForCausalLM

    half = step.bfloat16
    dtype = torch.bfloat16 if frozen and half else torch.float32
    model = AutoModelForCausalLM.from_config(settings, dtype=dtype).train()
    use(model)
    shapes = {tuple(p.shape) for p in model.parameters()}
    asked = step
    while any({asked.length, asked.rows * asked.length} & set(shape) for shape in shapes):
        asked = replace(asked, prompt=asked.prompt + 1)  # no activation looks like a weight's copy
    kept: dict[int, Tensor] = {}
    parameters = {p.untyped_storage()._cdata for p in model.parameters()}

    def save(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in parameters:
            kept.setdefault(key, tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        _run(model, asked)
    found = [t for t in kept.values() if not (half and _is_copy(tuple(t.shape), shapes))]
    sizes = [t.untyped_storage().nbytes() * step.length / asked.length for t in found]
    return sum(sizes), max(sizes)


def _run(model: "PreTrainedModel", step: Step) -> Any:
    """The hidden states (1, T, D) of a packed sequence."""
    ids = torch.zeros(1, step.rows * step.length, dtype=torch.long)
    # four dimensions, so that transformers takes it for a finished mask and builds none
    visible = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    given = {"input_ids": ids, "position_ids": ids, "attention_mask": visible}
    return model.get_decoder()(**given, use_cache=False).last_hidden_state


def _is_copy(shape: tuple[int, ...], shapes: set[tuple[int, ...]]) -> bool:
    """Whether a tensor has the shape of a weight or of one transposed."""
    return len(shape) == 2 and (shape in shapes or shape[::-1] in shapes)


def logits(step: Step, vocabulary: int) -> float:
    """Bytes of the logits at their peak: a tile of them, and as much again for its gradient.

    The step makes them in float32, a tile at a time (`rrtf.step.likelihood`), and once more from
    bfloat16 where that is the precision.
    """
    tile = min(step.predicted, likelihood.TILE_ROWS) * min(vocabulary, likelihood.TILE_WORDS)
    return tile * (2 * SINGLE + (HALF if step.bfloat16 else 0))


def unit_sizes(model: "PreTrainedModel") -> dict[str, int]:
    """The parameters of every unit of the sharding."""
    held = sharding.members(model, sharding.units(model))
    return {name: sum(p.numel() for _, p in unit) for name, unit in held.items()}


def gathered(model: "PreTrainedModel", way: Way) -> float:
    """Bytes that FSDP2 needs beside its shards.

    The root stays gathered; of the blocks the one at work and the next are, in bfloat16; and the
    gradients of the largest unit wait in bfloat16 and in float32 to be added up over the ranks.
    """
    sizes = unit_sizes(model)
    block = max(size for name, size in sizes.items() if name != sharding.ROOT)
    root = sizes[sharding.ROOT]
    learned = max(block, root)
    if way.method in ADAPTED:
        learned = sum(map(prod, adapters(model, way.rank))) / (len(sizes) - 1)
    return HALF * (root + 2 * block) + (HALF + SINGLE) * learned


def parts(model: "PreTrainedModel", step: Step, way: Way, shards: int = 1) -> Parts:
    """The memory of one step on the fullest of `shards` devices.

    With activation checkpointing every block keeps its input, and one block at a time all else;
    where autocast made copies of all weights for the forward pass, those make room for that block.
    On the way back the gradient of a weight, and those of two activations, exist at a time; QLoRA
    unpacks the largest linear layer to compute with it.
    """
    adapted = way.method in ADAPTED
    kept = saved(model.config, step, frozen=adapted)
    shape = models.shape(model)
    copies = HALF * shape.linear if step.bfloat16 and not adapted and shards == 1 else 0
    predicted = logits(step, shape.vocabulary)
    largest = max(layer.weight.numel() for layer in models.linears(model).values())
    if shards > 1:
        working = gathered(model, way)
    else:
        working = copies + (HALF * shape.head if copies else 0)
        working += HALF * largest if way.method == "qlora" else 0
        coming = SINGLE * (0 if adapted else largest) + 2 * kept.largest
        working += max(0, coming - predicted)
    if way.checkpointing:
        others = copies * (1 - 1 / shape.layers)  # gone when a block is computed again
        activations = shape.layers * kept.inputs + max(0, kept.block - others)
    else:
        activations = shape.layers * kept.block
    return Parts(
        **stored(model, way.method, shards=shards, rank=way.rank, bfloat16=step.bfloat16),
        working=working,
        activations=activations + kept.outside,
        logits=predicted,
    )


def devices(
    need: Callable[[int], Parts], *, room: float, most: int | None = None
) -> tuple[int, Parts] | None:
    """The least number of devices of `room` usable bytes that a step fits on, and its parts there.

    None where no number helps, because activations and logits alone are too large, or where more
    than `most` would be needed.
    """
    for count in COUNTS[:most]:
        found = need(count)
        if found.total <= room:
            return count, found
        if found.working + found.activations + found.logits > room and count > 1:
            return None
    return None
