"""Floating-point operations of a dense transformer, counted from its shape.

A multiplication and an addition are two operations, so a matrix product with N weights costs 2 N
per token forward and 4 N backward: C = 6 N D for training on D tokens (Kaplan et al.,
arXiv:2001.08361, section 2.1), 2 N per generated token. N are the weights of the matrix products:
the linear layers and the output head, a tied one as well; embeddings are looked up, which is free.
Attention adds 4 L A per pair of a token and one that it is compared with (L layers, A = heads x
width of a head; Chowdhery et al., arXiv:2204.02311, appendix B), in training 14 L A: two products
forward, five backward, because the weights are made again (Dao et al., arXiv:2205.14135). The
output head's logits are made again for the gradient, too.
`torch.utils.flop_counter` agrees within 1 % (tests). Not counted: norms, activations, softmax, the
optimiser: below 1 % from width 256 on.
"""

from dataclasses import dataclass

from rrtf import packing
from rrtf.plan.models import Shape


@dataclass(frozen=True, slots=True)
class Row:
    """A group as the step computes it: the prompt once, then its K responses side by side.

    `prompt` and `response` are mean tokens, the end-of-text token included.
    """

    prompt: float
    response: float
    responses: int

    @property
    def packed(self) -> float:
        """Tokens that go through the layers: a response's last token is a target, never input."""
        return self.prompt + self.responses * (self.response - 1)

    @property
    def apart(self) -> float:
        """Tokens of the same group as K rows of prompt + response."""
        return self.responses * (self.prompt + self.response - 1)

    @property
    def pairs(self) -> float:
        """Pairs of tokens that attention compares: a prompt with itself, a response also with it.

        In blocks of queries, each of which sees no key behind the block (`rrtf.packing`).
        """
        own = self.response - 1
        return _seen(self.prompt, 0) + self.responses * _seen(own, self.prompt)

    @property
    def targets(self) -> float:
        """Tokens that are predicted, and so cost logits."""
        return self.responses * self.response


def _seen(length: float, before: float) -> float:
    """Keys that `length` queries see in blocks, `before` of them in front of all."""
    return length * (before + (length + min(length, packing.BLOCK)) / 2)


def forward(shape: Shape, *, tokens: float, pairs: float, predicted: float) -> float:
    """FLOPs of one pass over `tokens` with `pairs` of attention, logits for `predicted` tokens."""
    attended = 4 * shape.layers * shape.attention * pairs
    return 2 * shape.linear * tokens + attended + 2 * shape.head * predicted


def group(shape: Shape, row: Row) -> float:
    """FLOPs of scoring one packed group, without gradients."""
    return forward(shape, tokens=row.packed, pairs=row.pairs, predicted=row.targets)


def train(shape: Shape, row: Row, *, checkpointing: bool = False, frozen: bool = False) -> float:
    """FLOPs of learning from one packed group, forward and backward.

    checkpointing: the layers are computed forward once more. frozen: the weights have no gradients
    of their own (LoRA), which saves a third of the products; the adapters' are not counted.
    """
    whole = group(shape, row)
    attended = forward(shape, tokens=0, pairs=row.pairs, predicted=0)
    layers = forward(shape, tokens=row.packed, pairs=row.pairs, predicted=0)
    products = whole - attended
    learnt = (2 if frozen else 3) * products + 3.5 * attended
    return learnt + 2 * shape.head * row.targets + (layers if checkpointing else 0)


def generate(
    shape: Shape, *, prompts: float, answers: float, prompt: float, answer: float
) -> float:
    """FLOPs of `answers` answers of `answer` tokens to `prompts` prompts of `prompt` tokens.

    Every prompt is read once for all its answers; an answer's token t sees prompt + t tokens.
    """
    reading = forward(shape, tokens=prompt, pairs=prompt**2, predicted=1)
    seen = answer * prompt + answer * (answer + 1) / 2
    writing = forward(shape, tokens=answer, pairs=seen, predicted=answer)
    return prompts * reading + answers * writing


def gptq(shape: Shape, *, tokens: float) -> float:
    """FLOPs of calibrating GPTQ on `tokens` tokens (Frantar et al., arXiv:2210.17323).

    Two forward passes, the Hessian of every layer's inputs (2 in^2 a token) and the updates of its
    columns (2 in a weight), all inputs taken as wide as the model: a lower bound.
    """
    passes = 2 * forward(shape, tokens=tokens, pairs=0, predicted=0)
    inputs = shape.linear / shape.hidden
    return passes + 2 * shape.hidden * (inputs * tokens + shape.linear)
