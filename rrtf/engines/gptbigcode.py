"""GPTBigCode (StarCoder's architecture) on CPU, faster than the libraries.

Where its speed comes from: with multi-query attention the query heads of a token are rows of one
matrix product on the single key head, and so are those of all samples of a prompt on the prompt's
keys, which are read and kept once; weights are laid out for the CPU once (`Linear`); finished rows
leave the batch; sampling is one uniform number per token, and top-p needs no sorting
(`decoding.draw`).

Not covered: GPU, multi-head GPTBigCode, quantised weights.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from rrtf.engines import (
    Completion,
    Decoding,
    UnsupportedModel,
    computes_in,
    end_tokens,
    score_pairs,
    weight_files,
)
from rrtf.engines.decoding import Prompts, follow, generate, rounded
from rrtf.prompts import prompt_ids

ROWS = 256  # the layout is chosen for a product with as many rows


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch and this CPU have the packed operators for `dtype`."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not (torch.backends.mkldnn.is_available() and all(map(_has, names))):
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has(name: str) -> bool:
    return hasattr(torch.ops.mkldnn, name)


class Linear:
    """x (..., I) -> (..., O) with `weight` (O, I) and `bias` (O,) or None, on CPU."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        self.weight, self.bias = weight.contiguous(), bias
        self.packed = can_pack(weight.dtype)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, ROWS)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if not self.packed:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """GELU, in its approximation by tanh, of the product."""
        if not self.packed:
            return F.gelu(self(x), approximate="tanh")
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "tanh")

    def added(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The product plus `residual` (..., O)."""
        if not self.packed:
            return residual + self(x)
        product = torch.ops.mkldnn._linear_pointwise.binary
        return product(x, residual, self.weight, self.bias, "add")


MASKED = -1e30  # finite, so that rows of padding stay numbers
GRAIN = 32  # caches grow by as many tokens, see `rounded`
READ = 2048  # tokens of prompts read at a time

Cache = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values (B, T, head width) per layer
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def supports_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class GptBigCodeEngine:
    """`dtype` is `float32`, `bfloat16` or `auto` (as `engines.computes_in`)."""

    device = "cpu"

    def __init__(self, folder: Path, *, threads: int = 1, dtype: str = "auto", rows: int = 1024):
        from rrtf.engines.transformers import open_tokenizer

        torch.set_num_threads(threads)
        if dtype == "auto":
            dtype = computes_in(folder)
        self.name, self.precision = f"gptbigcode-{dtype}", dtype
        self.rows = rows
        self.model = Weights(folder, dtype=getattr(torch, dtype))
        self.positions, self.tokenizer = self.model.positions, open_tokenizer(folder)
        self.ends = end_tokens(folder, self.tokenizer.eos_token_id)
        self.decode = self.tokenizer.backend_tokenizer.decode  # a tenth of the wrapper's time

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [prompt_ids(self.tokenizer, text) for text in texts]

    def open_batch(self, prompts: Prompts) -> "Batch":
        return Batch(self.model, prompts)

    def generate(
        self, prompts: Sequence[str], *, n: int, decoding: Decoding, stops: Sequence[str]
    ) -> list[list[Completion]]:
        return generate(self, prompts, n=n, decoding=decoding, stops=stops)

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        return score_pairs(self, prompts, answers)

    @torch.inference_mode()
    def log_probs(self, rows: Prompts) -> list[list[float]]:
        found = []
        for row in rows:
            tokens = torch.tensor([row])
            own = torch.log_softmax(self.model.logits(tokens)[0, :-1], -1)  # (T - 1, V)
            found.append(own.gather(1, tokens[0, 1:, None])[:, 0].tolist())
        return found

    def greedy(self, rows: Prompts, length: int) -> list[list[int]]:
        return follow(self, rows, length)


class Weights:
    """The weights of a GPTBigCode model folder and its forward pass."""

    def __init__(self, folder: Path, *, dtype: torch.dtype):
        settings = check_settings(folder)
        self.width, self.heads = settings["n_embd"], settings["n_head"]
        self.positions = settings["n_positions"]
        self.head_width = self.width // self.heads
        self.dtype = dtype
        tensors = _tensors(folder, dtype)
        norm = partial(_norm, tensors, settings.get("layer_norm_epsilon", 1e-5))
        self.words, self.places = tensors["wte.weight"], tensors["wpe.weight"]
        self.layers = [Layer(tensors, f"h.{i}", norm) for i in range(settings["n_layer"])]
        self.norm = norm("ln_f")
        self.head = Linear(tensors.get("lm_head.weight", self.words))  # (V, D)

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """Hidden states (..., D) of `tokens` (...).

        `attend(layer, query, key, value)` mixes values: (..., D) of a query (..., D), a key and a
        value (..., head width).
        """
        x = F.embedding(tokens, self.words) + F.embedding(positions, self.places)
        parts = [self.width, self.head_width, self.head_width]
        for number, layer in enumerate(self.layers):
            mixed = layer.attention(layer.norm_1(x)).split(parts, -1)
            x = layer.projection.added(attend(number, *mixed), x)
            x = layer.out.added(layer.inner.gelu(layer.norm_2(x)), x)
        return x

    def predict(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) in float32 of hidden states (..., D)."""
        return self.head(self.norm(hidden)).float()

    def read(self, tokens: torch.Tensor, padding: torch.Tensor) -> tuple[torch.Tensor, Cache]:
        """(hidden states, cache) of whole texts (B, T), left-padded by `padding` (B,)."""
        size, length = tokens.shape
        index = torch.arange(length)
        hidden = index[None, None] > index[None, :, None]  # (1, T, T): the future
        hidden = hidden | (index[None, None] < padding[:, None, None])  # (B, T, T)
        mask = (hidden * MASKED).to(self.dtype).repeat_interleave(self.heads, 1)
        cache: Cache = []

        def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor):
            key, value = key.contiguous(), value.contiguous()
            cache.append((key, value))
            query = query.reshape(size, length * self.heads, self.head_width)
            weights = self.match(query, key, mask).softmax(-1)
            return torch.bmm(weights, value).view(size, length, self.width)

        positions = (index[None] - padding[:, None]).clamp(min=0)
        return self.forward(tokens, positions, attend), cache

    def match(self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attention scores (B, Q, T) of queries (B, Q, W) on keys (B, T, W), plus `mask`."""
        return torch.baddbmm(mask, query, key.transpose(1, 2), alpha=self.head_width**-0.5)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T, V) of `tokens` (B, T) without padding."""
        return self.predict(self.read(tokens, torch.zeros(len(tokens), dtype=torch.long))[0])


class Layer:
    """One block: two norms and four linear layers."""

    def __init__(self, tensors: dict[str, torch.Tensor], name: str, norm: Callable):
        def linear(part: str) -> Linear:
            return Linear(tensors[f"{name}.{part}.weight"], tensors[f"{name}.{part}.bias"])

        self.norm_1, self.norm_2 = norm(f"{name}.ln_1"), norm(f"{name}.ln_2")
        self.attention, self.projection = linear("attn.c_attn"), linear("attn.c_proj")
        self.inner, self.out = linear("mlp.c_fc"), linear("mlp.c_proj")


def _norm(tensors: dict[str, torch.Tensor], epsilon: float, name: str) -> Callable:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    return lambda x: torch.layer_norm(x, weight.shape, weight, bias, epsilon)


def _tensors(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    files = weight_files(folder)
    loaded = {name: t.to(dtype) for file in files for name, t in load_file(file).items()}
    return {name.removeprefix("transformer."): tensor for name, tensor in loaded.items()}


def check_settings(folder: Path) -> dict[str, Any]:
    """The settings of a model folder; `UnsupportedModel` where this engine cannot."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = settings.get("model_type", "unknown")
    if kind != "gpt_bigcode" or not settings.get("multi_query", True):
        raise UnsupportedModel(
            f"{folder}: the gptbigcode engine runs GPTBigCode with multi-query attention, not "
            f"{kind}; use the engine ctranslate2 or transformers"
        )
    if settings.get("activation_function") not in ("gelu_pytorch_tanh", "gelu_new"):
        raise UnsupportedModel(
            f"{folder}: activation {settings.get('activation_function')!r}; use transformers"
        )
    return settings


class Batch:
    """Rows on their way: what their prompts left behind, once per prompt, and what each wrote.

    A prompt has `places` for its samples; `place` (R,) tells which of all places a row has. That
    makes the queries of a prompt's samples one matrix: (P * places, H, W) is (P, places * H, W).
    """

    device = torch.device("cpu")

    def __init__(self, model: Weights, prompts: Prompts):
        self.model = model
        distinct: dict[tuple[int, ...], int] = {}
        numbers = [distinct.setdefault(tuple(prompt), len(distinct)) for prompt in prompts]
        of = torch.tensor(numbers)
        self.places = int(torch.bincount(of).max())
        self.place = of * self.places + _occurrence(numbers)
        self.lengths = torch.tensor([len(prompt) for prompt in prompts])
        self.hidden = self._read(list(distinct))[of]
        self.step = 0
        self.own: Cache = [
            (torch.zeros(len(of), 0, model.head_width, dtype=model.dtype),) * 2
            for _ in model.layers
        ]
        self._grow()

    def _read(self, prompts: Prompts) -> torch.Tensor:
        """Fills the prompts' cache, padded on the left; their last hidden states (P, D)."""
        longest = _rounded_up(max(map(len, prompts)))
        size = max(1, READ // longest)
        states, caches = [], []
        for at in range(0, len(prompts), size):
            tokens, padding = _padded(prompts[at : at + size])
            hidden, cache = self.model.read(tokens, padding)
            states.append(hidden[:, -1])
            behind = (0, 0, longest - tokens.shape[1], 0)
            caches.append([(F.pad(k, behind), F.pad(v, behind)) for k, v in cache])
        self.shared: Cache = [
            (torch.cat([k for k, _ in parts]), torch.cat([v for _, v in parts]))
            for parts in zip(*caches, strict=True)
        ]
        padding = torch.tensor([longest - len(prompt) for prompt in prompts])
        mask = (torch.arange(longest)[None] < padding[:, None]) * MASKED
        self.padding_mask = mask[:, None].to(self.model.dtype)  # (P, 1, T)
        return torch.cat(states)

    def __len__(self) -> int:
        return len(self.hidden)

    def predict(self, rows: slice) -> torch.Tensor:
        return self.model.predict(self.hidden[rows])

    def advance(self, tokens: torch.Tensor) -> None:
        if self.step == self.own[0][0].shape[1]:
            self._grow()
        self.unwritten[:, :, self.step] = 0
        self.hidden = self.model.forward(tokens, self.lengths + self.step, self._attend)
        self.step += 1

    def _grow(self) -> None:
        """Room for more tokens. The rows' caches stay contiguous: products with a slice of a
        larger one are several times slower."""
        self.own = [(F.pad(k, (0, 0, 0, GRAIN)), F.pad(v, (0, 0, 0, GRAIN))) for k, v in self.own]
        self.unwritten = torch.zeros(1, 1, self.step + GRAIN, dtype=self.model.dtype)
        self.unwritten[:, :, self.step :] = MASKED

    def _attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Attention over a row's prompt and what it wrote: one softmax, two products each way."""
        model = self.model
        (read, seen), (keys, values) = self.shared[layer], self.own[layer]
        keys[:, self.step], values[:, self.step] = key, value
        query = query.reshape(len(query), model.heads, model.head_width)
        by_prompt = model.match(self._to_places(query), read, self.padding_mask)
        by_row = model.match(query, keys, self.unwritten)  # (R, H, C)
        weights = torch.cat([self._to_rows(by_prompt), by_row], -1).softmax(-1)
        prompt, own = weights.split([read.shape[1], keys.shape[1]], -1)
        mixed = self._to_rows(torch.bmm(self._to_places(prompt), seen))
        return (mixed + torch.bmm(own.contiguous(), values)).view(-1, model.width)

    def _to_places(self, x: torch.Tensor) -> torch.Tensor:
        """(R, H, N) -> (P, places * H, N); places without a row are zeros."""
        _, heads, size = x.shape
        prompts = len(self.padding_mask)
        placed = x.new_zeros(prompts * self.places, heads, size).index_copy_(0, self.place, x)
        return placed.view(prompts, self.places * heads, size)

    def _to_rows(self, x: torch.Tensor) -> torch.Tensor:
        """(P, places * H, N) -> (R, H, N)."""
        return x.view(-1, self.model.heads, x.shape[-1]).index_select(0, self.place)

    def keep(self, rows: torch.Tensor) -> None:
        self.hidden = self.hidden[rows]
        self.own = [(k[rows], v[rows]) for k, v in self.own]
        self.lengths, self.place = self.lengths[rows], self.place[rows]
        used = torch.zeros(len(self.padding_mask), dtype=torch.bool)
        used[self.place // self.places] = True
        staying = rounded(used)
        if len(staying) < len(used):
            self._keep_prompts(staying)

    def _keep_prompts(self, staying: torch.Tensor) -> None:
        self.shared = [(k[staying], v[staying]) for k, v in self.shared]
        renumbered = torch.empty(len(self.padding_mask), dtype=torch.long)
        renumbered[staying] = torch.arange(len(staying))
        self.padding_mask = self.padding_mask[staying]
        prompt, place = self.place // self.places, self.place % self.places
        self.place = renumbered[prompt] * self.places + place


def _occurrence(numbers: Sequence[int]) -> torch.Tensor:
    """How often each number came before: [5, 5, 7, 5] -> [0, 1, 0, 2]."""
    seen: dict[int, int] = {}
    found = []
    for number in numbers:
        found.append(seen.get(number, 0))
        seen[number] = found[-1] + 1
    return torch.tensor(found)


def _rounded_up(length: int) -> int:
    return -(-length // GRAIN) * GRAIN


def _padded(prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens (B, T) padded on the left, padding (B,)); T is a multiple of `GRAIN`."""
    length = _rounded_up(max(map(len, prompts)))
    tokens = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = torch.tensor(prompt)
    return tokens, torch.tensor([length - len(prompt) for prompt in prompts])
