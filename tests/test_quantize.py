"""Stage 08: what is made is bounded, repeatable and named; every variant gives a row, failures
included; differences are paired and corrected; two GPTQ forms hold the same weights.

The tests that run auto-gptq need its environment (`make auto-gptq`, or RRTF_AUTO_GPTQ).
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import ctranslate2
import pytest
import torch
from conftest import EXACT_BYTES
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from rrtf import __main__, engines, stats, store
from rrtf.engines import Completion, UnsupportedModel
from rrtf.engines import ctranslate2 as engines_ctranslate2
from rrtf.engines.ctranslate2 import PRECISIONS, choose_device
from rrtf.quantize import gptq, jobs, measuring, variants
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


def test_greedy_answers_have_wilsons_interval_and_the_exact_paired_test():
    n = 40
    greedy = [[task in {0, 1, 2, *range(20, 30)}] for task in range(n)]  # 17 lost, 10 won
    row = row_of(greedy, [[True, False]] * n, n)
    assert row.greedy.rate == stats.wilson(13, n)
    assert (row.only_variant, row.only_full) == (10, 17)
    assert row.greedy.p == stats.mcnemar(10, 17)
    spread = stats.crossed([[float(g) for (g,) in greedy]], [[1.0] * 20 + [0.0] * 20])
    found = stats.smallest_detectable(spread.standard_error, spread.df)
    assert row.greedy.difference == spread and spread.value == pytest.approx(-7 / n)
    assert row.greedy.detectable == pytest.approx(found)


def test_sampled_answers_are_averaged_by_task_before_they_are_compared():
    n = 20
    row = row_of([[n_ < 10] for n_ in range(n)], [[True, n_ < 5] for n_ in range(n)], n)
    assert row.sampled.rate == stats.bootstrap([1.0] * 5 + [0.5] * 15, seed=1)
    assert row.sampled.rate.value == pytest.approx((5 * 1.0 + 15 * 0.5) / n)
    assert row.sampled.difference.value == pytest.approx(row.sampled.rate.value - 0.5)
    differences = [0.0] * 5 + [-0.5] * 5 + [0.5] * 10
    assert row.sampled.p == stats.permutation(differences, seed=1)
    assert (row.n_samples, row.temperature, row.top_p) == (2, 0.2, 0.95)


def table_of(*entries, runs, n):
    return rows(entries, runs, tasks(n), SETTINGS, model="m")


def test_holm_corrects_over_all_tests_of_the_table():
    n = 20
    half, twice = [[t < 10] for t in range(n)], [[t < 10] * 2 for t in range(n)]
    runs = executions("full", half, twice) + executions("gptq-int8", half, twice)
    runs += executions("gptq-int4", [[False]] * n, [[False] * 2] * n)
    names = ("full", "gptq-int8", "gptq-int4")
    table = table_of(*(measured(name, ["pass"] * n) for name in names), runs=runs, n=n)
    raw = [p for row in table[1:] for p in (row.greedy.p, row.sampled.p)]
    adjusted = [p for row in table[1:] for p in (row.greedy.p_holm, row.sampled.p_holm)]
    assert adjusted == stats.holm(raw)
    assert table[2].greedy.p < 0.05 < 4 * raw[0] and table[2].greedy.p_holm > table[2].greedy.p
    assert math.isnan(table[0].greedy.p) and math.isnan(table[0].greedy.difference.value)
    assert records(table)[2]["pass_at_1"] == 0.0, "losing every task is a number and no gap"


def test_a_variant_that_failed_has_a_row_that_says_why_and_no_numbers():
    n = 4
    all_right = [[True]] * n, [[True, False]] * n
    broken = Measured("gptq-int4", "failed: killed by signal 11")
    table = table_of(measured("full", ["pass"] * n), broken, runs=executions("full", *all_right),
                     n=n)  # fmt: skip
    full, failed = records(table)
    assert failed["status"] == "failed: killed by signal 11" and failed["precision"] == "int4"
    numbers = {name for name, value in failed.items() if isinstance(value, float)}
    assert numbers == {"temperature", "top_p"} and failed["only_full"] is None
    assert full["precision"] == "float32" and full["size_mb"] == 4.0
    json.dumps([full, failed], allow_nan=False)
    assert shown(table)[1]["greedy %"] is None
    assert quantize_table.tested(table) == [] == quantize_table.differences(table, alpha=0.05)
    pair = Measured("full", "failed: gone"), measured("gptq-int4", ["pass"] * n)
    full, own = table_of(*pair, runs=executions("gptq-int4", *all_right), n=n)
    assert full.status == "failed: gone" and math.isnan(full.greedy.rate.value)
    found = own.greedy.rate.value, own.sampled.rate.value
    assert found == (1.0, 0.5), "rates, and nothing to compare with"
    assert quantize_table.tested([full, own]) == []


def test_changed_answers_count_programs_and_verdicts_on_other_tasks_are_refused():
    every = [[True]] * 4, [[True] * 2] * 4
    runs = executions("full", *every) + executions("gptq-int4", *every)
    pair = measured("full", "abcd"), measured("gptq-int4", "abxy")
    assert table_of(*pair, runs=runs, n=4)[1].changed_answers == 2
    fewer = executions("full", [[True]] * 3, [[True, True]] * 3)
    with pytest.raises(ValueError, match=r"full/0@0.* 3 tasks.* 4"):
        table_of(measured("full"), runs=fewer, n=4)


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


GOOD = ("x = 1", "y = 2", "z = 3", "pass")


@pytest.mark.parametrize(
    ("own", "full", "told"),
    [
        ((GOOD, 0.2), (GOOD, 0.2), ""),
        ((GOOD, 0.69), (GOOD, 0.2), ""),
        ((GOOD, 0.71), (GOOD, 0.2), "0.51 above"),
        ((GOOD, math.inf), (GOOD, 0.2), "inf"),
        ((GOOD, math.nan), (GOOD, 0.2), "nan"),
        ((["x = 1", "(", "((", "def"], 0.2), (GOOD, 0.2), "25 %.*Python"),
        ((["x = 1", "y = 1", "(", "def"], 0.2), (GOOD, 0.2), ""),
        ((["", " ", "\n", "x"], 0.2), (GOOD, 0.2), "25 %.*blanks"),
        ((GOOD, math.nan), (GOOD, math.nan), ""),  # tasks without references
        (([" "] * 3, 0.2), ([" "] * 3, 0.2), "none of its 3 answers"),  # full precision itself
    ],
)
def test_what_no_longer_answers_like_a_model_is_told(own, full, told):
    entry, model = (measured("gptq-int4", texts, nll=nll) for texts, nll in (own, full))
    found = measuring.fault(entry, model, nll_margin=0.5)
    assert re.search(told, found) and bool(found) == bool(told)


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
    ("answer", "full"): answered(), ("time", "full"): TIMED, ("make", "gptq-int8"): MADE,
    ("answer", "gptq-int8"): answered(), ("time", "gptq-int8"): TIMED,
}  # fmt: skip


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
    assert scripted("full", "gptq-int8")[1] == again, "what lies there was made of other texts"
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


@pytest.mark.parametrize(
    ("given", "told"),
    [(["full", "int3"], "'int3'.*ctranslate2-float32"), (["full"] * 2, "'full'"), ([], "no var")],
)
def test_an_unknown_variant_and_one_that_comes_twice_are_named(given, told):
    with pytest.raises(ValueError, match=told):
        jobs.check_variants(given)


def test_a_slow_process_is_ended_and_a_failing_one_says_its_last_line(tiny_model, tmp_path):
    slow = Jobs(tiny_model, tmp_path, timeout=0.05).make("ctranslate2-int8", [])
    assert slow.status == "failed: not done after 0.05 s"
    assert gptq.reason(1, "a\nValueError: b\n\n") == "ValueError: b"
    assert gptq.reason(-9, "a") == "killed by signal 9"
    assert gptq.reason(3, "") == "exit status 3"


@pytest.mark.slow
def test_float32_variants_answer_alike_and_are_measured_once(problems, tiny_model, tmp_path):
    options = {"model": tiny_model, "folder": tmp_path, "calibration": []}
    asked = ["full", "ctranslate2-float32"], problems, replace(SETTINGS, nll_margin=1.0)
    full, same = found = jobs.measure(*asked, **options)
    assert full.engine and same.engine and full.nll == pytest.approx(same.nll, abs=1e-4)
    assert full.weight_bytes == pytest.approx(same.weight_bytes, rel=0.5)
    assert jobs.measure(*asked, **options) == found


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
    with pytest.raises(ValueError, match="first token"):
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
    torch.manual_seed(0)
    weights = torch.randn(128)
    whole, scale = round_to(weights, bits=4)
    assert whole.min() >= -8 and whole.max() <= 7
    assert (weights - scale * whole).abs().max() <= scale / 2 + 1e-6


@pytest.mark.skipif(not EXACT_BYTES, reason="products of bytes saturate here")
@pytest.mark.parametrize("setting", [{}, {"hidden_act": "gelu"}, {"head_dim": 64}])
def test_a_variant_is_held_against_the_full_model_within_its_rounding(
    random_model, tmp_path, setting
):
    folder = random_model("llama", initializer_range=0.15, **setting)
    made = "ctranslate2-int8", folder, tmp_path / "variant"
    variants.make(*made, calibration=())
    told = variants.held(*made, threads=1)
    assert bool(told) == bool(setting)
    if not setting:  # other weights than it says fail, the same weights in fewer bits do not
        other = random_model("llama", initializer_range=0.15, seed=1)
        assert "rounding" in variants.held(made[0], other, made[2], threads=1)


@pytest.mark.slow
def test_gptq_of_weights_that_bfloat16_cannot_hold_is_held_too(nudged, tmp_path):
    """Layers that are not quantised are saved in bfloat16: rounding, not another model."""
    made = "gptq-int8", nudged, tmp_path / "variant"
    variants.make(*made, calibration=["def f(xs):\n    return sorted(xs)[0] + 1\n"] * 8)
    assert variants.held(*made, threads=1) == ""


@pytest.fixture
def nudged(tmp_path) -> Path:
    """The nano student, every weight moved by less than bfloat16 keeps."""
    source, folder = engines.model_folder("nano-student"), tmp_path / "nudged"
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 2.0**-10 * weights * torch.rand(weights.shape, generator=drawn)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


ROOT = Path(__file__).resolve().parent.parent
STUDENT = ROOT / "data/nano/models/student"
# Nats per token that a variant may lose or gain on the texts below: 8 bits, 4 bits.
BOUND = {"int8": 0.02, "int4": 0.05}
# Two libraries on the same weights: bfloat16 in one, float32 in the other.
SAME = 0.01


def texts_of(names):
    return "".join((ROOT / "rrtf" / name).read_text() for name in names)


@pytest.fixture(scope="module")
def texts():
    """Calibration texts, and (prompts, answers) to score, of other modules."""
    code, other = texts_of(["store.py", "execution.py"]), texts_of(["rank.py", "loss.py"])
    pairs = [(other[at : at + 300], other[at + 300 : at + 500]) for at in range(0, 6000, 500)]
    return [code[at : at + 400] for at in range(0, 4800, 300)], pairs


def nll(engine, pairs):
    scores = engine.score([head for head, _ in pairs], [tail for _, tail in pairs])
    return -sum(total for total, _ in scores) / sum(n for _, n in scores)


@pytest.fixture(scope="module")
def full(texts):
    return nll(variants.open_variant("full", STUDENT, Path(), threads=1), texts[1])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_type_that_this_cpu_computes_in_stays_near_full_precision(
    precision, texts, full, tmp_path
):
    name, output = f"ctranslate2-{precision}", tmp_path / "gptq_made"
    if precision not in ctranslate2.get_supported_compute_types(choose_device()):
        with pytest.raises(ValueError, match=rf"{name}: .* on this (cpu|cuda); .*float32"):
            variants.make(name, STUDENT, output, calibration=[])
        assert not list(tmp_path.iterdir())
        return
    variants.make(name, STUDENT, output, calibration=[])
    engine = variants.open_variant(name, STUDENT, output, threads=1)
    assert engine.name == f"ctranslate2-{engine.model.compute_type}"
    assert precision in engine.name
    assert nll(engine, texts[1]) == pytest.approx(
        full, abs=1e-4 if precision == "float32" else BOUND["int8"]
    )


def test_a_gpu_without_the_cublas_that_ctranslate2_wants_leaves_the_cpu(monkeypatch):
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 1)
    monkeypatch.setattr(engines_ctranslate2, "_loads_cublas", lambda: False)
    assert engines_ctranslate2.choose_device() == "cpu"
    monkeypatch.setattr(engines_ctranslate2, "_loads_cublas", lambda: True)
    assert engines_ctranslate2.choose_device() == "cuda"


def test_int8_is_smaller_and_converts_to_the_same_weights_again(tmp_path):
    gptq_made = [tmp_path / "one", tmp_path / "two"]
    for output in gptq_made:
        variants.make("ctranslate2-int8", STUDENT, output, calibration=[])
    size = variants.weight_bytes("ctranslate2-int8", STUDENT, gptq_made[0])
    assert size < variants.weight_bytes("full", STUDENT, tmp_path) / 3
    hashes = {variants.weights_hash("ctranslate2-int8", STUDENT, output) for output in gptq_made}
    assert len(hashes) == 1 and hashes != {variants.weights_hash("full", STUDENT, tmp_path)}


def test_a_model_that_ctranslate2_does_not_convert_is_named(model_of, tmp_path):
    folder = model_of("starcoder2")
    with pytest.raises(UnsupportedModel, match="use the engine transformers"):
        variants.make("ctranslate2-int8", folder, tmp_path / "made", calibration=[])
    assert not (tmp_path / "made").exists()


def test_the_hash_is_of_the_tensors_and_not_of_what_lies_beside(tiny_model, tmp_path):
    weights = load_file(tiny_model / "model.safetensors")
    names = sorted(weights)
    split = {"a": names[1:], "b": names[:1]}
    for part, chosen in split.items():
        save_file({name: weights[name] for name in chosen}, tmp_path / f"{part}.safetensors")
    (tmp_path / "config.json").write_text("{}")
    same = variants.weights_hash("full", tmp_path, Path())
    assert same == variants.weights_hash("full", tiny_model, Path())
    changed = {name: weights[name] + (name == names[0]) for name in split["b"]}
    save_file(changed, tmp_path / "b.safetensors")
    assert variants.weights_hash("full", tmp_path, Path()) != same


def test_what_was_never_made_is_said_so(tmp_path):
    for name in ("gptq-int4", "ctranslate2-int8", "auto-gptq-int8"):
        with pytest.raises(FileNotFoundError, match=name):
            variants.open_variant(name, STUDENT, tmp_path, threads=1)


MODELS = {
    "t5": '{"model_type": "t5"}', "quantised": '{"model_type": "llama", "quantization_config": {}}'
}  # fmt: skip


@pytest.mark.parametrize("name", ["gptq-int8", "auto-gptq-int4"])
@pytest.mark.parametrize(
    ("model", "texts", "kind", "told"),
    [
        ("student", [], ValueError, "ctranslate2-int8"),
        ("student", ["", " \n"], ValueError, "ctranslate2-int8"),
        ("tiny", ["a text"], ValueError, "c_attn reads 32 .* 128 .*ctranslate2-int8"),
        ("t5", ["a text"], UnsupportedModel, "'t5'"),
        ("quantised", ["a text"], ValueError, "already quantised"),
        ("nowhere", ["a text"], FileNotFoundError, "nowhere"),
    ],
)
def test_what_gptq_cannot_make_is_said_before_anything_is_made(
    name, model, texts, kind, told, tiny_model, tmp_path
):
    folder = {"student": STUDENT, "tiny": tiny_model}.get(model, tmp_path / model)
    if model in MODELS:
        folder.mkdir()
        (folder / "config.json").write_text(MODELS[model])
    with pytest.raises(kind, match=told):
        variants.make(name, folder, tmp_path / "made", calibration=texts)
    assert not (tmp_path / "made").exists()


def test_widths_are_those_of_the_blocks(tiny_model):
    found = gptq.widths(tiny_model)
    assert len(found) == 8 and "lm_head" not in found
    assert found["transformer.h.1.mlp.c_proj"] == 128 and found["transformer.h.0.mlp.c_fc"] == 32


def test_a_missing_lane_says_how_to_make_it_and_what_needs_none(monkeypatch, tmp_path):
    monkeypatch.setenv("RRTF_AUTO_GPTQ", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.*make auto-gptq.*gptq-int8"):
        variants.make("auto-gptq-int8", STUDENT, tmp_path / "made", calibration=["a text"])
    lines = (ROOT / "requirements-auto-gptq.lock").read_text().lower().replace("_", "-")
    for name, wanted in gptq.PINS.items():
        assert f"\n{name}=={wanted}\n" in lines


@pytest.mark.skipif(find_spec("auto_gptq") is not None, reason="auto-gptq is installed here")
def test_a_lane_with_other_versions_is_refused_with_what_it_has(monkeypatch):
    monkeypatch.setenv("RRTF_AUTO_GPTQ", sys.executable)
    with pytest.raises(ValueError, match=r"auto-gptq is missing \(needs 0.7.1\), transformers \d"):
        gptq.check_lane()


def checkpoint(folder, config, *, head=True, **settings):
    """A small checkpoint in auto-gptq's form: embedding, one quantised layer, output layer."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(4, 32, generator=generator).half()
    tensors = {
        "transformer.wte.weight": embedding,
        "transformer.h.0.mlp.c_fc.qweight": torch.arange(8, dtype=torch.int32).view(4, 2),
        "transformer.h.0.mlp.c_fc.g_idx": torch.arange(32, dtype=torch.int32) // 16,
    }
    if head:
        tensors["lm_head.weight"] = embedding.clone()
    quantised = {"bits": 4, "group_size": 16, "desc_act": False, "sym": True}
    quantised |= {"damp_percent": 0.01, "is_marlin_format": False, "quant_method": "gptq"}
    quantised |= {"model_file_base_name": None, "model_name_or_path": None} | settings
    folder.mkdir()
    save_file(tensors, folder / "gptq_model-4bit-16g.safetensors")
    (folder / "quantize_config.json").write_text(json.dumps(quantised))
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantised}))
    return folder


@pytest.fixture
def config(tiny_model):
    found = json.loads((tiny_model / "config.json").read_text())
    return gptq.older(found)


def test_gptqmodel_gets_its_names_and_no_tied_output_layer(config, tmp_path):
    source = checkpoint(tmp_path / "theirs", config)
    gptq_made = gptq.to_gptqmodel(source, tmp_path / "ours")
    assert [path.name for path in gptq_made.glob("*.safetensors")] == ["model.safetensors"]
    assert "lm_head.weight" not in load_file(gptq_made / "model.safetensors")
    for name in ("config.json", "quantize_config.json"):
        found = json.loads((gptq_made / name).read_text())
        found = found.get("quantization_config", found)
        assert found["checkpoint_format"] == "gptq" and found["bits"] == 4
        assert not set(gptq.THEIRS_ONLY) & set(found)
    assert json.loads((gptq_made / "config.json").read_text())["dtype"] == "float32"


def test_there_and_back_every_tensor_and_setting_is_the_same(config, tmp_path):
    source = checkpoint(tmp_path / "theirs", config)
    middle = gptq.to_gptqmodel(source, tmp_path / "ours")
    back = gptq.to_auto_gptq(middle, tmp_path / "back")
    assert variants.weights_hash("gptq-int4", "", back) == variants.weights_hash(
        "gptq-int4", "", source
    )
    (file,) = back.glob("*.safetensors")
    settings, before = (
        json.loads((folder / "quantize_config.json").read_text()) for folder in (back, source)
    )
    assert settings.pop("model_file_base_name") == file.stem == "gptq_model-4bit-16g"
    assert settings | {"model_file_base_name": None} == before
    again = json.loads((back / "config.json").read_text())
    assert again.pop("quantization_config") and again == config


def test_an_output_layer_of_its_own_stays(config, tmp_path):
    source = checkpoint(tmp_path / "theirs", config | {"tie_word_embeddings": False})
    gptq_made = gptq.to_gptqmodel(source, tmp_path / "ours")
    tensors = load_file(gptq_made / "model.safetensors")
    assert "lm_head.weight" in tensors
    del tensors["lm_head.weight"]
    save_file(tensors, gptq_made / "model.safetensors")
    with pytest.raises(ValueError, match=r"no lm_head.weight, and config.json does not tie it"):
        gptq.to_auto_gptq(gptq_made, tmp_path / "back")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"is_marlin_format": True}, "Marlin"),
        ({"desc_act": True}, "desc_act"),
        ({"checkpoint_format": "gptq_v2"}, "gptq_v2"),
        ({"quant_method": "awq"}, "awq"),
        ({"group_size": 8}, "groups of 8"),
        ("pickled", "4bit-16g.bin"),
        ("head", "tie_word_embeddings"),  # tied, and differs
    ],
)
def test_a_layout_that_would_be_read_wrongly_is_refused(config, tmp_path, settings, reason):
    own = settings if isinstance(settings, dict) else {}
    source = checkpoint(tmp_path / "theirs", config, **own)
    (file,) = source.glob("*.safetensors")
    if settings == "pickled":
        file.rename(file.with_suffix(".bin"))
    if settings == "head":
        tensors = load_file(file)
        save_file(tensors | {"lm_head.weight": tensors["lm_head.weight"] + 1}, file)
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        gptq.to_gptqmodel(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_transformers_4_gets_the_base_of_rotary_positions_and_no_other_model(tiny_model, tmp_path):
    with pytest.raises(ValueError, match=r"not a quantised checkpoint"):
        gptq.to_auto_gptq(tiny_model, tmp_path / "ours")
    with pytest.raises(FileNotFoundError, match=r"no config.json"):
        gptq.to_gptqmodel(tmp_path / "nowhere", tmp_path / "ours")
    new = {"dtype": "bfloat16", "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
    assert gptq.older(new) == {"torch_dtype": "bfloat16", "rope_theta": 1e6}
    scaled = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}}
    assert gptq.older(scaled)["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    with pytest.raises(ValueError, match="by kind of layer"):
        gptq.older({"rope_parameters": {"full_attention": {}, "sliding_attention": {}}})


MEASURE = """
import json, sys
from pathlib import Path
from rrtf.quantize import variants
job = json.load(sys.stdin)
model, found = Path(job["model"]), {}
for name, folder in job["made"].items():
    output = Path(folder)
    if job["calibration"]:
        variants.make(name, model, output, calibration=job["calibration"])
    entry = {"hash": variants.weights_hash(name, model, output)}
    if job["pairs"]:
        engine = variants.open_variant(name, model, output, threads=1)
        scores = engine.score(*map(list, zip(*job["pairs"])))
        entry["nll"] = -sum(total for total, _ in scores) / sum(n for _, n in scores)
        entry |= {"name": engine.name, "bytes": variants.weight_bytes(name, model, output)}
    found[name] = entry
Path(job["result"]).write_text(json.dumps(found))
"""


def scored_apart(gptq_made, folder, *, model=STUDENT, calibration=(), pairs=()):
    """Variants made (with `calibration`) and scored (with `pairs`) in a process of their own."""
    job = {"made": {name: str(output) for name, output in gptq_made.items()}, "model": str(model)}
    job |= {"calibration": calibration, "pairs": pairs, "result": str(folder / "result.json")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input=json.dumps(job),
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (folder / "logs").exists()
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def gptq_made(texts, tmp_path_factory):
    """(folder, what was measured) of GPTQ in 8 and 4 bits, from one process."""
    folder = tmp_path_factory.mktemp("gptq")
    wanted = {name: folder / name for name in ("gptq-int8", "gptq-int4")}
    return folder, scored_apart(wanted, folder, calibration=texts[0], pairs=texts[1])


@pytest.mark.slow
def test_gptq_stays_near_full_precision_is_smaller_and_the_same_from_scratch(
    gptq_made, texts, full, tmp_path
):
    folder, made = gptq_made
    for name, entry in made.items():
        assert entry["nll"] == pytest.approx(full, abs=BOUND[name[-4:]])
        assert re.match(r"gptqmodel-Torch\w+-transformers-bfloat16", entry["name"])
    assert made["gptq-int4"]["bytes"] < made["gptq-int8"]["bytes"]
    assert made["gptq-int8"]["bytes"] < variants.weight_bytes("full", STUDENT, Path()) / 2
    again = {name: tmp_path / name for name in made}
    found = scored_apart(again, tmp_path, calibration=texts[0])
    assert {n: e["hash"] for n, e in found.items()} == {n: e["hash"] for n, e in made.items()}
    entry = json.loads((folder / "gptq-int4" / "calibration.json").read_text())
    rows = gptq.tokens(STUDENT, texts[0])
    assert (entry["texts"], entry["tokens"]) == (len(rows), sum(map(len, rows)))
    assert len(entry["sha256"]) == 64 and entry["settings"]["bits"] == 4
    assert entry["versions"]["gptqmodel"]


@pytest.fixture(scope="module")
def ready():
    try:
        gptq.check_lane()
    except (FileNotFoundError, ValueError) as error:
        pytest.skip(str(error))


def ids(pairs):
    from rrtf.engines.transformers import open_tokenizer

    tokenizer = open_tokenizer(STUDENT)
    return [[tokenizer.encode(head), tokenizer.encode(tail)] for head, tail in pairs]


def nll_by_auto_gptq(folders, pairs):
    return gptq.ask("nll", models=[str(folder.resolve()) for folder in folders], pairs=ids(pairs))[
        "nll"
    ]


@pytest.mark.slow
def test_auto_gptq_and_gptqmodel_agree_on_what_auto_gptq_made(ready, texts, full, tmp_path):
    wanted = {"auto-gptq-int4": tmp_path / "int4"}
    found = scored_apart(wanted, tmp_path, calibration=texts[0], pairs=texts[1])["auto-gptq-int4"]
    assert found["name"].startswith("auto-gptq-by-gptqmodel-")
    (theirs,) = nll_by_auto_gptq([tmp_path / "int4"], texts[1])
    assert theirs == pytest.approx(full, abs=BOUND["int4"])
    assert found["nll"] == pytest.approx(theirs, abs=SAME)
    entry = json.loads((tmp_path / "int4" / "calibration.json").read_text())
    assert entry["versions"]["auto-gptq"] == "0.7.1"


@pytest.mark.slow
def test_auto_gptq_and_gptqmodel_agree_on_what_gptqmodel_made(ready, gptq_made, texts, tmp_path):
    folder, found = gptq_made
    theirs = [gptq.to_auto_gptq(folder / name, tmp_path / name) for name in found]
    untied = gptq.to_auto_gptq(folder / "gptq-int8", tmp_path / "untied")
    (file,) = untied.glob("*.safetensors")
    tensors = load_file(file)
    del tensors["lm_head.weight"]
    save_file(tensors, file, {"format": "pt"})
    *scores, silently_wrong = nll_by_auto_gptq([*theirs, untied], texts[1])
    assert scores == pytest.approx([entry["nll"] for entry in found.values()], abs=SAME)
    # Why the tied layer is written out: memory that nobody filled is in its place, often nan.
    assert not silently_wrong <= max(scores) + 0.5


def verb(*arguments):
    return CliRunner().invoke(__main__.app, ["quantize", *map(str, arguments)])


@pytest.fixture
def toys(problems, tmp_path):
    """A file of three problems of three names."""
    store.write(tmp_path / "toys.jsonl", problems)
    return tmp_path / "toys.jsonl"


def test_calibration_takes_texts_and_problems_and_names_the_line_of_neither(
    toys, tiny_model, tmp_path
):
    ask = engines.asker(tiny_model, "starcoder")
    texts = jobs.calibration(str(toys), ["gptq-int8"], ask)
    assert len(texts) == 3 and texts[0].endswith("    return a + b")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x = 1"}\n{"prompt": "def f():\\n"}\n{"code": 1}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl:3: expected a text, or prompt"):
        jobs.calibration(str(path), ["gptq-int8"], ask)


@pytest.mark.slow
def test_problems_that_gptq_read_are_told(toys, tiny_model):
    found = verb("--model", tiny_model, "--variant", "gptq-int8", "--calibration", toys,
                 "--problems", toys)  # fmt: skip
    assert "note: 3 of 3 problems are in" in found.output


@pytest.mark.slow
def test_a_folder_that_no_engine_can_run_is_no_variant(random_model, tmp_path):
    out = tmp_path / "out"
    given = "--variant", "ctranslate2-int8", "--out", out
    found = verb("--model", random_model("llama", head_dim=64), *given)
    assert found.exit_code == 2 and "ctranslate2-int8: failed: UnsupportedModel" in found.output
    assert "0 variants in" in found.output and not (out / "ctranslate2-int8").exists()


def test_weights_that_do_not_fill_the_model_are_named_before_anything_is_made(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    found = verb("--model", folder, "--variant", "full")
    assert found.exit_code == 2 and "transformer.h.2" in found.output
