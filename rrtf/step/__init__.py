"""From ranked groups to a gradient: exact, every prompt computed once.

`packing` (a batch as one sequence, attention that skips what is masked), `likelihood`
(log-probabilities tile by tile), `batches` (groups as token ids), `scoring` (a batch to sums),
`networks` (load, LoRA, save), `sharding` (FSDP2, checkpoints), `explain` (the loss by number).
"""
