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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rrtf import config, engines, store
from rrtf.records import Outcome, Problem
from rrtf.train import start

REWARDS = {  # CodeRL, eq. 4 there
    Outcome.COMPILE_ERROR: -1.0,
    Outcome.RUNTIME_ERROR: -0.6,
    Outcome.FAILED_TESTS: -0.3,
    Outcome.PASS: 1.0,
}
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


def train(
    problems: Sequence[Problem],
    *,
    model: str | Path,
    output: Path,
    updates: int,
    learning_rate: float,
    prompts_per_update: int = 8,
    n_samples: int = 8,
    rewards: Mapping[Outcome, float] = REWARDS,
    beta: float = 0.0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 140,
    prompt_format: str = "starcoder",
    warmup: float = 0.05,
    clip: float = 1.0,
    precision: str = "auto",
    checkpoint_every: int = 50,
    seed: int = 0,
    threads: int = 1,
    limits: Mapping[str, Any],
    python: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> list[RewardStep]:
    """Trains a copy of `model` by GRPO and saves it in `output`; one row per update.

    Every update draws `n_samples` answers to each of `prompts_per_update` problems; the prompts
    come in the order in which `train.train` meets them with the same `seed`. AdamW, warm-up,
    schedule, `clip` and `precision` as there; a policy gradient asks for larger learning rates
    than imitation (`tests/benchmarks/bench_grpo.py`). `beta` weighs the divergence from the start
    model (TRL's default is none), all else is TRL's default. `limits` holds
    `limits` and `workers` for `executor.execute`. `python`: see `interpreter`.

    A finished run with the same settings is read, not repeated; an interrupted one goes on from
    its newest checkpoint. ImportError where no Python has TRL, ValueError for a chat format or
    n_samples below 2, RuntimeError with the end of the log if TRL's process fails.
    """
    if prompt_format == "chat" or n_samples < 2:
        raise ValueError(
            f"prompt_format {prompt_format}, n_samples {n_samples}: no chat, 2 or more"
        )
    named = locals()
    settings = {name: named[name] for name in _SETTINGS}
    settings |= {"rewards": [rewards[outcome] for outcome in Outcome], "workers": limits["workers"]}
    settings |= {"limits": asdict(limits["limits"])}
    task = _task(problems, model, settings)
    digest = _digest(task)
    finished = read_steps(output, digest)
    if finished is not None:
        return finished
    python = python or interpreter()
    start(output, {"digest": digest, "of": {"digest": digest}}, overwrite=True)
    store.write_json(output / ".task.json", task | {"digest": digest})
    began = time.monotonic()
    _run(python, output, updates, threads, progress)
    store.write_json(output / ".seconds.json", round(time.monotonic() - began, 1))
    return read_steps(output, digest) or []


_SETTINGS = (
    "updates", "learning_rate", "prompts_per_update", "n_samples", "beta", "temperature", "top_p",
    "max_new_tokens", "prompt_format", "warmup", "clip", "precision", "checkpoint_every", "seed",
    "threads",
)  # fmt: skip


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


def _task(
    problems: Sequence[Problem], model: str | Path, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What TRL's process is told."""
    ask = engines.asker(model, settings["prompt_format"])
    return {
        "model": str(engines.model_folder(model)),
        "settings": settings,
        "problems": [store.to_row(problem) for problem in problems],
        "prompts": [ask(problem) for problem in problems],
    }


def _digest(task: Mapping[str, Any]) -> str:
    """What the result depends on, hashed: settings, problems, prompts, start model."""
    text = json.dumps({**task, "model": store.sha256(Path(task["model"]))}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _run(
    python: str,
    output: Path,
    updates: int,
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """TRL's process from start to end: it prints the number of every update it has made."""
    paths = [str(config.home()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    with (
        (output / LOG).open("a") as log,
        subprocess.Popen(
            [python, "-m", "rrtf.ablation.grpo_learn", str(output)],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        ) as child,
    ):  # fmt: skip
        try:
            for line in child.stdout:
                if progress and line.strip().isdigit():
                    progress(int(line), updates)
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        end = (output / LOG).read_text(encoding="utf-8", errors="replace").strip()[-500:]
        raise RuntimeError(f"{output / LOG}: TRL's process ended with {child.returncode}: {end}")
