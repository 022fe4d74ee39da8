"""The side of GRPO that needs TRL: the rewards of executed answers, the trainer, what it leaves."""

import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrtf import prompts, store
from rrtf.ablation import grpo
from rrtf.cluster import end_with_parent
from rrtf.records import Outcome, Problem, Response
from rrtf.sandbox import executor
from rrtf.sandbox.executor import Limits
from rrtf.step import batches, networks, packing, sharding
from rrtf.step.networks import model_card
from rrtf.train import in_bfloat16

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def learn(output: Path) -> None:
    """From the task in the folder to a model, its card and `training.json`, written last."""
    task = grpo.read_task(output)
    network, tokenizer = packing.load(task.model, dropout=0.0, threads=task.recipe.threads)
    network.register_forward_pre_hook(count_positions, with_kwargs=True)
    run = _trainer(network, tokenizer, task, output / "checkpoints")
    whole = {"state": "trainer_state.json", "count": "global_step"}
    newest = sharding.newest_checkpoint(output / "checkpoints", **whole)
    run.train(resume_from_checkpoint=str(newest) if newest else None)
    network.config.use_cache = True
    network.save_pretrained(output)
    tokenizer.save_pretrained(output)
    rows = steps(run.state.log_history)
    settings = {name: getattr(task.recipe, name) for name in grpo.FOLLOWED}
    settings |= asdict(task.decoding) | {"n_samples": task.n_samples}
    store.write_bytes(output / "README.md", _card(task, rows, settings).encode())
    facts = {"run": output.name, "digest": task.digest, "settings": settings}
    facts |= {"n_problems": len(task.problems), "steps": [asdict(row) for row in rows]}
    store.write_json(output / "training.json", facts)
    shutil.rmtree(output / "checkpoints", ignore_errors=True)


def rewarder(
    problems: Sequence[Problem], *, limits: Limits, workers: int
) -> Callable[..., list[float]]:
    """TRL's reward function: executes the completions of the tasks named in column `task_id`.

    A text is cut and made a program as a sampled answer is.
    """
    by_task = {problem.task_id: problem for problem in problems}
    stops = prompts.stops(problems, grpo.PROMPT_FORMAT)

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
        return [grpo.REWARDS[outcome] for outcome in found]

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


def steps(log: Sequence[Mapping[str, float]]) -> list[grpo.RewardStep]:
    """TRL's log as rows, one per update, also of updates before a resume."""
    return [
        grpo.RewardStep(
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
    task: grpo.Task,
    folder: Path,
) -> Any:
    from datasets import Dataset, disable_progress_bars
    from trl import GRPOTrainer

    disable_progress_bars()
    asked = dict(zip((p.task_id for p in task.problems), task.prompts, strict=True))
    size, seed = task.recipe.groups_per_batch, task.recipe.seed
    order = {"updates": task.recipe.updates, "groups_per_batch": size, "seed": seed}
    rows = batches.in_order(task.problems, **order)
    columns = [{"prompt": asked[p.task_id], "task_id": p.task_id} for p in rows]
    return GRPOTrainer(
        model=network,
        reward_funcs=rewarder(task.problems, limits=task.limits, workers=task.workers),
        args=_arguments(task, folder),
        train_dataset=Dataset.from_list(columns),
        processing_class=tokenizer,
        callbacks=[_teller()],
    )


def _teller() -> Any:
    """A callback of the Trainer: says how many updates are done, and gives freed memory back."""
    from transformers import TrainerCallback

    class Teller(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            sys.stdout.write(f"{state.global_step}\n")
            sys.stdout.flush()
            networks.trim()

    return Teller()


def _arguments(task: grpo.Task, folder: Path) -> Any:
    """GRPO's settings: those of the task, and TRL's defaults for the rest."""
    import torch
    from trl import GRPOConfig

    recipe, decoding = task.recipe, task.decoding
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=recipe.updates,
        per_device_train_batch_size=recipe.groups_per_batch * task.n_samples,
        num_generations=task.n_samples,
        steps_per_generation=1,
        shuffle_dataset=False,  # it lies in order
        max_completion_length=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        beta=recipe.beta,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(recipe.warmup * recipe.updates),
        adam_beta2=0.95,
        max_grad_norm=recipe.clip,
        bf16=in_bfloat16(recipe.precision),
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        save_steps=recipe.checkpoint_every,
        save_total_limit=sharding.KEPT,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
        seed=recipe.seed,
    )


def _card(task: grpo.Task, rows: Sequence[grpo.RewardStep], settings: Mapping[str, Any]) -> str:
    start = Path(task.model).name
    about = (
        f"`{start}` trained with TRL's GRPO on executed answers to {len(task.problems)} problems, "
        "for comparison with ranking feedback (arXiv:2307.14936). Mean reward at the first update "
        f"{rows[0].reward:.3f}, at the last {rows[-1].reward:.3f}."
    )
    return model_card(f"GRPO from {start}", about, settings, start=start, tag="grpo")


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    learn(Path(sys.argv[1]))
