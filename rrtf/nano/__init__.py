"""The small world: executable Python problems composed from the grammar in `data/nano`.

`grammar` reads the operations and composes specifications, `wording` turns a specification into
a prompt and solutions, `problems` makes tested problems and splits them by behaviour, `evolution`
transforms specifications along Evol-Instruct's five methods, `corpus` is what the shipped models
read, `pretrain` makes them.
"""
