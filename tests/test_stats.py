"""Every formula of `rrtf.stats` against a slow, obvious version or against scipy."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from rrtf import stats
from rrtf.stats import Estimate


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 1), (7, 5, 3)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n, c, k):
    subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert stats.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_1_is_the_plain_rate():
    assert stats.pass_at_k(200, 37, 1) == 37 / 200


@pytest.mark.parametrize(("n", "c", "k"), [(10_000, 1, 100), (10_000, 4, 3), (9_999, 5_000, 2)])
def test_pass_at_k_is_exact_to_the_last_bit_for_ten_thousand_samples(n, c, k):
    missed = Fraction(1)
    for i in range(k):
        missed *= Fraction(n - c - i, n - i)
    assert stats.pass_at_k(n, c, k) == float(1 - missed)


def test_pass_at_k_is_one_when_fewer_than_k_samples_fail():
    assert stats.pass_at_k(10, 3, 8) == 1.0


def test_pass_at_k_is_unbiased_for_the_chance_of_k_fresh_samples():
    random = np.random.default_rng(0)
    counts = random.binomial(10, 0.2, 20_000)
    mean = np.mean([stats.pass_at_k(10, int(c), 4) for c in counts])
    assert mean == pytest.approx(1 - 0.8**4, abs=0.005)


@pytest.mark.parametrize(("n", "c", "k"), [(0, 0, 1), (5, 6, 1), (5, -1, 1), (5, 2, 6), (5, 2, 0)])
def test_pass_at_k_of_impossible_counts_is_refused(n, c, k):
    with pytest.raises(ValueError, match="pass@k needs"):
        stats.pass_at_k(n, c, k)


def test_wilson_equals_the_closed_formula():
    k, n, z = 98, 164, 1.959963984540054
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    found = stats.wilson(k, n)
    assert (found.value, found.low, found.high) == pytest.approx(
        (k / n, centre - half, centre + half)
    )


def test_wilson_stays_inside_zero_and_one_where_nothing_passes():
    found = stats.wilson(0, 30)
    assert found.low == pytest.approx(0) and 0.05 < found.high < 0.15


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_of_impossible_counts_is_refused(k, n):
    with pytest.raises(ValueError, match="successes"):
        stats.wilson(k, n)


def test_bootstrap_agrees_with_scipy_when_every_task_is_its_own_cluster():
    from scipy.stats import bootstrap

    values = np.random.default_rng(1).random(80)
    theirs = bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    ours = stats.bootstrap(values, seed=3)
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_bootstrap_draws_whole_clusters():
    values, clusters = [1, 1, 1, 0, 0], ["a", "a", "a", "b", "b"]
    found = stats.bootstrap(values, clusters, seed=0)
    assert (found.value, found.low, found.high) == (0.6, 0.0, 1.0)


def test_bootstrap_respects_its_seed():
    values = np.random.default_rng(4).random(40)
    assert stats.bootstrap(values, seed=5) == stats.bootstrap(values, seed=5)
    assert stats.bootstrap(values, seed=5) != stats.bootstrap(values, seed=6)


def test_clusters_of_equal_tasks_widen_the_interval_by_the_square_root_of_their_size():
    one = np.random.default_rng(7).random(50)
    alone, four = np.repeat(one, 4), [i // 4 for i in range(200)]
    narrow, wide = stats.bootstrap(alone, seed=8), stats.bootstrap(alone, four, seed=8)
    assert wide.standard_error == pytest.approx(2 * narrow.standard_error, rel=0.05)
    narrow, wide = stats.crossed([alone]), stats.crossed([alone], clusters=four)
    assert wide.standard_error == pytest.approx(2 * narrow.standard_error, rel=0.05)


def test_t_interval_equals_scipy():
    from scipy import stats as theirs

    values = [0.55, 0.57, 0.53]
    expected = theirs.ttest_1samp(values, 0).confidence_interval()
    found = stats.t_interval(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_an_interval_over_one_seed_is_refused():
    with pytest.raises(ValueError, match="two seeds"):
        stats.t_interval([0.5])


def test_crossed_with_one_seed_is_the_t_interval_over_tasks():
    from scipy import stats as theirs

    values = np.random.default_rng(9).random(30)
    expected = theirs.ttest_1samp(values, 0).confidence_interval()
    found = stats.crossed([values])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.df == pytest.approx(29)


def test_crossed_adds_the_variance_of_tasks_and_of_seeds():
    a = np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]], dtype=float)
    b = np.array([[0, 0, 1, 0]], dtype=float)
    d = a.mean(axis=0) - b[0]
    tasks, seeds = d.var(ddof=1) / 4, a.mean(axis=1).var(ddof=1) / 3
    found = stats.crossed(a, b)
    assert found.value == pytest.approx(d.mean())
    assert found.standard_error == pytest.approx(math.sqrt(tasks + seeds))
    assert found.df == pytest.approx((tasks + seeds) ** 2 / (tasks**2 / 3 + seeds**2 / 2))


def test_paired_seeds_cancel_what_a_seed_does_to_both_sides():
    random = np.random.default_rng(30)
    shift = random.normal(0, 0.2, (3, 1))
    a, b = random.random((3, 50)) + shift + 0.1, random.random((3, 50)) + shift
    means = (a - b).mean(axis=1)
    found = stats.crossed(a, b, paired=True)
    tasks = (a - b).mean(axis=0).var(ddof=1) / 50
    assert found.standard_error == pytest.approx(math.sqrt(tasks + means.var(ddof=1) / 3))
    assert found.standard_error < stats.crossed(a, b).standard_error
    with pytest.raises(ValueError, match="same number of rows"):
        stats.crossed(a, b[:2], paired=True)


def test_the_task_part_of_crossed_is_the_variance_of_the_cluster_bootstrap():
    random = np.random.default_rng(10)
    values, clusters = random.random(120), random.integers(0, 60, 120)
    resampled = stats.bootstrap(values, clusters, seed=11, n_resamples=20_000)
    closed = stats.crossed([values], clusters=clusters)
    assert closed.standard_error == pytest.approx(resampled.standard_error, rel=0.05)


def test_a_minus_b_is_the_negative_of_b_minus_a():
    random = np.random.default_rng(12)
    a, b = random.random((3, 40)), random.random((2, 40))
    ab, ba = stats.crossed(a, b), stats.crossed(b, a)
    assert (ab.value, ab.low, ab.high) == pytest.approx((-ba.value, -ba.high, -ba.low))


def test_equal_results_on_all_tasks_do_not_give_an_interval_of_width_zero():
    found = stats.crossed(np.ones((3, 50)), np.ones((3, 50)))
    assert found.value == 0 and found.standard_error == pytest.approx(1 / 50)


def test_rows_of_different_tasks_cannot_be_compared():
    with pytest.raises(ValueError, match="a has 3 tasks but b has 2"):
        stats.crossed([[1, 0, 1]], [[1, 0]])
    with pytest.raises(ValueError, match="every seed"):
        stats.crossed([[1, 0, 1], [1, 0]])


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [[0.5], [0.5]]])
def test_values_that_are_no_row_of_finite_numbers_are_refused(values):
    with pytest.raises(ValueError, match="finite numbers"):
        stats.bootstrap(values, seed=0)


def test_clusters_must_match_the_values_and_be_two_at_least():
    with pytest.raises(ValueError, match="3 values but 2 clusters"):
        stats.bootstrap([1, 0, 1], ["a", "b"], seed=0)
    with pytest.raises(ValueError, match="at least 2 clusters"):
        stats.crossed([[1, 0, 1]], clusters=["a", "a", "a"])


def test_a_confidence_outside_zero_and_one_is_refused():
    with pytest.raises(ValueError, match="confidence"):
        stats.wilson(3, 5, confidence=95)


def test_mcnemar_is_twice_the_binomial_tail():
    tail = sum(math.comb(38, i) for i in range(18)) / 2**38
    assert stats.mcnemar(21, 17) == pytest.approx(2 * tail)
    assert stats.mcnemar(17, 21) == stats.mcnemar(21, 17)


def test_mcnemar_without_a_differing_task_is_one():
    assert stats.mcnemar(0, 0) == 1.0
    with pytest.raises(ValueError, match="negative"):
        stats.mcnemar(-1, 3)


def test_permutation_of_few_clusters_enumerates_all_signs():
    values = np.array([0.3, -0.1, 0.4, 0.2, 0.05])
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=5)]
    expected = sum(s >= abs(sum(values)) - 1e-12 for s in sums) / 32
    assert stats.permutation(values, seed=0) == pytest.approx(expected)


def test_permutation_agrees_with_scipy():
    from scipy.stats import permutation_test

    values = np.random.default_rng(13).normal(0.2, 1, 60)
    theirs = permutation_test((values,), np.mean, permutation_type="samples", rng=14).pvalue
    assert stats.permutation(values, seed=15) == pytest.approx(theirs, abs=0.015)


def test_permutation_flips_a_cluster_as_one():
    values, clusters = [1.0] * 8, [0, 0, 0, 0, 1, 1, 1, 1]
    assert stats.permutation(values, clusters, seed=0) == 0.5
    assert stats.permutation(values, seed=0) == 2 / 2**8


def test_permutation_without_a_difference_is_one():
    assert stats.permutation([0.0] * 10, seed=0) == 1.0


def test_permutation_of_yes_no_tasks_is_mcnemar():
    differences = [1] * 9 + [-1] * 3 + [0] * 40
    assert stats.permutation(differences, seed=0) == pytest.approx(stats.mcnemar(9, 3))


def test_permutation_is_never_zero_and_respects_its_seed():
    values = [1.0] * 200
    assert stats.permutation(values, seed=1, n_resamples=999) == 1 / 1000
    mixed = np.random.default_rng(16).normal(0.1, 1, 100)
    assert stats.permutation(mixed, seed=2) == stats.permutation(mixed, seed=2)


def test_t_test_and_interval_say_the_same():
    estimate = stats.crossed(np.random.default_rng(17).random((3, 40)))
    assert stats.t_test(estimate, null=estimate.low) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="standard error"):
        stats.t_test(Estimate(0.5, 0.4, 0.6))


def test_equivalence_agrees_with_the_two_one_sided_tests_of_statsmodels():
    from statsmodels.stats.weightstats import DescrStatsW

    values = np.random.default_rng(18).normal(0.004, 0.1, 400)
    expected = DescrStatsW(values).ttost_mean(-0.02, 0.02)[0]
    found = stats.equivalence(stats.crossed([values]), margin=0.02)
    assert found == pytest.approx(expected)


def test_equivalence_is_shown_exactly_when_the_90_percent_interval_lies_inside_the_margin():
    values = [np.random.default_rng(19).normal(0.0, 0.1, 100)]
    inner = stats.crossed(values, confidence=0.9)
    edge = max(abs(inner.low), abs(inner.high))
    assert stats.equivalence(stats.crossed(values), margin=edge) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="margin"):
        stats.equivalence(inner, margin=0)


def test_holm_equals_the_step_down_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([]) == []


def test_p_values_outside_zero_and_one_are_refused():
    with pytest.raises(ValueError, match="p values"):
        stats.holm([0.2, 1.2])


def test_the_smallest_detectable_difference_of_many_tasks_is_2_8_standard_errors():
    assert stats.smallest_detectable(0.01) == pytest.approx(0.028016, abs=1e-5)
    assert stats.smallest_detectable(0.01, 2.5) > stats.smallest_detectable(0.01, 50) > 0.028


def test_the_smallest_detectable_difference_is_found_with_the_stated_power():
    from statsmodels.stats.power import TTestPower

    found = stats.smallest_detectable(1 / math.sqrt(12), 11)
    power = TTestPower().power(found, nobs=12, alpha=0.05, alternative="two-sided")
    assert power == pytest.approx(0.8, abs=1e-4)


def test_a_detectable_difference_needs_a_positive_error():
    with pytest.raises(ValueError, match="standard_error"):
        stats.smallest_detectable(0.0)


def test_the_crossed_interval_covers_a_true_difference_over_seeds_and_tasks():
    def experiment(seed):
        random = np.random.default_rng(seed)
        ease = random.uniform(0.2, 0.7, 150)
        shifts = 0.1 + random.normal(0, 0.03, (3, 1))
        a = (random.random((3, 150)) < ease + shifts).astype(float)
        b = (random.random((1, 150)) < ease).astype(float)
        return stats.crossed(a, b), 0.1

    found = stats.coverage(experiment, repetitions=1000, seed=20)
    assert 0.93 <= found.value <= 0.99


def test_an_interval_that_ignores_the_seeds_covers_too_little():
    def experiment(seed):
        random = np.random.default_rng(seed)
        shifts = random.normal(0, 0.05, (3, 1))
        a = (random.random((3, 400)) < 0.5 + shifts).astype(float)
        return stats.crossed([a.mean(axis=0)]), 0.5

    assert stats.coverage(experiment, repetitions=500, seed=21).high < 0.85


@pytest.mark.slow
def test_an_interval_that_ignores_the_families_covers_too_little():
    families = [i // 5 for i in range(300)]

    def experiment(seed, clusters):
        values = np.repeat(np.random.default_rng(seed).random(60) < 0.4, 5).astype(float)
        return stats.bootstrap(values, clusters, seed=seed, n_resamples=1000), 0.4

    kept = stats.coverage(lambda s: experiment(s, families), repetitions=300, seed=22)
    ignored = stats.coverage(lambda s: experiment(s, None), repetitions=100, seed=22)
    assert kept.value >= 0.91 and ignored.value < 0.75


def test_permutation_rejects_a_true_null_at_its_level():
    def p_value(seed):
        random = np.random.default_rng(seed)
        values = random.integers(-1, 2, 60).astype(float)
        return stats.permutation(values, seed=seed, n_resamples=999)

    rejected = np.mean([p_value(seed) <= 0.05 for seed in range(500)])
    assert 0.02 <= rejected <= 0.08


def test_importing_stats_does_not_import_scipy():
    import subprocess
    import sys

    code = "import sys, rrtf.stats; print({'scipy', 'statsmodels', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
