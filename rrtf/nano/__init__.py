"""The small world: executable Python problems composed from the grammar in `data/nano`.

`grammar` reads the operations and composes specifications, `wording` turns a specification into
a prompt and solutions, `problems` makes tested problems and splits them by behaviour,
`evolution` transforms specifications along Evol-Instruct's five methods.
"""

from rrtf.nano.evolution import METHODS, Evolved, evolve_problem
from rrtf.nano.grammar import Spec, family, operations, parse_spec
from rrtf.nano.problems import behaviour, build, guarded, probes, world

__all__ = [
    "METHODS",
    "Evolved",
    "Spec",
    "behaviour",
    "build",
    "evolve_problem",
    "family",
    "guarded",
    "operations",
    "parse_spec",
    "probes",
    "world",
]
