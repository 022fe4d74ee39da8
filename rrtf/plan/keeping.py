"""An attention that computes nothing and keeps what fused kernels keep for the backward pass.

For passes over fake tensors: queries, keys and values, the output, and a normaliser per query and
head in float32 (Dao et al., arXiv:2205.14135), never the weights of all pairs.
"""

from typing import Any

import torch
from torch import Tensor, nn

NAME = "only_keeping"


class _Keep(torch.autograd.Function):
    """(B, H, T, D) queries, (B, G, S, D) keys and values -> (B, T, H, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(query.transpose(1, 2).shape, dtype=value.dtype)
        normaliser = query.new_empty(query.shape[:3], dtype=torch.float32)
        kept = (x.to(value.dtype) for x in (query, key, value))
        ctx.save_for_backward(*kept, out, normaliser)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError("there is nothing to go back through: shapes only")


def keep(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers; see the module."""
    return _Keep.apply(query, key, value), None


def use(model: nn.Module) -> None:
    """Switches `model` to this attention, in place."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, keep)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
