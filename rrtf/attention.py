"""Models with the fastest attention: multi-query as plain matrix products on a CPU.

GPTBigCode has one key/value head: the queries of all heads can be the rows of a single matrix
product against it, without repeating keys and values. On a CPU in bfloat16 that runs 1.3 to 1.6
times as fast as transformers' `sdpa` path and up to 1.1 times as fast as its `eager` path
(forward and backward, 4 layers of width 256; `tests/benchmarks/bench_attention.py`).
Not covered: models with several key/value heads, sliding windows, flash-attention.
"""

from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

NAME = "multi_query_rows"


def multi_query_attention(
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: object,
) -> "tuple[torch.Tensor, None]":
    """softmax(q k^T * scaling) v with one key/value head; causal where no mask is given.

    query (B, H, T, D); key, value (B, 1, S, D); attention_mask None, or bool (True = visible) or
    additive, (B or 1, 1, T, S). Returns (B, T, H, D) and no weights. ValueError for several
    key/value heads.
    """
    import torch
    from torch.nn import functional

    if key.shape[1] != 1:
        raise ValueError(f"{NAME} attention needs one key/value head, found {key.shape[1]}")
    batch, heads, length, width = query.shape
    seen = key.shape[2]
    scale = width**-0.5 if scaling is None else scaling
    rows = (query.transpose(1, 2) * scale).reshape(batch, length * heads, width)
    scores = torch.bmm(rows, key[:, 0].transpose(1, 2)).view(batch, length, heads, seen)
    scores = scores + _additive(attention_mask, length, seen, scores)  # (B, T, H, S)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    weights = functional.dropout(weights, dropout, module.training) if dropout else weights
    mixed = torch.bmm(weights.view(batch, length * heads, seen), value[:, 0])
    return mixed.view(batch, length, heads, width), None


def _additive(
    mask: "torch.Tensor | None", length: int, seen: int, like: "torch.Tensor"
) -> "torch.Tensor":
    """The mask as (B or 1, T, 1, S) numbers to add to scores of the dtype of `like`."""
    import torch

    if mask is None:
        return _causal(length, seen, like.dtype, like.device)
    mask = mask[..., :seen].transpose(1, 2)
    if mask.dtype == torch.bool:
        zero = torch.zeros((), dtype=like.dtype, device=like.device)
        return torch.where(mask, zero, torch.finfo(like.dtype).min)
    return mask.to(like.dtype)


@lru_cache(maxsize=64)
def _causal(length: int, seen: int, dtype: "torch.dtype", device: "torch.device") -> "torch.Tensor":
    """(1, T, 1, S): query t of the last `length` positions sees keys up to its own position."""
    import torch

    hidden = torch.full((length, seen), torch.finfo(dtype).min, dtype=dtype, device=device)
    return hidden.triu(1 + seen - length).view(1, length, 1, seen)


def choose(config: "PretrainedConfig", *, device: str = "cpu") -> str:
    """The attention implementation for `config` on `device`: ours for multi-query on a CPU."""
    _register()
    multi_query = getattr(config, "multi_query", False)
    return NAME if device == "cpu" and multi_query else "sdpa"


def use(model: "PreTrainedModel") -> str:
    """Switches `model` to `choose`'s implementation, in place; returns its name."""
    name = choose(model.config, device=model.device.type)
    model.set_attn_implementation(name)
    return name


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, multi_query_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def load(
    model: str | Path,
    *,
    dropout: float = 0.0,
    threads: int = 1,
    device: str = "",
    dtype: "torch.dtype | None" = None,
    **options: object,
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A model with `dropout` everywhere and its tokenizer.

    device: the GPU if there is one, else the CPU; `meta` gives shapes without weights. dtype:
    float32. `options` go to `from_pretrained`. ValueError if the tokenizer has no end-of-text
    token: a target without one never ends.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{model}: the tokenizer has no end-of-text token")
    settings = AutoConfig.from_pretrained(model)
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
        if hasattr(settings, name):
            setattr(settings, name, dropout)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options |= {"dtype": dtype or torch.float32}
    if where == "meta":
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(settings, **options)
    elif "quantization_config" in options:
        placed = {"device_map": {"": where}}  # moved once, while it is read
        network = AutoModelForCausalLM.from_pretrained(model, config=settings, **options, **placed)
    else:
        network = AutoModelForCausalLM.from_pretrained(model, config=settings, **options).to(where)
    use(network)
    return network, tokenizer
