"""Table 4 at the paper's size by estimates, and beside a run: bytes, times, and what is noise."""

import pytest

from rrtf.paper import beside, printed
from rrtf.plan import models, serving
from rrtf.plan.models import facts

FIGURES = printed.figures()
STARCODER = "bigcode/starcoder"
TWINS = ("full", "ctranslate2-int8", "gptq-int8", "gptq-int4")


@pytest.fixture(scope="module")
def large():
    on = models.device("a100")
    return serving.estimates(STARCODER, TWINS, on=on, batch_sizes=[1, 32], answer=512)


def test_the_weights_of_each_format_are_counted_from_the_shape():
    shape = models.Shape(
        parameters=1_000_000, linear=768_000, head=128_000, layers=2, hidden=128,
        attention=128, key_value=64, vocabulary=1000, positions=64,
    )  # fmt: skip
    rest = 1_000_000 - 896_000
    assert serving.weights("full", shape) == (2_000_000, 2 * 896_000)
    whole, read = serving.weights("ctranslate2-int8", shape)
    assert read == 896_000 + 4 * 7_000 and whole == read + 2 * rest
    whole, read = serving.weights("gptq-int4", shape)
    matrices = 768_000 / 2 + 768_000 / 128 * (2 + 0.5)
    assert read == matrices + 2 * 128_000 and whole == read + 2 * rest
    assert serving.weights("auto-gptq-int4", shape) == (whole, read)
    assert serving.weights("ctranslate2-float32", shape)[0] == 4_000_000
    for name in ("int3", "gptq-int3", "ctranslate2-int4"):
        with pytest.raises(ValueError, match="no estimate for weights of this form"):
            serving.weights(name, shape)


@pytest.mark.slow
def test_the_estimate_is_within_a_hundredth_of_a_real_file(tmp_path):
    from rrtf import engines
    from rrtf.quantize.variants import make, weight_bytes

    model = engines.model_folder("nano-student")
    shape = models.shape(models.build(models.find("nano-student").settings))
    make("ctranslate2-int8", model, tmp_path / "made", calibration=[])
    real = weight_bytes("ctranslate2-int8", model, tmp_path / "made")
    rest = shape.parameters - shape.linear - shape.head
    whole, _ = serving.weights("ctranslate2-int8", shape)
    assert whole + 2 * rest == pytest.approx(real, rel=0.01)  # on a CPU the rest is float32


def test_a_token_takes_the_bytes_it_reads_over_the_bandwidth_that_is_reached(large):
    full = large[0]
    shape = models.shape(models.build(models.find(STARCODER).settings))
    bandwidth = facts()["bandwidth_share"].value * models.device("a100").bandwidth
    cache = 2 * 2 * shape.layers * shape.key_value
    context = facts()["other_prompt_tokens"].value + 256
    read = 2 * (shape.linear + shape.head)
    assert full.ms[1] == pytest.approx(1000 * (read + context * cache) / bandwidth)
    assert full.ms[32] == pytest.approx(1000 * (read + 32 * context * cache) / bandwidth)
    assert full.cache == cache * (facts()["other_prompt_tokens"].value + 512)
    assert full.memory(32) == full.weights + 32 * full.cache


def test_a_batch_that_outgrows_the_bandwidth_is_bound_by_arithmetic():
    slow = models.device("a100", flops=1.0)
    (full,) = serving.estimates(STARCODER, ["full"], on=slow, batch_sizes=[1, 32], answer=512)
    assert full.ms[32] == pytest.approx(32 * full.ms[1])


def test_the_papers_memory_is_what_the_weights_weigh_and_little_more(large):
    rows = serving.beside_paper(large, FIGURES, on=models.device("a100"))
    assert [row["paper GB"] for row in rows] == [32.36, 16.29, 16.92, 9.82]
    assert all(0 < row["left over GB"] < 1.5 for row in rows)
    assert rows[0]["paper's GB/s"] == pytest.approx(30.93 / 0.075, rel=1e-3)


def test_a_variant_without_a_counterpart_has_an_estimate_and_no_printed_figures():
    on = models.device("h100")
    found = serving.estimates(STARCODER, ["ctranslate2-int16"], on=on, batch_sizes=[1], answer=9)
    (row,) = serving.beside_paper(found, FIGURES, on=on)
    assert row["paper GB"] is None and row["weights GB"] > 30


def test_the_estimates_say_what_they_rest_on():
    text = serving.assumed(STARCODER, on=models.device("a100"), answer=512)
    assert text.startswith("Estimates for bigcode/starcoder on one a100: 2,039 GB/s")
    assert "60 % of it reached (assumed)" in text


# Beside a run


def row(variant, size, gained=0, lost=0):
    return {"variant": variant, "status": "ok", "size_mb": size, "only_variant": gained,
            "only_full": lost, "n_tasks": 300, "p_value": 0.45, "pass_at_1": 0.5, "low": 0.44,
            "high": 0.56}  # fmt: skip


def test_every_row_of_table_4_has_its_line_and_ours():
    timing = [
        {"variant": name, "batch": batch, "ms": ms * batch}
        for name, ms in (("full", 2.0), ("ctranslate2-int8", 0.5))
        for batch in (1, 32)
    ]
    found = [row("full", 14.0), row("ctranslate2-int8", 4.0, 5, 2)]
    failed = {"variant": "gptq-int8", "status": "failed: no memory", "size_mb": None}
    lines = beside.inference_beside(FIGURES, [*found, failed], timing, alpha=0.05)
    assert [line["here"] for line in lines] == list(TWINS)
    int8, gptq8, gptq4 = lines[1:]
    assert int8["smaller"].startswith("2.0") and int8["smaller here"].startswith("3.5")
    assert int8["faster here"].startswith("4.0")
    assert int8["tasks"].startswith("+4 of 164") and "noise, whatever" in int8["tasks"]
    assert int8["tasks here"] == "+3 of 300, p = 0.45"
    assert gptq8["tasks here"] == "failed: no memory"
    assert gptq4["tasks here"] == gptq4["smaller here"] == "not measured"
    assert "depends on the overlap" in gptq4["tasks"]
    alone = row("ctranslate2-int8", 4.0, None, None)
    int8 = beside.inference_beside(FIGURES, [alone], [], alpha=0.05)[1]
    assert int8["tasks here"] == "150 of 300, nothing to compare with"


def test_the_note_on_the_papers_lead_follows_from_its_counts():
    note = beside.noise_note(FIGURES, alpha=0.05)
    assert "106 tasks" in note and "102 of 164: +4" in note and "6.2 tasks" in note
    assert "p = 0.12 or more" in note and note.endswith("The lead is inside the noise.")
    table = FIGURES["table_4"] | {"rows": [dict(line) for line in FIGURES["table_4"]["rows"]]}
    table["rows"][1]["humaneval"] = 85.98  # 141 of 164
    assert "not settled" in beside.noise_note(FIGURES | {"table_4": table}, alpha=0.05)
