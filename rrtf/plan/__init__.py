"""What a run would take, before it is run: memory, GPUs, tokens, FLOPs, hours and energy.

`plan` answers for any profile and any model that transformers knows, from its configuration alone.
Hours are FLOPs over what the devices reach; what that is, is measured for a CPU core and assumed
for GPUs, and every figure that a plan rests on stands in the plan.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rrtf import config, store
from rrtf.plan.models import device, device_of
from rrtf.plan.planning import Asked, model_override, plan
from rrtf.plan.printed import rows, show

__all__ = [
    "Asked",
    "Plan",
    "Serving",
    "assumed",
    "beside_paper",
    "device",
    "device_of",
    "estimates",
    "model_override",
    "plan",
    "rows",
    "run",
    "show",
]


def run(
    profile: str,
    *,
    model: str | None = None,
    changes: Sequence[str] = (),
    out: str | None = None,
    on: str | None = None,
    memory: float | None = None,
    flops: float | None = None,
    watts: float | None = None,
    train: float | None = None,
    generate: float | None = None,
    **asked: float | None,
) -> None:
    """The verb `plan`: prints the plan, and writes it to `out` (`-`: instead, to standard output).

    `changes` are `stage.key=value`; `on` names a device of which the figures that follow are
    replaced (GB, TFLOP/s, W, shares of the TFLOP/s); `asked` are the fields of `Asked`. ValueError
    and FileNotFoundError for what a caller can get wrong.
    """
    import transformers
    from rich.console import Console

    transformers.logging.set_verbosity_error()  # of configurations that are not meant to be run
    if out not in (None, "-") and Path(out).suffix != ".json":
        raise ValueError(f"--out {out}: expected a name that ends in .json")
    overrides = dict(config.parse_override(text) for text in changes) | model_override(model)
    settings = config.resolve(profile, "train", overrides)
    figures = {"memory": memory, "flops": flops, "watts": watts}
    figures |= {"train": train, "generate": generate}
    place = device(on or device_of(str(settings["profile"])), **figures)
    found = plan(profile, on=place, overrides=overrides, asked=Asked(**asked))
    if out == "-":
        print(json.dumps(rows(found), indent=1))
        return
    show(found, Console(highlight=False))
    if out:
        store.write_json(Path(out), rows(found))
        print(f"\nThe same for programs: {out}")
