"""Any causal language model through `transformers`, on CPU or one GPU.

On CUDA in half precision `flash_attention_2` is taken where the package is there, else SDPA.
Prompts of similar length are batched, a prompt is read once for all its samples, and finished rows
leave the batch. Not covered: several GPUs, models without a key and value cache.
"""

import inspect
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from rrtf.engines import Completion, Decoding, UnsupportedModel
from rrtf.engines.decoding import Prompts, generate
from rrtf.prompts import prompt_ids


def choose_attention(device: str, dtype: torch.dtype) -> str:
    """`flash_attention_2` on CUDA in half precision where it is installed, else `sdpa`."""
    half = dtype in (torch.float16, torch.bfloat16)
    return "flash_attention_2" if device == "cuda" and half and find_spec("flash_attn") else "sdpa"


class TransformersEngine:
    """`dtype` is `auto` (bfloat16 on CUDA, float32 on CPU) or a torch dtype's name.

    `loaded` is a model that is already in memory (a GPTQ one, say), used instead of loading the
    folder; the folder still gives the tokenizer.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int = 1,
        dtype: str = "auto",
        rows: int = 64,
        loaded: Any = None,
    ):
        torch.set_num_threads(threads)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto":
            dtype = "bfloat16" if self.device == "cuda" else "float32"
        self.rows = rows
        self.tokenizer = open_tokenizer(folder)
        attention = choose_attention(self.device, getattr(torch, dtype))
        self.model = loaded if loaded is not None else _load(folder, dtype, attention)
        self.model = self.model.to(self.device).eval()
        kind = str(self.model.dtype).removeprefix("torch.")
        self.name = f"transformers-{kind}-{self.model.config._attn_implementation}"
        self.positions = positions_of(self.model.config)
        self.ends = _ends(self.model)

    def generate(
        self, prompts: Sequence[str], *, n: int, decoding: Decoding, stops: Sequence[str]
    ) -> list[list[Completion]]:
        return generate(self, prompts, n=n, decoding=decoding, stops=stops)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [prompt_ids(self.tokenizer, text) for text in texts]

    def open_batch(self, prompts: Prompts) -> "Batch":
        return Batch(self.model, prompts)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        scores = []
        for prompt, answer in zip(prompts, answers, strict=True):
            head = prompt_ids(self.tokenizer, prompt)
            tail = self.tokenizer.encode(answer, add_special_tokens=False)
            tokens = torch.tensor([head + tail], device=self.device)
            logits = self.model(tokens).logits[0, len(head) - 1 : -1].float()  # (T, V)
            picked = torch.log_softmax(logits, -1).gather(1, tokens[0, len(head) :, None])
            scores.append((picked.sum().item(), len(tail)))
        return scores


class Batch:
    """Rows on their way through `model`, which reads every distinct prompt once.

    The cache grows by concatenation, so that rows can leave it; a static one, which holds every row
    at full length, was not compared.
    """

    def __init__(self, model: Any, prompts: Prompts):
        self.model, self.device = model, model.device
        distinct: dict[tuple[int, ...], int] = {}
        numbers = [distinct.setdefault(tuple(prompt), len(distinct)) for prompt in prompts]
        length = max(map(len, distinct))
        tokens = [[0] * (length - len(prompt)) + list(prompt) for prompt in distinct]
        mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in distinct]
        self.mask = torch.tensor(mask, device=self.device)  # (R, T): 0 for padding
        named = inspect.signature(model.forward).parameters
        self.takes_positions = "position_ids" in named
        self.cache = DynamicCache(config=model.config)
        self.logits = self._read(torch.tensor(tokens, device=self.device))
        self.keep(torch.tensor(numbers, device=self.device))

    def _read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (R, V) after `tokens` (R, T), the last T that `mask` has."""
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        placed = {"position_ids": positions} if self.takes_positions else {}
        return self.model(
            tokens,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **placed,
        ).logits[:, -1]

    def __len__(self) -> int:
        return len(self.logits)

    def predict(self, rows: slice) -> torch.Tensor:
        return self.logits[rows]

    def advance(self, tokens: torch.Tensor) -> None:
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], -1)
        self.logits = self._read(tokens[:, None])

    def keep(self, rows: torch.Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.logits = self.mask[rows], self.logits[rows]


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder; FileNotFoundError that names the folder if none loads."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{folder}: no tokenizer that loads ({error})") from error


def positions_of(config: Any) -> int:
    """How many tokens a model can hold, prompt and answer together."""
    for name in ("n_positions", "max_position_embeddings"):
        if getattr(config, name, None):
            return getattr(config, name)
    return 1 << 30


def _ends(model: Any) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    ends = model.config.eos_token_id if ends is None else ends
    return frozenset(ends if isinstance(ends, list) else [ends]) - {None}


def _load(folder: Path, dtype: str, attention: str) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation=attention
        )
    except ValueError as error:
        raise UnsupportedModel(
            f"{folder}: transformers has no causal language model of this kind ({error})"
        ) from error
