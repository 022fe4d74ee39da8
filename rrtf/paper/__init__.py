"""The paper's own figures (`data/paper.toml`), completed by intervals and tests.

The paper prints rates without uncertainty. HumanEval has 164 tasks, so much follows from the
figures alone. `printed` reads them and adds intervals, `claims` tests two models on the same tasks
and corrects all tests of what the paper claims at once, `audit` gathers the findings, and `beside`
puts a run of this project next to them. Only that needs a run.
"""
