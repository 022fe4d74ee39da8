"""The paper's own figures (`data/paper.toml`), completed by intervals and tests.

The paper prints rates without uncertainty. HumanEval has 164 tasks, so much follows from the
figures alone. `printed` reads them, `tables` adds intervals, `pairs` tests two models on the same
tasks, `claims` corrects all tests of what the paper claims at once, `audit` gathers the findings,
and `beside` and `inference` put a run of this project next to them. Only these need a run.
"""

from rrtf.paper.audit import audit, shown, verdicts
from rrtf.paper.beside import answer_lines, beside, beside_rows, undisclosed
from rrtf.paper.claims import claim_rows, claim_tests, claim_verdicts, range_lines, test_rows
from rrtf.paper.inference import by_variant, inference_beside, noise_note
from rrtf.paper.pairs import (
    Paired,
    detectable,
    detectable_rows,
    least_lead,
    p_range,
    paired,
    paired_rows,
)
from rrtf.paper.printed import Figures, figures, place, regions, solved, solved_by
from rrtf.paper.tables import (
    difficulty_rows,
    greedy_panels,
    greedy_rows,
    inference_rows,
    sampled_rows,
    size_rows,
)

__all__ = [
    "Figures",
    "Paired",
    "answer_lines",
    "audit",
    "beside",
    "beside_rows",
    "by_variant",
    "claim_rows",
    "claim_tests",
    "claim_verdicts",
    "detectable",
    "detectable_rows",
    "difficulty_rows",
    "figures",
    "greedy_panels",
    "greedy_rows",
    "inference_beside",
    "inference_rows",
    "least_lead",
    "noise_note",
    "p_range",
    "paired",
    "paired_rows",
    "place",
    "range_lines",
    "regions",
    "sampled_rows",
    "shown",
    "size_rows",
    "solved",
    "solved_by",
    "test_rows",
    "undisclosed",
    "verdicts",
]
