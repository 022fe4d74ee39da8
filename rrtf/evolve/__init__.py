"""Stage 01: harder problems from easier ones (paper, section 3.1; Evol-Instruct).

Two ways to the same records. `offline` transforms the specifications of nano problems and needs
no model. The paper's way asks one, through any OpenAI-compatible endpoint: `seeds` reads
instruction rows and turns them into problems, `wording` fills in what is asked, `growing` evolves
round by round, `rules` says which rows go and why, `testing` makes unit tests by agreement.
`worlds` is the stage either way.
"""

from rrtf.evolve.growing import AFTER_FAILURE, Asker, evolve_rows
from rrtf.evolve.offline import (
    by_method,
    depths,
    draw_method,
    evolve_problems,
    lineage,
    load_world,
    nano_world,
    one_of_each,
    reasons,
    split_problems,
)
from rrtf.evolve.rules import HAND_MADE, reason_counts, sieve
from rrtf.evolve.seeds import as_problem, read_seeds
from rrtf.evolve.testing import Tested, add_tests
from rrtf.evolve.wording import Sampling, evolve_ask, methods, task_text, version
from rrtf.evolve.worlds import Grown, grow, instruction_of, open_world

__all__ = [
    "AFTER_FAILURE",
    "HAND_MADE",
    "Asker",
    "Grown",
    "Sampling",
    "Tested",
    "add_tests",
    "as_problem",
    "by_method",
    "depths",
    "draw_method",
    "evolve_ask",
    "evolve_problems",
    "evolve_rows",
    "grow",
    "instruction_of",
    "lineage",
    "load_world",
    "methods",
    "nano_world",
    "one_of_each",
    "open_world",
    "read_seeds",
    "reason_counts",
    "reasons",
    "sieve",
    "split_problems",
    "task_text",
    "version",
]
