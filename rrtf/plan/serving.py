"""What a model too large to be run here would take to answer: an estimate, variant by variant.

Weights are counted from the shape and from how each format stores them; the cache is two vectors
per layer and token. Every token reads all weights of the matrix products once for the whole batch
and the cache of every answer, so its time is at least those bytes over the bandwidth of the
device's memory, of which a stated share is reached (model bandwidth utilisation), or the
arithmetic where that takes longer. Not covered: activations, the libraries' own memory, kernels
that unpack low-bit weights at less than that share, which is why they are called estimates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rrtf.paper import beside
from rrtf.paper.printed import Figures
from rrtf.plan import models
from rrtf.plan.models import Device, Shape, facts
from rrtf.plan.work import forward_flops

GROUP = 128  # weights that share GPTQ's scale and zero
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Serving:
    """The estimate of one variant: bytes, and milliseconds per token by batch size.

    `cache` is that of one answer at its full length, `read` the weights that a token reads.
    """

    variant: str
    weights: float
    read: float
    cache: float
    ms: dict[int, float]

    def memory(self, batch: int) -> float:
        """Weights and caches of a whole batch, in bytes."""
        return self.weights + batch * self.cache


def weights(variant: str, shape: Shape) -> tuple[float, float]:
    """(bytes of the weights, bytes of them that every token reads) of a variant on a GPU.

    `full` is float16. CTranslate2 stores the matrices and the embeddings as whole numbers with a
    float32 scale per row, GPTQ the matrices inside the blocks with a float16 scale and a zero per
    group of 128; all else stays in half precision. ValueError for a variant of another form.
    """
    library, _, precision = variant.rpartition("-")
    products, rest = shape.linear + shape.head, shape.parameters - shape.linear - shape.head
    half = BYTES["float16"]
    if variant == "full":
        return half * shape.parameters, half * products
    if library == "ctranslate2" and precision in BYTES:
        width = BYTES[precision]
        scales = BYTES["float32"] * products / shape.hidden if precision.startswith("int") else 0
        matrices = width * products + scales
        return matrices + (width if width > half else half) * rest, matrices
    if library in ("gptq", "auto-gptq") and precision in ("int8", "int4"):
        width = int(precision.removeprefix("int")) / 8
        matrices = shape.linear * (width + (half + width) / GROUP)
        return matrices + half * (shape.head + rest), matrices + half * shape.head
    raise ValueError(f"{variant!r}: no estimate for weights of this form")


def estimates(
    model: str, variants: Sequence[str], *, on: Device, batch_sizes: Sequence[int], answer: int
) -> list[Serving]:
    """The estimates of `variants` of a model by its configuration, on the GPU `on`.

    `answer` is in tokens; times are those in its middle, behind a prompt of the assumed length.
    Errors as `models.find` and `weights`.
    """
    prompt = facts()["other_prompt_tokens"].value
    shape = models.shape(models.build(models.find(model).settings))
    per_token = 2 * BYTES["float16"] * shape.layers * shape.key_value
    reach, context = facts()["bandwidth_share"].value * on.bandwidth, prompt + answer / 2
    found = []
    for variant in variants:
        whole, read = weights(variant, shape)
        ms = {}
        for batch in batch_sizes:
            moved = read + batch * context * per_token
            pairs, work = batch * context, on.flops * on.train
            computed = forward_flops(shape, tokens=batch, pairs=pairs, predicted=batch) / work
            ms[batch] = 1000 * max(moved / reach, computed)
        found.append(Serving(variant, whole, read, (prompt + answer) * per_token, ms))
    return found


def assumed(model: str, *, on: Device, answer: int) -> str:
    """What the estimates rest on, in a line."""
    share, prompt = facts()["bandwidth_share"], facts()["other_prompt_tokens"]
    kind = "measured" if share.measured else "assumed"
    return (
        f"Estimates for {model} on one {on.name}: {on.bandwidth / 1e9:,.0f} GB/s "
        f"({on.source}), {100 * share.value:.0f} % of it reached ({kind}), answers of {answer} "
        f"tokens to prompts of {prompt.value:.0f}"
    )


def beside_paper(found: Sequence[Serving], figures: Figures, *, on: Device) -> list[dict[str, Any]]:
    """The estimates next to the paper's Table 4, for a reader.

    `left over` is what the paper's GPU held beyond weights and the cache of one answer; `paper's
    GB/s` the weights that one token reads over its time, and as a share of `on`'s bandwidth.
    """
    printed = beside.by_variant(figures)
    return [_beside(entry, printed.get(entry.variant), on) for entry in found]


def _beside(entry: Serving, theirs: Figures | None, on: Device) -> dict[str, Any]:
    """A row; None in it for what the paper does not print of this variant."""
    printed = theirs or {}
    gigabytes, milliseconds = printed.get("memory_gb"), printed.get("ms_per_token")
    rate = milliseconds and entry.read / (milliseconds / 1000)
    return {
        "variant": entry.variant,
        "weights GB": entry.weights / 1e9,
        "cache MB": entry.cache / 1e6,
        "paper GB": gigabytes,
        "left over GB": gigabytes and gigabytes - entry.memory(min(entry.ms)) / 1e9,
        **{f"ms, batch {batch}": ms for batch, ms in entry.ms.items()},
        "paper ms": milliseconds,
        "paper's GB/s": rate and rate / 1e9,
        f"of {on.name}'s %": rate and 100 * rate / on.bandwidth,
    }
