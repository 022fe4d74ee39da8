"""Any causal language model through `transformers`, on CPU or one GPU.

On CUDA in half precision `flash_attention_2` is taken where the package is there, else SDPA.
Not covered: several GPUs, batching that refills finished rows.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from rrtf.config import derive_seed
from rrtf.engines.answers import (
    Completion,
    UnsupportedModel,
    batches,
    check_lengths,
    check_sampling,
    complete,
    prompt_ids,
    stop_near_end,
)

PERIOD = 8  # tokens between two looks for stop sequences


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
        self,
        prompts: Sequence[str],
        *,
        n: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        stops: Sequence[str],
        seed: int,
    ) -> list[list[Completion]]:
        check_sampling(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
        ids = [prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        lengths = [len(one) for one in ids]
        check_lengths(lengths, max_new_tokens=max_new_tokens, positions=self.positions)
        options = self._options(temperature, top_p, max_new_tokens)
        found: dict[tuple[int, int], Completion] = {}
        for batch in batches(lengths, n=n, rows=self.rows):
            # The seed names the batch by what is in it: its texts and sample numbers.
            names = [f"{sample}:{prompts[prompt]}" for prompt, sample in batch]
            rows = self._batch(
                [ids[prompt] for prompt, _ in batch], options, stops, derive_seed(seed, *names)
            )
            for pair, (row, ended) in zip(batch, rows, strict=True):
                found[pair] = complete(row, stops=stops, decode=self._decode, ended=ended)
        return [[found[prompt, sample] for sample in range(n)] for prompt in range(len(prompts))]

    def _options(self, temperature: float, top_p: float, max_new_tokens: int) -> dict:
        """Exactly the distribution asked for: no top-k, no penalties of the model's own."""
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": 1}
        if temperature > 0:
            options |= {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        else:
            options |= {"do_sample": False}
        ends = sorted(self.ends)
        return options | {"eos_token_id": ends or None, "pad_token_id": ends[0] if ends else 0}

    @torch.inference_mode()
    def _batch(
        self, rows: list[list[int]], options: dict, stops: Sequence[str], seed: int
    ) -> list[tuple[list[int], bool]]:
        from transformers import GenerationConfig, StoppingCriteriaList

        length = max(len(row) for row in rows)
        pad = options["pad_token_id"]
        tokens = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        criteria = StoppingCriteriaList([_Stopped(self._decode, stops, length)] if stops else [])
        settings = GenerationConfig(**options)
        self.model.generation_config = settings
        devices = [torch.cuda.current_device()] if self.device == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            output = self.model.generate(
                tokens.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=settings,
                stopping_criteria=criteria,
            )
        return [self._until_end(row) for row in output[:, length:].tolist()]

    def _until_end(self, row: list[int]) -> tuple[list[int], bool]:
        for at, token in enumerate(row):
            if token in self.ends:
                return row[:at], True
        return row, False

    def _decode(self, ids: Sequence[int]) -> str:
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


class _Stopped:
    """A stopping criterion of `generate`: rows in which a stop sequence has appeared."""

    def __init__(self, decode, stops: Sequence[str], length: int):
        self.decode, self.stops, self.length = decode, tuple(stops), length
        self.done: set[int] = set()

    def __call__(self, tokens: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        written = tokens.shape[1] - self.length
        if written % PERIOD == 0:
            for row, ids in enumerate(tokens[:, self.length :].tolist()):
                if stop_near_end(ids, self.stops, self.decode, fresh=PERIOD):
                    self.done.add(row)
        flags = [row in self.done for row in range(len(tokens))]
        return torch.tensor(flags, device=tokens.device)


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


def _ends(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    ends = model.config.eos_token_id if ends is None else ends
    return set(ends if isinstance(ends, list) else [ends]) - {None}


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
