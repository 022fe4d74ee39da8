"""Stage 08: every variant gives a row, crashes included; differences are paired."""

import math
from dataclasses import replace

import pytest

from rrtf import quantize
from rrtf.quantize import Measured
from rrtf.records import Execution, Outcome

OPTIONS = {
    "prompt_format": "starcoder",
    "max_new_tokens": 8,
    "batch_sizes": [1, 2],
    "timeout": 120.0,
    "seed": 1,
}


def execution(variant, task, passed):
    outcome = Outcome.PASS if passed else Outcome.FAILED_TESTS
    return Execution(task, variant, 0, outcome, "", int(passed), 1, "namespaces")


@pytest.fixture
def problems(add_problem):
    return [replace(add_problem, task_id=f"toy/{number}") for number in range(3)]


@pytest.mark.slow
def test_float32_variants_answer_alike_and_a_variant_is_measured_once(
    problems, tiny_model, tmp_path
):
    options = OPTIONS | {"model": tiny_model, "calibration": [], "folder": tmp_path}
    variants = ["full", "ctranslate2-float32"]
    full, same = quantize.measure(variants, problems, **options)
    assert full.status == same.status == "ok"
    assert [r.text for r in full.responses] == [r.text for r in same.responses]
    assert full.nll == pytest.approx(same.nll, abs=1e-4) and full.nll > 0
    assert full.size_mb == pytest.approx(same.size_mb, rel=0.5)
    assert {size: len(values) for size, values in full.ms.items()} == {1: 5, 2: 5}
    assert quantize.measure(variants, problems, **options) == [full, same]


def test_a_crash_becomes_a_row_with_its_reason(problems, tiny_model, tmp_path, monkeypatch):
    class Died:
        returncode, stderr = -11, ""

    monkeypatch.setattr(quantize.subprocess, "run", lambda *args, **options: Died)
    options = OPTIONS | {"model": tiny_model, "calibration": [], "folder": tmp_path}
    (crashed,) = quantize.measure(["gptq-int4"], problems, **options)
    assert crashed.status == "failed: killed by signal 11"
    full = Measured("full", "ok", engine="transformers-float32-sdpa", size_mb=1.0)
    table = quantize.rows([full, crashed], [execution("full", "a", True)], model="m")
    assert [row.variant for row in table] == ["full", "gptq-int4"]
    assert math.isnan(table[1].pass_at_1) and "signal 11" in table[1].status
    kept = quantize.records(table, [full, crashed], [execution("full", "a", True)])
    assert kept[1]["pass_at_1"] is None and kept[1]["precision"] == "int4"
    assert len(quantize.shown(kept)) == 2


def test_a_failing_and_a_slow_process_are_told_apart(problems, tmp_path, tiny_model):
    options = OPTIONS | {"calibration": [], "folder": tmp_path / "out"}
    empty = tmp_path / "empty"
    empty.mkdir()
    (failed,) = quantize.measure(["full"], problems, model=empty, **options)
    assert failed.status.startswith("failed: ") and "empty" in failed.status
    slow = options | {"timeout": 0.05, "model": tiny_model}
    assert quantize.measure(["full"], problems, **slow)[0].status == "failed: not done after 0.05 s"


def test_differences_are_paired_with_full_precision():
    tasks = [str(number) for number in range(10)]
    full = [execution("full", task, task in "0123") for task in tasks]
    int8 = [execution("ctranslate2-int8", task, task in "12345") for task in tasks]
    measured = [
        Measured("full", "ok", engine="transformers-float32-sdpa", size_mb=4.0),
        Measured("ctranslate2-int8", "ok", engine="ctranslate2-int8_float32", size_mb=1.0),
    ]
    table = quantize.rows(measured, full + int8, model="m")
    assert [row.pass_at_1 for row in table] == [0.4, 0.5]
    assert [row.precision for row in table] == ["float32", "int8"]
    assert table[1].difference == pytest.approx(0.1)
    assert table[1].p_value == pytest.approx(1.0)  # 2 against 1 discordant tasks
    assert table[0].difference == 0 and table[0].p_value == 1
    with pytest.raises(ValueError, match="other tasks"):
        quantize.rows(measured, full + int8[1:], model="m")


def test_without_full_precision_there_is_nothing_to_compare_with():
    with pytest.raises(ValueError, match="full: failed: gone; nothing"):
        quantize.rows([Measured("full", "failed: gone")], [], model="m")


def test_the_detectable_difference_shrinks_with_tasks_and_agreement():
    # 10 + 10 discordant of 200: standard error sqrt(.1 / 200), times 1.96 + .84
    assert quantize.detectable(10, 10, 200) == pytest.approx(
        2.8016 * math.sqrt(0.1 / 200), rel=1e-3
    )
    assert quantize.detectable(1, 1, 200) < quantize.detectable(10, 10, 200)
    assert quantize.detectable(0, 0, 300) == pytest.approx(0.01)


def test_an_unknown_variant_is_named(problems, tiny_model, tmp_path):
    options = OPTIONS | {"model": tiny_model, "calibration": [], "folder": tmp_path}
    with pytest.raises(ValueError, match=r"'int3'.*full, ctranslate2-float32"):
        quantize.measure(["int3"], problems, **options)


def test_timing_gives_median_and_spread():
    entry = Measured("full", "ok", ms={1: (3.0, 1.0, 2.0)}, seconds=9.0)
    (row,) = quantize.timing([entry, Measured("gptq-int4", "failed: x")])
    assert (row["ms/token"], row["lowest"], row["highest"]) == (2.0, 1.0, 3.0)


def test_the_interval_of_a_difference_covers_zero_when_as_many_are_won_as_lost():
    row = {"variant": "v", "status": "ok", "n_tasks": 100, "difference": 0.0}
    full = row | {"variant": "full"}
    (line,) = quantize.differences([full, row | {"only_variant": 8, "only_full": 8}])
    assert line == ("v", 0.0, pytest.approx(-0.0784), pytest.approx(0.0784))


def test_rounding_errs_by_half_a_scale_at_most():
    import torch

    torch.manual_seed(0)
    weights = torch.randn(128)
    whole, scale = quantize.round_to(weights, bits=4)
    assert whole.min() >= -8 and whole.max() <= 7
    assert (weights - scale * whole).abs().max() <= scale / 2 + 1e-6
