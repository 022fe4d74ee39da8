"""Stage 03: the same answers whatever the processes, the order and the interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import ray_alone

from rrtf import engines, store
from rrtf import sample as stage
from rrtf.engines import Completion, Decoding
from rrtf.records import Response

ROOT = Path(__file__).resolve().parent.parent

OPTIONS = {
    "engine": "gptbigcode",
    "source": "student",
    "temperatures": (1.0,),
    "n_samples": 2,
    "top_p": 0.95,
    "max_new_tokens": 12,
    "prompt_format": "starcoder",
    "seed": 5,
}


def ask(problems, *, model, shards, workers=1, cluster="local", progress=None, **options):
    """`sample.sample` with its records given flat."""
    names = ("source", "engine", "prompt_format")
    cut = (options[name] for name in ("top_p", "max_new_tokens", "seed"))
    top_p, longest, seed = cut
    return stage.sample(
        problems,
        stage.Author(str(model), *(options[name] for name in names)),
        decodings=[Decoding(t, top_p, longest, seed) for t in options["temperatures"]],
        n_samples=options["n_samples"],
        shards=shards,
        workers=workers,
        cluster=cluster,
        progress=progress,
    )


@pytest.fixture
def problems(add_problem):
    return [replace(add_problem, task_id=f"toy/{number:03}") for number in range(40)]


def test_every_problem_gets_its_answers_in_order(problems, tiny_model, tmp_path):
    responses = ask(problems, model=tiny_model, shards=tmp_path, **OPTIONS)
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
    alone = ask(problems, model=tiny_model, shards=tmp_path / "a", **OPTIONS)
    calls = []
    pair = ask(
        problems[::-1],
        model=tiny_model,
        shards=tmp_path / "b",
        workers=2,
        progress=lambda done, total: calls.append((done, total)),
        **OPTIONS,
    )
    assert alone == pair
    assert calls[-1] == (2, 2)


def test_few_answers_are_written_here_and_many_by_as_many_processes_as_they_are_worth(
    problems, tiny_model, tmp_path, monkeypatch
):
    asked = []

    def noted(work, jobs, processes):
        asked.append((len(jobs), processes))
        return [(number, []) for number in range(len(jobs))]

    monkeypatch.setattr(stage, "side_by_side", noted)
    weight = sum(path.stat().st_size for path in tiny_model.iterdir())
    for worth, size, expected in (
        (1, 32, (2, 2)), (10 * 2 * weight, 32, (2, 2)), (41 * 2 * weight, 32, (2, 1)),
        (10 * 2 * weight, 1, (40, 5)),
    ):  # fmt: skip
        monkeypatch.setattr(stage, "WORTH_A_PROCESS", worth)
        monkeypatch.setattr(stage, "SHARD", size)
        shards = tmp_path / f"{worth}-{size}"
        ask(problems, model=tiny_model, shards=shards, workers=9, **OPTIONS)
        assert asked.pop() == expected, "(shards, processes)"


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.append({tests!r})
from test_sample import ask, stage
from rrtf import store
from rrtf.records import Problem

stage.SHARD, stage.WORTH_A_PROCESS = 1, 1

def tell(done, total):
    if done >= 4:
        os.kill(os.getpid(), signal.SIGKILL)

problems = store.read(Path({folder!r}) / "problems.jsonl", Problem)
ask(problems, model={model!r}, shards=Path({folder!r}) / "shards", workers=2,
             progress=tell, **{options!r})
"""


@pytest.mark.slow
def test_a_killed_caller_loses_only_the_shards_under_way_and_changes_no_record(
    problems, tiny_model, tmp_path, monkeypatch
):
    problems = [replace(p, task_id=f"{p.task_id}/{n}") for n in range(5) for p in problems]
    store.write(tmp_path / "problems.jsonl", problems)
    given = {"folder": str(tmp_path), "model": str(tiny_model), "options": OPTIONS}
    script = KILLED.format(tests=str(ROOT / "tests"), **given)
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT), "RRTF_TEST": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr[-2000:]
    end = time.monotonic() + 60
    while (left := ray_alone.with_environment(f"RRTF_TEST={tmp_path}")) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, "the other processes end with their caller"
    shards = tmp_path / "shards"
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("*.jsonl")}
    assert 4 <= len(kept) < len(problems)
    monkeypatch.setattr(stage, "SHARD", 1)
    resumed = ask(problems, model=tiny_model, shards=shards, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    whole = ask(problems, model=tiny_model, shards=tmp_path / "other", **OPTIONS)
    assert resumed == whole


def test_finished_shards_are_not_sampled_again(problems, tiny_model, tmp_path, monkeypatch):
    first = ask(problems, model=tiny_model, shards=tmp_path, **OPTIONS)

    def refuse(*args):
        raise AssertionError("opened an engine")

    monkeypatch.setattr(stage, "_opened", refuse)
    assert ask(problems, model=tiny_model, shards=tmp_path, **OPTIONS) == first
    with pytest.raises(AssertionError, match="opened"):
        ask(problems, model=tiny_model, shards=tmp_path, **OPTIONS | {"seed": 6})


def test_another_model_in_the_same_folder_is_sampled_anew(problems, tiny_model, tmp_path):
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    first = ask(problems[:2], model=folder, shards=tmp_path / "s", **OPTIONS)
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(1)
    changed = {name: torch.randn_like(tensor) / 5 for name, tensor in tensors.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    second = ask(problems[:2], model=folder, shards=tmp_path / "s", **OPTIONS)
    assert [r.text for r in first] != [r.text for r in second]


def test_the_index_is_unique_across_temperatures(problems, tiny_model, tmp_path):
    options = OPTIONS | {"temperatures": [0.5, 1.5]}
    responses = ask(problems[:3], model=tiny_model, shards=tmp_path, **options)
    first = [(r.index, r.temperature) for r in responses if r.task_id == "toy/000"]
    assert first == [(0, 0.5), (1, 0.5), (2, 1.5), (3, 1.5)]


def test_a_task_or_a_temperature_that_comes_twice_is_named(problems, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="toy/000: the task comes twice"):
        ask(problems[:1] * 2, model=tiny_model, shards=tmp_path, **OPTIONS)
    options = OPTIONS | {"temperatures": [1.0, 1.0]}
    with pytest.raises(ValueError, match="comes twice"):
        ask(problems, model=tiny_model, shards=tmp_path, **options)


def test_bad_options_fail_before_a_model_is_opened(problems, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="temperature = -1"):
        ask(problems, model=tiny_model, shards=tmp_path, **OPTIONS | {"temperatures": [-1.0]})


def test_prompts_without_room_are_left_out_and_answers_end_where_the_positions_do(
    problems, tiny_model, tmp_path
):
    room = 256 - len(problems[0].prompt.rstrip("\n"))
    problems[3] = replace(problems[3], prompt=f"# {'x' * 256}\n{problems[3].prompt}")
    options = OPTIONS | {"max_new_tokens": 300}
    with pytest.warns(engines.Note) as told:
        found = ask(problems[:5], model=tiny_model, shards=tmp_path, **options)
    assert [r.task_id for r in found[::2]] == [f"toy/{k:03}" for k in (0, 1, 2, 4)]
    assert max(r.n_tokens for r in found) == room
    cut = sum(r.finish_reason == "length" for r in found)
    assert [str(one.message) for one in told if one.category is engines.Note] == [
        f"student holds 256 tokens, prompt and answer together: {cut} of 10 answers end there, "
        "before max_new_tokens = 300",
        "student holds 256 tokens, prompt and answer together: 1 prompts leave no room for an "
        "answer and are left out",
    ]


def test_a_task_without_a_prompt_and_an_unknown_cluster_are_named(problems, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="toy/000: no prompt"):
        bare = [replace(problems[0], prompt=" \n")]
        ask(bare, model=tiny_model, shards=tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="unknown cluster 'slurm': expected one of local, ray"):
        ask(problems, model=tiny_model, shards=tmp_path, cluster="slurm", **OPTIONS)


@pytest.mark.parametrize("changed", ["code", "entry point", "device"])
def test_by_other_code_for_another_function_or_on_a_gpu_is_sampled_anew(
    problems, tiny_model, tmp_path, monkeypatch, changed
):
    ask(problems[:1], model=tiny_model, shards=tmp_path, **OPTIONS)
    if changed == "code":
        monkeypatch.setattr(stage, "version", lambda: "other")
    elif changed == "device":
        monkeypatch.setattr(engines, "device", lambda: "cuda")
    else:
        problems[0] = replace(problems[0], entry_point="sum")
    ask(problems[:1], model=tiny_model, shards=tmp_path, **OPTIONS)
    assert len(list(tmp_path.iterdir())) == 2


# Servers.


class Server:
    """A double of a remote engine: answers with what it is asked, and counts."""

    device = "remote"
    name = "double"

    def __init__(self):
        self.opened, self.asked = [], []

    def open(self, engine, model, **options):
        self.opened.append((engine, model, options))
        return self

    def generate(self, prompts, *, n, **options):
        self.asked.append((list(prompts), n, options))
        return [[Completion(f"    return {k}", 3, "stop") for k in range(n)] for _ in prompts]


@pytest.fixture
def server(monkeypatch):
    double = Server()
    monkeypatch.setattr(engines, "open_engine", double.open)
    monkeypatch.setattr(stage, "_HELD", {})
    return double


@pytest.mark.parametrize("cluster", ["local", "ray"])
def test_a_server_is_asked_from_one_process_and_its_replies_lie_with_the_shards(
    problems, server, tmp_path, monkeypatch, cluster
):
    monkeypatch.setattr(stage, "WORTH_A_PROCESS", 1)
    options = OPTIONS | {"engine": "openai@http://127.0.0.1:9/v1", "prompt_format": "chat"}
    how = {"model": "their/model", "shards": tmp_path, "workers": 8, "cluster": cluster}
    found = ask(problems, **how, **options)
    assert [r.text for r in found[:2]] == ["    return 0", "    return 1"]
    assert server.opened == [
        (options["engine"], "their/model", {"threads": 1, "replies": tmp_path / "replies"})
    ]
    assert [len(prompts) for prompts, _, _ in server.asked] == [32, 8]
    asked, n, told = server.asked[0]
    assert (
        n == 2 and told["decoding"].max_new_tokens == 12 and isinstance(asked[0], engines.Message)
    )
    assert ask(problems, **how, **options) == found and len(server.asked) == 2
    ask(problems, **how | {"model": "other"}, **options)
    ask(problems, **how, **options | {"engine": "openai@http://127.0.0.1:8/v1"})
    assert len(server.asked) == 6, "another name or another server is another model"


def test_one_model_is_let_go_before_the_next_is_opened(problems, tmp_path, monkeypatch):
    import weakref

    living = weakref.WeakSet()

    def open_engine(engine, model, **options):
        assert not living
        living.add(double := Server())
        return double

    monkeypatch.setattr(engines, "open_engine", open_engine)
    monkeypatch.setattr(stage, "_HELD", {})
    options = OPTIONS | {"engine": "openai@http://127.0.0.1:9/v1"}
    for model in ("one", "another", "one"):
        ask(problems, model=model, shards=tmp_path, **options | {"source": model})
    assert len(living) == 1


# Clusters.


def test_a_node_answers_what_json_brings_it_or_says_what_it_lacks(problems, tiny_model, tmp_path):
    local = ask(problems[:3], model=tiny_model, shards=tmp_path, **OPTIONS)
    author = asdict(stage.Author(str(tiny_model), "student", "gptbigcode", "starcoder"))
    tasks = [[p.task_id, p.prompt, p.entry_point] for p in problems[:3]]
    message = {"author": author, "identity": store.sha256(tiny_model), "problems": tasks}
    message |= {"decoding": asdict(Decoding(1.0, 0.95, 12, 5)), "n_samples": 2}
    found = json.loads(json.dumps(stage.answer(json.loads(json.dumps(message)), 1)))
    assert [store.from_row(row, Response) for row in found["responses"]] == local
    assert found["made_by"].startswith("gptbigcode") and "cpu" in found["made_by"]
    with pytest.raises(RuntimeError, match="another model than the caller's"):
        stage.answer(message | {"identity": "0"}, 1)
    with pytest.raises(FileNotFoundError, match="nowhere: no such model folder"):
        stage.answer(message | {"author": author | {"model": str(tmp_path / "nowhere")}}, 1)


def test_nodes_that_differ_are_named_and_what_they_sampled_is_not_mixed(
    problems, tiny_model, tmp_path, monkeypatch
):
    def spread(work, jobs, *, message, finished, gpu):
        for number, job in enumerate(jobs):
            answered = work(json.loads(json.dumps(message(job))), 1)
            if number:
                answered["made_by"] = "transformers bfloat16 on cuda"
            finished(job, answered)

    monkeypatch.setattr(stage, "spread", spread)
    with pytest.raises(RuntimeError, match=r"nodes differ: gptbigcode.* and transformers bfloat16"):
        ask(problems, model=tiny_model, shards=tmp_path, cluster="ray", **OPTIONS)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


CLUSTER = """
from pathlib import Path
from test_isolation import descendants
from test_sample import ask, stage
from rrtf import store
from rrtf.records import Problem

lost = cluster.add_node(**node).all_processes["raylet"][0].process.pid
stage.SHARD = 2
killed = []

def watch(done, total):
    busy = any("_Worker" in open(f"/proc/{n}/cmdline").read() for n in descendants(lost))
    if busy and not killed:
        killed.append(done)
        os.kill(lost, 9)

problems = store.read(Path(FOLDER) / "problems.jsonl", Problem)
ask(problems, model=MODEL, shards=Path(FOLDER) / "shards", cluster="ray",
             progress=watch, **OPTIONS)
cluster.shutdown()
print(killed[0])
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_gives_the_records_of_one_process(
    problems, tiny_model, tmp_path, monkeypatch
):
    store.write(tmp_path / "problems.jsonl", problems)
    options = OPTIONS | {"max_new_tokens": 100, "n_samples": 8}
    given = {"FOLDER": str(tmp_path), "MODEL": str(tiny_model), "OPTIONS": options}
    lost_after = ray_alone.run("".join(f"{k} = {v!r}\n" for k, v in given.items()) + CLUSTER)
    monkeypatch.setattr(stage, "SHARD", 2)
    assert 0 <= int(lost_after) < 20
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    found = ask(problems, model=tiny_model, shards=tmp_path / "shards", **options)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept and len(kept) == 20
    assert found == ask(problems, model=tiny_model, shards=tmp_path / "here", **options)


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


def test_a_teacher_has_its_own_engine_and_format_and_else_the_students():
    student = stage.Author("s", "student", "auto", "starcoder")
    one = stage.teachers(["t"], [], [], student=student)
    assert one == [stage.Author("t", "teacher", "auto", "starcoder")]
    several = stage.teachers(["t", "u"], ["", "openai@http://x"], ["chat"], student=student)
    assert several == [
        stage.Author("t", "teacher", "auto", "chat"),
        stage.Author("u", "teacher-2", "openai@http://x", "chat"),
    ]
    with pytest.raises(ValueError, match="teacher_engine: 2 for 1 teachers: expected one for all"):
        stage.teachers(["t"], ["auto", "transformers"], [], student=student)
    with pytest.raises(ValueError, match="no teacher is named"):
        stage.teachers([], [], [], student=student)


def test_variety_says_how_many_prompts_have_answers_that_differ():
    answers = [Response(task, "student", i, "", program) for task, i, program in
               [("a", 0, "x"), ("a", 1, "y"), ("b", 0, "x"), ("b", 1, "x")]]  # fmt: skip
    assert stage.variety(answers) == "1 of 2 prompts have answers that differ from each other."
    assert "One answer a prompt" in stage.variety(answers[::2])
