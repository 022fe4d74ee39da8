"""Stage 01: harder problems from easier ones (paper, section 3.1; Evol-Instruct).

Two ways to the same records. `offline` transforms the specifications of nano problems and needs
no model. The paper's way asks one, through any OpenAI-compatible endpoint: `asking` fills in what
is asked, `seeds` reads instruction rows and turns them into problems, `rules` says which rows go
and why, `testing` makes unit tests by agreement. `stage` evolves round by round, either way.
"""
