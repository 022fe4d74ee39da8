"""How fast the engines sample on this CPU: against `transformers.generate`, and against the CPU.

    python tests/benchmarks/bench_generation.py [--prompts 300] [--samples 8] [--repeat 3]

The nano base answers the nano world's validation prompts: top-p 0.95, temperature 0.8, at most 140
tokens, real ends and stop sequences. Nothing is written. Three tables:

1. Our engines, CTranslate2 int8, and plain `transformers.generate`, whose best batch size,
   precision and threads a few batches find first (by tokens per second). The peer gets its prompts
   sorted by length and a cheap stop criterion. Engines take turns, a busy machine slows them alike.
2. The share of the bound: operations of the answers' and prompts' tokens over what plain matrix
   products of the model's shapes do in the same precision, and bytes over what a copy moves; both
   are measured beside every round.
3. n samples per prompt against n separate prompts, which differ in a number in front.

Tokens are those of the answers; what was generated behind an end or a stop does not count. CPU
seconds compare engines on a shared machine better than wall seconds do.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from rrtf import config, engines, prompts
from rrtf.engines import complete, stop_near_end
from rrtf.nano.problems import world

SAMPLED = {"temperature": 0.8, "top_p": 0.95, "max_new_tokens": 140}
MODEL = "nano-student"
Result = tuple[int, float, float]  # tokens, wall seconds, CPU seconds


class Peer:
    """`transformers.generate` in batches of prompts of similar length."""

    def __init__(self, dtype: str, rows: int, threads: int):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = engines.model_folder(MODEL)
        self.rows, self.threads = rows, threads
        self.name = f"transformers.generate {dtype}, batch {rows}, {threads} threads"
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def generate(self, texts: Sequence[str], n: int) -> int:
        """Tokens of all answers."""
        torch.set_num_threads(self.threads)
        ordered = sorted(texts, key=lambda text: len(self.tokenizer.encode(text)))
        at_once = max(1, self.rows // n)
        batches = (ordered[at : at + at_once] for at in range(0, len(ordered), at_once))
        return sum(self._batch(batch, n) for batch in batches)

    def _batch(self, texts: Sequence[str], n: int) -> int:
        inputs = self.tokenizer(list(texts), return_tensors="pt", padding=True)
        length = inputs.input_ids.shape[1]
        done = torch.zeros(len(texts) * n, dtype=torch.bool)

        def stopped(tokens: torch.Tensor, scores: torch.Tensor, **options) -> torch.Tensor:
            if (tokens.shape[1] - length) % 8 == 0:
                for row, ids in enumerate(tokens[:, length:].tolist()):
                    if not done[row] and stop_near_end(ids, prompts.STOPS, self.decode, fresh=8):
                        done[row] = True
            return done

        sampled = {"do_sample": True, "top_k": 0, "num_return_sequences": n, "pad_token_id": 0}
        with torch.inference_mode():
            rows = self.model.generate(**inputs, **SAMPLED, **sampled, stopping_criteria=[stopped])[
                :, length:
            ].tolist()
        cut = (row[: row.index(0)] if 0 in row else row for row in rows)
        answers = (complete(r, stops=prompts.STOPS, decode=self.decode, ended=True) for r in cut)
        return sum(answer.n_tokens for answer in answers)


class Ours:
    """An engine of the package, on one thread."""

    def __init__(self, name: str, **options):
        self.engine = engines.open_engine(name, MODEL, **options)
        self.name = self.engine.name

    def generate(self, texts: Sequence[str], n: int) -> int:
        """Tokens of all answers."""
        torch.set_num_threads(1)
        drawn = engines.Decoding(seed=1, **SAMPLED)
        answers = self.engine.generate(texts, n=n, decoding=drawn, stops=prompts.STOPS)
        return sum(answer.n_tokens for row in answers for answer in row)


def timed(work: Callable[[], int]) -> Result:
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = work()
    return tokens, time.perf_counter() - wall, time.process_time() - cpu


def best_peer(texts: Sequence[str], n: int) -> Peer:
    """The setting with the most tokens per wall second on a few of the prompts.

    Batch sizes are tried on one thread, then the best of each precision on two.
    """
    found = []
    for dtype in ("bfloat16", "float32"):
        tried = [_tried(Peer(dtype, rows, 1), texts, n) for rows in (32, 128, 512)]
        rows = max(tried, key=lambda one: one[0])[1].rows
        found += [*tried, _tried(Peer(dtype, rows, 2), texts, n)]
    return max(found, key=lambda one: one[0])[1]


def _tried(peer: Peer, texts: Sequence[str], n: int) -> tuple[float, Peer]:
    tokens, wall, cpu = timed(lambda: peer.generate(texts, n))
    print(f"  tried {peer.name}: {tokens / wall:.0f} tokens/s, {tokens / cpu:.0f} per CPU s")
    return tokens / wall, peer


def shapes() -> list[tuple[int, int]]:
    """(inputs, outputs) of every matrix that a token of the model goes through, the head last."""
    weights = engines.open_engine("transformers", MODEL).model.state_dict()
    kept = {name: w for name, w in weights.items() if w.ndim == 2 and ".h." in name}
    return [(w.shape[1], w.shape[0]) for w in kept.values()] + [
        tuple(reversed(weights["transformer.wte.weight"].shape))
    ]


def product_speed(sizes: Sequence[tuple[int, int]], *, rows: int = 256) -> float:
    """Operations per CPU second of plain bfloat16 products of these shapes, weights warm."""
    pairs = [(torch.randn(rows, i).bfloat16(), torch.randn(o, i).bfloat16()) for i, o in set(sizes)]
    operations = sum(2 * x.shape[0] * w.numel() for x, w in pairs)
    started = time.process_time()
    for _ in range(200):
        for x, w in pairs:
            torch.nn.functional.linear(x, w)
    return 200 * operations / (time.process_time() - started)


def copy_speed(size: int = 1 << 26) -> float:
    """Bytes read and written per CPU second by a copy larger than the caches."""
    source, target = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    started = time.process_time()
    for _ in range(20):
        target.copy_(source)
    return 20 * 2 * size / (time.process_time() - started)


def spread(values: Sequence[float], digits: int = 0) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def print_speeds(rounds: dict[str, list[Result]]) -> None:
    print(f"\n{'engine':58} {'tokens/s':>24} {'tokens per CPU s':>24}  times the peer (CPU)")
    peer = next(found for name, found in rounds.items() if name.startswith("transformers.gen"))
    for name, found in rounds.items():
        wall, cpu = [[r[0] / r[i] for r in found] for i in (1, 2)]
        gain = [(a[0] / a[2]) / (b[0] / b[2]) for a, b in zip(found, peer, strict=True)]
        print(f"{name:58} {spread(wall):>24} {spread(cpu):>24}  {spread(gain, 1)}")


def print_bound(found: list[Result], products: list[float], copies: list[float], read: int) -> None:
    """`read`: tokens of the prompts, each read once."""
    sizes = shapes()
    whole = 2 * sum(i * o for i, o in sizes)  # operations of a token with its logits
    body = whole - 2 * sizes[-1][0] * sizes[-1][1]
    shares, traffic = [], []
    for (tokens, _, cpu), product, copy in zip(found, products, copies, strict=True):
        shares.append(100 * (tokens * whole + read * body) / cpu / product)
        steps = tokens / 256  # weights are read at least once in as many rows
        traffic.append(100 * steps * whole / cpu / copy)  # whole / 2 weights of 2 bytes
    print(f"\nplain bfloat16 products: {spread([p / 1e9 for p in products])} GFLOP per CPU s")
    print(f"copy: {spread([c / 1e9 for c in copies], 1)} GB per CPU s")
    print(f"our default engine: {spread(shares)} % of the arithmetic bound")
    print(f"weights in batches of 256 rows: {spread(traffic, 1)} % of the memory bound")


def print_sharing(opened: Sequence[Ours], texts: Sequence[str], n: int, repeat: int) -> None:
    print(f"\n{n} samples per prompt against {n} separate prompts, {len(texts)} prompts")
    apart = [f"# {i}\n{text}" for text in texts for i in range(n)]
    shared = [f"# 0\n{text}" for text in texts]
    for one in opened:
        gains = []
        for _ in range(repeat):
            together, alone = (
                timed(lambda one=one, t=t, k=k: one.generate(t, k))
                for t, k in ((shared, n), (apart, 1))
            )
            gains.append((together[0] / together[2]) / (alone[0] / alone[2]))
        print(f"{one.name:58} {spread(gains, 2)} times the tokens per CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    config.set_threads(1)
    problems = world(1, last="validation")["validation"][0][: given.prompts]
    texts = [prompts.starcoder(problem) for problem in problems]
    ours = [Ours("gptbigcode"), Ours("gptbigcode", dtype="float32"), Ours("transformers")]
    int8 = Ours("ctranslate2", dtype="int8")
    peer = best_peer(texts[:: max(1, len(texts) // 64)], given.samples)
    rounds: dict[str, list[Result]] = {one.name: [] for one in (*ours, int8, peer)}
    products, copies = [], []
    for _ in range(given.repeat):
        for one in (*ours, int8, peer):
            rounds[one.name].append(timed(lambda one=one: one.generate(texts, given.samples)))
        torch.set_num_threads(1)
        products.append(product_speed(shapes()))
        copies.append(copy_speed())
    print_speeds(rounds)
    read = sum(len(ids) for ids in ours[0].engine.encode(texts))
    print_bound(rounds[ours[0].name], products, copies, read)
    print_sharing([ours[0], ours[2]], texts[: len(texts) // 4], given.samples, given.repeat)


if __name__ == "__main__":
    main()
