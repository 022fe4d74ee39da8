"""Every formula of `rrtf.stats` against a slow, obvious version or against scipy."""

import itertools
import math
import subprocess
import sys
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from rrtf import stats
from rrtf.stats import Estimate

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import bench_coverage as bench


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 1), (7, 5, 3)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n, c, k):
    subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert stats.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(
    ("n", "c", "k"), [(10_000, 1, 100), (10_000, 4, 3), (9_999, 5_000, 2), (200, 37, 1), (10, 3, 8)]
)
def test_pass_at_k_is_exact_to_the_last_bit(n, c, k):
    missed = Fraction(1)
    for i in range(k):
        missed *= Fraction(n - c - i, n - i)
    assert stats.pass_at_k(n, c, k) == float(1 - missed)


def test_pass_at_100_of_200_samples_on_164_tasks_takes_no_time():
    started = time.process_time()
    for c in range(164):
        stats.pass_at_k.__wrapped__(200, c, 100)
    assert time.process_time() - started < 5


def test_pass_at_k_is_unbiased_for_the_chance_of_k_fresh_samples():
    random = np.random.default_rng(0)
    counts = random.binomial(10, 0.2, 20_000)
    mean = np.mean([stats.pass_at_k(10, int(c), 4) for c in counts])
    assert mean == pytest.approx(1 - 0.8**4, abs=0.005)


def test_wilson_equals_the_closed_formula():
    k, n, z = 98, 164, 1.959963984540054
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    found = stats.wilson(k, n)
    assert (found.value, found.low, found.high) == pytest.approx(
        (k / n, centre - half, centre + half)
    )
    none = stats.wilson(0, 30)
    assert none.low == pytest.approx(0) and 0.05 < none.high < 0.15


def wilson_t(p, variance, df):
    """Wilson's interval by solving (p - x)^2 = t^2 x (1 - x) / n for x."""
    n, z = p * (1 - p) / variance, scipy.stats.t.isf(0.025, df)
    return np.sort(np.roots([1 + z * z / n, -2 * p - z * z / n, p * p]).real)


def test_a_rate_has_wilsons_interval_at_the_variance_of_its_tasks_or_families():
    for values, *families in (([1] * 40 + [0] * 60,), ([1, 0, 1], ["a", "b", "c"])):
        plain = stats.wilson(sum(values), len(values))
        assert repr(stats.rate(values, *families)) == repr((plain, "Wilson"))  # it has a nan
    values = np.random.default_rng(34).integers(0, 11, 164) / 10  # sampled
    found, how = stats.rate(values)
    expected = wilson_t(values.mean(), values.var() / 164, 163)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-3)
    assert how == "Wilson, effective n"
    solved = np.random.default_rng(35).integers(0, 2, 40)  # families of equal tasks
    found, how = stats.rate(np.repeat(solved, 4), [i // 4 for i in range(160)])
    share = solved.mean()
    expected = wilson_t(share, share * (1 - share) / 40, 39)
    assert (found.low, found.high) == pytest.approx(expected)
    assert how == "Wilson, effective n of families"


def test_a_rate_that_hangs_on_one_task_is_as_unsure_as_a_yes_no_rate():
    one = [0.4] + [0.0] * 163
    found, _ = stats.rate(one)
    plain = np.mean(one), np.var(one) / 164
    assert found.high > 1.5 * wilson_t(*plain, 163)[1]
    assert found.high < stats.wilson(1, 164).high


def test_the_variance_of_a_rate_is_pulled_to_the_largest_by_the_square_of_its_lean():
    values, families = [0.9, 0.5, 0.0, 0.1, 0.0, 0.0], [0, 0, 1, 1, 2, 3]
    p = sum(values) / 6
    sizes = [families.count(f) for f in range(4)]
    squares = [
        sum(v - p for v, g in zip(values, families, strict=True) if g == f) ** 2 for f in range(4)
    ]
    lean = sum((square / sum(squares)) ** 2 for square in squares) - 1 / 4
    largest = p * (1 - p) * sum(size**2 for size in sizes)
    variance = ((1 - lean**2) * sum(squares) + lean**2 * largest) / 6**2
    found = stats.mean_rate([values], families)
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    assert (max(0, found.low), found.high) == pytest.approx(wilson_t(p, variance, 3))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_rate_without_variety_keeps_an_interval_inside_zero_and_one(value):
    families = [i // 3 for i in range(60)]
    found, _ = stats.rate([value] * 60, families)
    assert 0 <= found.low <= value <= found.high <= 1 and found.high - found.low > 0.1
    many = stats.mean_rate([[value] * 60] * 3)
    assert 0.03 < many.high - many.low < 0.1
    half, _ = stats.rate([0.5] * 60)
    assert (half.low, half.high) == pytest.approx(wilson_t(0.5, 0.25 / 60, 59))


def test_a_rate_of_one_task_or_one_family_has_no_interval():
    found, how = stats.rate([0.3])
    assert (found.value, how) == (0.3, "none: one task") and math.isnan(found.low)
    found, how = stats.rate([0.3, 0.5], ["a", "a"])
    assert (found.value, how) == (0.4, "none: one family") and math.isnan(found.high)


def test_the_mean_rate_over_seeds_has_the_variance_of_crossed():
    random = np.random.default_rng(36)
    rows = (random.random((5, 300)) < random.random(300) * 0.6 + random.random((5, 1)) * 0.3) * 1.0
    found, plain = stats.mean_rate(rows), stats.crossed(rows)
    assert found.value == plain.value and found.df == pytest.approx(plain.df, rel=0.02)
    assert found.standard_error == pytest.approx(plain.standard_error, rel=0.005)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.01)


def test_bootstrap_agrees_with_scipy_when_every_task_is_its_own_cluster():
    values = np.random.default_rng(1).random(80)
    how = {"method": "percentile", "rng": 2}
    theirs = scipy.stats.bootstrap((values,), np.mean, **how).confidence_interval
    ours = stats.bootstrap(values, seed=3)
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_bootstrap_draws_whole_clusters_by_its_seed():
    values, clusters = [1, 1, 1, 0, 0], ["a", "a", "a", "b", "b"]
    found = stats.bootstrap(values, clusters, seed=0)
    assert (found.value, found.low, found.high) == (0.6, 0.0, 1.0)
    values = np.random.default_rng(4).random(40)
    one, again, other = (stats.bootstrap(values, seed=seed) for seed in (5, 5, 6))
    assert one == again != other


def test_clusters_of_equal_tasks_widen_the_interval_by_the_square_root_of_their_size():
    one = np.random.default_rng(7).random(50)
    alone, four = np.repeat(one, 4), [i // 4 for i in range(200)]
    narrow, wide = stats.bootstrap(alone, seed=8), stats.bootstrap(alone, four, seed=8)
    assert wide.standard_error == pytest.approx(2 * narrow.standard_error, rel=0.05)
    narrow, wide = stats.crossed([alone]), stats.crossed([alone], clusters=four)
    assert wide.standard_error == pytest.approx(2 * narrow.standard_error, rel=0.05)


def test_crossed_with_one_seed_is_the_t_interval_over_tasks():
    values = np.random.default_rng(9).random(30)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    found = stats.crossed([values])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=2e-3)
    assert found.df == pytest.approx(29)


def two_way(side):
    """Variance of the mean from tasks, from seeds, from single cells, by nested loops."""
    seeds, tasks = len(side), len(side[0])
    of_seed = [sum(row) / tasks for row in side]
    of_task = [sum(row[t] for row in side) / seeds for t in range(tasks)]
    mean = sum(of_seed) / seeds
    between = sum((m - mean) ** 2 for m in of_task) / (tasks - 1) / tasks
    within = sum((m - mean) ** 2 for m in of_seed) / (seeds - 1) / seeds
    left = sum(
        (side[s][t] - of_seed[s] - of_task[t] + mean) ** 2
        for s in range(seeds)
        for t in range(tasks)
    )
    return between, within, left / (seeds - 1) / (tasks - 1) / seeds / tasks


def test_crossed_adds_to_the_tasks_what_seeds_vary_beyond_the_noise_of_cells():
    random = np.random.default_rng(31)
    a = random.random((3, 200)) + random.normal(0, 0.3, (3, 1))
    tasks, seeds, cells = two_way(a.tolist())
    assert seeds > 2 * cells
    found = stats.crossed(a)
    variance = tasks + seeds - cells
    assert found.value == pytest.approx(a.mean())
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-3)
    assert found.df == pytest.approx(variance**2 / (tasks**2 / 199 + seeds**2 / 2), rel=2e-3)
    alone = stats.crossed(a, [random.random(200)])
    assert alone.df < 199  # one side's seeds count also where the other has one


def test_seeds_that_agree_add_nothing_sides_can_be_turned_and_no_interval_has_width_zero():
    a = np.random.default_rng(32).random((4, 100))
    a += a.mean() - a.mean(axis=1, keepdims=True)
    assert stats.crossed(a) == stats.crossed([a.mean(axis=0)])
    random = np.random.default_rng(12)
    a, b = random.random((3, 40)), random.random((2, 40))
    ab, ba = stats.crossed(a, b), stats.crossed(b, a)
    assert (ab.value, ab.low, ab.high) == pytest.approx((-ba.value, -ba.high, -ba.low))
    same = stats.crossed(np.ones((3, 50)), np.ones((3, 50)))
    assert same.value == 0 and same.standard_error == pytest.approx(1 / 50, rel=0.02)


def test_three_seeds_that_agree_still_count_in_the_degrees_of_freedom():
    a = np.random.default_rng(38).normal(0, 1, (3, 100))
    a *= 1 + np.arange(3)[:, None] / 2  # noisy cells
    a -= 0.9 * (a.mean(axis=1, keepdims=True) - a.mean())
    found, without = stats.crossed(a), stats.crossed([a.mean(axis=0)])
    assert found.standard_error == pytest.approx(without.standard_error)
    assert found.df < without.df == 99


def test_variance_of_seeds_and_tasks_is_unbiased():
    random = np.random.default_rng(33)
    shapes = ((1.0, (1, 60)), (0.3, (5, 1)), (1.0, (5, 60)))
    drawn = (sum(random.normal(0, sd, shape) for sd, shape in shapes) for _ in range(2000))
    found = [stats.crossed(rows).standard_error ** 2 for rows in drawn]
    assert np.mean(found) == pytest.approx(1 / 60 + 0.09 / 5 + 1 / 300, rel=0.05)


def test_paired_seeds_cancel_what_a_seed_does_to_both_sides():
    random = np.random.default_rng(30)
    shift = random.normal(0, 0.2, (3, 1))
    a, b = random.random((3, 50)) + shift + 0.1, random.random((3, 50)) + shift
    found = stats.crossed(a, b, paired=True)
    assert found.standard_error == stats.crossed(a - b).standard_error
    assert found.standard_error < stats.crossed(a, b).standard_error


def test_the_task_part_of_crossed_is_the_variance_of_the_cluster_bootstrap():
    random = np.random.default_rng(10)
    values, clusters = random.random(120), random.integers(0, 60, 120)
    resampled = stats.bootstrap(values, clusters, seed=11, n_resamples=20_000)
    closed = stats.crossed([values], clusters=clusters)
    assert closed.standard_error == pytest.approx(resampled.standard_error, rel=0.05)


def test_the_noise_of_a_difference_is_parted_into_tasks_samples_and_seeds():
    random = np.random.default_rng(3)
    chance = random.beta(1, 1, (2, 200))  # tasks as they are
    draws = random.binomial(8, chance, (400, 2, 200)) / 8
    counts = [8] * 200, [8] * 200
    found = [stats.noise([a], [b], counts) for a, b in draws]
    again = np.var([a.mean() - b.mean() for a, b in draws])  # the same tasks, other samples
    assert np.mean([one.samples for one in found]) == pytest.approx(again, rel=0.2)
    own = np.var(chance[0] - chance[1], ddof=1) / 200
    assert np.mean([one.tasks for one in found]) == pytest.approx(own, rel=0.05)
    times = found[0].more_samples(0.12)
    left = found[0].tasks + found[0].samples / times
    assert stats.smallest_detectable(math.sqrt(left)) == pytest.approx(0.12)
    assert found[0].more_samples(1e-3) == math.inf
    left = found[0].whole / found[0].more_tasks(0.12)
    assert stats.smallest_detectable(math.sqrt(left)) == pytest.approx(0.12)
    a, b = draws[:5, 0] + np.arange(5)[:, None] / 20, draws[:5, 1]
    for paired in (False, True):
        whole = stats.crossed(a, b, paired=paired).standard_error ** 2
        parts = stats.noise(a, b, counts, paired=paired)
        assert parts.whole == pytest.approx(whole) and parts.seeds > 0.2 * whole
    assert math.isnan(stats.noise(*draws[0][:, None], ([1] * 200, [8] * 200)).samples)
    few = stats.noise([[0.5, 1.0]], [[0.25, 0.5]], ([2, 4], [4, 2]))
    by_hand = (0.25 / (2 - 1) + 0 / (4 - 1) + 0.25 * 0.75 / (4 - 1) + 0.25 / (2 - 1)) / 2**2
    assert few.samples == pytest.approx(by_hand)


def test_mcnemar_is_twice_the_binomial_tail():
    tail = sum(math.comb(38, i) for i in range(18)) / 2**38
    assert stats.mcnemar(21, 17) == pytest.approx(2 * tail)
    assert stats.mcnemar(17, 21) == stats.mcnemar(21, 17)
    assert stats.mcnemar(0, 0) == 1.0


def test_permutation_of_few_clusters_enumerates_all_signs_and_of_many_agrees_with_scipy():
    values = np.array([0.3, -0.1, 0.4, 0.2, 0.05])
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=5)]
    expected = sum(s >= abs(sum(values)) - 1e-12 for s in sums) / 32
    assert stats.permutation(values, seed=0) == pytest.approx(expected)
    values = np.random.default_rng(13).normal(0.2, 1, 60)
    how = {"permutation_type": "samples", "rng": 14}
    theirs = scipy.stats.permutation_test((values,), np.mean, **how).pvalue
    assert stats.permutation(values, seed=15) == pytest.approx(theirs, abs=0.015)


def test_permutations_by_hand():
    values, clusters = [1.0] * 8, [0, 0, 0, 0, 1, 1, 1, 1]
    assert stats.permutation(values, clusters, seed=0) == 0.5, "a cluster is flipped as one"
    assert stats.permutation(values, seed=0) == 2 / 2**8
    assert stats.permutation([0.0] * 10, seed=0) == 1.0
    assert stats.permutation([1.0] * 200, seed=1, n_resamples=999) == 1 / 1000, "never zero"
    mixed = np.random.default_rng(16).normal(0.1, 1, 100)
    assert stats.permutation(mixed, seed=2) == stats.permutation(mixed, seed=2)
    yes_no = [1] * 9 + [-1] * 3 + [0] * 40
    assert stats.permutation(yes_no, seed=0) == pytest.approx(stats.mcnemar(9, 3))


def test_t_test_equals_scipy_for_one_seed_and_says_what_the_interval_says():
    values = np.random.default_rng(37).normal(0.02, 0.1, 200)
    theirs = scipy.stats.ttest_1samp(values, 0).pvalue
    assert stats.t_test(stats.crossed([values])) == pytest.approx(theirs, rel=0.01)
    estimate = stats.crossed(np.random.default_rng(17).random((3, 40)))
    assert stats.t_test(estimate, null=estimate.low) == pytest.approx(0.05)


def test_equivalence_is_the_two_one_sided_tests_and_the_90_percent_interval_inside_the_margin():
    from statsmodels.stats.weightstats import DescrStatsW

    values = np.random.default_rng(18).normal(0.004, 0.1, 400)
    expected = DescrStatsW(values).ttost_mean(-0.02, 0.02)[0]
    found = stats.equivalence(stats.crossed([values]), margin=0.02)
    assert found == pytest.approx(expected, rel=1e-3)
    inner = stats.crossed([np.random.default_rng(19).normal(0.0, 0.1, 100)])
    edge = abs(inner.value) + scipy.stats.t.ppf(0.95, inner.df) * inner.standard_error
    assert stats.equivalence(inner, margin=edge) == pytest.approx(0.05)


def test_holm_equals_the_step_down_by_hand_and_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([]) == []
    rng = np.random.default_rng(3)
    for size in (1, 2, 7, 30):
        p = np.round(rng.uniform(0, 0.2, size), 2)  # rounded: with ties
        assert stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_the_smallest_detectable_difference_is_found_with_the_stated_power():
    from statsmodels.stats.power import TTestPower

    found = stats.smallest_detectable(1 / math.sqrt(12), 11)
    power = TTestPower().power(found, nobs=12, alpha=0.05, alternative="two-sided")
    assert power == pytest.approx(0.8, abs=1e-4)
    many = stats.smallest_detectable(0.01)  # 2.8 standard errors
    assert many == pytest.approx(0.028016, abs=1e-5)
    assert stats.smallest_detectable(0.01, 2.5) > stats.smallest_detectable(0.01, 50) > many


SURE = Estimate(0.5, 0.4, 0.6)
REFUSED = [  # what nobody could calculate, a word of what is said
    *((stats.pass_at_k, counts, "pass@k")
      for counts in ((0, 0, 1), (5, 6, 1), (5, -1, 1), (5, 2, 6), (5, 2, 0))),
    *((stats.wilson, counts, "successes") for counts in ((1, 0), (-1, 5), (6, 5))),
    *((stats.rate, (values,), "between 0 and 1|finite")
      for values in ([0.5, 1.2], [-0.1, 0.5], [])),
    *((partial(stats.bootstrap, seed=0), (values,), "finite")
      for values in ([], [0.5, math.nan], [[0.5], [0.5]])),
    (partial(stats.bootstrap, seed=0), ([1, 0, 1], ["a", "b"]), "3 values but 2 clusters"),
    (partial(stats.crossed, clusters=["a"] * 3), ([[1, 0, 1]],), "2 clusters"),
    (stats.crossed, ([[1, 0, 1]], [[1, 0]]), "a has 3 tasks but b has 2"),
    (stats.crossed, ([[1, 0, 1], [1, 0]],), "every seed"),
    (partial(stats.crossed, paired=True), ([[1, 0]] * 3, [[1, 0]] * 2), "same number of rows"),
    (stats.mcnemar, (-1, 3), "negative"),
    (stats.holm, ([0.2, 1.2],), "p values"),
    (stats.t_test, (SURE,), "standard error"),
    (partial(stats.equivalence, margin=0), (stats.crossed([[0.1, 0.2, 0.4]]),), "margin"),
    (stats.smallest_detectable, (0.0,), "standard_error"),
]  # fmt: skip


@pytest.mark.parametrize(("work", "values", "told"), REFUSED)
def test_what_cannot_be_calculated_is_refused(work, values, told):
    with pytest.raises(ValueError, match=told):
        work(*values)


@pytest.mark.parametrize("rates", ["NEAR_0", "MIDDLE", "NEAR_1"])
@pytest.mark.parametrize(
    "design",
    [bench.Design(164), bench.Design(164, 10, 1), bench.Design(164, 10, 10, 1.5),
     bench.Design(164, 200, 10, 1.5), bench.Design(164, 10, 1, families=True),
     bench.Design(30, 10, 1), bench.Design(600, 200, 1)],
    ids=str,
)  # fmt: skip
def test_intervals_of_a_rate_cover_93_to_97_of_100(design, rates):
    rows = bench.one_rate(design, getattr(bench, rates), 200, rivals=False)
    assert bench.judged(np.mean([c for c, _ in rows["stats.rate"]]), 600) == "ok"


def test_a_percentile_bootstrap_covers_too_little_near_zero():
    rows = bench.one_rate(bench.Design(164, 10, 1), (0.01,), 300)
    assert rows["percentile"][0][0] < 0.9 < rows["stats.rate"][0][0]


@pytest.mark.parametrize("kind", ["unpaired", "paired", "one"])
@pytest.mark.parametrize("seed_sd", [0.1, 0.4])
def test_intervals_over_five_seeds_and_tasks_cover_93_to_97_of_100(kind, seed_sd):
    design = bench.Design(164, spread=2.0, seeds=5, seed_sd=seed_sd, cell_sd=0.7)
    found, _, _ = bench.pairs(design, (0.6, 0.5), 400, kind=kind)
    assert bench.judged(bench.hits(bench.bounds(found), 0.1)[0], 400) == "ok"


@pytest.mark.parametrize("rate", [0.6, 0.97])
def test_mean_rates_over_five_seeds_cover_93_to_97_of_100(rate):
    design = bench.Design(164, 10, spread=2.0, seeds=5, seed_sd=0.2, cell_sd=0.7)
    random = np.random.default_rng(8)
    sides = bench.answers(rate, bench.eases(design, 400, random), design, random)
    found = [stats.mean_rate(side) for side in sides]
    assert bench.judged(bench.hits(bench.bounds(found), rate)[0], 400) == "ok"


@pytest.mark.parametrize(
    ("kind", "design"),
    [
        ("exact McNemar", bench.Design(164)),
        ("permutation", bench.Design(164, 10, families=True)),
        ("t, seeds x tasks", bench.Design(164, spread=2.0, seeds=5, seed_sd=0.2, cell_sd=0.7)),
        ("t, paired seeds x tasks",
         bench.Design(164, spread=2.0, seeds=5, seed_sd=0.3, cell_sd=0.7)),
    ],
    ids=str,
)  # fmt: skip
def test_paired_tests_keep_their_level_and_find_a_large_difference(kind, design):
    level = bench.rejections(bench.p_values(kind, design, (0.6, 0.6), 300))
    power = bench.rejections(bench.p_values(kind, design, (0.8, 0.6), 60))
    assert level <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300) and power > 0.9


def test_equivalence_is_claimed_at_most_5_times_in_100_at_the_edge_of_the_margin():
    design = bench.Design(600, spread=2.0, seeds=5, cell_sd=0.7)
    edge, _, _ = bench.pairs(design, (0.6, 0.55), 200, kind="unpaired")
    same, _, _ = bench.pairs(design, (0.6, 0.6), 50, kind="unpaired")
    claims = [
        bench.rejections([stats.equivalence(e, margin=0.05) for e in found])
        for found in (edge, same)
    ]
    assert claims[0] <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200) and claims[1] > 0.9


def test_the_smallest_detectable_difference_is_found_four_times_in_five():
    design = bench.Design(164, spread=2.0, seeds=5, seed_sd=0.2, cell_sd=0.7)
    pilot, _, _ = bench.pairs(design, (0.6, 0.6), 200, kind="unpaired", seed=1)
    error = math.sqrt(np.mean([e.standard_error**2 for e in pilot]))
    gap = stats.smallest_detectable(error, float(np.median([e.df for e in pilot])))
    found, _, _ = bench.pairs(design, (0.6 + gap, 0.6), 300, kind="unpaired", seed=2)
    assert bench.rejections([stats.t_test(e) for e in found]) == pytest.approx(0.8, abs=0.08)


def test_an_interval_that_ignores_the_seeds_covers_too_little():
    design = bench.Design(164, spread=2.0, seeds=3, seed_sd=0.5)
    random = np.random.default_rng(21)
    sides = bench.answers(0.5, bench.eases(design, 200, random), design, random)
    kept = bench.bounds([stats.mean_rate(side) for side in sides])
    ignored = bench.bounds([stats.mean_rate([side.mean(axis=0)]) for side in sides])
    assert bench.hits(kept, 0.5)[0] > 0.9 > 0.8 > bench.hits(ignored, 0.5)[0]


def test_an_interval_that_ignores_the_families_covers_too_little():
    families = [i // 5 for i in range(300)]
    random = np.random.default_rng(22)
    rows = [np.repeat(random.random(60) < 0.4, 5).astype(float) for _ in range(200)]
    kept = bench.bounds([stats.bootstrap(r, families, seed=1, n_resamples=1000) for r in rows])
    ignored = bench.bounds([stats.bootstrap(r, seed=1, n_resamples=1000) for r in rows])
    assert bench.hits(kept, 0.4)[0] > 0.9 > 0.75 > bench.hits(ignored, 0.4)[0]


def test_permutation_rejects_a_true_null_at_its_level():
    def p_value(seed):
        random = np.random.default_rng(seed)
        values = random.integers(-1, 2, 60).astype(float)
        return stats.permutation(values, seed=seed, n_resamples=999)

    rejected = np.mean([p_value(seed) <= 0.05 for seed in range(500)])
    assert 0.02 <= rejected <= 0.08


@pytest.mark.parametrize("df", [1, 1.3, 3.7, 11, 163, 1e5])
def test_the_t_distribution_central_or_not_is_scipys(df):
    at = [-3.0, 0.0, 0.1, 2.5, 6.0, 12.7]
    for x in at:
        assert stats._above(x, df) == pytest.approx(scipy.stats.t.sf(x, df), rel=1e-11, abs=1e-18)
        for shift in (0.5, 2.8, 10.0):
            theirs = scipy.stats.nct.sf(x, df, shift)
            assert stats._above(x, df, shift) == pytest.approx(theirs, rel=1e-6, abs=1e-12)
    assert stats._quantile(df) == pytest.approx(scipy.stats.t.isf(0.025, df), rel=1e-10)
    assert stats._quantile(math.inf) == pytest.approx(scipy.stats.norm.isf(0.025), rel=1e-14)


def test_importing_stats_does_not_import_scipy():
    code = "import sys, rrtf.stats; print({'scipy', 'statsmodels', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
