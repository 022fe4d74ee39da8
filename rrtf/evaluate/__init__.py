"""What every trained model solves, how sure that is, and what it owes to which part of RRTF.

The notebook samples, executes, then scores; here is what happens before and after: who takes
part, the scores of executions, results with intervals, the planned comparisons, and sentences
that say of a comparison no more than it shows.

Modules: `exam` (who answers what, scores), `differences` (results, comparisons, sentences),
`flagged` (tasks that leak apart from the others).
"""

from rrtf.evaluate.differences import (
    brief,
    compare,
    comparisons,
    differences,
    gain_parts,
    ladder,
    points,
    results,
    sentence,
    story,
    verdict,
)
from rrtf.evaluate.exam import (
    Contender,
    Exam,
    Sat,
    contenders,
    exams,
    responses_of,
    score,
    sit,
)
from rrtf.evaluate.flagged import CAUTION, PARTS, by_leak, flagged_tasks

__all__ = [
    "CAUTION",
    "PARTS",
    "Contender",
    "Exam",
    "Sat",
    "brief",
    "by_leak",
    "compare",
    "comparisons",
    "contenders",
    "differences",
    "exams",
    "flagged_tasks",
    "gain_parts",
    "ladder",
    "points",
    "responses_of",
    "results",
    "score",
    "sentence",
    "sit",
    "story",
    "verdict",
]
