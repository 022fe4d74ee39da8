"""Models with the fastest attention that they take.

`shared_prompt` computes a packed batch of groups without its masked blocks (`rrtf.packing`). Given
anything else it is transformers' `sdpa`, except for multi-query models on a CPU: GPTBigCode has
one key/value head, so the queries of all heads can be the rows of a single matrix product against
it, without repeating keys and values. In bfloat16 that runs 1.3 to 1.6 times as fast as the `sdpa`
path and up to 1.1 times as fast as `eager` (forward and backward, 4 layers of width 256;
`tests/benchmarks/bench_attention.py`).
"""

import importlib.util
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrtf.packing import NAME, Layout, attend

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

FLASH = "flash_attention_2"
# architectures of transformers that hand keyword arguments down to their attention: tested
SHARING = ("gpt_bigcode", "llama", "qwen2", "starcoder2")

DROPOUTS = (
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "residual_dropout",
    "embedding_dropout",
)  # fmt: skip


def shared_prompt_attention(
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: Layout | None = None,
    **others: Any,
) -> "tuple[torch.Tensor, None]":
    """Attention of a packed batch where `layout` says how it is packed, else of any other input.

    query (B, H, T, D); key, value (B, G, S, D). Returns (B, T, H, D) and no weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout is not None:
        # rotary embeddings return float32 under autocast; values come as the products do
        query, key = query.to(value.dtype), key.to(value.dtype)
        return attend(query, key, value, layout, scale=scale, dropout=dropout), None
    given = (module, query, key, value, attention_mask)
    return sdpa_attention_forward(*given, dropout=dropout, scaling=scale, **others)


def choose(
    config: "PretrainedConfig", wanted: str = "auto", *, device: str = "cpu", half: bool = False
) -> str:
    """The attention implementation for `config`.

    `auto`: ours where the architecture is one of `SHARING`, else `sdpa` (a row per group under a
    block mask). `flash_attention_2` packs without sharing prompts; ValueError if it cannot run:
    it needs a GPU, the package flash_attn and half precision (`half`).
    """
    _register()
    if wanted == FLASH:
        missing = [
            what
            for what, there in (
                ("a GPU", device == "cuda"),
                ("half precision", half),
                ("the package flash_attn", importlib.util.find_spec("flash_attn") is not None),
            )
            if not there
        ]
        if missing:
            raise ValueError(f"{FLASH} needs {', '.join(missing)}")
    if wanted not in ("auto", NAME, FLASH, "sdpa"):
        raise ValueError(f"unknown attention {wanted!r}: expected auto, {NAME}, {FLASH} or sdpa")
    if wanted == NAME and config.model_type not in SHARING:
        raise ValueError(f"{NAME} attention is for {', '.join(SHARING)}, not {config.model_type}")
    if wanted == "auto":
        return NAME if config.model_type in SHARING else "sdpa"
    return wanted


def use(model: "PreTrainedModel", wanted: str = "auto", *, half: bool = False) -> str:
    """Switches `model` to `choose`'s implementation, in place; logs and returns its name."""
    name = choose(model.config, wanted, device=model.device.type, half=half)
    model.set_attn_implementation(name)
    logging.getLogger(__name__).info("attention of %s: %s", type(model).__name__, name)
    return name


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, shared_prompt_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def load(
    model: str | Path,
    *,
    dropout: float = 0.0,
    threads: int = 1,
    wanted: str = "auto",
    half: bool = False,
    device: str = "",
    dtype: "torch.dtype | None" = None,
    **options: object,
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A model with `dropout` everywhere and its tokenizer.

    Its attention is what `choose` makes of `wanted` and `half` (the products will be in half
    precision). device: the GPU if there is one, else the CPU; `meta` gives shapes without weights.
    dtype: float32. `options` go to `from_pretrained`. ValueError if the attention cannot be, or if
    the tokenizer has no end-of-text token: a target without one never ends.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{model}: the tokenizer has no end-of-text token")
    settings = AutoConfig.from_pretrained(model)
    for name in DROPOUTS:
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
    use(network, wanted, half=half)
    return network, tokenizer
