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
from dataclasses import replace
from pathlib import Path

from rrtf import config, engines, execution, sample, store, train
from rrtf.ablation import grpo, runs
from rrtf.engines import Decoding
from rrtf.records import Problem, RankedGroup
from rrtf.sandbox import executor

RUN = config.run_dir("nano")
LIMITS = executor.Limits(2.0, 6.0, 512, "landlock+seccomp")


def clock() -> tuple[list[float], Callable[..., None]]:
    """(moments, the callback that notes one after every update)."""
    moments = [time.perf_counter()]
    return moments, lambda *_: moments.append(time.perf_counter())


def took(name: str, moments: Sequence[float]) -> None:
    start, *ends = moments
    each = statistics.median(b - a for a, b in itertools.pairwise(ends))
    print(f"{name}: {each:.2f} s per update (median of {len(ends) - 1})", end=", ")
    print(f"the first after {ends[0] - start:.0f} s")


def passing(model: str | Path, folder: Path) -> float:
    """Share of the validation problems that the model's greedy answer solves."""
    problems = store.read(RUN / "01_evolve/validation.jsonl", Problem)
    author = sample.Author(str(model), "model", "auto", "starcoder")
    greedy = {"decodings": [Decoding(0.0, 1.0, runs.LONGEST, 0)], "n_samples": 1}
    where = {"shards": folder, "workers": 1, "cluster": "local"}
    answers = sample.sample(problems, author, **greedy, **where)
    verdicts = executor.execute(problems, answers, limits=LIMITS, workers=1)
    return execution.fraction_passing(verdicts)["model"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    problems = store.read(RUN / "02_audit/train.jsonl", Problem)
    pairs = store.read(RUN / "04_rank/pairs.jsonl", RankedGroup)
    student = engines.model_folder("nano-student")
    own = {"objective": "rrtf", "learning_rate": 1e-5, "epochs": 0.0, "threads": 1}
    own |= {"updates": given.updates, "seed": given.seed}
    recipe = train.Recipe.of(config.resolve("nano", "train"), **own)
    with tempfile.TemporaryDirectory() as folder:
        moments, told = clock()
        models = {"base": student, "GRPO": Path(folder) / "grpo"}
        models["RRTF on pairs"] = Path(folder) / "rrtf"
        rows = grpo.train(
            problems,
            model=student,
            output=models["GRPO"],
            recipe=replace(recipe, learning_rate=given.learning_rate, beta=0.0),
            decoding=Decoding(1.0, 1.0, runs.LONGEST, given.seed),
            n_samples=runs.DRAWN,
            limits=LIMITS,
            workers=1,
            progress=told,
        )
        took("GRPO", moments)
        tenth = max(1, len(rows) // 10)
        for name, some in (("first", rows[:tenth]), ("last", rows[-tenth:])):
            reward = statistics.mean(row.reward for row in some)
            solved = statistics.mean(row.passing for row in some)
            print(f"  {name} {tenth} updates: reward {reward:+.3f}, passing {solved:.3f}")
        moments, told = clock()
        where = {"model": student, "output": models["RRTF on pairs"], "overwrite": True}
        train.train(pairs, recipe=recipe, told=told, **where)
        took("RRTF on pairs", moments)
        for name, model in models.items():
            print(f"{name}: validation pass@1 {passing(model, Path(folder) / 'shards'):.3f}")


if __name__ == "__main__":
    main()
