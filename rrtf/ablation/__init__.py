"""The ablation that the paper never ran, registered in `data/ablation.toml`.

Modules: `registration` (what was planned), `material` (answers of all teachers, problems nobody
has seen), `sets` (an arm's training set), `making` (its models), `runs` (what is still to be run,
and the ledger), `results` (rates, contrasts, tables).
"""
