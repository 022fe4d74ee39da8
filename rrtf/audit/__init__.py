"""Does a training set contain the tasks it will be evaluated on? Detectors, evidence, a verdict.

The paper says that its data does not leak into HumanEval, and gives neither method nor threshold
nor number. Here words, code and behaviour are compared: `detectors` finds resemblances,
`verdict` tells leaks from chance and writes the certificate, `plants` makes leaks on purpose and
counts which of them each detector notices.
"""

from rrtf.audit.detectors import (
    EQUALITIES,
    Row,
    detector_names,
    from_fields,
    from_problem,
    from_problems,
    observe,
)
from rrtf.audit.plants import one_leak, planted, recall_rows
from rrtf.audit.verdict import (
    OPTIONS,
    RULE,
    Audit,
    Neighbour,
    agreement_matrix,
    answers,
    audit,
    certificate,
    compare,
    detector_rows,
    nearest,
    only_by,
    out_of_sight,
    pairs,
    worst_pairs,
)

__all__ = [
    "EQUALITIES",
    "OPTIONS",
    "RULE",
    "Audit",
    "Neighbour",
    "Row",
    "agreement_matrix",
    "answers",
    "audit",
    "certificate",
    "compare",
    "detector_names",
    "detector_rows",
    "from_fields",
    "from_problem",
    "from_problems",
    "nearest",
    "observe",
    "one_leak",
    "only_by",
    "out_of_sight",
    "pairs",
    "planted",
    "recall_rows",
    "worst_pairs",
]
