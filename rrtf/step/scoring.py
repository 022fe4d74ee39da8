"""From a packed batch to log-probabilities: the decoder once, the logits tile by tile.

Shapes: N response tokens, D hidden width, R responses of all prompts.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rrtf.step import packing
from rrtf.step.likelihood import TILE_ROWS, response_sums, token_log_probs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def hidden_states(network: "PreTrainedModel", batch: Mapping[str, Any]) -> Tensor:
    """The hidden states (N, D) that predict the batch's targets."""
    arguments, read = packing.inputs(batch, network.config)
    out = network.get_decoder()(**arguments, use_cache=False)
    return out.last_hidden_state.flatten(0, 1)[read]


def score(
    network: "PreTrainedModel", batch: Mapping[str, Any], *, chunk: int = TILE_ROWS
) -> tuple[Tensor, Tensor]:
    """(sums, lengths) (R,) of the responses of a collated batch, the prompts computed once.

    The logits are made for `chunk` tokens at a time (0 = all) and again in the backward pass.
    """
    hidden = hidden_states(network, batch)  # (N, D)
    head = network.get_output_embeddings()
    logs = token_log_probs(hidden, head, batch["targets"], chunk=chunk)
    return response_sums(logs, batch["response"], len(batch["scores"]))
