"""Public benchmarks by name, as problems in HumanEval form with tests that stand alone.

Modules: `catalogue` (which there are, where their rows lie, whether they are the right ones),
`tasks` (rows to problems), `codereval` (which of its tasks can be judged), `about` (difficulty,
date, level), `plus` (EvalPlus's sets) over `expected` (what references return),
`inputs` and `literals`.
"""

__all__ = ["Entry", "entry", "facts", "groups", "load", "names", "refused"]
