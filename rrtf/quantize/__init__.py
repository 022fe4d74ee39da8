"""Stage 08: the trained model smaller and faster, and what that costs (section 4.4, Table 4).

Modules: `variants` (made, opened, weighed), `gptq`, `measuring` (what one process does with one
variant), `jobs` (those processes), `sanity` (is it still a model), `table` (rates, tests, rows).
"""
