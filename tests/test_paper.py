"""What is computed from the paper's figures, against counts done by hand."""

import itertools
import json
import math

import pytest

from rrtf import config, stats
from rrtf.figures import charts
from rrtf.paper import audit, claims, pairs, printed
from rrtf.paper import beside as paper_beside

FIGURES = printed.figures()
LEVEL = dict(alpha=0.05, power=0.8)
AUDIT = audit.audit(FIGURES, **LEVEL)
TESTS = claims.claim_tests(FIGURES, alpha=0.05)
CLAIMS = {row["claim"]: row for row in claims.claim_verdicts(FIGURES, TESTS)}


def fact(words):
    """The one finding whose sentence holds `words`."""
    (found,) = [row for row in AUDIT if words in row["fact"]]
    return found


def find_test(rival, metric, table="Table 3"):
    (found,) = [t for t in TESTS if (t.b, t.metric) == (rival, metric) and table in t.place]
    return found


# --- the data file -----------------------------------------------------------------------------


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


def test_every_fact_of_the_paper_says_where_it_stands():
    found = dict(tables_of(dict(FIGURES)))
    assert len(found) > 40
    assert [path for path, table in found.items() if not table.get("source")] == []


def test_every_table_of_rows_says_what_it_holds():
    tables = [table for table in FIGURES.values() if isinstance(table, dict) and "rows" in table]
    assert len(tables) == 5 and all(table["what"] for table in tables)


def test_the_parameters_of_the_model_follow_from_its_dimensions():
    model = FIGURES["model"]
    wide, inner, head = model["hidden"], model["inner"], model["hidden"] // model["heads"]
    attention = wide * (wide + 2 * head) + (wide + 2 * head) + wide * wide + wide
    block = attention + 2 * wide * inner + inner + wide + 4 * wide
    table = (model["vocabulary"] + model["max_length"]) * wide
    assert table + model["layers"] * block + 2 * wide == model["parameters"]


def test_the_cases_are_figures_6_to_8():
    found = [(case["source"], case["entry_point"], case["solved_by"]) for case in FIGURES["cases"]]
    assert found == [
        ("Fig 6", "make_a_pile", ["PanGu-Coder2"]),
        ("Fig 7", "maximum", ["WizardCoder"]),
        ("Fig 8", "match_parens", []),
    ]


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
        with pytest.raises(ValueError, match=r"no whole number of 164 tasks"):
            printed.solved(wrong, 164)


def test_a_row_or_model_that_the_paper_lacks_is_named():
    with pytest.raises(ValueError, match=r"no row of table_2 with \{'model': 'GPT-5'\}"):
        printed.row(FIGURES, "table_2", model="GPT-5")
    with pytest.raises(ValueError, match="table_3 has no row of Phi-1"):
        next(printed.counts(FIGURES, "table_3", "humaneval", "Phi-1"))
    with pytest.raises(ValueError, match="table_2 has no pass_at_10 of Phi-1"):
        next(printed.counts(FIGURES, "table_2", "pass_at_10", "Phi-1"))


# --- tables with intervals ---------------------------------------------------------------------


def test_every_greedy_rate_is_shown_as_its_count():
    rows = [list(row.values())[2:] for row in printed.greedy_rows(FIGURES)]
    counts = [[int(cell.partition(" = ")[0]) for cell in row] for row in rows]
    assert [row[0] for row in counts] == [39, 92, 54, 98, 102]
    assert [row[1] for row in counts] == [35, 63, 87, 77, 88]
    assert [row[2] for row in counts] == [9, 10, 33, 58, 72]
    assert rows[-1][2].startswith("72 = 24.00 % (")


def wilson_by_hand(k, n, z=1.959964):
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return f"{100 * (middle - half):.1f} to {100 * (middle + half):.1f}"


def test_intervals_of_the_tables_are_wilsons():
    ours = printed.greedy_rows(FIGURES)[-1]
    assert ours["HumanEval, of 164"] == "102 = 62.20 % (54.6 to 69.3)"
    assert wilson_by_hand(102, 164) == "54.6 to 69.3"
    assert wilson_by_hand(88, 230) in ours["CoderEval, of 230"]
    assert wilson_by_hand(72, 300) in ours["LeetCode, of 300"]
    assert printed.sampled_rows(FIGURES)[-1]["95 %, at most"] == wilson_by_hand(101, 164)


def test_leetcode_is_shown_by_difficulty():
    ours = printed.difficulty_rows(FIGURES)[-1]
    assert (ours["easy, of 79"], ours["medium, of 150"], ours["hard, of 71"]) == (32, 30, 10)
    assert ours["hard 95 %"] == wilson_by_hand(10, 71)


def test_a_figure_the_paper_does_not_give_stays_empty():
    phi = next(row for row in printed.sampled_rows(FIGURES) if row["model"] == "Phi-1")
    assert phi["pass@10"] is None and phi["pass@100"] is None


def test_the_panels_hold_every_model_and_benchmark_of_table_3():
    panels = printed.greedy_panels(FIGURES)
    assert list(panels) == ["HumanEval, 164 tasks", "CoderEval, 230 tasks", "LeetCode, 300 tasks"]
    assert all(len(lines) == 5 for lines in panels.values())
    assert all(low < value < high for lines in panels.values() for _, value, low, high in lines)


def test_table_4_is_completed_by_counts_and_ratios():
    rows = printed.inference_rows(FIGURES)
    assert [row["solved"] for row in rows] == [102, 106, 84, 85]
    assert rows[1]["times faster"] == pytest.approx(75 / 33)
    assert rows[1]["times smaller"] == pytest.approx(32.36 / 16.29)


def test_figure_4_is_completed_by_the_batch_its_steps_imply():
    rows = printed.size_rows(FIGURES)
    assert [row["implied batch"] for row in rows] == [8, 514, 515]
    assert [row["solved"] for row in rows] == [84, 88, 102]


# --- pairs -------------------------------------------------------------------------------------


def exact(only_a, only_b):
    """Two-sided exact McNemar p, from the coin tosses themselves."""
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(tosses, k) for k in range(fewer + 1)) / 2**tosses)


@pytest.mark.parametrize(
    "a, b, column, only_a, only_b",
    [
        ("PanGu-Coder2", "WizardCoder", "greedy", 18 + 3, 16 + 1),
        ("PanGu-Coder2", "StarCoder", "greedy", 18 + 32, 1 + 1),
        ("WizardCoder", "StarCoder", "greedy", 32 + 16, 3 + 1),
        ("PanGu-Coder2", "WizardCoder", "pass_at_200", 5, 3),
        ("PanGu-Coder2", "StarCoder", "pass_at_200", 5 + 51, 0),
        ("WizardCoder", "StarCoder", "pass_at_200", 51 + 3, 0),
    ],
)
def test_the_regions_of_figure_5_give_mcnemars_counts(a, b, column, only_a, only_b):
    found = pairs.paired(FIGURES, a, b, column)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p == pytest.approx(exact(only_a, only_b), rel=1e-9)
    assert found.difference == pytest.approx((only_a - only_b) / 164)


def test_pangu_coder2_against_wizardcoder_is_undecided():
    found = pairs.paired(FIGURES, "PanGu-Coder2", "WizardCoder")
    assert found.p == pytest.approx(0.627, abs=0.001)
    error = math.sqrt((38 - 16 / 164) / 164 / 163)  # of the mean of 21 ones and 17 minus ones
    assert found.high - found.difference == pytest.approx(1.9746 * error, rel=1e-3)


def test_the_pairs_of_figure_5_are_corrected_together():
    found = pairs.all_pairs(FIGURES)
    assert len(found) == 6
    ordered = sorted(pair.p for pair, _ in found)
    by_hand, so_far = {}, 0.0
    for at, p in enumerate(ordered):
        so_far = max(so_far, min(1.0, (6 - at) * p))
        by_hand[p] = so_far
    assert all(adjusted == pytest.approx(by_hand[pair.p]) for pair, adjusted in found)


def one(name, solved, tasks):
    return printed.Count(name, ((solved, tasks),))


def test_the_bounds_of_p_hold_every_overlap_that_two_counts_allow():
    found = pairs.p_range(one("a", 5, 8), one("b", 4, 8), alpha=0.05)
    every = []
    for a in itertools.combinations(range(8), 5):
        for b in itertools.combinations(range(8), 4):
            every.append(exact(len({*a} - {*b}), len({*b} - {*a})))
    assert (found.smallest, found.largest) == (min(every), max(every))
    assert (found.shared_least, found.shared_most) == (1, 4)


def test_parts_printed_apart_narrow_the_bounds():
    whole = pairs.p_range(one("a", 10, 20), one("b", 10, 20), alpha=0.05)
    a, b = printed.Count("a", ((10, 10), (0, 10))), printed.Count("b", ((0, 10), (10, 10)))
    apart = pairs.p_range(a, b, alpha=0.05)
    assert (whole.shared_least, whole.shared_most) == (0, 10)
    assert (apart.shared_least, apart.shared_most) == (0, 0)


def test_the_overlap_from_which_a_lead_is_significant_is_found():
    found = pairs.p_range(one("a", 88, 230), one("b", 77, 230), alpha=0.05)
    needed = found.shared_needed
    assert exact(88 - needed, 77 - needed) < 0.05 <= exact(89 - needed, 78 - needed)
    assert pairs.p_range(one("a", 5, 9), one("b", 4, 9), alpha=0.05).shared_needed is None


def test_counts_over_different_tasks_are_not_compared():
    with pytest.raises(ValueError, match="a and b are not over the same tasks"):
        pairs.p_range(one("a", 1, 5), one("b", 1, 6), alpha=0.05)


def test_the_quick_mcnemar_is_the_tested_one():
    for a, b in itertools.product(range(0, 60, 7), repeat=2):
        assert pairs._mcnemar(a, b) == pytest.approx(stats.mcnemar(a, b), rel=1e-12)


def test_a_lead_of_five_tasks_is_never_significant_at_five_percent():
    assert pairs.least_lead(0.05) == 6
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
    found = pairs.detectable(40, 0.5, alpha=0.05, power=0.8)
    assert power_by_hand(40, 0.5, found, 0.05) == pytest.approx(0.8, abs=1e-4)
    level = pairs._power(40, 0.5, 0.0, 0.05)
    assert level == pytest.approx(power_by_hand(40, 0.5, 0.0, 0.05)) and level <= 0.05


def test_no_lead_is_detectable_where_the_models_hardly_disagree():
    assert pairs.detectable(164, 0.01, alpha=0.05, power=0.8) is None


def test_more_tasks_find_smaller_leads_and_the_papers_leads_are_smaller_still():
    rows = pairs.detectable_rows(FIGURES, alpha=0.05, power=0.8)
    assert [row["tasks"] for row in rows] == [164, 230, 300]
    found = [row["found, disagreeing as in Fig 5"] for row in rows]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(10.8, abs=0.1)  # points
    assert all(row["lead over WizardCoder"] < row["found, disagreeing as in Fig 5"] for row in rows)


# --- claims ------------------------------------------------------------------------------------


def test_every_rival_of_every_claim_is_tested():
    assert len(TESTS) == 5 * 3 + 2 + 4 * 3 + 2 + 1 + 2
    assert sum(row["tests"] for row in CLAIMS.values()) == len(TESTS)


def test_where_figure_5_gives_the_regions_p_is_exact_and_else_bounded():
    assert find_test("WizardCoder", "humaneval").p_smallest == pytest.approx(exact(21, 17))
    assert find_test("StarCoder", "humaneval").p_largest == pytest.approx(exact(50, 2))
    other = find_test("Replit-glaive", "humaneval")  # 102 against 92 of 164
    assert other.p_smallest == pytest.approx(exact(10, 0))
    assert other.p_largest == pytest.approx(exact(102 - 30, 92 - 30))


def test_leetcode_is_bounded_by_its_difficulties():
    found = find_test("WizardCoder", "leetcode")  # 32/30/10 against 29/22/7
    assert found.lead == 14 and found.p_smallest == pytest.approx(exact(14, 0))
    assert found.p_largest == pytest.approx(exact(72, 58))


def test_one_function_on_coder_eval_is_nothing_at_any_overlap():
    found = find_test("StarCoder", "codereval")
    assert (found.lead, found.p_smallest, found.verdict) == (1, 1.0, "not shown")


def test_a_sampled_rate_has_no_smallest_p():
    found = find_test("WizardCoder", "pass_at_1", "Table 2")
    assert found.p_smallest == 0.0 and found.verdict == "left open"
    assert found.p_largest == pytest.approx(exact(70, 63))  # 101 and 94 of 164, 31 shared


def test_holm_runs_over_all_tests_with_either_bound():
    for bound in ("smallest", "largest"):
        p = [getattr(test, f"p_{bound}") for test in TESTS]
        assert stats.holm(p) == [getattr(test, f"holm_{bound}") for test in TESTS]


def test_a_claim_is_as_good_as_its_worst_test():
    verdicts = {row["claim"]: (row["verdict"], row["because of"]) for row in CLAIMS.values()}
    assert verdicts["best on HumanEval, greedy"] == ("not shown", "WizardCoder")
    assert verdicts["best on CoderEval, greedy"] == ("not shown", "StarCoder")
    assert verdicts["best on LeetCode, greedy"] == ("left open", "WizardCoder")
    assert verdicts["better than GPT-3.5 on HumanEval"] == (
        "contradicted",
        "GPT-3.5 (Luo et al.)",
    )
    assert verdicts["CTranslate2 int8 solves more than float16"][0] == "not shown"
    unprinted = verdicts["ranking feedback is what makes the model better"]
    assert unprinted == ("not tested", "no comparison printed")


def test_a_claim_whose_every_test_holds_stands():
    told = {"claim": "bigger", "source": "Table 3", "table": "table_3", "model": "PanGu-Coder2"}
    told |= {"columns": ["leetcode"], "rivals": ["PanGu-Coder", "StarCoder"]}
    tests = claims.claim_tests({**FIGURES, "claims": [told]}, alpha=0.05)
    (row,) = claims.claim_verdicts({**FIGURES, "claims": [told]}, tests)
    assert (row["verdict"], row["stands"]) == ("stands", 2)


def test_every_test_is_drawn_but_those_of_sampled_rates():
    lines = claims.range_lines(TESTS)
    assert len(lines) == sum(test.how != "rates" for test in TESTS) == 17
    assert all(low <= high for _, low, high, _ in lines)
    assert {verdict for *_, verdict in lines} <= set(claims.VERDICTS)


def test_tests_and_claims_are_shown_with_what_they_were_computed_from():
    rows = {
        (row["place"].replace("\u00a0", " "), row["a - b"]): row for row in claims.test_rows(TESTS)
    }
    bounded = rows["Table 3, CoderEval", "PanGu-Coder2 - WizardCoder"]
    assert (bounded["p"], bounded["from"]) == ("0.00098 to 0.44", "counts")
    assert rows["Table 2, pass@1", "PanGu-Coder2 - WizardCoder"]["p"] == "≤ 0.6"
    assert rows["Fig 5, pass@200", "PanGu-Coder2 - WizardCoder"]["p"] == "0.73"
    shown = {row["claim"]: row["tests that stand"] for row in claims.claim_rows(FIGURES, TESTS)}
    assert shown["best on LeetCode, greedy"] == "3 of 4"
    assert shown["ranking feedback is what makes the model better"] is None


# --- the audit ---------------------------------------------------------------------------------


def test_every_finding_has_its_numbers_and_its_verdict():
    assert all(set(row) == {"fact", "place", "values", "verdict"} for row in AUDIT)
    assert all(row["values"] and row["verdict"] for row in AUDIT)
    assert len({row["fact"] for row in AUDIT}) == len(AUDIT)
    assert json.loads(json.dumps(AUDIT, allow_nan=False)) == AUDIT


def test_the_audit_finds_the_batch_size_of_the_small_run():
    found = fact("batch size that")
    assert found["values"]["implied_batch"] == {
        "18,000 rows": 8, "38,000 rows": 514, "68,000 rows": 515,
    }  # fmt: skip
    assert found["values"]["times_smaller_batch"] == 64 and found["verdict"] == "confounded"


def test_the_first_doubling_of_the_data_gains_four_tasks():
    found = fact("gain from 18,000 rows to 38,000 rows")
    assert found["values"]["smallest_p"] == exact(4, 0) == 0.125
    assert found["verdict"] == "not shown"


def test_the_headline_rate_is_the_best_point_of_the_curve():
    found = fact("the headline rate")
    assert found["values"]["best_point_of_fig_4"] == 62.2
    assert found["verdict"] == "choice on the test set not excluded"


def test_the_updates_of_figure_4_fit_the_stated_batch():
    found = fact("updates drawn")["values"]
    assert found == {"drawn": 132 * 6, "computed": 68_000 * 6 / 512}


def test_the_audit_finds_that_figure_5_and_table_2_cannot_be_one_run():
    found = fact("StarCoder solves fewer tasks")
    assert found["verdict"] == "contradiction"
    assert found["values"]["solved_within_200"] == 49 + 51 - 1 == 99
    assert found["values"]["least_tasks_for_pass_at_100"] == 131
    for model in ("PanGu-Coder2", "WizardCoder"):
        assert fact(f"{model} solves enough")["verdict"] == "consistent"


def test_the_lead_over_wizardcoder_is_within_noise():
    found = fact("greedy lead")
    assert found["values"]["only PanGu-Coder2"] == 21 and found["verdict"] == "within noise"


def test_the_audit_counts_one_function_on_codereval():
    assert fact("on CoderEval, in functions")["values"]["lead"] == 1


def test_the_audit_names_the_leads_that_no_test_can_find():
    found = fact("leads that no paired test")["values"]
    assert found["least_tasks_ahead"] == 6 and sorted(found["too_small"].values()) == [1, 2, 4, 4]


def test_the_audit_keeps_both_rates_of_gpt_3_5():
    found = fact("the reported rates of GPT-3.5")
    assert found["values"]["better_than"] == ["OpenAI"] and found["verdict"] == "contradicted"


def test_the_audit_weighs_int8_against_its_noise():
    found = fact("CTranslate2 int8 over")
    values = found["values"]
    assert values["more_tasks"] == 4 and values["smallest_p"] == 0.125
    assert values["standard_error_points"] == pytest.approx(
        100 * math.sqrt(102 * 62 / 164) / 164, rel=1e-6
    )
    assert values["difference_points"] < values["standard_error_points"]
    assert values["significant_if_both_solve"] is None and found["verdict"] == "within noise"


def test_the_loss_by_gptq_depends_on_an_overlap_that_is_not_printed():
    found = fact("GPTQ (AutoGPTQ) int8 over")
    assert found["values"]["more_tasks"] == -18 and found["verdict"] == "left open"
    assert found["values"]["largest_p"] == pytest.approx(exact(102 - 22, 84 - 22))


def test_the_rates_of_table_4_are_greedy_and_the_headline_of_table_2_is_not():
    assert fact("every rate of Table 4")["verdict"] == "greedy, not as its text says"
    found = fact("the two headline rates")
    assert found["verdict"] == "two protocols"
    assert found["values"]["table_2_in_tasks"] == pytest.approx(101.09, abs=0.01)


def test_the_counts_of_the_paper_add_up():
    found = fact("regions and difficulties")
    assert found["values"]["regions_of_fig_5"] == {"greedy": 164, "pass@200": 164}
    assert found["values"]["leetcode_levels"] == 79 + 150 + 71
    assert found["verdict"] == fact("greedy regions")["verdict"] == "consistent"


def test_the_leak_study_left_a_benchmark_out():
    found = fact("leakage")
    assert found["values"]["unchecked"] == ["codereval"]
    leaked = found["values"]["humaneval_percent_leaked_elsewhere"]
    assert leaked["Magicoder-Evol-Instruct-110K (magicoder issue 40)"] == 50.0


def test_what_ranking_adds_is_not_tested_in_the_paper():
    assert fact("what ranking adds")["verdict"] == "not tested"


def test_the_audit_ends_with_a_finding_for_every_claim():
    found = [row for row in AUDIT if row["fact"].startswith("claim: ")]
    assert [row["fact"].removeprefix("claim: ") for row in found] == list(CLAIMS)
    assert sum(len(row["values"]["rows"]) for row in found) == len(TESTS)


@pytest.mark.parametrize(
    "change, words, verdict",
    [
        (("figure_4", 0, {"steps_per_epoch": 35}), "batch size that", "consistent"),
        (("table_2", 5, {"pass_at_1": 50.0}), "the reported rates of GPT-3.5", "contradicted"),
        (("table_2", 6, {"pass_at_1": 50.0}), "the reported rates of GPT-3.5", "stands"),
        (("table_2", 11, {"pass_at_100": 60.0}), "StarCoder solves enough", "consistent"),
        (("table_3", 4, {"humaneval": 61.59}), "the headline rate", "consistent"),
        (("figure_5", 0, {"greedy": 19}), "regions and difficulties", "contradiction"),
        (("table_4", 1, {"humaneval": 67.07}), "CTranslate2 int8 over", "left open"),
        (("table_4", 1, {"humaneval": 64.3}), "every rate of Table 4", None),
    ],
)
def test_a_finding_changes_with_the_figures_it_is_computed_from(change, words, verdict):
    table, at, values = change
    rows = [dict(row) for row in FIGURES[table]["rows"]]
    rows[at] |= values
    changed = {**FIGURES, table: {**FIGURES[table], "rows": rows}}
    if verdict is None:
        with pytest.raises(ValueError, match="no whole number"):
            audit.audit(changed, **LEVEL)
        return
    (found,) = [row for row in audit.audit(changed, **LEVEL) if words in row["fact"]]
    assert found["verdict"] == verdict


def test_facts_are_shown_as_text_with_two_decimals_and_without_their_tables():
    values = {"p_value": 0.62710, "tiny": 0.00012, "pass_at_1": {"a": 3, "b": True}, "none": []}
    values |= {"rows": [{"a": 1}]}
    (row,) = audit.shown([{"fact": "x", "place": "Fig 1", "values": values, "verdict": "y"}])
    assert row["values"] == "p value: 0.63; tiny: 0.00012; pass@1: a 3 · b yes; none: none"
    assert row["verdict"] == "y"


def test_the_level_of_the_audit_is_that_of_its_tests():
    lenient = audit.audit(FIGURES, alpha=0.5, power=0.8)
    (found,) = [row for row in lenient if "gain from 18,000" in row["fact"]]
    assert found["verdict"] == "left open"


# --- beside a run ------------------------------------------------------------------------------


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


def test_each_question_has_the_papers_answer_and_ours():
    rows, _ = beside()
    base = rows["tuned model over its base, greedy"]
    assert base["the paper"].startswith("+29.3 points [+21.8, +36.7], p = 6.1e-13, 164 tasks")
    assert base["this run"].startswith("+0.0 points [-2.0, +2.0], p = 0.4, 600 tasks")
    ranking = rows["ranking over imitation on the same prompts, greedy"]
    assert ranking["the paper"].startswith("not tested") and "+6.0 points" in ranking["this run"]
    assert base["this run"].endswith("no difference of 2 points or more)")
    assert "no difference" not in ranking["this run"]


def test_the_sampled_lead_is_shown_for_the_smallest_and_the_largest_k():
    rows, _ = beside()
    assert "+5.0" in rows["the same lead, sampled (pass@1; here pass@1 T=0.8)"]["this run"]
    largest = rows["the same lead at the largest k (pass@100; here pass@10 T=0.8)"]
    assert largest["the paper"].startswith("+1.3 points, 164 tasks")


def test_quantised_variants_are_paired_in_both_worlds():
    rows, _ = beside()
    int8 = rows["CTranslate2 int8 over float16"]
    assert "p = 0.12 to 0.78" in int8["the paper"] and "+1.0 points" in int8["this run"]
    assert rows["CTranslate2 int8 is smaller by"] == {
        "question": "CTranslate2 int8 is smaller by", "place": "Table\u00a04",
        "the paper": "2.0 times, GPU memory", "this run": "3.5 times, weights",
    }  # fmt: skip


def test_what_one_side_did_not_measure_is_said():
    rows, _ = beside(runs=[], quantization=[])
    assert "was not measured" in rows["GPTQ (AutoGPTQ) int4 over float16"]["this run"]
    assert "not among" in rows["RRTF over its teacher, greedy"]["this run"]
    assert rows["share of L_rank in the loss, end of training"]["this run"] == "no run of rrtf"
    assert "nothing comparable" in rows["more training data, greedy"]["this run"]
    assert "not measured" in rows["CTranslate2 int8 is smaller by"]["this run"]


def test_the_share_of_the_ranking_loss_is_given_by_seed():
    rows, _ = beside()
    share = rows["share of L_rank in the loss, end of training"]
    assert share["this run"] == "1.0 percent, by training seed"


def test_only_answers_with_an_interval_are_drawn():
    _, found = beside()
    lines = paper_beside.answer_lines(found)
    sides = [side for line in lines.values() for side in line.values()]
    assert len(sides) == 5 + 6 and all(low < value < high for value, low, high in sides)
    assert list(lines["CTranslate2 int8 over float16"]) == ["the paper", "this run"]


def test_comparisons_without_greedy_answers_are_refused():
    with pytest.raises(ValueError, match="expected greedy and sampled"):
        beside(comparisons=[comparison("rrtf", "base", "pass@1 T=0.8")])


def test_what_is_not_disclosed_stands_beside_the_settings_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_HOME", str(tmp_path))
    rows = {row["not disclosed"]: row["here"] for row in paper_beside.undisclosed(FIGURES, "nano")}
    assert rows["rounds of evolution"] == "rounds = 2"
    assert rows["hardware"] == "no parameter"
    folder = config.run_dir("nano") / "01_evolve"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"settings": {"rounds": 7}}')
    rows = {row["not disclosed"]: row["here"] for row in paper_beside.undisclosed(FIGURES, "nano")}
    assert rows["rounds of evolution"] == "rounds = 7"


# --- pictures ----------------------------------------------------------------------------------


def test_a_range_that_leaves_the_axis_ends_in_an_arrow_and_a_single_p_is_a_dot():
    rows = [("far", 1e-9, 0.5, "left open"), ("one", 0.2, 0.2, "not shown")]
    axis = charts.p_ranges(rows, alpha=0.05).axes[0]
    assert [line.get_marker() for line in axis.lines if line.get_marker() != "None"] == ["<", "o"]


def test_the_data_sizes_are_drawn_with_the_batch_they_imply():
    rows = printed.size_rows(FIGURES)
    figure = charts.data_sizes(rows, stated_batch=FIGURES["training"]["global_batch"])
    assert [bar.get_width() for bar in figure.axes[2].patches] == [8, 514, 515]
    assert [text.get_text() for text in figure.axes[1].texts] == ["2,250", "74", "132"]


def test_an_answer_that_may_be_zero_is_hollow():
    lines = {"q": {"the paper": (0.1, -0.1, 0.3), "this run": (0.1, 0.05, 0.15)}}
    axis = charts.answers(lines).axes[0]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [True, False]
