"""Stage 08: the trained model smaller and faster, and what that costs (section 4.4, Table 4).

Modules: `variants` (made, opened, weighed), `gptq`, `auto_gptq` with `auto_gptq_lane` (the paper's
quantiser, in an environment of its own), `measuring` (what one process does with one variant),
`jobs` (those processes), `table` (rates, tests, rows).
"""
