"""What is computed from the paper's figures, against counts done by hand."""

import itertools
import json
import math

import pytest

from rrtf import config, stats
from rrtf.figures import charts
from rrtf.paper import audit, claims, printed
from rrtf.paper import beside as paper_beside

FIGURES = printed.figures()
LEVEL = dict(alpha=0.05, power=0.8)
AUDIT = audit.audit(FIGURES, **LEVEL)
TESTS = claims.claim_tests(FIGURES, alpha=0.05)
CLAIMS = {row["claim"]: row for row in claims.claim_verdicts(FIGURES, TESTS)}
OURS, RIVAL, BASE = printed.IN_FIG_5


def find_test(rival, metric, table="Table 3"):
    (found,) = [t for t in TESTS if (t.b, t.metric) == (rival, metric) and table in t.place]
    return found


def tables_of(value, path="paper"):
    """Every table of the file that holds a fact itself, with its path."""
    if isinstance(value, list):
        for at, part in enumerate(value):
            yield from tables_of(part, f"{path}[{at}]")
    elif all(isinstance(part, (dict, list)) for part in value.values()):
        for name, part in value.items():
            yield from tables_of(part, f"{path}.{name}")
    else:
        yield path, value


def test_every_fact_of_the_paper_says_where_it_stands_and_every_table_what_it_holds():
    found = dict(tables_of(dict(FIGURES)))
    assert len(found) > 40
    assert [path for path, table in found.items() if not table.get("source")] == []
    tables = [table for table in FIGURES.values() if isinstance(table, dict) and "rows" in table]
    assert len(tables) == 5 and all(table["what"] for table in tables)


def test_the_parameters_of_the_model_follow_from_its_dimensions():
    model = FIGURES["model"]
    wide, inner, head = model["hidden"], model["inner"], model["hidden"] // model["heads"]
    attention = wide * (wide + 2 * head) + (wide + 2 * head) + wide * wide + wide
    block = attention + 2 * wide * inner + inner + wide + 4 * wide
    table = (model["vocabulary"] + model["max_length"]) * wide
    assert table + model["layers"] * block + 2 * wide == model["parameters"]


def test_what_the_paper_leaves_open_names_parameters_that_every_profile_has():
    for gap in FIGURES["not_disclosed"]:
        for name in gap["parameters"]:
            stage, _, key = name.partition(".")
            for profile in config.profiles():
                assert key in config.resolve(profile, stage), name


def test_a_greedy_rate_is_a_whole_number_of_tasks_and_a_sampled_one_need_not_be():
    assert printed.solved(62.20, 164) == 102 and printed.solved(15.21, 230) == 35
    assert printed.solved(59.80, 164) == 98  # printed with one digit
    for wrong in (60.0, 61.64, 55.51):
        with pytest.raises(ValueError, match=f"{wrong}.* 164 tasks"):
            printed.solved(wrong, 164)


@pytest.mark.parametrize(
    "table, column, name, word",
    [
        ("table_2", "", "GPT-5", "table_2.*GPT-5"),
        ("table_3", "humaneval", "Phi-1", "table_3.*Phi-1"),
        ("table_2", "pass_at_10", "Phi-1", "table_2.*pass_at_10.*Phi-1"),
    ],
)
def test_a_row_or_figure_that_the_paper_lacks_is_named(table, column, name, word):
    with pytest.raises(ValueError, match=word):
        if column:
            printed.count(FIGURES, table, column, name)
        else:
            printed.row(FIGURES, table, model=name)


def wilson_by_hand(k, n, z=1.959964):
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return f"{100 * (middle - half):.1f} to {100 * (middle + half):.1f}"


def test_every_greedy_rate_is_shown_as_its_count_with_wilsons_interval():
    table = printed.greedy_rows(FIGURES)
    rows = [list(row.values())[2:] for row in table]
    counts = [[int(cell.partition(" = ")[0]) for cell in row] for row in rows]
    assert [row[0] for row in counts] == [39, 92, 54, 98, 102]
    assert [row[1] for row in counts] == [35, 63, 87, 77, 88]
    assert [row[2] for row in counts] == [9, 10, 33, 58, 72]
    assert table[-1]["HumanEval, of 164"] == "102 = 62.20 % (54.6 to 69.3)"
    assert wilson_by_hand(102, 164) == "54.6 to 69.3"
    assert wilson_by_hand(88, 230) in table[-1]["CoderEval, of 230"]
    assert table[-1]["LeetCode, of 300"] == f"72 = 24.00 % ({wilson_by_hand(72, 300)})"
    panels = printed.greedy_panels(FIGURES)
    assert list(panels) == ["HumanEval, 164 tasks", "CoderEval, 230 tasks", "LeetCode, 300 tasks"]
    assert [line[0] for line in panels["LeetCode, 300 tasks"]] == [row["model"] for row in table]


def test_the_other_tables_are_completed_by_intervals_counts_and_ratios():
    sampled = {row["model"]: row for row in printed.sampled_rows(FIGURES)}
    assert sampled[OURS]["95 %, at most"] == wilson_by_hand(101, 164)
    assert sampled["Phi-1"]["pass@10"] is None  # not given stays empty
    ours = printed.difficulty_rows(FIGURES)[-1]
    assert (ours["easy, of 79"], ours["medium, of 150"], ours["hard, of 71"]) == (32, 30, 10)
    assert ours["hard 95 %"] == wilson_by_hand(10, 71)
    speed = printed.inference_rows(FIGURES)
    assert [row["solved"] for row in speed] == [102, 106, 84, 85]
    assert speed[1]["times faster"] == pytest.approx(75 / 33)
    assert speed[1]["times smaller"] == pytest.approx(32.36 / 16.29)
    sizes = printed.size_rows(FIGURES)
    assert [row["implied batch"] for row in sizes] == [8, 514, 515]
    assert [row["solved"] for row in sizes] == [84, 88, 102]


def exact(only_a, only_b):
    """Two-sided exact McNemar p, from the coin tosses themselves."""
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(tosses, k) for k in range(fewer + 1)) / 2**tosses)


@pytest.mark.parametrize(
    "a, b, column, only_a, only_b",
    [
        (OURS, RIVAL, "greedy", 18 + 3, 16 + 1), (OURS, BASE, "greedy", 18 + 32, 1 + 1),
        (RIVAL, BASE, "greedy", 32 + 16, 3 + 1), (OURS, RIVAL, "pass_at_200", 5, 3),
        (OURS, BASE, "pass_at_200", 5 + 51, 0), (RIVAL, BASE, "pass_at_200", 51 + 3, 0),
    ],
)  # fmt: skip
def test_the_regions_of_figure_5_give_mcnemars_counts(a, b, column, only_a, only_b):
    found = claims.paired(FIGURES, a, b, column)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p == pytest.approx(exact(only_a, only_b), rel=1e-9)
    assert found.difference == pytest.approx((only_a - only_b) / 164)
    # of the mean of so many ones and so many minus ones
    error = math.sqrt((only_a + only_b - (only_a - only_b) ** 2 / 164) / 164 / 163)
    assert found.high - found.difference == pytest.approx(1.9746 * error, rel=1e-3)


def test_the_pairs_of_figure_5_and_all_claims_are_corrected_together():
    found = claims.all_pairs(FIGURES)
    assert [adjusted for _, adjusted in found] == stats.holm([pair.p for pair, _ in found])
    assert len(claims.paired_rows(FIGURES)) == len(found) == 6
    for bound in ("smallest", "largest"):
        p = [getattr(test, f"p_{bound}") for test in TESTS]
        assert stats.holm(p) == [getattr(test, f"holm_{bound}") for test in TESTS]


def one(name, solved, tasks):
    return printed.Count(name, ((solved, tasks),))


def test_the_bounds_of_p_hold_every_overlap_that_two_counts_allow():
    found = claims.p_range(one("a", 5, 8), one("b", 4, 8), alpha=0.05)
    every = []
    for a in itertools.combinations(range(8), 5):
        for b in itertools.combinations(range(8), 4):
            every.append(exact(len({*a} - {*b}), len({*b} - {*a})))
    assert (found.smallest, found.largest) == (min(every), max(every))
    assert (found.shared_least, found.shared_most) == (1, 4)
    assert found.shared_needed is None
    a, b = printed.Count("a", ((10, 10), (0, 10))), printed.Count("b", ((0, 10), (10, 10)))
    for apart, bounds in (((one("a", 10, 20), one("b", 10, 20)), (0, 10)), ((a, b), (0, 0))):
        found = claims.p_range(*apart, alpha=0.05)
        assert (found.shared_least, found.shared_most) == bounds, "parts narrow the bounds"
    with pytest.raises(ValueError, match="a and b"):  # over different tasks
        claims.p_range(one("a", 1, 5), one("b", 1, 6), alpha=0.05)


def test_the_overlap_from_which_a_lead_is_significant_is_found():
    needed = claims.p_range(one("a", 88, 230), one("b", 77, 230), alpha=0.05).shared_needed
    assert exact(88 - needed, 77 - needed) < 0.05 <= exact(89 - needed, 78 - needed)
    assert claims.least_lead(0.05) == 6
    assert exact(5, 0) == 0.0625 and exact(6, 0) == 0.03125


def power_by_hand(n, disagreement, difference, alpha):
    """Every number of disagreements, every split of it."""
    share, total = (1 + difference / disagreement) / 2, 0.0
    for d in range(n + 1):
        here = math.comb(n, d) * disagreement**d * (1 - disagreement) ** (n - d)
        for a in range(d + 1):
            if exact(a, d - a) < alpha:
                total += here * math.comb(d, a) * share**a * (1 - share) ** (d - a)
    return total


def test_the_detectable_lead_is_the_one_that_exact_mcnemar_finds_so_often():
    found = claims.detectable(40, 0.5, alpha=0.05, power=0.8)
    assert power_by_hand(40, 0.5, found, 0.05) == pytest.approx(0.8, abs=1e-4)
    level = claims._power(40, 0.5, 0.0, 0.05)
    assert level == pytest.approx(power_by_hand(40, 0.5, 0.0, 0.05)) and level <= 0.05
    assert claims.detectable(164, 0.01, alpha=0.05, power=0.8) is None  # they hardly disagree


def test_more_tasks_find_smaller_leads_and_the_papers_leads_are_smaller_still():
    rows = claims.detectable_rows(FIGURES, alpha=0.05, power=0.8)
    assert [row["tasks"] for row in rows] == [164, 230, 300]
    found = [row["found, disagreeing as in Fig 5"] for row in rows]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(10.8, abs=0.1)  # points
    assert all(row["lead over WizardCoder"] < row["found, disagreeing as in Fig 5"] for row in rows)


def test_every_rival_of_every_claim_is_tested():
    assert len(TESTS) == 5 * 3 + 2 + 4 * 3 + 2 + 1 + 2
    assert sum(row["tests"] for row in CLAIMS.values()) == len(TESTS)


@pytest.mark.parametrize(
    "rival, metric, table, smallest, largest",
    [
        (RIVAL, "humaneval", "Table 3", exact(21, 17), exact(21, 17)),  # regions: exact
        (BASE, "humaneval", "Table 3", exact(50, 2), exact(50, 2)),
        ("Replit-glaive", "humaneval", "Table 3", exact(10, 0), exact(72, 62)),  # 102, 92 of 164
        (RIVAL, "leetcode", "Table 3", exact(14, 0), exact(72, 58)),  # 32/30/10 against 29/22/7
        (BASE, "codereval", "Table 3", 1.0, 1.0),  # one function more
        (RIVAL, "pass_at_1", "Table 2", 0.0, exact(70, 63)),  # 101 and 94 of 164, 31 shared
    ],
)
def test_p_is_exact_bounded_or_bounded_from_above_as_the_figures_allow(
    rival, metric, table, smallest, largest
):
    found = find_test(rival, metric, table)
    assert found.p_smallest == pytest.approx(smallest)
    assert found.p_largest == pytest.approx(largest)


def test_a_claim_is_as_good_as_its_worst_test():
    verdicts = {name: (row["verdict"], row["because of"]) for name, row in CLAIMS.items()}
    assert verdicts["best on HumanEval, greedy"] == ("not shown", RIVAL)
    assert verdicts["best on CoderEval, greedy"] == ("not shown", BASE)
    assert verdicts["best on LeetCode, greedy"] == ("left open", RIVAL)
    gpt = verdicts["better than GPT-3.5 on HumanEval"]
    assert gpt[0] == "contradicted" and "Luo et al." in gpt[1]
    assert verdicts["CTranslate2 int8 solves more than float16"][0] == "not shown"
    assert verdicts["ranking feedback is what makes the model better"][0] == "not tested"
    told = {"claim": "bigger", "source": "Table 3", "table": "table_3", "model": OURS}
    told |= {"columns": ["leetcode"], "rivals": ["PanGu-Coder", BASE]}
    own = {**FIGURES, "claims": [told]}
    (row,) = claims.claim_verdicts(own, claims.claim_tests(own, alpha=0.05))
    assert (row["verdict"], row["stands"]) == ("stands", 2), "where every test holds"


def test_tests_and_claims_are_shown_with_what_they_were_computed_from():
    rows = {(r["place"].replace("\u00a0", " "), r["a - b"]): r for r in claims.test_rows(TESTS)}
    bounded = rows["Table 3, CoderEval", f"{OURS} - {RIVAL}"]
    assert (bounded["p"], bounded["from"]) == ("0.00098 to 0.44", "counts")
    assert rows["Table 2, pass@1", f"{OURS} - {RIVAL}"]["p"] == "≤ 0.6"
    assert rows["Fig 5, pass@200", f"{OURS} - {RIVAL}"]["p"] == "0.73"
    shown = {row["claim"]: row["tests that stand"] for row in claims.claim_rows(FIGURES, TESTS)}
    assert shown["best on LeetCode, greedy"] == "3 of 4"
    assert shown["ranking feedback is what makes the model better"] is None
    lines = claims.range_lines(TESTS)  # those of sampled rates have no lower bound to draw
    assert len(lines) == sum(test.how != "rates" for test in TESTS) == 17
    assert all(low <= high for _, low, high, _ in lines)


def test_every_finding_has_its_numbers_and_its_verdict_and_every_claim_is_one():
    assert all(set(row) == {"fact", "place", "values", "verdict"} for row in AUDIT)
    assert all(row["values"] and row["verdict"] for row in AUDIT)
    assert len({row["fact"] for row in AUDIT}) == len(AUDIT)
    assert json.loads(json.dumps(AUDIT, allow_nan=False)) == AUDIT
    found = [row for row in AUDIT if row["fact"].startswith("claim: ")]
    assert [row["fact"].removeprefix("claim: ") for row in found] == list(CLAIMS)
    assert sum(len(row["values"]["rows"]) for row in found) == len(TESTS)


FOUND = [  # words of a finding, its verdict, some of its numbers, by hand
    ("batch size that", "confounded",
     {"implied_batch": {"18,000 rows": 8, "38,000 rows": 514, "68,000 rows": 515},
      "times_smaller_batch": 64}),
    ("gain from 18,000 rows to 38,000", "not shown", {"smallest_p": exact(4, 0)}),
    ("the headline rate", "choice on the test set not excluded", {"best_point_of_fig_4": 62.2}),
    ("updates drawn", "consistent", {"drawn": 132 * 6, "computed": 68_000 * 6 / 512}),
    ("StarCoder solves fewer tasks", "contradiction",
     {"solved_within_200": 49 + 51 - 1, "least_tasks_for_pass_at_100": 131}),
    ("PanGu-Coder2 solves enough", "consistent", {}),
    ("WizardCoder solves enough", "consistent", {}),
    ("greedy lead", "within noise", {"only PanGu-Coder2": 21}),
    ("on CoderEval, in functions", "not shown", {"lead": 1}),
    ("leads that no paired test", "4 of 17 too small", {"least_tasks_ahead": 6}),
    ("the reported rates of GPT-3.5", "contradicted", {"better_than": ["OpenAI"]}),
    ("CTranslate2 int8 over", "within noise",
     {"more_tasks": 4, "smallest_p": 0.125, "significant_if_both_solve": None,
      "standard_error_points": pytest.approx(100 * math.sqrt(102 * 62 / 164) / 164)}),
    ("GPTQ (AutoGPTQ) int8 over", "left open",
     {"more_tasks": -18, "largest_p": pytest.approx(exact(102 - 22, 84 - 22))}),
    ("every rate of Table 4", "greedy, not as its text says", {}),
    ("the two headline rates", "two protocols",
     {"table_2_in_tasks": pytest.approx(101.09, abs=0.01)}),
    ("regions and difficulties", "consistent",
     {"regions_of_fig_5": {"greedy": 164, "pass@200": 164}, "leetcode_levels": 79 + 150 + 71}),
    ("greedy regions", "consistent", {}),
    ("leakage", "cannot be checked", {"unchecked": ["codereval"]}),
    ("what ranking adds", "not tested", {}),
]  # fmt: skip


@pytest.mark.parametrize("words, verdict, values", FOUND)
def test_a_finding_says_what_follows_from_the_figures(words, verdict, values):
    (found,) = [row for row in AUDIT if words in row["fact"]]
    assert found["verdict"] == verdict
    assert {name: found["values"][name] for name in values} == values


@pytest.mark.parametrize(
    "change, words, verdict",
    [
        (("figure_4", 0, {"steps_per_epoch": 35}), "batch size that", "consistent"),
        (("table_2", 6, {"pass_at_1": 50.0}), "the reported rates of GPT-3.5", "stands"),
        (("table_2", 11, {"pass_at_100": 60.0}), "StarCoder solves enough", "consistent"),
        (("table_3", 4, {"humaneval": 61.59}), "the headline rate", "consistent"),
        (("figure_5", 0, {"greedy": 19}), "regions and difficulties", "contradiction"),
        (("table_4", 1, {"humaneval": 67.07}), "CTranslate2 int8 over", "left open"),
    ],
)
def test_a_finding_changes_with_the_figures_it_is_computed_from(change, words, verdict):
    table, at, values = change
    rows = [dict(row) for row in FIGURES[table]["rows"]]
    rows[at] |= values
    changed = {**FIGURES, table: {**FIGURES[table], "rows": rows}}
    (found,) = [row for row in audit.audit(changed, **LEVEL) if words in row["fact"]]
    assert found["verdict"] == verdict


def test_the_level_of_the_audit_is_that_of_its_tests():
    lenient = audit.audit(FIGURES, alpha=0.5, power=0.8)
    assert [r["verdict"] for r in lenient if "gain from 18,000" in r["fact"]] == ["left open"]


def test_facts_are_shown_as_text_with_two_decimals_and_without_their_tables():
    values = {"p_value": 0.62710, "tiny": 0.00012, "pass_at_1": {"a": 3, "b": True}, "none": []}
    values |= {"rows": [{"a": 1}]}
    (row,) = audit.shown([{"fact": "x", "place": "Fig 1", "values": values, "verdict": "y"}])
    assert row["values"] == "p value: 0.63; tiny: 0.00012; pass@1: a 3 · b yes; none: none"


def comparison(a, b, metric, difference=0.01):
    spread = {"low": difference - 0.02, "high": difference + 0.02, "p_holm": 0.4}
    sizes = {"n_tasks": 600, "n_seeds_a": 3, "n_seeds_b": 1, "detectable": 0.03}
    sizes |= {"p_equivalence": difference, "margin": 0.02}
    return {"a": a, "b": b, "metric": metric, "difference": difference} | spread | sizes


METRICS = ("pass@1 greedy", "pass@10 T=0.8", "pass@1 T=0.8")
RUN = {
    "comparisons": [
        comparison("rrtf", b, metric, at / 100)
        for at, (b, metric) in enumerate(itertools.product(("base", "sft", "sft-kept"), METRICS))
    ],
    "quantization": [
        {"variant": "full", "status": "ok", "size_mb": 14.0, "only_variant": 0, "only_full": 0,
         "n_tasks": 300, "p_value": 1.0},
        {"variant": "ctranslate2-int8", "status": "ok", "size_mb": 4.0, "only_variant": 5,
         "only_full": 2, "n_tasks": 300, "p_value": 0.45},
        {"variant": "gptq-int4", "status": "failed: no memory", "size_mb": None},
    ],
    "runs": [{"method": "rrtf", "loss": 10.0, "rank_loss": 0.1}, {"method": "sft", "loss": 9.0}],
}  # fmt: skip


def beside(**changes):
    found = paper_beside.beside(FIGURES, **(RUN | changes), alpha=0.05, power=0.8)
    return {row["question"]: row for row in paper_beside.beside_rows(found)}, found


@pytest.mark.parametrize(
    "question, theirs, here",
    [
        ("tuned model over its base, greedy", "+29.3 points [+21.8, +36.7], p = 6.1e-13, 164",
         "+0.0 points [-2.0, +2.0], p = 0.4, 600 tasks"),
        ("ranking over imitation on the same prompts, greedy", "not tested", "+6.0 points"),
        ("the same lead, sampled (pass@1; here pass@1 T=0.8)", "+4.3 points", "+5.0 points"),
        ("the same lead at the largest k (pass@100; here pass@10 T=0.8)", "+1.3 points, 164",
         "+4.0 points"),
        ("CTranslate2 int8 over float16", "+2.4 points", "+1.0 points"),
        ("CTranslate2 int8 is smaller by", "2.0 times, GPU memory", "3.5 times, weights"),
        ("share of L_rank in the loss, end of training", "not given", "1.0 percent"),
    ],
)  # fmt: skip
def test_each_question_has_the_papers_answer_and_ours(question, theirs, here):
    row = beside()[0][question]
    assert row["the paper"].startswith(theirs) and row["this run"].startswith(here)


def test_equivalence_is_said_where_it_was_found_and_what_was_not_measured_too():
    rows, found = beside()
    told = [row["this run"] for row in rows.values() if "points [" in row["this run"]]
    assert [("no difference of 2 points" in text) for text in told] == [1, 0, 1, 0, 1, 0]
    lines = paper_beside.answer_lines(found)  # only those with an interval are drawn
    sides = [side for line in lines.values() for side in line.values()]
    assert len(sides) == 5 + 6 and all(low < value < high for value, low, high in sides)
    assert list(lines["CTranslate2 int8 over float16"]) == ["the paper", "this run"]
    rows, _ = beside(runs=[], quantization=[])
    assert "was not measured" in rows["GPTQ (AutoGPTQ) int4 over float16"]["this run"]
    assert "not among" in rows["RRTF over its teacher, greedy"]["this run"]
    assert rows["share of L_rank in the loss, end of training"]["this run"] == "no run of rrtf"
    assert "nothing comparable" in rows["more training data, greedy"]["this run"]
    assert "not measured" in rows["CTranslate2 int8 is smaller by"]["this run"]
    with pytest.raises(ValueError, match="greedy"):
        beside(comparisons=[comparison("rrtf", "base", "pass@1 T=0.8")])


def test_what_is_not_disclosed_stands_beside_the_settings_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_HOME", str(tmp_path))
    folder = config.run_dir("nano") / "01_evolve"
    folder.mkdir(parents=True)
    for rounds in (2, 7):  # of the profile, then of what was run
        found = paper_beside.undisclosed(FIGURES, "nano")
        rows = {row["not disclosed"]: row["here"] for row in found}
        assert rows["rounds of evolution"] == f"rounds = {rounds}"
        assert rows["hardware"] == "no parameter"
        (folder / "manifest.json").write_text('{"settings": {"rounds": 7}}')


def test_the_pictures_show_ranges_batches_and_what_may_be_zero():
    rows = [("far", 1e-9, 0.5, "left open"), ("one", 0.2, 0.2, "not shown")]
    axis = charts.p_ranges(rows, alpha=0.05).axes[0]  # beyond the axis an arrow, a single p a dot
    assert [line.get_marker() for line in axis.lines if line.get_marker() != "None"] == ["<", "o"]
    stated = FIGURES["training"]["global_batch"]
    figure = charts.data_sizes(printed.size_rows(FIGURES), stated_batch=stated)
    assert [bar.get_width() for bar in figure.axes[2].patches] == [8, 514, 515]
    assert [text.get_text() for text in figure.axes[1].texts] == ["2,250", "74", "132"]
    lines = {"q": {"the paper": (0.1, -0.1, 0.3), "this run": (0.1, 0.05, 0.15)}}
    dots = [li for li in charts.answers(lines).axes[0].lines if li.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [True, False]
