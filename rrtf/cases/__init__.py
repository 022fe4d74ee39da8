"""Single tasks, chosen by rule: who solves what, where an answer fails, how often and why.

The paper shows three hand-picked tasks (Figs 6 to 8) and one overlap of solved sets (Fig 5);
here both come from the scores, so that nobody chooses the flattering ones.

Modules: `choice` (which tasks), `sheets` (one task, its answers side by side), `taxonomy` (kinds
of failures), over `replay` with `rewriting` and `steps` (the first failing test), `difference`.
"""

from rrtf.cases.choice import (
    alone,
    by_set,
    choose,
    first_line,
    overlap,
    rates,
    regions,
    solved_counts,
)
from rrtf.cases.difference import marked
from rrtf.cases.replay import Failure, failures
from rrtf.cases.sheets import Case, describe, first_answers, sheets, typical
from rrtf.cases.taxonomy import (
    KINDS,
    changes,
    given,
    kind,
    outcomes,
    reasons,
    returned,
    taxonomy,
    taxonomy_rows,
)

__all__ = [
    "KINDS",
    "Case",
    "Failure",
    "alone",
    "by_set",
    "changes",
    "choose",
    "describe",
    "failures",
    "first_answers",
    "first_line",
    "given",
    "kind",
    "marked",
    "outcomes",
    "overlap",
    "rates",
    "reasons",
    "regions",
    "returned",
    "sheets",
    "solved_counts",
    "taxonomy",
    "taxonomy_rows",
    "typical",
]
