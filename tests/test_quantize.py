"""Stage 08: every variant gives a row, failures included; differences are paired and corrected."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from rrtf import engines, stats
from rrtf.engines import Completion
from rrtf.quantize import jobs, measuring
from rrtf.quantize import table as quantize_table
from rrtf.quantize.jobs import Jobs
from rrtf.quantize.table import Measured, Settings, records, rows, shown, sources
from rrtf.quantize.variants import round_to
from rrtf.records import Execution, Outcome, Problem, Response

SETTINGS = Settings(
    prompt_format="starcoder",
    max_new_tokens=8,
    n_samples=2,
    temperature=0.2,
    top_p=0.95,
    nll_margin=0.5,
    batch_sizes=[2, 1],
    repetitions=3,
    timeout=300.0,
    workers=2,
    seed=1,
)


@pytest.fixture
def problems(add_problem):
    return [replace(add_problem, task_id=f"toy/{number}") for number in range(3)]


def tasks(count):
    return [Problem(f"t/{n}", "def f():\n", "f", "def check(candidate):\n    pass\n") for n in
            range(count)]  # fmt: skip


def executions(variant, greedy, sampled):
    """Verdicts of a variant: one per task for `greedy`, two per task for `sampled`."""
    found = []
    for source, passes in zip(
        sources(variant, SETTINGS.temperature), (greedy, sampled), strict=True
    ):
        for task, results in enumerate(passes):
            for index, passed in enumerate(results):
                outcome = Outcome.PASS if passed else Outcome.FAILED_TESTS
                found.append(Execution(f"t/{task}", source, index, outcome, "", 0, 1, "namespaces"))
    return found


def measured(variant, programs=(), **more):
    greedy = tuple(Response(f"t/{n}", variant, 0, text, text) for n, text in enumerate(programs))
    known = {"engine": "transformers-float32-sdpa", "weight_bytes": 4_000_000, "nll": 0.2}
    return Measured(variant, **({"status": "ok", "greedy": greedy} | known | more))


def row_of(greedy, sampled, n_tasks):
    """The second row of a table whose first one solves the first half of the tasks."""
    half = [[n < n_tasks // 2] for n in range(n_tasks)]
    twice = [[n < n_tasks // 2] * 2 for n in range(n_tasks)]
    runs = executions("full", half, twice) + executions("gptq-int4", greedy, sampled)
    programs = ["pass"] * n_tasks
    entries = [measured("full", programs), measured("gptq-int4", programs)]
    return rows(entries, runs, tasks(n_tasks), SETTINGS, model="m")[1]


# The table


def test_greedy_answers_have_wilsons_interval_and_the_exact_paired_test():
    n = 40
    greedy = [[task in {0, 1, 2, *range(20, 30)}] for task in range(n)]  # 17 lost, 10 won
    row = row_of(greedy, [[True, False]] * n, n)
    exact = stats.wilson(13, n)
    assert (row.pass_at_1, row.low, row.high) == (exact.value, exact.low, exact.high)
    assert (row.only_variant, row.only_full) == (10, 17)
    assert row.difference == pytest.approx(-7 / n)
    assert row.p_value == stats.mcnemar(10, 17)
    assert row.difference_low < row.difference < row.difference_high
    spread = stats.crossed([[float(g) for (g,) in greedy]], [[1.0] * 20 + [0.0] * 20])
    found = stats.smallest_detectable(spread.standard_error, spread.df)
    assert row.detectable == pytest.approx(found)


def test_sampled_answers_are_averaged_by_task_before_they_are_compared():
    n = 20
    row = row_of([[n_ < 10] for n_ in range(n)], [[True, n_ < 5] for n_ in range(n)], n)
    assert row.sampled == pytest.approx((5 * 1.0 + 15 * 0.5) / n)
    assert row.sampled_difference == pytest.approx(row.sampled - 0.5)
    boot = stats.bootstrap([1.0] * 5 + [0.5] * 15, seed=1)
    assert (row.sampled_low, row.sampled_high) == (boot.low, boot.high)
    differences = [0.0] * 5 + [-0.5] * 5 + [0.5] * 10
    assert row.sampled_p == stats.permutation(differences, seed=1)
    assert (row.n_samples, row.temperature, row.top_p) == (2, 0.2, 0.95)


def test_holm_corrects_over_all_tests_of_the_table():
    n = 20
    half, twice = [[t < 10] for t in range(n)], [[t < 10] * 2 for t in range(n)]
    worse = [[False]] * n
    names = ("full", "gptq-int8", "gptq-int4")
    runs = executions("full", half, twice) + executions("gptq-int8", half, twice)
    runs += executions("gptq-int4", worse, twice)
    table = rows(
        [measured(name, ["pass"] * n) for name in names], runs, tasks(n),
        SETTINGS, model="m",
    )  # fmt: skip
    raw = [p for row in table[1:] for p in (row.p_value, row.sampled_p)]
    assert [p for row in table[1:] for p in (row.p_holm, row.sampled_p_holm)] == stats.holm(raw)
    assert table[2].p_value < 0.05 and table[2].p_holm == pytest.approx(4 * table[2].p_value)
    assert math.isnan(table[0].p_value) and math.isnan(table[0].difference)


def test_a_variant_that_failed_has_a_row_that_says_why_and_no_numbers():
    n = 4
    runs = executions("full", [[True]] * n, [[True, False]] * n)
    broken = Measured("gptq-int4", "failed: killed by signal 11")
    table = rows(
        [measured("full", ["pass"] * n), broken], runs, tasks(n),
        SETTINGS, model="m",
    )  # fmt: skip
    full, failed = records(table)
    assert failed["status"] == "failed: killed by signal 11" and failed["precision"] == "int4"
    numbers = {name for name, value in failed.items() if isinstance(value, float)}
    assert numbers == {"temperature", "top_p"} and failed["only_full"] is None
    assert full["precision"] == "float32" and full["size_mb"] == 4.0
    json.dumps([full, failed], allow_nan=False)
    assert shown(table)[1]["greedy %"] is None
    assert (
        quantize_table.tested(table) == [] and quantize_table.differences(table, alpha=0.05) == []
    )


def test_losing_every_task_is_a_number_and_not_a_gap():
    n = 4
    full = executions("full", [[True]] * n, [[True, True]] * n)
    none = executions("gptq-int4", [[False]] * n, [[False, False]] * n)
    pair = [measured(name, ["pass"] * n) for name in ("full", "gptq-int4")]
    table = quantize_table.rows(pair, full + none, tasks(n), SETTINGS, model="m")
    assert quantize_table.records(table)[1]["difference"] == -1.0


def test_where_full_precision_failed_the_others_have_their_rates_and_nothing_is_compared():
    n = 4
    runs = executions("gptq-int4", [[True]] * n, [[True, False]] * n)
    pair = [Measured("full", "failed: gone"), measured("gptq-int4", ["pass"] * n)]
    full, own = quantize_table.rows(pair, runs, tasks(n), SETTINGS, model="m")
    assert full.status == "failed: gone" and math.isnan(full.pass_at_1)
    assert (own.pass_at_1, own.sampled) == (1.0, 0.5)
    assert quantize_table.tested([full, own]) == []


def test_verdicts_on_other_tasks_are_refused():
    runs = executions("full", [[True]] * 3, [[True, True]] * 3)
    with pytest.raises(ValueError, match=r"full/0@0: executed on 3 tasks, not on these 4"):
        quantize_table.rows([measured("full")], runs, tasks(4), SETTINGS, model="m")


def test_changed_answers_count_programs_that_are_not_literally_the_same():
    n = 4
    runs = executions("full", [[True]] * n, [[True] * 2] * n)
    runs += executions("gptq-int4", [[True]] * n, [[True] * 2] * n)
    pair = [measured("full", "abcd"), measured("gptq-int4", "abxy")]
    table = quantize_table.rows(pair, runs, tasks(n), SETTINGS, model="m")
    assert table[1].changed_answers == 2


def test_timing_gives_median_range_and_the_peak_of_each_batch():
    time = {
        "ms": {"1": [3.0, 1.0, 2.0], "32": [9.0]},
        "memory_bytes": {"1": [5_000_000, 90_000_000], "32": [7_000_000, 92_000_000]},
        "device": "a processor", "threads": 1, "versions": {"torch": "2"},
    }  # fmt: skip
    found = quantize_table.timing([measured("full", time=time), Measured("gptq-int4", "failed: x")])
    assert [(row["batch"], row["ms"], row["lowest"], row["highest"]) for row in found] == [
        (1, 2.0, 1.0, 3.0),
        (32, 9.0, 9.0, 9.0),
    ]
    assert [row["memory_mb"] for row in found] == [5.0, 7.0]
    (line,) = quantize_table.time_lines(found)
    assert line["ms/token, batch 1"] == "2.00 (1.00 to 3.00)"
    assert line["peak MB, batch 32"] == "7 of 92"
    assert quantize_table.ran_on(found) == "a processor, 1 thread; torch 2"


# Sanity


GOOD = ("x = 1", "y = 2", "z = 3", "pass")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, ""),
        ({"nll": 0.69}, ""),
        ({"nll": 0.71}, "0.51 above full precision's"),
        ({"nll": math.inf}, "likelihood of inf"),
        ({"nll": math.nan}, "likelihood of nan"),
        ({"programs": ["x = 1", "(", "((", "def"]}, "25 % of its answers are Python"),
        ({"programs": ["x = 1", "y = 1", "(", "def"]}, ""),
        ({"programs": ["", " ", "\n", "x"]}, "25 % of its answers are more than blanks"),
    ],
)
def test_what_no_longer_answers_like_a_model_is_told(change, told):
    full = measured("full", GOOD, nll=0.2)
    programs = change.pop("programs", GOOD)
    entry = measured("gptq-int4", programs, **({"nll": 0.2} | change))
    found = measuring.fault(entry, full, nll_margin=0.5)
    assert told in found and bool(found) == bool(told)


def test_tasks_without_references_need_no_likelihood():
    full = measured("full", GOOD, nll=math.nan)
    assert measuring.fault(full, full, nll_margin=0.5) == ""


def test_a_full_model_that_writes_only_blanks_is_none():
    full = measured("full", [" "] * 3)
    told = "none of its 3 answers is more than blanks"
    assert measuring.fault(full, full, nll_margin=0.5) == told


# Processes


class Scripted(Jobs):
    """Jobs whose processes are `answers`: (what, variant) -> a result or why it failed."""

    def __init__(self, *args, answers, **options):
        super().__init__(*args, **options)
        self.answers, self.asked = answers, []

    def _run(self, job, scratch):
        self.asked.append((job["what"], job["variant"]))
        found = self.answers[job["what"], job["variant"]]
        if isinstance(found, str):
            return found
        if job["what"] == "make":
            (self.folder / job["variant"]).mkdir(exist_ok=True)
        with open(job["result"], "w", encoding="utf-8") as file:
            json.dump(found | {"seconds": {"wall": 1.0, "cpu": 1.0}}, file)
        return ""


def answered(text="    return a + b", nll=0.2):
    row = [[text, 5, "stop"]]
    return {"engine": "e-float32", "nll": nll, "greedy": [row] * 3, "sampled": [row * 2] * 3}


MADE = {"weight_bytes": 10, "weights_sha256": "aa"}
TIMED = {"engine": "e", "ms": {"1": [1.0]}, "memory_bytes": {"1": [1, 2]}, "device": "d",
         "threads": 1, "versions": {}}  # fmt: skip
SCRIPT = {
    ("answer", "full"): answered(),
    ("time", "full"): TIMED,
    ("make", "gptq-int8"): MADE,
    ("answer", "gptq-int8"): answered(),
    ("time", "gptq-int8"): TIMED,
}


@pytest.fixture
def scripted(monkeypatch, tiny_model, problems, tmp_path):
    """Runs `measure` with scripted processes; returns what it measured and what was asked."""

    def run(*variants, **changes):
        made = []

        def install(*args, **options):
            made.append(Scripted(*args, answers=SCRIPT | changes.pop("script", {}), **options))
            return made[0]

        monkeypatch.setattr(jobs, "Jobs", install)
        script = changes.pop("script", {})
        options = {"model": tiny_model, "folder": tmp_path / "v"}
        options["calibration"] = changes.pop("calibration", [])
        settings = replace(SETTINGS, **changes)
        changes["script"] = script
        return jobs.measure(variants, problems, settings, **options), made[0].asked

    return run


def test_a_variant_is_made_asked_and_timed_each_in_its_own_process(scripted):
    found, asked = scripted("full", "gptq-int8")
    assert [entry.status for entry in found] == ["ok", "ok"]
    assert sorted(asked[:3]) == [("answer", "full"), ("answer", "gptq-int8"), ("make", "gptq-int8")]
    assert asked[3:] == [("time", "full"), ("time", "gptq-int8")]
    assert found[1].weights_sha256 == "aa" and found[1].weight_bytes == 10
    assert [len(found[1].greedy), len(found[1].sampled)] == [3, 6]
    assert {r.source for r in found[1].sampled} == {"gptq-int8/0@0.2"}


def test_what_was_done_is_not_done_again_unless_something_it_depends_on_changed(scripted):
    scripted("full", "gptq-int8")
    assert scripted("full", "gptq-int8")[1] == []
    again = scripted("full", "gptq-int8", repetitions=4)[1]
    assert again == [("time", "full"), ("time", "gptq-int8")]
    again = scripted("full", "gptq-int8", calibration=["def f(): pass"])[1]
    assert again == [("make", "gptq-int8")]  # the same weights came out: nothing else to do
    assert ("answer", "full") in scripted("full", "gptq-int8", max_new_tokens=9)[1]


def test_a_failure_is_kept_from_the_table_only_and_tried_again(scripted):
    crash = {("make", "gptq-int8"): "killed by signal 11"}
    (_, failed), _ = scripted("full", "gptq-int8", script=crash)
    assert failed.status == "failed: killed by signal 11" and not failed.greedy
    (_, mended), asked = scripted("full", "gptq-int8")
    assert mended.ok and ("make", "gptq-int8") in asked


def test_a_broken_variant_is_not_timed(scripted):
    broken = {("answer", "gptq-int8"): answered(nll=3.0)}
    (full, entry), asked = scripted("full", "gptq-int8", script=broken)
    assert full.ok and entry.status.startswith("failed: NLL 3.00") and not entry.greedy
    assert ("time", "full") in asked and ("time", "gptq-int8") not in asked


def test_a_folder_that_no_quantisation_made_is_left_alone(tiny_model, tmp_path):
    (tmp_path / "gptq-int8").mkdir()
    with pytest.raises(ValueError, match="exists and no quantisation made it"):
        Jobs(tiny_model, tmp_path, timeout=1.0).make("gptq-int8", [])


def test_an_unknown_variant_and_one_that_comes_twice_are_named():
    with pytest.raises(ValueError, match=r"'int3'.*full, ctranslate2-float32"):
        jobs.check_variants(["full", "int3"])
    with pytest.raises(ValueError, match="'full': it comes twice"):
        jobs.check_variants(["full", "full"])
    with pytest.raises(ValueError, match="no variants"):
        jobs.check_variants([])


def test_a_slow_process_is_ended_and_a_failing_one_says_its_last_line(tiny_model, tmp_path):
    slow = Jobs(tiny_model, tmp_path, timeout=0.05).make("ctranslate2-int8", [])
    assert slow.status == "failed: not done after 0.05 s"
    assert jobs._reason(1, "a\nValueError: b\n\n") == "ValueError: b"
    assert jobs._reason(-9, "a") == "killed by signal 9"
    assert jobs._reason(3, "") == "exit status 3"


@pytest.mark.slow
def test_float32_variants_answer_alike_and_are_measured_once(problems, tiny_model, tmp_path):
    options = {"model": tiny_model, "folder": tmp_path, "calibration": []}
    asked = ["full", "ctranslate2-float32"], problems, replace(SETTINGS, nll_margin=1.0)
    full, same = found = jobs.measure(*asked, **options)
    assert full.engine and same.engine and full.nll == pytest.approx(same.nll, abs=1e-4)
    assert full.weight_bytes == pytest.approx(same.weight_bytes, rel=0.5)
    assert jobs.measure(*asked, **options) == found


# What a process measures


class Ticking:
    """An engine whose own clock says 20 ms for reading and 1 ms per token, two a letter at most."""

    device, name = "cpu", "ticking"

    def __init__(self):
        self.batches, self.seconds = [], 0.0

    def generate(self, prompts, *, decoding, **options):
        self.batches.append(list(prompts))
        wanted = [min(decoding.max_new_tokens, 2 * len(prompt)) for prompt in prompts]
        self.seconds += 0.020 + 0.001 * max(wanted)
        return [[Completion("x", n, "length")] for n in wanted]

    def score(self, prompts, answers):
        return [(-2.0 * len(answer), len(answer)) for answer in answers]


def test_the_time_per_token_leaves_out_the_reading_of_the_prompt(monkeypatch):
    engine = Ticking()
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: engine.seconds)
    values = measuring.ms_per_token(engine, ["aa", "cccc", "bbb"], 4, repetitions=5)
    assert engine.batches == [["aa", "bbb", "cccc"]] + [["cccc"] * 4] * 12, "the longest answer"
    assert values == pytest.approx([1.0] * 5), "the first of six repetitions warms up"


def test_answers_that_end_at_once_have_no_time_per_token():
    with pytest.raises(ValueError, match="ends at its first token"):
        measuring.ms_per_token(Ticking(), ["", ""], 1, repetitions=1)


def test_the_likelihood_counts_tokens_of_references_that_there_are():
    nll = measuring.negative_log_likelihood(Ticking(), ["a", "b", "c"], ["xx", "", "xxxx"])
    assert nll == 2.0
    assert measuring.negative_log_likelihood(Ticking(), ["a"], [""]) is None


def test_memory_is_that_of_the_model_and_not_of_what_came_before():
    held = bytearray(60_000_000)

    def load():
        engine = Ticking()
        engine.weights = b"1" * 30_000_000
        return engine

    engine, memory = measuring.loaded_alone(load, light=True)
    above, whole = memory()
    assert 25e6 < above < 55e6 and whole > above + len(held) / 2
    assert len(engine.weights) == 30_000_000


def test_rounding_errs_by_half_a_scale_at_most():
    import torch

    torch.manual_seed(0)
    weights = torch.randn(128)
    whole, scale = round_to(weights, bits=4)
    assert whole.min() >= -8 and whole.max() <= 7
    assert (weights - scale * whole).abs().max() <= scale / 2 + 1e-6


# Held against full precision


@pytest.mark.parametrize("setting", [{}, {"hidden_act": "gelu"}, {"head_dim": 64}])
def test_a_variant_is_held_against_the_full_model_within_its_rounding(
    random_model, tmp_path, setting
):
    from rrtf.quantize import variants

    folder = random_model("llama", initializer_range=0.15, **setting)
    made = "ctranslate2-int8", folder, tmp_path / "variant"
    variants.make(*made, calibration=())
    told = variants.held(*made, threads=1)
    assert bool(told) == bool(setting) and (
        "differ from those" in told or "axis" in told or not told
    )


def test_the_bound_of_a_variant_is_the_rounding_of_its_own_model(random_model, tmp_path):
    """What has other weights than it says fails, the same weights in fewer bits do not."""
    from rrtf.quantize import variants

    folder, other = (random_model("llama", initializer_range=0.1, seed=k) for k in (0, 1))
    made = tmp_path / "variant"
    variants.make("ctranslate2-int8", other, made, calibration=())
    assert variants.held("ctranslate2-int8", other, made, threads=1) == ""
    assert "is rounding" in variants.held("ctranslate2-int8", folder, made, threads=1)


@pytest.mark.slow
def test_gptq_of_weights_that_bfloat16_cannot_hold_is_held_too(nudged, tmp_path):
    """Layers that are not quantised are saved in bfloat16: rounding, not another model."""
    from rrtf.quantize import variants

    made = "gptq-int8", nudged, tmp_path / "variant"
    variants.make(*made, calibration=["def f(xs):\n    return sorted(xs)[0] + 1\n"] * 8)
    assert variants.held(*made, threads=1) == ""


@pytest.fixture
def nudged(tmp_path) -> Path:
    """The nano student, every weight moved by less than bfloat16 keeps."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, folder = engines.model_folder("nano-student"), tmp_path / "nudged"
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 2.0**-10 * weights * torch.rand(weights.shape, generator=drawn)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder
