"""Public benchmarks by name, as problems in HumanEval form with tests that stand alone.

Modules: `catalogue` (which there are, where their rows lie, whether they are the right ones),
`tasks` (rows to problems), `plus` (EvalPlus's sets) over `expected` (what references return),
`inputs` and `literals`.
"""

from rrtf.benchmarks.catalogue import Entry, entry, names
from rrtf.benchmarks.loading import load, omitted, refused

__all__ = ["Entry", "entry", "load", "names", "omitted", "refused"]
