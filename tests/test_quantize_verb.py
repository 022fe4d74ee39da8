"""The verb `quantize`: a folder per variant, Table 4 of them, clear errors before anything runs."""

import json

import pytest
from typer.testing import CliRunner

from rrtf import __main__, engines, store
from rrtf.quantize import jobs


def run(*arguments):
    return CliRunner().invoke(__main__.app, ["quantize", *map(str, arguments)])


@pytest.fixture
def toys(add_problem, tmp_path):
    """A file of three problems of three names."""
    from dataclasses import replace

    path = tmp_path / "toys.jsonl"
    store.write(path, [replace(add_problem, task_id=f"toy/{n}") for n in range(3)])
    return path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--variant", "int3"], "unknown variant 'int3': expected one of full, ctranslate2-"),
        (["--variant", "full", "--variant", "full"], "'full': it comes twice"),
        (["--variant", "gptq-int4"], "gptq-int4 needs --calibration FILE"),
        (["--variant", "full", "--problems", "nowhere"], "nowhere: no such file"),
        (["--variant", "full", "--out", "TOYS"], "is a file; expected a folder"),
        (["--variant", "gptq-int8", "--calibration", "TOYS.none.jsonl"], "TOYS.none.jsonl"),
    ],
)
def test_what_a_caller_gets_wrong_is_named_and_exits_2(arguments, told, toys, tiny_model):
    given = [text.replace("TOYS", str(toys)) for text in arguments]
    found = run("--model", tiny_model, *given)
    assert found.exit_code == 2, found.output
    assert told.replace("TOYS", str(toys)) in found.output


def test_a_model_that_is_nowhere_exits_2(tmp_path):
    found = run("--model", tmp_path / "none", "--variant", "full")
    assert found.exit_code == 2 and "no such model folder" in found.output


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
    found = run("--model", tiny_model, "--variant", "gptq-int8", "--calibration", toys,
                "--problems", toys)  # fmt: skip
    assert "note: 3 of 3 problems are in" in found.output


@pytest.mark.slow
def test_a_variant_becomes_a_folder_and_is_not_made_again(tiny_model, tmp_path):
    out = tmp_path / "out"
    found = run("--model", tiny_model, "--variant", "ctranslate2-int8", "--out", out)
    assert found.exit_code == 0, found.output
    assert (out / "ctranslate2-int8" / "model.bin").exists() and "1 variants in" in found.output
    made = (out / "ctranslate2-int8" / "model.bin").stat().st_mtime_ns
    assert run("--model", tiny_model, "--variant", "ctranslate2-int8", "--out", out).exit_code == 0
    assert (out / "ctranslate2-int8" / "model.bin").stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_variant_that_this_model_does_not_allow_exits_2_and_says_what_it_does(
    tiny_model, toys, tmp_path
):
    found = run("--model", tiny_model, "--variant", "gptq-int8", "--calibration", toys)
    assert found.exit_code == 2, found.output
    assert "no multiple of the 128 weights" in found.output and "ctranslate2-int8" in found.output


@pytest.mark.slow
def test_with_problems_the_table_has_rates_times_and_hashes(toys, tiny_model, tmp_path):
    out = tmp_path / "out"
    found = run(
        "--model", tiny_model, "--variant", "ctranslate2-float32", "--problems", toys,
        "--out", out, "--n", 2, "--max-new-tokens", 8,
    )  # fmt: skip
    rows = json.loads((out / "quantization.json").read_text()) if found.exit_code == 0 else []
    if found.exit_code == 1:  # a random model need not write Python
        assert "nothing to compare with" in found.output
        return
    assert [row["variant"] for row in rows] == ["full", "ctranslate2-float32"]
    times = json.loads((out / "timing.json").read_text())
    assert {row["batch"] for row in times} == {1, 32}


@pytest.mark.slow
def test_a_folder_that_no_engine_can_run_is_no_variant(random_model, tmp_path):
    out = tmp_path / "out"
    given = "--variant", "ctranslate2-int8", "--out", out
    found = run("--model", random_model("llama", head_dim=64), *given)
    assert found.exit_code == 2 and "ctranslate2-int8: failed: UnsupportedModel" in found.output
    assert "0 variants in" in found.output and not (out / "ctranslate2-int8").exists()


def test_weights_that_do_not_fill_the_model_are_named_before_anything_is_made(tiny_model, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    found = run("--model", folder, "--variant", "full")
    assert found.exit_code == 2 and "12 tensors are missing: transformer.h.2" in found.output
