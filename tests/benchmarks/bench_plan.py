"""What plans rest on, measured on this machine: rates of one core, lengths, yields.

    python tests/benchmarks/bench_plan.py [--rounds 3] [--write]

Needs a finished nano run (`make reports`). Rates are FLOPs as `rrtf.plan.work` counts them per
second of CPU time of one thread, so other work on the machine matters little; medians of several
rounds. A training rate is that of the updates alone, from the difference of a long and a short
run; what is left of the short one is what a run needs besides. `--write` puts the values into
`data/measured.toml`; without it they are printed.
"""

import argparse
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from transformers import AutoTokenizer

from rrtf import config, engines, store, train
from rrtf.plan import models
from rrtf.plan.work import Row, generate_flops, train_flops
from rrtf.prompts import prompt_ids
from rrtf.records import RankedGroup, Response
from rrtf.step import batches

SHORT, LONG, PER_BATCH = 4, 24, 8
N_PROMPTS, N_ANSWERS = 32, 4


def stage(name: str) -> Path:
    return config.run_dir("nano") / name


def lengths(groups: list[RankedGroup], tokenizer) -> dict[str, float]:
    """Tokens of prompts and answers, as the step and the engine count them."""
    prompts = [len(prompt_ids(tokenizer, group.prompt)) for group in groups]
    answers: dict[str, list[int]] = {"student": [], "teacher": []}
    for response in store.read(stage("03_sample") / "responses.jsonl", Response):
        answers[response.source].append(response.n_tokens + 1)
    found = {f"nano_{source}_tokens": statistics.mean(n) for source, n in answers.items()}
    return found | {"nano_prompt_tokens": statistics.mean(prompts)}


def yields() -> dict[str, float]:
    """What comes out of evolution and of the filter, and what stages need besides their work."""
    names = ("00_rrtf_by_hand", "01_evolve", "02_audit", "04_rank")
    start, evolve, audit, rank = (store.manifest("nano", name) for name in names)
    offered = evolve["settings"]["n_seeds"] * evolve["settings"]["rounds"]
    timing = store.read_json(stage("08_quantize") / "timing.json")
    spent = {row["variant"]: row["seconds"].values() for row in timing}  # by kind of process
    variants = [sum(seconds["cpu"] for seconds in kinds) for kinds in spent.values()]
    return {
        "prompts_per_seed_and_round": audit["counts"]["kept"] / offered,
        "pairs_per_prompt": rank["counts"]["pairs"] / rank["counts"]["problems kept"],
        "cpu_start_seconds": start["seconds"],
        "cpu_variant_seconds": statistics.mean(variants),
    }


def rows_of(examples: list[batches.Example]) -> list[Row]:
    return [
        Row(len(e.prompt), statistics.mean(map(len, e.responses)), len(e.responses))
        for e in examples
    ]


def training(groups: list[RankedGroup], model: Path) -> tuple[float, float]:
    """(FLOP/s of the updates, seconds of a run besides) of one thread."""
    shape = models.shape(models.build(models.find(model).settings))
    tokenizer = AutoTokenizer.from_pretrained(model)
    examples, _ = batches.prepare(groups, tokenizer, objective="rrtf", max_length=512)
    took, work = {}, {}
    for updates in (SHORT, LONG):
        order = {"updates": updates, "groups_per_batch": PER_BATCH, "seed": 0}
        rows = rows_of(batches.in_order(examples, **order))
        work[updates] = sum(
            train_flops(shape, row, checkpointing=False, frozen=False) for row in rows
        )
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            own = {"objective": "rrtf", "learning_rate": 1e-5, "epochs": 0.0, "threads": 1}
            how = train.Recipe.of(config.resolve("nano", "train"), **own, **order)
            where = {"model": model, "output": Path(folder) / "run", "overwrite": True}
            train.train(groups, recipe=how, **where)
            took[updates] = time.process_time() - began
    each = (took[LONG] - took[SHORT]) / (LONG - SHORT)
    return (work[LONG] - work[SHORT]) / (took[LONG] - took[SHORT]), took[SHORT] - SHORT * each


def generating(engine: engines.Generator, prompts: list[str], shape: models.Shape, size: float):
    """FLOP/s of one thread that answers `prompts` as the stages of a run do."""
    drawn = engines.Decoding(0.8, 0.95, 140, 1)
    stops = ("\ndef ", "\nassert ", "\nprint(")
    began = time.process_time()
    answers = engine.generate(prompts, n=N_ANSWERS, decoding=drawn, stops=stops)
    took = time.process_time() - began
    tokens = [answer.n_tokens + 1 for row in answers for answer in row]
    many = {"prompts": len(prompts), "answers": len(tokens), "prompt": size}
    return generate_flops(shape, answer=statistics.mean(tokens), **many) / took


def measure(rounds: int) -> dict[str, float]:
    model = engines.model_folder("nano-student")
    tokenizer = AutoTokenizer.from_pretrained(model)
    pairs = store.read(stage("04_rank") / "pairs.jsonl", RankedGroup)
    found = lengths(pairs, tokenizer) | yields()
    runs = [training(pairs, model) for _ in range(rounds + 1)][1:]
    found["cpu_train_flops"] = statistics.median(rate for rate, _ in runs)
    found["cpu_run_seconds"] = statistics.median(rest for _, rest in runs)
    shape = models.shape(models.build(models.find(model).settings))
    engine = engines.open_engine("auto", model)
    asked = [group.prompt for group in pairs[:N_PROMPTS]]
    size = found["nano_prompt_tokens"]
    rates = [generating(engine, asked, shape, size) for _ in range(2 * rounds + 1)][1:]
    return found | {"cpu_generate_flops": statistics.median(rates)}


def write(values: dict[str, float]) -> None:
    """Replaces the values of `data/measured.toml`, line by line, comments kept."""
    path = config.home() / "data" / "measured.toml"
    text = path.read_text(encoding="utf-8")
    for name, value in values.items():
        pattern = rf"(\[{name}\]\nvalue = )[^\n]+"
        text, count = re.subn(pattern, rf"\g<1>{value:.4g}", text)
        if count != 1:
            raise ValueError(f"{path}: expected one table [{name}], found {count}")
    path.write_text(re.sub(r"(value = )(\d+)\n", r"\1\2.0\n", text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    values = measure(asked.rounds)
    for name, value in values.items():
        print(f"{name:28} {value:.4g}")
    if asked.write:
        write(values)


if __name__ == "__main__":
    main()
