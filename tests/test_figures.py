"""Figures are built, complete and readable: texts inside the picture, no label on another."""

import itertools

import pytest

from rrtf import figures

ROWS = [(name, 0.4, 0.3, 0.5) for name in figures.COLOURS]


def texts(figure):
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_visible() and t.get_text()]


def overlapping(figure):
    """Pairs of free texts whose boxes intersect once the figure is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    free = [text for axis in figure.axes for text in axis.texts if text.get_text()]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in free]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]


def overlap_figure():
    names = ("StarCoder", "WizardCoder", "PanGu-Coder2")
    return figures.overlap({"greedy": (names, {names: 49, names[:1]: 1, (): 44})})


def step_figure():
    rises = {"imitation": 0.09, "filter": 0.04, "loss": -0.01}
    parts = [(name, rise, rise - 0.02, rise + 0.02) for name, rise in rises.items()]
    return figures.steps(("base", 0.42), parts, "rrtf")


DRAWN = {
    "intervals": lambda: figures.intervals({"greedy": ROWS, "sampled": ROWS}),
    "differences": lambda: figures.differences(ROWS, margin=0.02),
    "steps": step_figure,
    "curves": lambda: figures.curves(
        {name: [(1, i), (2, i + 0.1)] for i, name in enumerate(figures.COLOURS)},
        x_label="k", y_label="pass@k",
    ),
    "stacked": lambda: figures.stacked(
        {"base": {"PASS": 3, "FAILED_TESTS": 1}}, figures.OUTCOME_COLOURS
    ),
    "overlap": overlap_figure,
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_no_free_text_lies_on_another(name):
    assert overlapping(DRAWN[name]()) == []


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_shown_once_because_pyplot_has_closed_it(name):
    import matplotlib.pyplot as plt

    DRAWN[name]()
    assert plt.get_fignums() == []


def test_rates_are_shown_in_percent_with_their_names():
    shown = texts(figures.intervals({"greedy": ROWS}))
    assert "40.0" in shown and set(figures.COLOURS) <= set(shown)


def test_a_difference_whose_interval_holds_zero_is_drawn_hollow():
    axis = figures.differences([("a", 0.05, 0.01, 0.09), ("b", 0.0, -0.02, 0.02)]).axes[0]
    fills = [line.get_markerfacecolor() for line in axis.lines if line.get_marker() == "o"]
    assert fills == [figures.PALETTE[0], "white"]


def test_the_last_bar_of_the_steps_stands_at_the_sum():
    assert "54.0" in texts(step_figure())


def test_the_circles_count_every_task_of_a_model():
    shown = texts(overlap_figure())
    assert {"StarCoder (50)", "WizardCoder (49)", "none: 44", "greedy, 94 tasks"} <= set(shown)


def test_spread_labels_keep_their_order_and_their_distance():
    placed = figures.spread({"a": 1.0, "b": 1.0, "c": 1.05, "d": 3.0}, gap=0.5)
    assert sorted(placed, key=placed.get) == ["a", "b", "c", "d"]
    ordered = sorted(placed.values())
    assert min(y - x for x, y in itertools.pairwise(ordered)) == pytest.approx(0.5)
    assert placed["d"] == 3.0


def test_a_method_keeps_its_colour_with_a_seed_behind_it():
    assert figures.colour("rrtf seed 2") == figures.colour("rrtf") == figures.COLOURS["rrtf"]


def test_a_table_escapes_what_it_shows_and_keeps_code_as_code():
    html = figures.table([{"text": "<b>", "code": "a\nb", "n": 3}, {"rate": 0.12345}]).data
    assert "&lt;b&gt;" in html and "<pre>a\nb</pre>" in html
    assert '<td class="number">3</td>' in html and '<td class="number">0.123</td>' in html


def test_a_table_shows_missing_values_as_a_dash_and_its_caption():
    html = figures.table([{"a": None, "b": float("nan"), "c": True}], caption="what & why").data
    assert html.count("–") == 2 and "what &amp; why" in html and "<td>yes</td>" in html


def test_colours_differ_in_lightness_or_hue_for_colour_blind_readers():
    """Deuteranopia simulated with Machado et al. 2009; no two methods fall together."""
    import numpy as np
    from matplotlib.colors import to_rgb

    machado = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    seen = {name: machado @ np.array(to_rgb(c)) for name, c in figures.COLOURS.items()}
    for (a, x), (b, y) in itertools.combinations(seen.items(), 2):
        assert np.abs(x - y).max() > 0.08, (a, b)
