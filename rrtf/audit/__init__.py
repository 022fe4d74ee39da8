"""Does a training set contain the tasks it will be evaluated on? Detectors, evidence, a verdict.

The paper says that its data does not leak into HumanEval, and gives neither method nor threshold
nor number. Here words, code and behaviour are compared: `rows` reads what is
audited and `corpus` holds its normal forms, `detectors` finds resemblances (`embedding` those of
meaning), `verdict` tells leaks from chance, `views` shows it and writes the certificate, `plants`
makes leaks on purpose and counts which of them each detector notices.
"""

from rrtf.audit.corpus import Corpus
from rrtf.audit.detectors import EQUALITIES, detector_names, observe
from rrtf.audit.embedding import by_name
from rrtf.audit.plants import one_leak, planted, recall_rows
from rrtf.audit.rows import (
    Fields,
    Row,
    from_fields,
    from_problem,
    from_problems,
    from_responses,
    guess_fields,
    named_fields,
)
from rrtf.audit.verdict import (
    GENERIC,
    GENERIC_NODES,
    OPTIONS,
    RULE,
    Audit,
    audit,
    audit_answers,
    audit_stages,
    pairs,
)
from rrtf.audit.views import (
    Neighbour,
    agreement_matrix,
    answers,
    certificate,
    compare,
    detector_rows,
    nearest,
    only_by,
    out_of_sight,
    row_rows,
    stage_rows,
    task_rows,
    worst_pairs,
)

__all__ = [
    "EQUALITIES",
    "GENERIC",
    "GENERIC_NODES",
    "OPTIONS",
    "RULE",
    "Audit",
    "Corpus",
    "Fields",
    "Neighbour",
    "Row",
    "agreement_matrix",
    "answers",
    "audit",
    "audit_answers",
    "audit_stages",
    "by_name",
    "certificate",
    "compare",
    "detector_names",
    "detector_rows",
    "from_fields",
    "from_problem",
    "from_problems",
    "from_responses",
    "guess_fields",
    "named_fields",
    "nearest",
    "observe",
    "one_leak",
    "only_by",
    "out_of_sight",
    "pairs",
    "planted",
    "recall_rows",
    "row_rows",
    "stage_rows",
    "task_rows",
    "worst_pairs",
]
