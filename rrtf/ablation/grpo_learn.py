"""The side of GRPO that needs TRL: the rewards of executed answers, the trainer, what it leaves."""

import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrtf import prompts, store
from rrtf.ablation.grpo import RewardStep
from rrtf.records import Outcome, Problem, Response
from rrtf.sandbox import executor
from rrtf.sandbox.executor import Limits
from rrtf.step import batches, packing

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def learn(output: Path) -> None:
    """From `.task.json` in the folder to a model, its card and `training.json`, written last."""
    task = store.read_json(output / ".task.json")
    settings = task["settings"]
    network, tokenizer = packing.load(task["model"], threads=settings["threads"])
    network.register_forward_pre_hook(count_positions, with_kwargs=True)
    problems = [store.from_row(row, Problem, ".task.json") for row in task["problems"]]
    run = _trainer(network, tokenizer, problems, task, output)
    run.train(resume_from_checkpoint=newest_checkpoint(output / "checkpoints"))
    network.config.use_cache = True
    network.save_pretrained(output)
    tokenizer.save_pretrained(output)
    rows = steps(run.state.log_history)
    store.write_bytes(output / "README.md", _card(task, rows).encode())
    facts = {"run": output.name, "digest": task["digest"], "settings": settings}
    facts |= {"n_problems": len(problems), "steps": [asdict(row) for row in rows]}
    store.write_json(output / "training.json", facts)
    shutil.rmtree(output / "checkpoints", ignore_errors=True)


def rewarder(
    problems: Sequence[Problem],
    *,
    rewards: Mapping[Outcome, float],
    prompt_format: str,
    limits: Limits,
    workers: int,
) -> Callable[..., list[float]]:
    """TRL's reward function: executes the completions of the tasks named in column `task_id`.

    A text is cut at the stops of `prompt_format` and made a program as a sampled answer is.
    """
    by_task = {problem.task_id: problem for problem in problems}
    stops = prompts.stops(problems, prompt_format)

    def reward(
        completions: Sequence[str],
        task_id: Sequence[str],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        answers = []
        for index, (task, text) in enumerate(zip(task_id, completions, strict=True)):
            text = prompts.cut(text, stops)
            program = prompts.extract(by_task[task], text)
            answers.append(Response(task, "grpo", index, text, program))
        asked = [by_task[task] for task in dict.fromkeys(task_id)]
        runs = executor.execute(asked, answers, limits=limits, workers=workers)
        found = [run.outcome for run in runs]
        log_metric("passing", sum(outcome == Outcome.PASS for outcome in found) / len(found))
        return [rewards[outcome] for outcome in found]

    return reward


def count_positions(
    module: "nn.Module", args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """A forward pre-hook: where no positions are given, they count the tokens that are not padding.

    TRL pads prompts on the left and passes no positions, so a model of learned positions
    (GPTBigCode) would score every shorter prompt's answers at the wrong ones.
    """
    mask = kwargs.get("attention_mask")
    if kwargs.get("position_ids") is None and mask is not None and mask.dim() == 2:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is not None and ids.shape == mask.shape:
            positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)  # (B, T)
            kwargs = kwargs | {"position_ids": positions}
    return args, kwargs


def steps(log: Sequence[Mapping[str, float]]) -> list[RewardStep]:
    """TRL's log as rows, one per update, also of updates before a resume."""
    return [
        RewardStep(
            step=row["step"],
            loss=row["loss"],
            reward=row["reward"],
            spread=row["reward_std"],
            passing=row["passing"],
            length=row["completions/mean_length"],
            cut=row["completions/clipped_ratio"],
            learning_rate=row["learning_rate"],
            grad_norm=float(row["grad_norm"]),
        )
        for row in log
        if "reward" in row
    ]


def _trainer(
    network: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    problems: Sequence[Problem],
    task: Mapping[str, Any],
    output: Path,
) -> Any:
    from datasets import Dataset, disable_progress_bars
    from trl import GRPOTrainer

    disable_progress_bars()
    settings = task["settings"]
    asked = dict(zip((p.task_id for p in problems), task["prompts"], strict=True))
    per_update = settings["prompts_per_update"]
    order = {"updates": settings["updates"], "seed": settings["seed"]}
    rows = batches.in_order(problems, groups_per_batch=per_update, **order)
    reward = rewarder(
        problems,
        rewards=dict(zip(Outcome, settings["rewards"], strict=True)),
        prompt_format=settings["prompt_format"],
        limits=Limits(**settings["limits"]),
        workers=settings["workers"],
    )
    columns = [{"prompt": asked[p.task_id], "task_id": p.task_id} for p in rows]
    return GRPOTrainer(
        model=network,
        reward_funcs=reward,
        args=_arguments(settings, output / "checkpoints"),
        train_dataset=Dataset.from_list(columns),
        processing_class=tokenizer,
        callbacks=[_teller()],
    )


def _teller() -> Any:
    """A callback of the Trainer: says how many updates are done, and gives freed memory back."""
    from transformers import TrainerCallback

    from rrtf.train import trim

    class Teller(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            sys.stdout.write(f"{state.global_step}\n")
            sys.stdout.flush()
            trim()

    return Teller()


def newest_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint of the Trainer, which writes `trainer_state.json` last."""
    found = folder.glob("checkpoint-*")
    for path in sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        try:
            state = store.read_json(path / "trainer_state.json")
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        if path.name == f"checkpoint-{state['global_step']}":
            return str(path)
    return None


def _arguments(settings: Mapping[str, Any], folder: Path) -> Any:
    """GRPO's settings: those of `grpo.train`, and TRL's defaults for the rest."""
    import torch
    from trl import GRPOConfig

    from rrtf.train import native_bfloat16

    auto = settings["precision"] == "auto"
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=settings["updates"],
        per_device_train_batch_size=settings["prompts_per_update"] * settings["n_samples"],
        num_generations=settings["n_samples"],
        steps_per_generation=1,
        shuffle_dataset=False,  # it lies in order
        max_completion_length=settings["max_new_tokens"],
        temperature=settings["temperature"],
        top_p=settings["top_p"],
        beta=settings["beta"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(settings["warmup"] * settings["updates"]),
        adam_beta2=0.95,
        max_grad_norm=settings["clip"],
        bf16=native_bfloat16() if auto else settings["precision"] == "bfloat16",
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        save_steps=settings["checkpoint_every"],
        save_total_limit=2,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
        seed=settings["seed"],
    )


def _card(task: Mapping[str, Any], rows: Sequence[RewardStep]) -> str:
    """The README.md of the trained model."""
    settings = task["settings"]
    table = "\n".join(f"| {name} | {value} |" for name, value in sorted(settings.items()))
    start = Path(task["model"]).name
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n"
        f"base_model: {start}\ntags: [code, grpo]\n---\n\n# GRPO from {start}\n\n"
        f"`{start}` trained with TRL's GRPO on executed answers to {len(task['problems'])} "
        "problems, for comparison with ranking feedback (arXiv:2307.14936). Mean reward at the "
        f"first update {rows[0].reward:.3f}, at the last {rows[-1].reward:.3f}. `training.json` "
        "has every update.\n\nThe model writes short Python functions; execute what it writes "
        f"only in isolation.\n\n| setting | value |\n| --- | --- |\n{table}\n"
    )


if __name__ == "__main__":
    learn(Path(sys.argv[1]))
