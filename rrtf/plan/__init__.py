"""What a run would take, before it is run: memory, GPUs, tokens, FLOPs, hours and energy.

`planning` answers for any profile and any model that transformers knows, from its configuration
alone. Hours are FLOPs over what the devices reach; what that is, is measured for a CPU core and
assumed for GPUs, and every figure that a plan rests on stands in the plan. Modules: `models`
(shapes and devices), `memory` (of a training step), `work` (tokens, FLOPs, hours), `planning` (how
it is split), `serving` (what the paper's Table 4 would take).
"""
