"""Linear layers whose weights are laid out once for the matrix kernels of this CPU.

oneDNN reorders a plain weight in every product, and adds neither a GELU nor a residual to it. The
operators that torch's own compiler emits on CPU do both; without them the plain ones are taken.
"""

import torch
import torch.nn.functional as F

ROWS = 256  # the layout is chosen for a product with as many rows


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch and this CPU have the packed operators for `dtype`."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not (torch.backends.mkldnn.is_available() and all(map(_has, names))):
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has(name: str) -> bool:
    return hasattr(torch.ops.mkldnn, name)


class Linear:
    """x (..., I) -> (..., O) with `weight` (O, I) and `bias` (O,) or None, on CPU."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        self.weight, self.bias = weight.contiguous(), bias
        self.packed = can_pack(weight.dtype)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, ROWS)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if not self.packed:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """GELU, in its approximation by tanh, of the product."""
        if not self.packed:
            return F.gelu(self(x), approximate="tanh")
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "tanh")

    def added(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The product plus `residual` (..., O)."""
        if not self.packed:
            return residual + self(x)
        product = torch.ops.mkldnn._linear_pointwise.binary
        return product(x, residual, self.weight, self.bias, "add")
