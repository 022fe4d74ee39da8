"""Which engine samples fastest, by size of the model and rows at once? Is it the one `auto` takes?

    python tests/benchmarks/bench_engines.py [--sizes 3M,74M,1B] [--rows 1,32,256] [--repeat 3]

Models of random weights in two families (GPTBigCode and Llama) with the nano tokenizer, in bfloat16
as published ones are; prompts are the nano world's, each asked up to eight times, as a training set
is sampled; temperature 0.8, top-p 0.95, one thread. Random weights hardly ever end or reach a stop,
so every row goes to its last token. Engines take turns within a round; a cell is the median of its
rounds in tokens per second, the best precision of each peer. A cell that would take more than
--seconds by what its first engine took is not run, and says so.

Peers: `transformers.generate` with its dynamic and its static cache and its continuous batching
(`generate_batch`), in bfloat16 and float32. OpenVINO GenAI needs a model converted by
optimum-intel, which does not install beside the pins (2.2.0 moves transformers back to 5.5): not
run.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
    GPTBigCodeConfig,
    LlamaConfig,
)

from rrtf import config, engines, prompts
from rrtf.nano.problems import world

SIZES = {  # width, layers, new tokens of an answer
    "3M": (256, 4, 64),
    "74M": (768, 12, 32),
    "1B": (2048, 24, 8),
}
SAMPLED = {"temperature": 0.8, "top_p": 0.95}
VOCABULARY, POSITIONS = 2048, 512


def settings(family: str, width: int, layers: int):
    """The configuration of a model; heads are 64 wide."""
    heads = width // 64
    if family == "gpt_bigcode":
        return GPTBigCodeConfig(
            vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=width, n_layer=layers,
            n_head=heads, multi_query=True, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
    return LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, hidden_size=width,
        intermediate_size=width * 8 // 3 // 64 * 64, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=max(1, heads // 4), bos_token_id=0,
        eos_token_id=0, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip


def made(folder: Path, family: str, width: int, layers: int) -> int:
    """Writes a model of random weights; its parameters."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(settings(family, width, layers)).to(torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(engines.model_folder("nano-student")).save_pretrained(folder)
    GenerationConfig(eos_token_id=0, pad_token_id=0).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


Work = Callable[[Sequence[str], int, int], int]  # prompts, samples, new tokens -> tokens made


def ours(name: str, folder: Path) -> tuple[str, Work]:
    engine = engines.open_engine(name, folder)

    def work(texts: Sequence[str], n: int, length: int) -> int:
        drawn = engines.Decoding(seed=1, max_new_tokens=length, **SAMPLED)
        found = engine.generate(texts, n=n, decoding=drawn, stops=prompts.STOPS)
        return sum(answer.n_tokens for row in found for answer in row)

    return engine.name, work


def peer(kind: str, dtype: str, folder: Path) -> Work:
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    how = {"do_sample": True, "top_k": 0, "pad_token_id": 0, **SAMPLED}

    def batched(texts: Sequence[str], n: int, length: int) -> int:
        asked = GenerationConfig(max_new_tokens=length, eos_token_id=0, **how)
        room = sum(len(tokenizer.encode(text)) + length for text in texts) * n
        pages = ContinuousBatchingConfig(
            num_blocks=16 + 2 * n * len(texts) + room // 128, max_batch_tokens=2048,
            use_cuda_graph=False,
        )  # fmt: skip
        ids = [tokenizer.encode(text) for text in texts for _ in range(n)]
        found = model.generate_batch(
            ids, generation_config=asked, continuous_batching_config=pages, progress_bar=False
        )
        return sum(len(one.generated_tokens) for one in found.values())

    def plain(texts: Sequence[str], n: int, length: int) -> int:
        inputs = tokenizer(list(texts), return_tensors="pt", padding=True)
        cache = {"cache_implementation": "static"} if kind == "static" else {}
        with torch.inference_mode():
            rows = model.generate(
                **inputs, max_new_tokens=length, num_return_sequences=n, **how, **cache
            )[:, inputs.input_ids.shape[1] :].tolist()
        return sum(row.index(0) if 0 in row else len(row) for row in rows)

    return batched if kind == "continuous" else plain


def contenders(folder: Path) -> dict[str, list[Work]]:
    """Name -> the ways to run it, of which the best counts; `auto` is the first of ours."""
    found = {}
    for name in dict.fromkeys(("auto", *engines.able(folder))):
        label, work = ours(name, folder)
        found.setdefault(label, [work])
    for kind in ("dynamic", "static", "continuous"):
        ways = [peer(kind, dtype, folder) for dtype in ("bfloat16", "float32")]
        found[f"transformers, {kind}"] = ways
    return found


def speed(work: Work, texts: Sequence[str], n: int, length: int) -> float:
    started = time.perf_counter()
    tokens = work(texts, n, length)
    return tokens / (time.perf_counter() - started)


def cell(ways: dict[str, list[Work]], asked: tuple, repeat: int, seconds: float) -> dict:
    """Name -> median tokens per second, or None where it was not run."""
    rates: dict[str, list[list[float]]] = {name: [[] for _ in w] for name, w in ways.items()}
    spent: dict[tuple[str, int], float] = {}
    for turn in range(repeat + 1):  # the first of them warms up and is not counted
        for name, works in ways.items():
            for at, work in enumerate(works):
                if spent.get((name, at), 0) > seconds / (repeat + 1):
                    continue
                started = time.perf_counter()
                found = speed(work, *asked)
                spent[name, at] = time.perf_counter() - started
                if turn or spent[name, at] > seconds / (repeat + 1):
                    rates[name][at].append(found)
    medians = {name: [statistics.median(r) for r in found if r] for name, found in rates.items()}
    return {name: max(found) if found else None for name, found in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="3M,74M,1B")
    parser.add_argument("--families", default="gpt_bigcode,llama")
    parser.add_argument("--rows", default="1,32,256")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=240, help="of one engine in one cell")
    given = parser.parse_args()
    config.set_threads(1)
    problems = world(1, last="validation")["validation"][0]
    texts = [prompts.starcoder(problem) for problem in problems]
    best, cells = 0, 0
    for family in given.families.split(","):
        for size in given.sizes.split(","):
            width, layers, length = SIZES[size]
            with tempfile.TemporaryDirectory() as folder:
                count = made(Path(folder), family, width, layers)
                taken = engines.open_engine("auto", folder).name
                ways = contenders(Path(folder))
                about = f"{count / 1e6:.0f} M parameters, {length} new tokens; auto: {taken}"
                print(f"\n{family}, {about}")
                for rows in map(int, given.rows.split(",")):
                    n = min(8, rows)
                    asked = texts[: rows // n], n, length
                    found = cell(ways, asked, given.repeat, given.seconds)
                    fastest = max(value for value in found.values() if value)
                    told = (
                        f"{name} {v:.0f}" if v else f"{name} not run" for name, v in found.items()
                    )
                    print(f"  {rows:4} rows: {'; '.join(told)}", flush=True)
                    cells, best = cells + 1, best + ((found[taken] or 0) >= 0.95 * fastest)
    print(f"\nauto is the fastest, or within 5 % of it, in {best} of {cells} cells")


if __name__ == "__main__":
    main()
