"""Tokens per second of the engines on one model and the same prompts, on this machine.

    python tests/benchmarks/bench_generation.py [MODEL] [--prompts 32] [--samples 8] [--new 64]

Without MODEL: a random GPTBigCode of the nano shape (4 layers, width 256, vocabulary 2048), whose
texts do not end by themselves. Sampled at T = 0.8, one thread, no stop sequences; tokens per
second count generated tokens, prefill included. Engines take turns in every repetition, so a busy
machine slows them alike; shown are the median and the range.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from rrtf import engines

ENGINES = (
    ("gptbigcode", "bfloat16"),
    ("gptbigcode", "float32"),
    ("transformers", "bfloat16"),
    ("transformers", "float32"),
    ("ctranslate2", "int8"),
    ("ctranslate2", "float32"),
)
PROMPT = (
    'def f{}(xs):\n    """Return the items of xs that are larger than {}, sorted in descending '
    'order and without duplicates.\n    >>> f{}([1, 200])\n    [200]\n    """'
)


def random_model(folder: Path) -> Path:
    """The nano shape with random weights and a byte-level tokenizer padded to 2,048 entries."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|endoftext|>", *alphabet, *(f"<unused{i}>" for i in range(2047 - len(alphabet)))]
    tokenizer = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = dict.fromkeys(("eos_token", "bos_token", "pad_token"), "<|endoftext|>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **end).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPTBigCodeConfig(
        vocab_size=2048, n_positions=512, n_embd=256, n_layer=4, n_head=4, multi_query=True,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    GPTBigCodeForCausalLM(config).save_pretrained(folder)
    return folder


def tokens_per_second(engine: engines.Generator, prompts: list[str], **options) -> float:
    started = time.perf_counter()
    answers = engine.generate(prompts, temperature=0.8, stops=(), seed=1, **options)
    total = sum(answer.n_tokens for row in answers for answer in row)
    return total / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    prompts = [PROMPT.format(*[i] * 3) for i in range(given.prompts)]
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or random_model(Path(folder))
        rows = given.prompts * given.samples
        opened = {
            f"{name} {dtype}": engines.open_engine(name, model, dtype=dtype, rows=rows)
            for name, dtype in ENGINES
        }
        for top_p in (1.0, 0.95):
            options = {"n": given.samples, "max_new_tokens": given.new, "top_p": top_p}
            speeds: dict[str, list[float]] = {name: [] for name in opened}
            for _ in range(given.repeat + 1):
                for name, engine in opened.items():
                    speeds[name].append(tokens_per_second(engine, prompts, **options))
            print(f"\n{rows} rows, {given.new} new tokens, top_p {top_p}")
            print(f"{'engine':24} {'tokens/s':>9} {'lowest':>9} {'highest':>9}")
            for name, found in speeds.items():
                kept = found[1:]  # the first round warms up
                middle = statistics.median(kept)
                print(f"{name:24} {middle:9.0f} {min(kept):9.0f} {max(kept):9.0f}")


if __name__ == "__main__":
    main()
