"""The ablation that the paper never ran, registered in `data/ablation.toml`.

Modules: `registration` (what was planned), `material` (answers of all teachers, problems nobody
has seen), `sets` (an arm's training set), `making` (its models), `runs` (what is still to be run,
and the ledger), `results` (rates, contrasts, tables).
"""

from rrtf.ablation.making import make
from rrtf.ablation.material import answers_file, collect, given, held_out, oracle, sampling
from rrtf.ablation.registration import Arm, Registration, place, read
from rrtf.ablation.results import (
    arm_rows,
    curve,
    grid_rows,
    missing,
    primary,
    rate_rows,
    scores,
    secondary,
    tiers_compared,
    two_by_two,
)
from rrtf.ablation.runs import (
    HELD_OUT,
    VALIDATION,
    Line,
    carry_out,
    chosen_rates,
    exams,
    finals,
    grid,
    tokens_per_prompt,
)
from rrtf.ablation.sets import Answers, Material, training_set

__all__ = [
    "HELD_OUT",
    "VALIDATION",
    "Answers",
    "Arm",
    "Line",
    "Material",
    "Registration",
    "answers_file",
    "arm_rows",
    "carry_out",
    "chosen_rates",
    "collect",
    "curve",
    "exams",
    "finals",
    "given",
    "grid",
    "grid_rows",
    "held_out",
    "make",
    "missing",
    "oracle",
    "place",
    "primary",
    "rate_rows",
    "read",
    "sampling",
    "scores",
    "secondary",
    "tiers_compared",
    "tokens_per_prompt",
    "training_set",
    "two_by_two",
]
