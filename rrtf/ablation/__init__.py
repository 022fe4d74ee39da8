"""The ablation that the paper never ran, registered in `data/ablation.toml`.

Modules: `registration` (what was planned), `sets` (answers of all teachers, and an arm's training
set), `grpo` with `grpo_learn` (online reinforcement learning, for comparison), `runs` (models, what
is still to be run, and the ledger), `results` (rates, contrasts, tables; for the other appendix
that trains: which learning rates and weights are the profile's).
"""
