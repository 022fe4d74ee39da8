"""The experiment that the paper never ran, registered in `data/ablation.toml`.

Modules: `registration` (what was planned), `sets` (answers, made teachers, an arm's training set),
`runs` (one arm with one seed: trained at every rate, chosen, examined; the ledger), `results`
(rates, contrasts, curves, maps).
"""
