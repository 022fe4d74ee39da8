"""The folder of a training run: whose it is, whether it may be used, what it says of itself."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrtf import store
from rrtf.records import RankedGroup, TrainStep

MARKER = ".digest.json"
# what a run may be resumed with another value of: the result is the same but for rounding
FREE = ("tokens_per_forward", "checkpointing", "checkpoint_every")


def mark(groups: Iterable[RankedGroup], model: str | Path, settings: Mapping) -> dict[str, Any]:
    """What the result depends on (settings, data, start model), and the hash of it."""
    facts = {name: value for name, value in settings.items() if name not in FREE}
    facts |= {
        "start model": store.sha256(Path(model)) if Path(model).is_dir() else str(model),
        "groups": hashlib.sha256(store.encode(groups, ".jsonl")).hexdigest(),
    }
    text = json.dumps(facts, sort_keys=True)
    return {"digest": hashlib.sha256(text.encode()).hexdigest(), "of": facts}


def start(output: Path, mark: Mapping[str, Any], *, overwrite: bool) -> None:
    """Makes `output` ready for the run of `mark`: new, or with this run's checkpoints.

    Of another run only what a run makes is removed, and only if `overwrite`; a folder that no run
    made is never touched. ValueError where that leaves no place.
    """
    marker = output / MARKER
    if not marker.exists():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ValueError(f"{output}: exists and no training made it; name another folder")
        store.write_json(marker, mark)
        return
    before = store.read_json(marker)
    facts = before["of"] if isinstance(before, dict) else {}
    if facts == mark["of"]:
        return
    started = (output / "training.json").exists() or (output / "checkpoints").exists()
    if started and not overwrite:
        told = _differences(facts, mark["of"])
        raise ValueError(f"{output}: holds another run: {told}; --overwrite replaces it")
    (output / "training.json").unlink(missing_ok=True)
    for name in ("checkpoints", "adapter", "logs"):
        shutil.rmtree(output / name, ignore_errors=True)
    store.write_json(marker, mark)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What another run in the same folder was asked otherwise."""
    hashed = ("start model", "groups")
    changed = [name for name in now if before.get(name) != now[name]]
    plain = [
        f"{name} {before.get(name)}, now {now[name]}" for name in changed if name not in hashed
    ]
    return "; ".join([*plain, *(f"another {name}" for name in changed if name in hashed)])


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
