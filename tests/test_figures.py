"""Figures are built, complete and readable: texts inside the picture, no label on another."""

import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from rrtf import stats
from rrtf.figures import charts, style, tables

ROWS = [(name, 0.4, 0.3, 0.5) for name in style.COLOURS]


def texts(figure):
    return [t.get_text() for t in figure.findobj(Text) if t.get_visible() and t.get_text()]


def boxes_of(figure, words):
    """(text, its box once the figure is drawn) of those that say something."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    said = [text for text in words if text.get_text()]
    return [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in said]


def crossing(boxes):
    """Pairs of texts whose boxes intersect."""
    return [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]


def overlapping(figure):
    return crossing(boxes_of(figure, [text for axis in figure.axes for text in axis.texts]))


def overlap_figure():
    names = ("StarCoder", "WizardCoder", "PanGu-Coder2")
    return charts.overlap({"greedy": (names, {names: 49, names[:1]: 1, (): 44})})


def overlap_of_many():
    """Three panels with names and numbers as long as they get, of three and of two methods."""
    trio = ("starcoder2-15b-instruct-v0.1", "qwen2.5-coder-7b-instruct", "gpt-3.5-turbo-16k-0613")
    pair = trio[:2]
    some = {(): 12345, trio: 11111, pair: 22222, trio[:1]: 33333, trio[1:]: 44444, trio[2:]: 55555}
    two = {(): 12345, pair: 22222, pair[:1]: 33333, pair[1:]: 44444}
    title = "leetcode-v0.3-test, pass@10 T=0.8 of published samples"
    return charts.overlap({title: (trio, some), "mbpp": (pair, two), "again": (pair, two)})


def step_figure():
    rises = {"imitation": 0.09, "filter": 0.04, "loss": -0.01}
    parts = [(name, rise, rise - 0.02, rise + 0.02) for name, rise in rises.items()]
    return charts.steps(("base", 0.42), parts, "rrtf")


def map_figure():
    names = ("imitation", "mean, ranking x 10", "SFT + SimPO")
    rows = {
        kind: {name: stats.Estimate(0.28, 0.25, 0.31) for name in names[:count]}
        for kind, count in (("unverified", 3), ("filtered, refilled", 1))
    }
    return charts.by_kind(rows, ("DPO", *names), base=0.18, title="solved")


VERDICTS = {
    name: {"ours": "no", "theirs (of another)": said}
    for name, said in (("lies", "FOOLED"), ("leaves", "error"))
}
DRAWN = {
    "map": map_figure,
    "intervals": lambda: charts.intervals({"greedy": ROWS, "sampled": ROWS}),
    "differences": lambda: charts.differences([(*row, True) for row in ROWS], margin=0.02),
    "steps": step_figure,
    "curves": lambda: charts.curves(
        {name: [(1, i), (2, i + 0.1)] for i, name in enumerate(style.COLOURS)},
        x_label="k", y_label="pass@k",
    ),
    "stacked": lambda: charts.stacked(
        {"base": {"PASS": 3, "FAILED_TESTS": 1}}, style.OUTCOME_COLOURS
    ),
    "overlap": overlap_figure,
    "overlap of many": overlap_of_many,
    "verdicts": lambda: charts.verdicts(VERDICTS, title="ours is fooled by none"),
    "kinds": lambda: charts.stacked(
        {"base": dict.fromkeys(style.KIND_COLOURS, 9)}, style.KIND_COLOURS
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_no_free_text_lies_on_another_and_a_figure_is_shown_once(name):
    assert overlapping(DRAWN[name]()) == []
    assert plt.get_fignums() == [], "pyplot has closed it"


@pytest.mark.parametrize(
    ("figure", "shown", "hidden"),
    [
        (lambda: charts.intervals({"greedy": ROWS}), {"40.0", *style.COLOURS}, set()),
        (lambda: step_figure(), {"54.0"}, set()),  # the last bar stands at the sum
        (lambda: overlap_figure(),
         {"StarCoder (50)", "WizardCoder (49)", "none: 44", "greedy, 94 tasks"}, set()),
        (lambda: charts.overlap({"greedy": (("a", "b"), {("a",): 3, ("a", "b"): 5, (): 7})}),
         {"a (8)", "b (5)", "none: 7", "greedy, 15 tasks", "0", "3", "5"}, set()),
        (lambda: charts.stacked({"base": {"passes": 3, "too slow": 0}}, style.KIND_COLOURS),
         {"passes"}, {"too slow"}),  # kinds that do not occur are in no legend
        (lambda: charts.verdicts(VERDICTS, title="t"),
         {"ours", "theirs\n(of another)", "lies", "fooled", "error"}, {"no"}),
    ],
)  # fmt: skip
def test_a_figure_says_its_numbers_and_names(figure, shown, hidden):
    said = set(texts(figure()))
    assert shown <= said and not hidden & said


def test_a_cell_of_the_map_says_percent_and_half_its_interval_and_empty_columns_are_left_out():
    figure = map_figure()
    assert texts(figure).count("28.0") == texts(figure).count("± 3.0") == 4
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(names) == 3 and "DPO" not in names


def test_the_figure_of_a_short_run_still_has_a_line():
    figure = charts.by_update({"rrtf-s0": [(1, 0.5), (2, 0.25), (3, 0.0)]}, y_label="violated")
    (line,) = figure.axes[0].get_lines()
    assert list(line.get_ydata()) == [0.5, 0.25, 0.0]


def test_a_dot_is_filled_by_the_corrected_verdict_and_not_by_its_interval():
    rows = [("a", 0.05, 0.01, 0.09, False), ("b", 0.06, 0.01, 0.09, True)]
    axis = charts.differences(rows, margin=0.0).axes[0]
    fills = [line.get_markerfacecolor() for line in axis.lines if line.get_marker() == "o"]
    assert fills == ["white", style.PALETTE[0]]
    assert axis.get_title(loc="left") == "b +6.0 told apart from zero"


def test_lines_that_coincide_are_shown_as_a_difference_with_the_range_over_seeds():
    lines = {f"{name}-s{seed}": [(at, base + 0.001 * seed * (name == "rrtf")) for at in range(30)]
             for name, base in (("rrtf", 0.12), ("sft-kept", 0.11)) for seed in (0, 2)}  # fmt: skip
    axis = charts.apart_by_update(lines, "rrtf", "sft-kept", y_label="L_rank").axes[0]
    (band,) = axis.collections
    ys = [y for _, y in band.get_paths()[0].vertices]
    assert min(ys) == pytest.approx(0.01) and max(ys) == pytest.approx(0.012)
    assert (
        axis.get_title(loc="left")
        == "rrtf and sft-kept differ by +0.011 at most; sft-kept has 0.11 on average"
    )
    assert not charts.apart_by_update({}, "rrtf", "sft-kept", y_label="L_rank").axes[0].collections


def test_methods_over_the_learning_rate_have_a_colour_each():
    rows = [
        {"method": f"arm {n}", "variant": "", "learning_rate": rate, "pass@1": rate * n}
        for n in range(1, 6) for rate in (1e-5, 1e-4)
    ]  # fmt: skip
    lines = charts.by_rate(rows, base=0.1).axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == len(lines) == 6


def test_curves_against_one_of_them_are_differences_to_it():
    lines = {"a": [(1, 40.0), (10, 70.0)], "b": [(1, 43.0), (10, 70.5)]}
    axis = charts.curves(lines, x_label="k", y_label="%", against="a").axes[0]
    assert [list(line.get_ydata()) for line in axis.lines] == [[0.0, 0.0], [3.0, 0.5]]
    title = axis.get_title(loc="left")
    assert title == "best and worst lie 3.0 apart at k = 1, 0.5 at 10"


def test_titles_of_circles_lie_on_no_name_and_inside_the_picture():
    figure = overlap_of_many()
    own = [child for axis in figure.axes for child in axis.get_children()]
    boxes = boxes_of(figure, [text for text in own if isinstance(text, Text)])
    assert sum("tasks" in text for text, _ in boxes) == 3 and not crossing(boxes)
    whole = figure.bbox
    assert all(whole.x0 <= b.x0 and b.x1 <= whole.x1 and b.y1 <= whole.y1 for _, b in boxes)


def test_panels_are_wrapped_and_every_number_lies_in_its_circles():
    figure = overlap_of_many()
    assert len(figure.axes) == 4 and not figure.axes[3].texts
    for axis, names in zip(figure.axes, (3, 2, 2), strict=False):
        circles = [p for p in axis.patches if p.get_fill()]
        assert len(circles) == names
        for text in (t for t in axis.texts if t.get_text().isdigit()):
            (x, y) = text.get_position()
            inside = [c for c in circles if (x - c.center[0]) ** 2 + (y - c.center[1]) ** 2 < 0.64]
            assert inside, text.get_text()
    for n in (1, 4):
        with pytest.raises(ValueError, match=f"one: {n} methods, expected two or three"):
            charts.overlap({"one": (["a", "b", "c", "d"][:n], {(): 1})})


def test_spread_labels_keep_their_order_and_their_distance():
    placed = charts.spread({"a": 1.0, "b": 1.0, "c": 1.05, "d": 3.0}, gap=0.5)
    assert sorted(placed, key=placed.get) == ["a", "b", "c", "d"]
    ordered = sorted(placed.values())
    assert min(y - x for x, y in itertools.pairwise(ordered)) == pytest.approx(0.5)
    assert placed["d"] == 3.0


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"text": "<b>", "code": "a\nb"}, ["&lt;b&gt;", "<pre>a\nb</pre>"]),
        ({"n": 3}, ['class="number">3</td>']), ({"rate": 0.12345}, ['class="number">0.123</td>']),
        ({"a": "36.7 [33.6, 39.9]", "b": "+1.1 [-0.6, +2.7]"}, ['class="name">'] * 2),
        ({"c": "a b-c"}, [">a b-c</td>"]),  # a sentence may break, a rate with its interval not
        ({"a": None, "b": float("nan"), "c": True}, ["–", "–", ">yes</td>"]),
    ],
)  # fmt: skip
def test_a_table_escapes_what_it_shows_and_keeps_code_and_rates_as_they_are(row, shown):
    html = tables.table([row], caption="what & why").data
    assert all(html.count(part) == shown.count(part) for part in shown), html
    assert "what &amp; why" in html and "overflow:auto" not in html
    assert "overflow:auto" in tables.table([row], height=5).data, "it scrolls"


def test_cells_say_themselves_how_they_are_aligned_because_jupyterlab_aligns_them_right():
    """Its rule is (0,2,1) specific; ours repeat a class, and hold where styles are removed."""
    for shown in (tables.table([{"code": "a\n  b", "n": 3}]), tables.sheet(SHEET),
                  tables.side_by_side([("pair", "a b c d", "a b c d")])):  # fmt: skip
        cells = re.findall(r"<t[dh]\b[^>]*>", shown.data)
        assert cells and all("text-align:" in cell for cell in cells)
    assert ".rrtf-table.rrtf-table.rrtf-table :is(td,th){text-align:left" in tables.TABLE_CSS


@pytest.mark.parametrize(
    ("values", "shown"),
    [((3e-6, 1e-4), ["3e-6", "1e-4"]), ((0.6, 1.0), ["0.6", "1.0"]), ((4.0,), ["4"]),
     ((13.681, 4.0), ["13.7", "4.0"]), ((0.98, 2.3e-7, 0.0), ["0.980", "2.3e-7", "0.000"]),
     ((1234.56,), ["1235"])],
)  # fmt: skip
def test_a_column_has_the_digits_that_its_values_carry(values, shown):
    html = tables.table([{"x": value} for value in values]).data
    assert re.findall(r'number">([^<]+)</td>', html) == shown


SHEET = {
    "title": "largest gain: t/1", "task": "def f(x):", "reference": "    return x < 1",
    "answers": [
        {"name": "base\nseed 1", "answer": "    return x & 1", "verdict": "failed tests",
         "test": "assert f(1) == '<b>'", "expected": [("'<", False), ("b>'", True)],
         "returned": [("'", False)], "said": "raises ValueError"},
        {"name": "rrtf", "answer": "    return x", "verdict": "passes all 3 tests", "test": "",
         "expected": [], "returned": [], "said": ""},
    ],
}  # fmt: skip


def test_a_sheet_shows_every_answer_its_test_and_both_values_escaped_and_marked():
    html = tables.sheet(SHEET).data
    assert "assert f(1) == &#x27;&lt;b&gt;&#x27;" in html and "<b>" not in html
    assert html.count("<mark") == 1 and ">b&gt;&#x27;</mark>" in html
    assert "base<br>seed 1" in html and "raises ValueError" in html
    assert html.count(">expected</th>") == 1 and "passes all 3 tests" in html
    assert html.count("<tr") == html.count("</tr>") and html.count("<pre>") == html.count("</pre>")


def test_a_method_has_one_colour_and_no_two_share_one():
    assert style.colour("rrtf seed 2") == style.colour("rrtf") == style.COLOURS["rrtf"]
    figure = charts.overlap({"x": (("rrtf", "stranger", "sft"), {(): 1})})
    shades = {p.get_edgecolor() for p in figure.axes[0].patches if not p.get_fill()}
    assert len(shades) == 3, "one without a colour of its own"


def test_colours_differ_in_lightness_or_hue_for_colour_blind_readers():
    """Deuteranopia simulated with Machado et al. 2009; no two methods fall together."""

    machado = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    seen = {name: machado @ np.array(to_rgb(c)) for name, c in style.COLOURS.items()}
    for (a, x), (b, y) in itertools.combinations(seen.items(), 2):
        assert np.abs(x - y).max() > 0.08, (a, b)
