"""Stage 08: the trained model smaller and faster, and what that costs (section 4.4, Table 4).

Modules: `variants` (made, opened, weighed), `gptq`, `measuring` (what one process does with one
variant), `jobs` (those processes), `sanity` (is it still a model), `table` (rates, tests, rows).
"""

from rrtf.quantize.jobs import Jobs, calibration_texts, check_variants, measure, with_reference
from rrtf.quantize.table import (
    Measured,
    Sampled,
    differences,
    ran_on,
    records,
    rows,
    shown,
    tested,
    time_lines,
    timing,
)
from rrtf.quantize.variants import VARIANTS, round_to

__all__ = [
    "VARIANTS",
    "Jobs",
    "Measured",
    "Sampled",
    "calibration_texts",
    "check_variants",
    "differences",
    "measure",
    "ran_on",
    "records",
    "round_to",
    "rows",
    "shown",
    "tested",
    "time_lines",
    "timing",
    "with_reference",
]
