"""One training step side by side: ours, the literal padded formulation, TRL's nearest loss.

    python tests/benchmarks/bench_training.py --groups groups.jsonl --model student --trl TRL_PYTHON

Prints Markdown: response tokens per second and peak memory of forward, backward and AdamW on the
same groups by the same model with one thread, medians of rounds in which the contenders take
turns, each in a process of its own: with one student a prompt, which is the method's own shape, and
with eight; then the memory of the loss alone and the cost against K and
length. Contenders:

- ours: RRTF on a packed batch, as `rrtf train` computes it.
- literal: RRTF on one row per prompt + response, padded to the longest of the pass, all logits.
- trl: experimental CPO (hinge + likelihood of the chosen) of trl 1.16.0 on the pairs of teacher
  and student, by its own collator and `compute_loss`, on the same token ids. A pair is two padded
  rows, so the teacher's response is computed once per student. `--trl` names a Python that has
  torch and transformers as here, and trl; without it this contender is left out.

A response token is counted once, however often it is computed: all three train on all responses of
the same groups. "Positions" are what the model computes, padding included. No Trainer is part of
the time. Without `--groups` token ids are drawn with lengths of the nano world's shape.

How the cost grows, with a prompt of P tokens and K + 1 responses of R: all layers but attention
see P + (K + 1) R positions, against (K + 1) (P + R) of padded rows, so a response costs R more and
the prompt's share per response falls as 1 / K. Attention makes about P^2 / 2 + (K + 1) (P R +
R^2 / 2) products per head, again with the prompt's own part once: it grows with the square of the
length and overtakes the layers where P + R / 2 is several times the width. Memory grows with
positions, because neither attention weights nor logits are kept.
"""

import argparse
import ctypes
import gc
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

K = 8  # responses of students per prompt, beside the teacher's, at most
WIDTHS = {"nano": (256, 4, 4, 2048), "20M": (512, 6, 8, 8192)}  # width, layers, heads, words
Group = dict[str, Any]  # prompt: ids, responses: ids with the teacher's first, scores


# Data and model


def real_groups(path: Path, model: str) -> list[Group]:
    """The groups of a file of ranked groups that have K students, as token ids."""
    from transformers import AutoTokenizer

    from rrtf import store
    from rrtf.records import RankedGroup
    from rrtf.step import batches

    tokenizer, found = AutoTokenizer.from_pretrained(model), []
    for line in path.read_text(encoding="utf-8").splitlines():
        group = store.from_row(json.loads(line), RankedGroup, str(path))
        if len(group.responses) > K:
            example = batches.encode(group, tokenizer, "rrtf")
            first = example.sft_index
            order = [first, *(k for k in range(len(example.responses)) if k != first)][: K + 1]
            found.append(
                {
                    "prompt": list(example.prompt),
                    "responses": [list(example.responses[k]) for k in order],
                    "scores": [example.scores[k] for k in order],
                }
            )
    return found


def drawn_groups(count: int) -> list[Group]:
    """Random ids with the lengths of nano: prompts 40 to 167, responses 8 to 135, right-skewed."""
    draw = random.Random(0)

    def ids(low: int, middle: float, high: int) -> list[int]:
        size = min(high, max(low, round(draw.lognormvariate(middle, 0.45))))
        return [draw.randrange(1, 2048) for _ in range(size - 1)] + [0]

    return [group_of(ids(40, 4.4, 167), [ids(8, 3.9, 135) for _ in range(K + 1)])
            for _ in range(count)]  # fmt: skip


def group_of(prompt: list[int], responses: list[list[int]]) -> Group:
    scores = [3.5] + [float(k % 4) for k in range(len(responses) - 1)]
    return {"prompt": prompt, "responses": responses, "scores": scores}


def network(name: str, positions: int = 512) -> Any:
    """A saved model, or a GPTBigCode of a shape in `WIDTHS` with random weights."""
    from transformers import AutoModelForCausalLM, GPTBigCodeConfig, GPTBigCodeForCausalLM

    if name not in WIDTHS:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    width, layers, heads, words = WIDTHS[name]
    torch.manual_seed(0)
    config = GPTBigCodeConfig(
        vocab_size=words, n_positions=positions, n_embd=width, n_layer=layers, n_head=heads,
        multi_query=True, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return GPTBigCodeForCausalLM(config)


# The contenders: each is made for a model and turns groups into (loss, positions computed)

Loss = Callable[[list[Group]], tuple[torch.Tensor, int]]


def ours(model: Any, _: str) -> Loss:
    from rrtf import loss
    from rrtf.step import batches, packing, scoring

    packing.use(model)

    def value(groups: list[Group]) -> tuple[torch.Tensor, int]:
        batch = batches.collate([
            batches.Example("t", tuple(g["prompt"]), tuple(map(tuple, g["responses"])),
                            tuple(g["scores"]), 0) for g in groups
        ])  # fmt: skip
        sums, lengths = scoring.score(model, batch)
        parts = loss.rrtf(batch, sums, lengths, loss.PAPER)
        return parts.loss, batch["input_ids"].numel()

    return value


def literal(model: Any, _: str) -> Loss:
    """The paper's formulas (1) to (4) as they stand, on padded rows with all logits."""

    def value(groups: list[Group]) -> tuple[torch.Tensor, int]:
        rows = [(g["prompt"], r) for g in groups for r in g["responses"]]
        width = max(len(p) + len(r) for p, r in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        seen, answer = torch.zeros_like(ids), torch.zeros(len(rows), width)
        for row, (p, r) in enumerate(rows):
            ids[row, : len(p) + len(r)] = torch.tensor(p + r)
            seen[row, : len(p) + len(r)] = 1
            answer[row, len(p) : len(p) + len(r)] = 1
        logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits
        logs = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        logs = logs.gather(2, ids[:, 1:, None])[..., 0] * answer[:, 1:]
        sums = logs.sum(1)
        return as_written(groups, sums, answer.sum(1)), ids.numel()

    return value


def as_written(groups: list[Group], sums: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The loss of log-probability sums (rows,) and lengths (rows,) of all responses in order."""
    p = sums / lengths
    total, row = torch.zeros((), device=sums.device), 0
    for group in groups:
        total = total - sums[row]
        for k, score in enumerate(group["scores"]):
            weight = group["scores"][0] - score
            if weight > 0:
                total = total - weight * torch.clamp(p[row] - p[row + k], max=0)
        row += len(group["scores"])
    return total / len(groups)


def trl(model: Any, tokenizer: str) -> Loss:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    with tempfile.TemporaryDirectory() as folder:
        arguments = CPOConfig(
            output_dir=folder, use_cpu=not torch.cuda.is_available(), report_to="none",
            loss_type="hinge", cpo_alpha=1.0, beta=0.1, max_length=4096, bf16=False,
            gradient_checkpointing=False, remove_unused_columns=False,
        )  # fmt: skip
        trainer = CPOTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(tokenizer),
        )

    def side(group: Group, name: str, response: list[int]) -> dict[str, list[int]]:
        ids = group["prompt"] + response
        labels = [-100] * len(group["prompt"]) + response
        mask = [1] * len(ids)
        return {f"{name}_input_ids": ids, f"{name}_labels": labels, f"{name}_attention_mask": mask}

    def value(groups: list[Group]) -> tuple[torch.Tensor, int]:
        pairs = [
            side(g, "chosen", g["responses"][0])
            | side(g, "rejected", student)
            | {"prompt_input_ids": g["prompt"], "prompt_attention_mask": [1] * len(g["prompt"])}
            for g in groups
            for student in g["responses"][1:]
        ]
        batch = trainer.data_collator(pairs)
        width = max(batch["chosen_input_ids"].shape[1], batch["rejected_input_ids"].shape[1])
        return trainer.compute_loss(model, batch), 2 * len(pairs) * width

    return value


CONTENDERS = {"ours": ours, "literal": literal, "trl": trl}


# Measuring, in a process of its own


def memory(name: str) -> int:
    """VmRSS or VmHWM of this process in MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.partition(name + ":")[2].split()[0]) >> 10


def reset_peak() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def update(model: Any, value: Loss, optimizer: Any, passes: list[list[Group]], half: bool) -> int:
    """One update of several passes; the positions computed."""
    positions = 0
    for groups in passes:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, computed = value(groups)
        (loss * len(groups) / sum(map(len, passes))).backward()
        positions += computed
    optimizer.step()
    optimizer.zero_grad()
    return positions


def worker(name: str, folder: str) -> None:
    """Reads one JSON task per line, answers with one line of figures."""
    torch.set_num_threads(1)
    setup = json.loads(Path(folder, "setup.json").read_text(encoding="utf-8"))
    before = memory("VmRSS")
    model = network(setup["model"], setup.get("positions", 512)).train()
    value = CONTENDERS[name](model, setup["tokenizer"])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters())}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        reset_peak()
        start, cpu = time.perf_counter(), time.process_time()
        positions = update(model, value, optimizer, task["passes"], task["half"])
        took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        print(json.dumps(took | {"positions": positions, "peak": memory("VmHWM") - before}),
              flush=True)  # fmt: skip


class Contender:
    """A worker process that answers one task at a time."""

    def __init__(self, name: str, python: str, folder: Path):
        command = [python, str(Path(__file__).resolve()), "--worker", name, str(folder)]
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.log = folder / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, **pipe, stderr=log)
        self.facts = self.answer()

    def answer(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"a worker ended: {self.log.read_text()[-2000:]}")

    def run(self, passes: list[list[Group]], half: bool) -> dict[str, Any]:
        self.process.stdin.write(json.dumps({"passes": passes, "half": half}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def start(names: dict[str, str], setup: dict[str, Any], folder: Path) -> dict[str, Contender]:
    (folder / "setup.json").write_text(json.dumps(setup), encoding="utf-8")
    return {name: Contender(name, python, folder) for name, python in names.items()}


# The tables


def side_by_side(
    model: str,
    pythons: dict[str, str],
    data: list[Group],
    k: int,
    args: argparse.Namespace,
    folder: Path,
) -> None:
    """Table 1 for one model and k students: every contender does the same updates, in turn."""
    fewer = [
        g | {"responses": g["responses"][: k + 1], "scores": g["scores"][: k + 1]} for g in data
    ]
    prompts = args.update // 2 if model == "20M" else args.update
    size = args.per_pass or prompts
    running = start(pythons, {"model": model, "tokenizer": args.model}, folder)
    parameters = running["ours"].facts["parameters"]
    print(f"\n## {Path(model).name}: {parameters:,} parameters, {prompts} prompts with "
          f"{k} + 1 responses per update, {size} per forward and backward pass\n")  # fmt: skip
    print("| precision | contender | response tokens/s | ours is | per CPU second | ours is | "
          "positions/response token | peak MiB |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for half in (True, False):
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in running}
        for number in range(args.rounds + 1):
            chosen = random.Random(number).sample(fewer, prompts)
            passes = [chosen[cut : cut + size] for cut in range(0, prompts, size)]
            tokens = sum(len(r) for g in chosen for r in g["responses"])
            for name, contender in running.items():
                figures = contender.run(passes if number else [chosen[:1]], half)
                if number:  # the first round warms up
                    rates = {k: tokens / figures[k] for k in ("seconds", "cpu")}
                    share = figures["positions"] / tokens
                    rows[name].append(rates | {"share": share, "peak": figures["peak"]})
        middle = {
            name: {key: statistics.median(row[key] for row in found) for key in found[0]}
            for name, found in rows.items()
        }
        for name, m in middle.items():
            faster = [f"{middle['ours'][k] / m[k]:.2f}x" for k in ("seconds", "cpu")]
            print(f"| {'bfloat16 autocast' if half else 'float32'} | {name} | {m['seconds']:,.0f} "
                  f"| {faster[0]} | {m['cpu']:,.0f} | {faster[1]} | {m['share']:.2f} "
                  f"| {m['peak']:,.0f} |", flush=True)  # fmt: skip
    for contender in running.values():
        contender.close()


def loss_memory() -> None:
    """Table 2: MiB that the log-probabilities and their gradient take, less the head's."""
    from rrtf.step.likelihood import TILE_ROWS, token_log_probs

    print("\n## The loss alone: MiB at the peak, beside the gradient of the head (width 64)\n")
    print("| K | response tokens | words | ours | all logits |\n| --- | --- | --- | --- | --- |")
    for k, words in ((1, 8192), (4, 8192), (16, 8192), (8, 2048), (8, 8192), (8, 49152)):
        tokens, found = 100 * (k + 1), []
        for chunk in (TILE_ROWS, 0):
            hidden = torch.randn(tokens, 64, requires_grad=True)
            head = torch.nn.Linear(64, words, bias=False)
            reset_peak()
            before = memory("VmRSS")
            logs = token_log_probs(hidden, head, torch.randint(0, words, (tokens,)), chunk=chunk)
            logs.sum().backward()
            found.append(memory("VmHWM") - before - (words * 64 * 4 >> 20))
            del hidden, head, logs
        print(f"| {k} | {tokens:,} | {words:,} | {found[0]} | {found[1]} |", flush=True)


def growth(folder: Path, rounds: int) -> None:
    """Table 3: one group of random ids, the nano shape, bfloat16: seconds against K and length."""
    setup = {"model": "nano", "tokenizer": "", "positions": 4096}
    running = start({"ours": sys.executable, "literal": sys.executable}, setup, folder)
    print("\n## Cost of one group against K and length (nano shape, bfloat16 autocast)\n\nLength = "
          "prompt + response, half each.\n\n| K | length | positions | ours ms | ms per 1,000 "
          "response tokens | ours MiB | literal ms | literal MiB | ours is |")  # fmt: skip
    print("| --- " * 9 + "|")
    shapes = [(k, 256) for k in (1, 2, 4, 8, 16)] + [(8, n) for n in (128, 256, 512, 1024, 2048)]
    draw = random.Random(1)
    for k, length in shapes:
        some = [[draw.randrange(1, 2048) for _ in range(length // 2)] for _ in range(k + 2)]
        passes = [[group_of(some[0], some[1:])]]
        found = {name: [c.run(passes, True) for _ in range(rounds + 1)][1:]
                 for name, c in running.items()}  # fmt: skip
        ms = {n: 1e3 * statistics.median(r["seconds"] for r in rows) for n, rows in found.items()}
        mib = {n: statistics.median(r["peak"] for r in rows) for n, rows in found.items()}
        tokens = (k + 1) * (length // 2)
        cells = (
            *(k, length, found["ours"][0]["positions"], ms["ours"], 1e3 * ms["ours"] / tokens),
            *(mib["ours"], ms["literal"], mib["literal"]),
        )
        shown = " | ".join(f"{cell:,.0f}" for cell in cells)
        print(f"| {shown} | {ms['literal'] / ms['ours']:.1f}x |", flush=True)
    for contender in running.values():
        contender.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--groups", type=Path, help="ranked groups of a run, JSON lines")
    parser.add_argument("--model", default="", help="folder of a saved model and its tokenizer")
    parser.add_argument("--trl", default="", help="Python of an environment with trl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--update", type=int, default=8, help="prompts per update; 20M: half")
    parser.add_argument("--per-pass", type=int, default=0, help="prompts per pass; 0 = all")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(*args.worker)
    if not args.model and (args.groups or args.trl):
        parser.error("--groups and --trl need the tokenizer of --model")
    torch.set_num_threads(1)
    data = real_groups(args.groups, args.model) if args.groups else drawn_groups(64)
    pythons = {"ours": sys.executable, "literal": sys.executable}
    pythons |= {"trl": args.trl} if args.trl else {}
    with tempfile.TemporaryDirectory() as folder:
        for model, k in itertools.product((args.model or "nano", "20M"), (1, K)):
            side_by_side(model, pythons, data, k, args, Path(folder))
        loss_memory()
        growth(Path(folder), args.rounds)


if __name__ == "__main__":
    main()
