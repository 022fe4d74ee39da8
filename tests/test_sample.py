"""Stage 03: the same answers whatever the processes, the order and the interruptions."""

from dataclasses import replace

import pytest

from rrtf import sample as stage
from rrtf.records import Response

OPTIONS = {
    "engine": "gptbigcode",
    "source": "student",
    "temperature": 1.0,
    "n_samples": 2,
    "top_p": 0.95,
    "max_new_tokens": 12,
    "prompt_format": "starcoder",
    "seed": 5,
}


@pytest.fixture
def problems(add_problem):
    return [replace(add_problem, task_id=f"toy/{number:03}") for number in range(40)]


def test_every_problem_gets_its_answers_in_order(problems, tiny_model, tmp_path):
    responses = stage.sample(problems, model=tiny_model, shards=tmp_path, **OPTIONS)
    expected = [(problem.task_id, index) for problem in problems for index in (0, 1)]
    assert [(r.task_id, r.index) for r in responses] == expected
    assert all(r.program.startswith(problems[0].prompt.rstrip()) for r in responses)
    assert all(r.source == "student" and r.temperature == 1.0 for r in responses)
    assert len({r.text for r in responses}) > 40


@pytest.mark.slow
def test_the_result_does_not_depend_on_workers_or_order(
    problems, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(stage, "WORTH_A_PROCESS", 1)
    alone = stage.sample(problems, model=tiny_model, shards=tmp_path / "a", **OPTIONS)
    calls = []
    pair = stage.sample(
        problems[::-1],
        model=tiny_model,
        shards=tmp_path / "b",
        workers=2,
        progress=lambda done, total: calls.append((done, total)),
        **OPTIONS,
    )
    assert alone == pair
    assert calls == [(1, 2), (2, 2)]


def test_an_interrupted_run_continues_with_the_same_result(problems, tiny_model, tmp_path):
    whole = stage.sample(problems, model=tiny_model, shards=tmp_path / "a", **OPTIONS)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.sample(
            problems, model=tiny_model, shards=tmp_path / "b", progress=interrupt, **OPTIONS
        )
    assert len(list((tmp_path / "b").iterdir())) == 1
    resumed = stage.sample(problems, model=tiny_model, shards=tmp_path / "b", **OPTIONS)
    assert resumed == whole


def test_finished_shards_are_not_sampled_again(problems, tiny_model, tmp_path, monkeypatch):
    first = stage.sample(problems, model=tiny_model, shards=tmp_path, **OPTIONS)

    def refuse(*args):
        raise AssertionError("opened an engine")

    monkeypatch.setattr(stage, "_opened", refuse)
    assert stage.sample(problems, model=tiny_model, shards=tmp_path, **OPTIONS) == first
    with pytest.raises(AssertionError, match="opened"):
        stage.sample(problems, model=tiny_model, shards=tmp_path, **OPTIONS | {"seed": 6})


def test_another_model_in_the_same_folder_is_sampled_anew(problems, tiny_model, tmp_path):
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    first = stage.sample(problems[:2], model=folder, shards=tmp_path / "s", **OPTIONS)
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(1)
    changed = {name: torch.randn_like(tensor) / 5 for name, tensor in tensors.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    second = stage.sample(problems[:2], model=folder, shards=tmp_path / "s", **OPTIONS)
    assert [r.text for r in first] != [r.text for r in second]


def test_the_index_is_unique_across_temperatures(problems, tiny_model, tmp_path):
    options = {name: value for name, value in OPTIONS.items() if name != "temperature"}
    responses = stage.sample_temperatures(
        problems[:3], model=tiny_model, temperatures=[0.5, 1.5], shards=tmp_path, **options
    )
    first = [(r.index, r.temperature) for r in responses if r.task_id == "toy/000"]
    assert first == [(0, 0.5), (1, 0.5), (2, 1.5), (3, 1.5)]


def test_a_task_or_a_temperature_that_comes_twice_is_named(problems, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="toy/000: the task comes twice"):
        stage.sample(problems[:1] * 2, model=tiny_model, shards=tmp_path, **OPTIONS)
    options = {name: value for name, value in OPTIONS.items() if name != "temperature"}
    with pytest.raises(ValueError, match="comes twice"):
        stage.sample_temperatures(
            problems, model=tiny_model, temperatures=[1.0, 1.0], shards=tmp_path, **options
        )


def test_bad_options_fail_before_a_model_is_opened(problems, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="temperature = -1"):
        stage.sample(problems, model=tiny_model, shards=tmp_path, **OPTIONS | {"temperature": -1.0})


def test_a_prompt_that_is_too_long_names_its_shard(problems, tiny_model, tmp_path):
    with pytest.raises(ValueError, match=r"sampling toy/000 to toy/031: prompt 0 has"):
        stage.sample(
            problems, model=tiny_model, shards=tmp_path, **OPTIONS | {"max_new_tokens": 250}
        )


def test_the_survey_counts_what_a_reader_counts():
    def answer(index, program, **fields):
        return Response("t", "student", index, program, program, **fields)

    rows = stage.survey(
        [
            answer(0, "x = 1", n_tokens=4),
            answer(1, "x = 1", n_tokens=4),
            answer(2, "x = (", n_tokens=10, finish_reason="length"),
            answer(3, "y = 1", n_tokens=2),
        ]
    )
    assert rows == [
        {
            "source": "student",
            "temperature": 0.0,
            "responses": 4,
            "per prompt": 4.0,
            "distinct": 0.75,
            "mean tokens": 5.0,
            "cut by length": 0.25,
            "parses": 0.75,
        }
    ]
