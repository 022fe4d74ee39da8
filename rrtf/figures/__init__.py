"""Every picture and table of the notebooks: values in, a Figure or an HTML table out.

`style` holds colours and the canvas; the others draw: `tables`, `rates` (with intervals), `counts`
(distributions), `runs` (training), `paper` (the paper's own figures).
"""

from rrtf.figures.counts import (
    found_and_chance,
    grouped_bars,
    heat,
    histograms,
    words_and_behaviour,
)
from rrtf.figures.paper import answers, data_sizes, p_ranges
from rrtf.figures.rates import curves, differences, intervals, overlap, spread, stacked, steps
from rrtf.figures.runs import by_rate, by_update, hinge, loss_curve
from rrtf.figures.style import COLOURS, OUTCOME_COLOURS, PALETTE, STYLE, canvas, colour
from rrtf.figures.tables import side_by_side, table

__all__ = [
    "COLOURS",
    "OUTCOME_COLOURS",
    "PALETTE",
    "STYLE",
    "answers",
    "by_rate",
    "by_update",
    "canvas",
    "colour",
    "curves",
    "data_sizes",
    "differences",
    "found_and_chance",
    "grouped_bars",
    "heat",
    "hinge",
    "histograms",
    "intervals",
    "loss_curve",
    "overlap",
    "p_ranges",
    "side_by_side",
    "spread",
    "stacked",
    "steps",
    "table",
    "words_and_behaviour",
]
