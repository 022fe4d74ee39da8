"""What online reinforcement learning costs and gains on the small world: TRL's GRPO, one thread.

    python tests/benchmarks/bench_grpo.py [--updates 60] [--learning-rate 3e-4]

Trains the nano student on the audited training problems of the nano run (8 prompts per update, 8
answers each) and prints the seconds that TRL's process needs to start, the median seconds of an
update, and mean reward and share of passing answers over the first and the last tenth of the
updates. Beside it as many updates of `train` with the paper's objective on the run's pairs, and
the greedy pass@1 of all three models on the validation problems.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rrtf import config, engines, execution, sample, store, train
from rrtf.ablation import grpo
from rrtf.records import Problem, RankedGroup
from rrtf.sandbox import executor

RUN = config.run_dir("nano")


def clock() -> tuple[list[float], Callable[[int, int], None]]:
    """(moments, the callback that notes one after every update)."""
    moments = [time.perf_counter()]
    return moments, lambda done, total: moments.append(time.perf_counter())


def took(name: str, moments: Sequence[float]) -> None:
    start, *ends = moments
    each = statistics.median(b - a for a, b in itertools.pairwise(ends))
    print(f"{name}: {each:.2f} s per update (median of {len(ends) - 1})", end=", ")
    print(f"the first after {ends[0] - start:.0f} s")


def passing(model: str | Path, folder: Path) -> float:
    """Share of the validation problems that the model's greedy answer solves."""
    problems = store.read(RUN / "01_evolve/validation.jsonl", Problem)
    how = {"source": "model", "temperature": 0.0, "n_samples": 1, "shards": folder}
    answers = sample.sample(problems, model=model, **how)
    return execution.fraction_passing(executor.execute(problems, answers, workers=1))["model"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    problems = store.read(RUN / "02_audit/train.jsonl", Problem)
    pairs = store.read(RUN / "04_rank/pairs.jsonl", RankedGroup)
    student = engines.model_folder("nano-student")
    common = {"model": student, "updates": given.updates, "seed": given.seed}
    with tempfile.TemporaryDirectory() as folder:
        moments, told = clock()
        models = {"base": student, "GRPO": Path(folder) / "grpo"}
        models["RRTF on pairs"] = Path(folder) / "rrtf"
        rows = grpo.train(
            problems,
            output=models["GRPO"],
            learning_rate=given.learning_rate,
            limits={"workers": 1},
            progress=told,
            **common,
        )
        took("GRPO", moments)
        tenth = max(1, len(rows) // 10)
        for name, some in (("first", rows[:tenth]), ("last", rows[-tenth:])):
            reward = statistics.mean(row.reward for row in some)
            solved = statistics.mean(row.passing for row in some)
            print(f"  {name} {tenth} updates: reward {reward:+.3f}, passing {solved:.3f}")
        moments, told = clock()
        options = {"objective": "rrtf", "groups_per_batch": 8, "learning_rate": 1e-5}
        options |= {"ft_reduction": "sum", "output": models["RRTF on pairs"]}
        train.train(pairs, progress=told, **options, **common)
        took("RRTF on pairs", moments)
        for name, model in models.items():
            print(f"{name}: validation pass@1 {passing(model, Path(folder) / 'shards'):.3f}")


if __name__ == "__main__":
    main()
