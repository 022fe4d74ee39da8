"""Which modules are sharded: every parameter once, as FSDP2 does it, also at 15 billion."""

import os
import subprocess
import sys
from math import prod

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPTBigCodeConfig,
    LlamaConfig,
    Qwen2Config,
    Starcoder2Config,
)

from rrtf.step import sharding

SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL |= {"bos_token_id": 0, "eos_token_id": 0}
WIDE = {"intermediate_size": 48, "num_key_value_heads": 2}
CONFIGS = {
    "gpt_bigcode": GPTBigCodeConfig(**SMALL, n_positions=64),
    "llama": LlamaConfig(**SMALL, **WIDE),
    "qwen2": Qwen2Config(**SMALL, **WIDE, tie_word_embeddings=True),
    "starcoder2": Starcoder2Config(**SMALL, **WIDE),
}


def on_meta(config) -> nn.Module:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_units_are_the_blocks_in_order_and_then_the_root(kind):
    names = sharding.units(on_meta(CONFIGS[kind]))
    assert [name.rsplit(".", 1)[-1] for name in names] == ["0", "1", "2", ""]


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_parameter_is_in_exactly_one_unit_and_tied_ones_count_once(kind):
    model = on_meta(CONFIGS[kind])
    held = sharding.members(model, sharding.units(model))
    found = [id(parameter) for unit in held.values() for _, parameter in unit]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    for name, unit in held.items():
        assert all(path.startswith(name) for path, _ in unit)


def test_a_parameter_that_two_units_share_is_refused_by_name():
    model = on_meta(CONFIGS["llama"])
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(ValueError, match=r"layers.1.mlp.up_proj.weight: shared by the units model"):
        sharding.members(model, sharding.units(model))


def test_a_model_without_blocks_and_a_list_that_misses_parameters_are_refused():
    with pytest.raises(ValueError, match="Linear: no blocks to shard by"):
        sharding.units(nn.Linear(2, 2))
    model = on_meta(CONFIGS["llama"])
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight: in none of the units"):
        sharding.members(model, ["model.layers.0"])


def test_the_fullest_rank_holds_the_first_rows_of_every_parameter():
    """7 rows over 3 ranks: 3, 3, 1, as torch.chunk cuts; a vector of 2 over 3 ranks: 1, 1, 0."""
    layer = nn.Linear(5, 7, bias=False)
    assert sharding.first_shard(layer.weight, 3) == tuple(layer.weight.chunk(3)[0].shape) == (3, 5)
    parameters = [("weight", layer.weight), ("bias", nn.Parameter(torch.zeros(2)))]
    assert sharding.held_elements(parameters, 3) == 3 * 5 + 1
    assert sharding.held_elements(parameters, 1) == 7 * 5 + 2


STARCODER = """
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, GPTBigCodeConfig
from rrtf.step import sharding as blocks

config = GPTBigCodeConfig(vocab_size=49152, n_positions=8192, n_embd=6144, n_layer=40, n_head=48)
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
names = blocks.units(model)
held = blocks.members(model, names)
print(len(names), sum(p.numel() for unit in held.values() for _, p in unit))
planned = [blocks.first_shard(p, 8) for p in model.parameters()]
print(sum(blocks.held_elements(unit, 8) for unit in held.values()))
dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
mesh = init_device_mesh("cpu", (8,))
for name in names:
    fully_shard(model.get_submodule(name), mesh=mesh)
local = [tuple(p.to_local().shape) for p in model.parameters()]
print(sum(p.to_local().numel() for p in model.parameters()), local == planned)
"""


def test_fully_shard_of_starcoder_15b_over_8_ranks_holds_what_is_planned_parameter_by_parameter():
    """On the meta device and a process group that only pretends: nothing is allocated or sent."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STARCODER]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["41", "15517456384", *["1939682048"] * 2, "True"]
    assert prod([8, 1939682048]) == 15517456384
