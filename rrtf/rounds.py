"""On-policy rounds: what the model answers after training, to be ranked against the same teacher.

The paper samples the student once, before training (section 3.2.1), so the student answers that
RRTF pushes down are soon not what the model writes any more. A further round asks the trained
model again and executes what it says. Nothing else changes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrtf import config, execution, sample
from rrtf.records import Execution, Problem, Response

Tell = Callable[[int, int], None]


def answers(
    problems: Sequence[Problem],
    *,
    model: str | Path,
    number: int,
    shards: Path,
    sampling: Mapping[str, Any],
    limits: Mapping[str, Any],
    prompt_format: str = "starcoder",
    seed: int,
    progress: Callable[[str], Tell] | None = None,
) -> tuple[list[Response], list[Execution]]:
    """What `model` answers in round `number` of training, and the verdicts, in the same order.

    The first round, before training, has number 1, so this is called with 2 or more (else a
    ValueError): the number decides, with `seed`, what is drawn. `sampling` are options of
    `sample.sample_temperatures`, `limits` those of `execution.execute`. `progress` is given a name
    and returns the callback `(done, total)` for it, as `store.Stage.progress`. Finished shards lie
    in the folder `shards`, named by all they depend on, the model's weights included: all rounds
    may share it, and an interrupted round goes on where it was.
    """
    if number < 2:
        raise ValueError(
            f"round {number}: expected 2 or more; the first is sampled before training"
        )
    seed = config.derive_seed(seed, "round", number)
    draw = {"source": f"round-{number}", "prompt_format": prompt_format, "seed": seed} | sampling
    told = progress("sampling") if progress else None
    found = sample.sample_temperatures(problems, model=model, shards=shards, progress=told, **draw)
    told = progress("executing") if progress else None
    return found, execution.execute(problems, found, shards=shards, progress=told, **limits)
