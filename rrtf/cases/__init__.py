"""Single tasks, chosen by rule: who solves what, where an answer fails, how often and why.

The paper shows three hand-picked tasks (Figs 6 to 8) and one overlap of solved sets (Fig 5);
here both come from the scores, so that nobody chooses the flattering ones.

Modules: `choice` (which tasks), `sheets` (one task, its answers and their first failing tests side
by side; kinds of failures).
"""
