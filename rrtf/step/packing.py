"""Ranked groups in one sequence without padding, and attention that leaves out what is masked.

A batch is one sequence of T tokens: of each group the prompt, then its responses one after the
other, each without its last token, which is a target and never an input. Position ids of every
response count on from its prompt. `layout` says where everything lies: for each group the number
of tokens of the prompt, then of each response. All layers but attention work on the sequence as
it is; attention lets a token see the prompt and the past of its own response, so the result
equals every prompt + response on its own row, and a prompt is computed once for K responses.
`inputs` gives a model its arguments in one of three forms, by the attention it was set to.
"""

import importlib.util
import logging
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


NAME = "shared_prompt"  # this module's attention, as transformers knows it
BLOCK = 256  # queries at a time: bounds the scores in memory and skips most of the causal half

Layout = tuple[tuple[int, ...], ...]


def inputs(batch: Mapping[str, Any], config: Any) -> tuple[dict[str, Any], Tensor]:
    """(arguments of a base model, positions (N,) in its flattened output that predict the targets).

    By the attention that `config` names: ours takes the sequence as it is; flash-attention a
    sequence in which every response has its own copy of the prompt; any other one padded row
    per group under a block mask (B, 1, L, L). ValueError if a sliding window is shorter than the
    longest prompt + response, except with flash-attention, which knows windows.
    """
    name = config._attn_implementation
    if name.startswith("flash_attention"):
        return _copies(batch)
    _require_window(batch["layout"], getattr(config, "sliding_window", None))
    if name == NAME:
        arguments = {key: batch[key] for key in ("input_ids", "position_ids", "layout")}
        # four dimensions, so that transformers takes it for a finished mask and builds none
        taken = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=batch["input_ids"].device)
        return arguments | {"attention_mask": taken}, batch["read"]
    return _rows(batch, added=name == "eager")


def _require_window(layout: Layout, window: int | None) -> None:
    longest = max(prompt + max(own) for prompt, *own in layout)
    if window and longest > window:
        raise ValueError(
            f"a prompt and response of {longest} tokens do not fit the model's sliding window of "
            f"{window}: lower max_length or use flash_attention_2"
        )


def _rows(batch: Mapping[str, Any], *, added: bool) -> tuple[dict[str, Any], Tensor]:
    """One row per group, padded to the longest, with a mask of blocks.

    `added` to the scores, as architectures without fused attention do with a mask.
    """
    ids, layout = batch["input_ids"], batch["layout"]
    sizes = torch.tensor([sum(group) for group in layout])  # (B,)
    real = torch.arange(int(sizes.max())) < sizes[:, None]  # (B, L)
    segments = torch.full(real.shape, -1)  # 0 = prompt, k + 1 = response k
    segments[real] = torch.cat(
        [torch.arange(len(group)).repeat_interleave(torch.tensor(group)) for group in layout]
    )
    place = real.flatten().nonzero()[:, 0].to(ids.device)  # (T,): where a token goes

    def padded(values: Tensor) -> Tensor:
        return values.new_zeros(real.numel()).index_copy(0, place, values[0]).view(real.shape)

    arguments = {name: padded(batch[name]) for name in ("input_ids", "position_ids")}
    mask = _visible(segments.to(ids.device))
    if added:
        mask = torch.where(mask, 0.0, torch.finfo(torch.bfloat16).min)
    return arguments | {"attention_mask": mask}, place[batch["read"]]


def _visible(segments: Tensor) -> Tensor:
    """(B, L) segment numbers -> (B, 1, L, L): earlier tokens of the prompt or one's own segment."""
    own = segments[:, :, None] == segments[:, None, :]
    prompt = (segments == 0)[:, None, :]
    size = segments.shape[1]
    past = torch.ones(size, size, dtype=torch.bool, device=segments.device).tril()
    return ((own | prompt) & past)[:, None]


def _copies(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """Every response behind its own copy of the prompt, as flash-attention packs sequences."""
    index, read, sizes = _unshared(batch["layout"])
    device = batch["input_ids"].device
    ends = torch.tensor([0, *sizes]).cumsum(0).to(device, torch.int32)
    index = index.to(device)
    arguments = {name: batch[name][:, index] for name in ("input_ids", "position_ids")}
    arguments |= {"attention_mask": None}
    for side in ("q", "k"):  # GPTBigCode does not hand on position ids, so flash needs the borders
        arguments[f"cu_seq_lens_{side}"] = ends
        arguments[f"max_length_{side}"] = max(sizes)
    return arguments, read.to(device)


def _unshared(layout: Layout) -> tuple[Tensor, Tensor, list[int]]:
    """(tokens of every prompt + response in turn, where its targets are read, their numbers)."""
    pieces, read, sizes, at = [], [], [], 0
    for prompt, *own in layout:
        start = at + prompt
        for n in own:
            pieces += [torch.arange(at, at + prompt), torch.arange(start, start + n)]
            read.append(torch.arange(prompt - 1, prompt + n) + sum(sizes))
            sizes.append(prompt + n)
            start += n
        at = start
    return torch.cat(pieces), torch.cat(read), sizes


def single_rows(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """(arguments of a causal model, positions (N,) in its flattened output): a row per response.

    Padded behind the shorter ones, under a mask (R, L) that only there is one. Positions and all
    else are left to the model.
    """
    index, read, sizes = _unshared(batch["layout"])
    device, longest = batch["input_ids"].device, max(sizes)
    real = torch.arange(longest) < torch.tensor(sizes)[:, None]  # (R, L)
    place = real.flatten().nonzero()[:, 0]
    ids = batch["input_ids"].new_zeros(real.numel())
    ids[place.to(device)] = batch["input_ids"][0, index.to(device)]
    arguments = {"input_ids": ids.view(real.shape)}
    if min(sizes) < longest:
        arguments["attention_mask"] = real.long().to(device)
    return arguments, place[read].to(device)


def attend(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, scale: float, dropout: float
) -> Tensor:
    """softmax(q k^T * scale) v over what each token sees: (1, T, H, D).

    query (1, H, T, D); key, value (1, G, T, D) with H a multiple of G (multi-query: G = 1), all on
    one device and of one dtype. On a CPU without dropout span by span, which measured two to three
    times as fast as padding for SDPA; elsewhere two calls of SDPA.
    """
    if query.device.type == "cpu" and not dropout:
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))  # (T, H, D)
        return _BySpan.apply(q, k, v, layout, scale)[None]
    return padded(query, key, value, layout, scale=scale, dropout=dropout)


class Span(NamedTuple):
    """Queries first:stop of one segment; they see the keys prompt:prompt_stop and start:stop."""

    prompt: int
    prompt_stop: int
    start: int
    first: int
    stop: int


@lru_cache(maxsize=4)
def spans(layout: Layout, block: int = BLOCK) -> tuple[Span, ...]:
    """The segments of a batch in pieces of at most `block` queries; each token is in one."""
    found, at = [], 0
    for prompt, *own in layout:
        segments, start = [(at, at, at, at + prompt)], at + prompt
        for n in own:
            segments.append((at, at + prompt, start, start + n))
            start += n
        for p, p_stop, begin, end in segments:
            for first in range(begin, end, block):
                found.append(Span(p, p_stop, begin, first, min(first + block, end)))
        at = start
    return tuple(found)


class _BySpan(torch.autograd.Function):
    """Attention with exactly the products it needs; the weights are made again for the gradient.

    So memory grows with T, not with its square. Products of all heads that share a key are one.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
        q, out = q * scale, torch.empty_like(q)  # (T, H, D)
        for span in spans(layout):
            keys, values = (_seen(x, span) for x in (k, v))  # (G, S, D)
            weights = _weights(_by_key(q, span, len(keys)), keys, span)
            out[span.first : span.stop] = _by_token(torch.bmm(weights, values), span)
        ctx.save_for_backward(q, k, v)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        dq, grad = torch.empty_like(q), grad.contiguous()  # of q * scale until the last line
        wide = torch.promote_types(k.dtype, torch.float32)  # a prompt's gradient has many parts
        dk, dv = (torch.zeros_like(x, dtype=wide) for x in (k, v))
        for span in spans(ctx.layout):
            keys, values = (_seen(x, span) for x in (k, v))
            rows, g = (_by_key(x, span, len(keys)) for x in (q, grad))  # (G, t * H / G, D)
            weights = _weights(rows, keys, span)  # (G, t * H / G, S)
            ds = torch.bmm(g, values.transpose(1, 2))
            ds = ds.sub_((ds * weights).sum(-1, keepdim=True)).mul_(weights)
            dq[span.first : span.stop] = _by_token(torch.bmm(ds, keys), span)
            _add_seen(dk, torch.bmm(ds.transpose(1, 2), rows), span)
            _add_seen(dv, torch.bmm(weights.transpose(1, 2), g), span)
        return dq.mul_(ctx.scale), dk.to(k.dtype), dv.to(v.dtype), None, None


def _seen(x: Tensor, span: Span) -> Tensor:
    """The keys or values (G, S, D) that a span sees."""
    own = x[span.start : span.stop]
    if span.prompt_stop > span.prompt:
        own = torch.cat((x[span.prompt : span.prompt_stop], own))
    return own.transpose(0, 1)


def _add_seen(total: Tensor, part: Tensor, span: Span) -> None:
    """Adds to the rows of `total` (T, G, D) the `part` (G, S, D) of those that a span sees."""
    part, cut = part.transpose(0, 1), span.prompt_stop - span.prompt
    total[span.prompt : span.prompt_stop] += part[:cut]
    total[span.start : span.stop] += part[cut:]


def _by_key(x: Tensor, span: Span, n_keys: int) -> Tensor:
    """(T, H, D) -> (G, t * H / G, D): the span's rows, gathered by the key head they share."""
    t, (_, heads, width) = span.stop - span.first, x.shape
    rows = x[span.first : span.stop].view(t, n_keys, heads // n_keys, width)
    return rows.transpose(0, 1).reshape(n_keys, -1, width)


def _by_token(x: Tensor, span: Span) -> Tensor:
    """(G, t * H / G, D) -> (t, H, D), the way back."""
    t, (n_keys, _, width) = span.stop - span.first, x.shape
    return x.view(n_keys, t, -1, width).transpose(0, 1).reshape(t, -1, width)


def _weights(rows: Tensor, keys: Tensor, span: Span) -> Tensor:
    """softmax of rows (G, t * H / G, D) with keys (G, S, D); the last t keys causally."""
    t = span.stop - span.first
    scores = torch.bmm(rows, keys.transpose(1, 2))
    by_query = scores.view(len(keys), t, -1, keys.shape[1])
    by_query[..., -t:] += _future(t, scores.dtype)
    return torch.softmax(scores, dim=-1)


@lru_cache(maxsize=2 * BLOCK)
def _future(size: int, dtype: torch.dtype) -> Tensor:
    """(t, 1, t): -inf where a key comes after the query."""
    return torch.full((size, size), -torch.inf, dtype=dtype).triu(1)[:, None]


class Padding(NamedTuple):
    """Where the rows of the padded blocks lie in the sequence, and back."""

    prompts: Tensor  # (B, P)
    responses: Tensor  # (R, L)
    keys: Tensor  # (R, P + L)
    mask: Tensor  # (R, 1, L, P + L), True = visible
    place: Tensor  # (T,): a token's row among those of prompts, then responses


@lru_cache(maxsize=2)
def padding(layout: Layout, device: torch.device) -> Padding:
    """The blocks of a batch; padding points at token 0 and is never read back."""
    sizes = list(chain.from_iterable(layout))
    pieces = iter(torch.arange(sum(sizes)).split(sizes))
    tokens = [[next(pieces) for _ in group] for group in layout]
    prompts = _stack([own[0] for own in tokens])  # (B, P), -1 where there is none
    responses = _stack([piece for own in tokens for piece in own[1:]])  # (R, L)
    counts = torch.tensor([len(group) - 1 for group in layout])
    owner = torch.arange(len(layout)).repeat_interleave(counts)  # (R,)
    rows = torch.cat((prompts.flatten(), responses.flatten()))
    filled = (rows >= 0).nonzero()[:, 0]
    place = torch.empty(sum(sizes), dtype=torch.long).index_copy(0, rows[filled], filled)
    length = responses.shape[1]
    in_prompt = (prompts >= 0)[owner, None].expand(-1, length, -1)  # (R, L, P)
    own = torch.ones(length, length, dtype=torch.bool).tril().expand(len(owner), -1, -1)
    mask = torch.cat((in_prompt, own), dim=2)[:, None]
    keys = torch.cat((prompts[owner], responses), dim=1)
    blocks = (block.clamp(min=0) for block in (prompts, responses, keys))
    return Padding(*(x.to(device) for x in (*blocks, mask, place)))


def _stack(pieces: list[Tensor]) -> Tensor:
    """Index pieces of several lengths as one block of at least one column, filled with -1."""
    width = max(1, *(len(piece) for piece in pieces))
    return torch.stack(
        [functional.pad(piece, (0, width - len(piece)), value=-1) for piece in pieces]
    )


def padded(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, scale: float, dropout: float
) -> Tensor:
    """What `attend` does, by two calls of SDPA: all prompts, then all responses.

    Each is padded to the longest, inside attention only.
    """
    at = padding(layout, query.device)
    heads = query.shape[1]
    key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))

    def rows(x: Tensor, index: Tensor) -> Tensor:
        return x[0][:, index].transpose(0, 1)  # (b, H, l, D)

    options = {"scale": scale, "dropout_p": dropout}
    prompts = functional.scaled_dot_product_attention(
        *(rows(x, at.prompts) for x in (query, key, value)), is_causal=True, **options
    )
    responses = functional.scaled_dot_product_attention(
        rows(query, at.responses),
        rows(key, at.keys),
        rows(value, at.keys),
        attn_mask=at.mask,
        **options,
    )
    both = [x.transpose(1, 2).flatten(0, 1) for x in (prompts, responses)]
    return torch.cat(both)[at.place][None]  # (1, T, H, D)


FLASH = "flash_attention_2"
# architectures of transformers that hand keyword arguments down to their attention: tested
SHARING = ("gpt_bigcode", "llama", "qwen2", "starcoder2")

_DROPOUT = re.compile(r"(?!summary|classifier).*(dropout|pdrop|dropout_prob)")  # of a configuration


def set_dropout(settings: Any, dropout: float) -> None:
    """Gives every rate of dropout of a model's configuration this value, in place."""
    for name, value in settings.to_dict().items():
        if _DROPOUT.fullmatch(name) and isinstance(value, int | float):
            setattr(settings, name, dropout)


def shared_prompt_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
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


def use(
    model: "PreTrainedModel", wanted: str = "auto", *, device: str = "", half: bool = False
) -> str:
    """Switches `model` to `choose`'s implementation, in place; logs and returns its name.

    An architecture without fused attention keeps its plain one, unless another is `wanted`.
    """
    name = choose(model.config, wanted, device=device or model.device.type, half=half)
    if wanted == "auto" and name == "sdpa" and not model._supports_sdpa:
        name = "eager"
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
    dropout: float,
    threads: int,
    device: str = "",
    dtype: torch.dtype | None = None,
    **options: object,
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A model with `dropout` everywhere, its attention `choose`'s, and its tokenizer.

    device: the GPU if there is one, else the CPU; `meta` gives shapes without weights. dtype:
    float32. `options` go to `from_pretrained`. A tokenizer without an end-of-text token gets the
    model's; ValueError where that has none: a target without one never ends.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(model)
    settings = AutoConfig.from_pretrained(model)
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(_end(model, settings))
    set_dropout(settings, dropout)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options |= {"dtype": dtype or torch.float32}
    if where == "meta":
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(settings, **options)
    elif "quantization_config" in options:  # moved once, while it is read
        network = _whole(model, config=settings, **options, device_map={"": where})
    else:
        network = _whole(model, config=settings, **options).to(where)
    use(network)
    return network, tokenizer


def _whole(model: str | Path, **options: Any) -> "PreTrainedModel":
    """A model of which every weight was read; ValueError names what is missing or no weights."""
    from safetensors import SafetensorError, safe_open
    from transformers import AutoModelForCausalLM, logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # a table of what is missing
    try:
        network, told = AutoModelForCausalLM.from_pretrained(
            model, output_loading_info=True, **options
        )
    except SafetensorError as error:
        for file in sorted(Path(model).glob("*.safetensors")):
            try:
                safe_open(file, "pt").__enter__()
            except SafetensorError:
                raise ValueError(
                    f"{file}: no weights, {file.stat().st_size} bytes ({error}): fetch it again; a "
                    "clone without large files leaves a pointer, a download may be cut short"
                ) from None
        raise
    finally:
        logging.set_verbosity(before)
    if missing := sorted(told["missing_keys"]):
        shown = ", ".join(missing[:4]) + ", ..." * (len(missing) > 4)
        raise ValueError(
            f"{model}: its weights do not fill the model of its config.json: "
            f"{len(missing)} tensors are missing: {shown}"
        )
    return network


def _end(model: str | Path, settings: "PretrainedConfig") -> int:
    """The end-of-text token of a model, the first of several."""
    from transformers import GenerationConfig

    try:
        named = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        named = None
    named = getattr(settings, "eos_token_id", None) if named is None else named
    if named is None:
        raise ValueError(f"{model}: neither the tokenizer nor the model has an end-of-text token")
    return named[0] if isinstance(named, list) else named
