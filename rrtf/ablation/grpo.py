"""Online reinforcement learning on the same tests, for comparison: TRL's GRPO, CodeRL's rewards.

The paper sets RRTF against PPO-like training in words only. Here the start model answers a
training prompt several times, the sandbox executes the answers, and TRL's GRPO (arXiv:2402.03300)
learns from CodeRL's four rewards (arXiv:2207.01780, section 3.2), which are the paper's four
situations. TRL runs in a process of its own, by any Python that has it: it need not be part of
the environment that asks. Not covered: prompts of chat models, several devices.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rrtf import config, engines, store
from rrtf.engines import Decoding
from rrtf.records import Outcome, Problem
from rrtf.sandbox.executor import Limits
from rrtf.train import Recipe, start

REWARDS = {  # CodeRL, eq. 4 there
    Outcome.COMPILE_ERROR: -1.0,
    Outcome.RUNTIME_ERROR: -0.6,
    Outcome.FAILED_TESTS: -0.3,
    Outcome.PASS: 1.0,
}
# of a recipe
FOLLOWED = (
    "updates", "groups_per_batch", "learning_rate", "warmup", "beta", "clip", "precision",
    "checkpoint_every", "seed", "threads",
)  # fmt: skip
PROMPT_FORMAT = "starcoder"
TASK = ".task.json"
LOG = "grpo.log"  # what TRL's process says


@dataclass(frozen=True, slots=True)
class RewardStep:
    """One update: means over its answers, before the update.

    `passing` and `cut` (at max_new_tokens) are shares of the answers, `length` counts tokens,
    `spread` is the standard deviation of the rewards.
    """

    step: int
    loss: float
    reward: float
    spread: float
    passing: float
    length: float
    cut: float
    learning_rate: float
    grad_norm: float


@dataclass(frozen=True, slots=True)
class Task:
    """What TRL's process is told; `prompts` are parallel to `problems`."""

    model: str
    recipe: Recipe
    decoding: Decoding
    n_samples: int
    limits: Limits
    workers: int
    problems: tuple[Problem, ...]
    prompts: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The hash of what the result depends on: all of it, the start model by its weights."""
        facts = {**asdict(self), "model": store.sha256(Path(self.model))}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_task(output: Path) -> Task:
    """The task that `train` has left in `output`."""
    row = store.read_json(output / TASK)
    kinds = {"recipe": Recipe, "decoding": Decoding, "limits": Limits}
    own = {name: kind(**row[name]) for name, kind in kinds.items()}
    own["problems"] = tuple(Problem(**problem) for problem in row["problems"])
    return Task(**row | own)


def train(
    problems: Sequence[Problem],
    *,
    model: str | Path,
    output: Path,
    recipe: Recipe,
    decoding: Decoding,
    n_samples: int,
    limits: Limits,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[RewardStep]:
    """Trains a copy of `model` by GRPO and saves it in `output`; one row per update.

    Every update draws `n_samples` answers to each of `groups_per_batch` problems; the prompts come
    in the order in which `train.train` meets them with the same recipe. Of that are followed
    `FOLLOWED`, all else is TRL's default; `beta` weighs the divergence from the start model, and a
    policy gradient asks for larger learning rates than imitation
    (`tests/benchmarks/bench_grpo.py`). `limits` and `workers` are those of `executor.execute`.

    A finished run of the same task is read, not repeated; an interrupted one goes on from its
    newest checkpoint. ImportError where no Python has TRL, ValueError for n_samples below 2,
    RuntimeError with the end of the log if TRL's process fails.
    """
    if n_samples < 2:
        raise ValueError(f"n_samples {n_samples}: expected 2 or more, to compare them")
    ask = engines.asker(model, PROMPT_FORMAT)
    task = Task(
        model=str(engines.model_folder(model)),
        recipe=recipe,
        decoding=decoding,
        n_samples=n_samples,
        limits=limits,
        workers=workers,
        problems=tuple(problems),
        prompts=tuple(ask(problem) for problem in problems),
    )
    finished = read_steps(output, task.digest)
    if finished is not None:
        return finished
    python = interpreter()
    start(output, {"digest": task.digest, "of": {"digest": task.digest}}, overwrite=True)
    store.write_json(output / TASK, asdict(task))
    began = time.monotonic()
    _run(python, output, recipe, progress)
    store.write_json(output / ".seconds.json", round(time.monotonic() - began, 1))
    return read_steps(output, task.digest) or []


def interpreter() -> str:
    """A Python that has TRL: this one, `$RRTF_TRL`, or that of `make peers`; else ImportError."""
    if importlib.util.find_spec("trl"):
        return sys.executable
    named = os.environ.get("RRTF_TRL") or str(config.home() / ".venv-peers/bin/python")
    if Path(named).exists():
        asked = [named, "-c", "import importlib.util as i; exit(i.find_spec('trl') is None)"]
        if subprocess.run(asked).returncode == 0:
            return named
    raise ImportError("GRPO needs TRL: `make peers` installs it, or $RRTF_TRL names its Python")


def read_steps(output: Path, digest: str = "") -> list[RewardStep] | None:
    """The rows of a finished run, or None if it is not finished or (`digest`) was another run."""
    path = output / "training.json"
    if not path.exists():
        return None
    facts = store.read_json(path)
    if digest and facts["digest"] != digest:
        return None
    return [store.from_row(row, RewardStep, str(path)) for row in facts["steps"]]


def _run(
    python: str, output: Path, recipe: Recipe, progress: Callable[[int, int], None] | None
) -> None:
    """TRL's process from start to end: it prints the number of every update it has made."""
    paths = [str(config.home()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(recipe.threads),
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    with (
        (output / LOG).open("a") as log,
        subprocess.Popen(
            [python, "-m", "rrtf.ablation.grpo_learn", str(output), str(os.getpid())],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        ) as child,
    ):  # fmt: skip
        try:
            for line in child.stdout:
                if progress and line.strip().isdigit():
                    progress(int(line), recipe.updates)
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        end = (output / LOG).read_text(encoding="utf-8", errors="replace").strip()[-500:]
        raise RuntimeError(f"{output / LOG}: TRL's process ended with {child.returncode}: {end}")
