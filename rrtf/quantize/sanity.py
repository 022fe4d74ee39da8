"""Whether what a variant answers is still a language model's: looked at before it is timed."""

import math
from collections.abc import Callable, Sequence

from rrtf import prompts
from rrtf.quantize.table import Measured
from rrtf.records import Response

KEPT = 0.5  # of full precision's share of answers that parse, or are not empty


def fault(entry: Measured, full: Measured, *, nll_margin: float) -> str:
    """Why the answers of `entry` are no measurement of a working model, or `''`.

    The likelihood of the references has to be finite and within `nll_margin` nats per token of
    full precision's; at least half as many greedy answers as of full precision have to be more
    than blanks and have to be Python. `full` itself is only asked for a finite likelihood and one
    answer of each kind.
    """
    if math.isinf(entry.nll) or (math.isnan(entry.nll) and not math.isnan(full.nll)):
        return f"the references have a likelihood of {entry.nll} nats per token"
    if entry.nll > full.nll + nll_margin:
        return (
            f"NLL {entry.nll:.2f} nats per token, {entry.nll - full.nll:.2f} above full "
            f"precision's, more than the {nll_margin:g} of a working model"
        )
    for what, holds in (("more than blanks", _filled), ("Python", _parses)):
        own, least = _share(entry.greedy, holds), KEPT * _share(full.greedy, holds)
        if own < least or own == 0:
            return f"{100 * own:.0f} % of its answers are {what}, fewer than {100 * least:.0f} %"
    return ""


def _filled(response: Response) -> bool:
    return bool(response.text.strip())


def _parses(response: Response) -> bool:
    return prompts.parses(response.program)


def _share(responses: Sequence[Response], holds: Callable[[Response], bool]) -> float:
    return sum(map(holds, responses)) / len(responses)
