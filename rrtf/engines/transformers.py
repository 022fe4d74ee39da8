"""Any causal language model through `transformers`, on CPU or one GPU.

On CUDA in half precision `flash_attention_2` is taken where the package is there, else SDPA.
Prompts of similar length are batched, a prompt is read once for all its samples, and finished rows
leave the batch. Models whose memory does not allow that (`holding.loop_fault`) read a row anew for
every token. Not covered: several GPUs.
"""

import inspect
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from rrtf.engines import (
    POSITIONS,
    Completion,
    Decoding,
    UnsupportedModel,
    check_weights,
    end_tokens,
    line,
    score_pairs,
)
from rrtf.engines.decoding import Prompts, follow, generate
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
        self.rows, self.plain = rows, False
        self.tokenizer = open_tokenizer(folder)
        attention = choose_attention(self.device, getattr(torch, dtype))
        self.model = loaded if loaded is not None else load(folder, dtype, attention)
        self.model = self.model.to(self.device).eval()
        self.precision = str(self.model.dtype).removeprefix("torch.")
        attention = self.model.config._attn_implementation
        self.name = f"transformers-{self.precision}-{attention}"
        self.positions = positions_of(self.model.config)
        self.ends = end_tokens(folder, self.tokenizer.eos_token_id)

    def generate(
        self, prompts: Sequence[str], *, n: int, decoding: Decoding, stops: Sequence[str]
    ) -> list[list[Completion]]:
        return generate(self, prompts, n=n, decoding=decoding, stops=stops)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [prompt_ids(self.tokenizer, text) for text in texts]

    def open_batch(self, prompts: Prompts) -> "Batch | PlainBatch":
        return (PlainBatch if self.plain else Batch)(self.model, prompts)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        return score_pairs(self, prompts, answers)

    def log_probs(self, rows: Prompts) -> list[list[float]]:
        return [own.tolist() for own, _ in self.read(rows)]

    def greedy(self, rows: Prompts, length: int) -> list[list[int]]:
        return follow(self, rows, length)

    @torch.inference_mode()
    def read(self, rows: Prompts) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Nats (T - 1,) of a row's tokens behind the first, and of the likeliest ones there."""
        for row in rows:
            tokens = torch.tensor([row], device=self.device)
            logits = self.model(tokens, use_cache=False).logits[0, :-1].float()  # (T - 1, V)
            found = torch.log_softmax(logits, -1)
            yield found.gather(1, tokens[0, 1:, None])[:, 0], found.max(-1).values


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


class PlainBatch:
    """Rows of a `model` whose memory cannot be padded or cut: each is read anew for every token."""

    def __init__(self, model: Any, prompts: Prompts):
        self.model, self.device = model, model.device
        self.texts = [list(prompt) for prompt in prompts]

    def __len__(self) -> int:
        return len(self.texts)

    def predict(self, rows: slice) -> torch.Tensor:
        known: dict[tuple[int, ...], torch.Tensor] = {}
        for text in map(tuple, self.texts[rows]):
            if text not in known:
                tokens = torch.tensor([text], device=self.device)
                known[text] = self.model(tokens, use_cache=False).logits[0, -1]
        return torch.stack([known[tuple(text)] for text in self.texts[rows]])

    def advance(self, tokens: torch.Tensor) -> None:
        for text, token in zip(self.texts, tokens.tolist(), strict=True):
            text.append(token)

    def keep(self, rows: torch.Tensor) -> None:
        self.texts = [self.texts[row] for row in rows.tolist()]


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder; FileNotFoundError that names the folder if none loads."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{folder}: no tokenizer that loads ({error})") from error


def positions_of(config: Any) -> int:
    """How many tokens a model can hold, prompt and answer together."""
    config = config.get_text_config()
    for name in POSITIONS:
        if getattr(config, name, None):
            return getattr(config, name)
    return 1 << 30


def load(folder: Path, dtype: str, attention: str) -> Any:
    """The causal language model in `folder`, by its plain attention where it has no other.

    `UnsupportedModel` where transformers cannot build it; errors as `check_weights`.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    check_weights(folder)
    logging.disable_progress_bar()
    told = ""
    for way in dict.fromkeys((attention, "sdpa", "eager")):
        try:
            return AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), attn_implementation=way
            )
        except Exception as error:  # architectures refuse in their own ways
            told = told or line(error)
            if "attention" not in str(error):
                break
    raise UnsupportedModel(
        f"{folder}: transformers does not open it as a causal language model ({told})"
    )
