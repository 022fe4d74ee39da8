"""transformers' Trainer with an objective over groups, and what its checkpoints say.

The Trainer does the loop, the optimiser, the schedule, checkpoints and resume; this module hands
it a loss of several parts, keeps those parts in its log and finds the checkpoint to go on from.
"""

import ctypes
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from rrtf.records import TrainStep


class GroupTrainer(transformers.Trainer):
    """A Trainer whose loss comes in parts; the data come in the order given.

    `parts_of(model, batch, update)` returns a tuple with the fields of `rrtf.loss.Parts`.
    """

    def __init__(self, *args: Any, parts_of: Callable[[nn.Module, Any, int], Any], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.parts_of = parts_of
        self.parts: dict[str, float] = {}
        self.remove_callback(transformers.PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The loss () of one batch; its parts wait for the log."""
        network = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast():
            parts = self.parts_of(network, inputs, self.state.global_step + 1)
        self.parts = {
            "rank_loss": float(parts.rank),
            "ft_loss": float(parts.ft),
            "violated": float(parts.violated),
            "rate": self.optimizer.param_groups[0]["lr"],
        }
        return parts.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs | self.parts if "loss" in logs else logs, start_time)


class Reporter(transformers.TrainerCallback):
    """Calls `progress(update, updates)` after every update."""

    def __init__(self, progress: Callable[[int, int], None]):
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps)


class Trimmer(transformers.TrainerCallback):
    """Gives freed memory back to the system every few updates.

    Batches differ in size, so glibc's heap fragments: without this a run's resident memory
    doubles within thirty updates. Costs under one percent of the time.
    """

    def __init__(self, every: int = 5):
        self.every = every
        self.trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trim and state.global_step % self.every == 0:
            self.trim(0)


def arguments(
    folder: Path,
    *,
    updates: int,
    groups_per_batch: int,
    learning_rate: float,
    warmup: float,
    weight_decay: float,
    clip: float,
    bfloat16: bool,
    checkpoint_every: int,
    seed: int,
) -> transformers.TrainingArguments:
    """The Trainer's settings; it reports nowhere and keeps two checkpoints in `folder`."""
    return transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=updates,
        per_device_train_batch_size=groups_per_batch,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(warmup * updates),
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=weight_decay,
        max_grad_norm=clip,
        bf16=bfloat16,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=checkpoint_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        seed=seed,
        data_seed=seed,
    )


def newest_checkpoint(folder: Path) -> str | None:
    """The path of the newest checkpoint that was written whole, or None.

    The Trainer writes `trainer_state.json` last: a checkpoint that a crash cut short has none, or
    one that is not JSON.
    """
    found = sorted(
        folder.glob("checkpoint-*"),
        key=lambda path: int(path.name.rpartition("-")[2]),
        reverse=True,
    )
    for path in found:
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        if path.name == f"checkpoint-{state['global_step']}":
            return str(path)
    return None


def steps(run: str, log: Sequence[Mapping[str, float]]) -> list[TrainStep]:
    """The Trainer's log as rows, one per update, also of updates before a resume."""
    return [
        TrainStep(
            run=run,
            step=row["step"],
            loss=row["loss"],
            rank_loss=row["rank_loss"],
            ft_loss=row["ft_loss"],
            violated=row["violated"],
            learning_rate=row["rate"],
            grad_norm=float(row["grad_norm"]),
        )
        for row in log
        if "rank_loss" in row
    ]


def native_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware, where it is faster than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def model_card(facts: Mapping[str, Any], steps: Sequence[TrainStep]) -> str:
    """The README.md of a trained model: what it is, from what, how, how far."""
    settings = facts["settings"]
    dropped = ", ".join(f"{n} {reason}" for reason, n in facts["dropped"].items()) or "none"
    rows = "\n".join(f"| {name} | {value} |" for name, value in sorted(settings.items()))
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n"
        f"base_model: {settings['model']}\ntags: [code, rrtf]\n---\n\n# {facts['run']}\n\n"
        f"`{settings['model']}` fine-tuned with the objective `{settings['objective']}` of rrtf, a "
        "reproduction of ranking feedback for code models (arXiv:2307.14936).\n\n"
        f"{facts['n_trained']} prompts with ranked responses (dropped: {dropped}), "
        f"{settings['updates']} updates of {settings['groups_per_batch']} prompts. Loss at the "
        f"first update {steps[0].loss:.4f}, at the last {steps[-1].loss:.4f}. `training.json` has "
        "every update.\n\nThe model writes short Python functions; execute what it writes only "
        f"in isolation.\n\n| setting | value |\n| --- | --- |\n{rows}\n"
    )
