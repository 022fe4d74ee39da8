"""Stage 03 and its verb: the same answers whatever the processes, the order, the interruptions.

What the verb writes, grade, rank and evaluate read; mistakes are named at once.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from scripted_endpoint import ScriptedEndpoint
from typer.testing import CliRunner

from rrtf import __main__, engines, store
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


def test_by_other_code_for_another_function_or_on_a_gpu_is_sampled_anew(
    problems, tiny_model, tmp_path, monkeypatch
):
    def count(task) -> int:
        ask([task], model=tiny_model, shards=tmp_path, **OPTIONS)
        return len(list(tmp_path.iterdir()))

    assert (count(problems[0]), count(problems[0])) == (1, 1)
    assert count(replace(problems[0], entry_point="sum")) == 2
    monkeypatch.setattr(engines, "device", lambda: "cuda")
    assert count(problems[0]) == 3
    monkeypatch.setattr(stage, "version", lambda: "other")
    assert count(problems[0]) == 4
    with pytest.raises(ValueError, match="toy/000: the task comes twice"):
        ask(problems[:1] * 2, model=tiny_model, shards=tmp_path, **OPTIONS)


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


def test_nodes_give_the_records_of_one_process_and_those_that_differ_are_not_mixed(
    problems, tiny_model, tmp_path, monkeypatch
):
    others = []

    def spread(work, jobs, *, message, finished, gpu):
        for job in reversed(jobs):
            answered = work(json.loads(json.dumps(message(job))), 1)
            finished(job, answered | {"made_by": others.pop() if others else "us"})

    monkeypatch.setattr(stage, "spread", spread)
    local = ask(problems, model=tiny_model, shards=tmp_path / "here", **OPTIONS)
    nodes = {"model": tiny_model, "shards": tmp_path / "nodes", "cluster": "ray"}
    assert ask(problems, **nodes, **OPTIONS) == local
    others.append("them")
    with pytest.raises(RuntimeError, match="nodes differ: them and us"):
        ask(problems, **nodes, **OPTIONS | {"seed": 6})
    assert len(list((tmp_path / "nodes").iterdir())) == 2 + 1


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


# The verb.

N = 5


@pytest.fixture
def toy(add_problem, tmp_path) -> str:
    rows = [store.to_row(add_problem) | {"task_id": f"t/{number}"} for number in range(N)]
    return written(tmp_path / "toy.jsonl", rows)


def written(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(name: str, *arguments: object, stdin: str | None = None):
    before = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(
            __main__.app, [name, *map(str, arguments)], input=stdin, env={"COLUMNS": "80"}
        )
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def verb(toy, tiny_model):
    """Samples the toy problems by the tiny model."""

    def call(*options, problems=toy, model=tiny_model, **kwargs):
        short = ["--max-new-tokens", 8] if "--max-new-tokens" not in options else []
        return run("sample", problems, "--model", model, *short, *options, **kwargs)

    return call


def test_every_task_is_answered_n_times_at_every_temperature(verb, tmp_path, tiny_model):
    out = tmp_path / "out.jsonl"
    done = verb("--n", 2, "--temperature", 0.5, "--temperature", 1.5, "--out", out)
    assert done.exit_code == 0, done.output
    found = store.read(out, Response)
    expected = [(f"t/{i}", k, (0.5, 0.5, 1.5, 1.5)[k]) for i in range(N) for k in range(4)]
    assert [(r.task_id, r.index, r.temperature) for r in found] == expected
    assert {r.source for r in found} == {tiny_model.name}
    table = [line.split() for line in done.output.splitlines()]
    assert " ".join(table[0]) == "source T answers a task distinct tokens cut parses"
    assert [row[:4] for row in table[1:3]] == [
        [tiny_model.name, T, "10", "2.00"] for T in ("0.50", "1.50")
    ]
    assert f"20 answers to {N} tasks in {out}" in done.output


def test_what_it_writes_is_what_grade_rank_and_evaluate_read(verb, toy, tmp_path, tiny_model):
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    for out, n in ((ours, 2), (theirs, 3)):
        assert verb("--n", n, "--temperature", 1, "--out", out).exit_code == 0
    graded = run("grade", toy, ours, "--workers", 1)
    assert graded.exit_code == 0 and "pass@1" in graded.output, graded.output
    board = run("evaluate", toy, f"a={ours}", f"b={theirs}", "--workers", 1)
    assert board.exit_code == 0 and f"toy, {N} tasks" in board.output, board.output
    rows = [row for _, row in store.read_rows(ours)]
    rows += [row | {"source": "teacher"} for _, row in store.read_rows(theirs)]
    both = written(tmp_path / "both.jsonl", rows)
    ranked = run("rank", toy, both, "--teacher", "teacher", "--workers", 1)
    assert ranked.exit_code == 0 and f"{5 * N} responses" in " ".join(ranked.output.split())


def test_without_out_there_is_a_table_and_nothing_is_kept(verb, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = verb()
    assert done.exit_code == 0 and done.output.split()[0] == "source"
    assert sorted(tmp_path.iterdir()) == before


def test_lines_go_through_pipes_and_into_gz(verb, toy, tmp_path):
    out = tmp_path / "out.jsonl.gz"
    assert verb("--out", out).exit_code == 0
    piped = verb("--out", "-", problems="-", stdin=Path(toy).read_text())
    assert piped.exit_code == 0 and "source" in piped.stderr
    assert piped.stdout == gzip.decompress(out.read_bytes()).decode()
    assert len(piped.stdout.splitlines()) == N


def test_the_same_command_only_reads_and_another_one_samples(verb, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    assert verb("--n", 2, "--temperature", 1, "--out", out).exit_code == 0
    first = out.read_bytes()
    out.unlink()
    monkeypatch.setattr(stage, "_answer", lambda *a, **k: 1 / 0)
    assert verb("--n", 2, "--temperature", 1, "--out", out).exit_code == 0
    assert out.read_bytes() == first
    again = verb("--n", 2, "--temperature", 1, "--seed", 5, "--out", out)
    assert isinstance(again.exception, ZeroDivisionError)


def test_what_a_model_cannot_hold_is_said_once_and_ends_no_run(verb, add_problem, tmp_path):
    rows = [store.to_row(add_problem) | {"task_id": f"t/{n}"} for n in range(3)]
    rows[1]["prompt"] = "#" * 300 + "\n" + rows[1]["prompt"]
    out = tmp_path / "out.jsonl"
    done = verb(
        "--max-new-tokens", 5000, "--out", out, problems=written(tmp_path / "p.jsonl", rows)
    )
    assert done.exit_code == 0, done.output
    told = [line for line in done.output.splitlines() if line.startswith("note: ")]
    assert len(told) == 2 and all("model holds 256 tokens" in line for line in told)
    assert "before max_new_tokens = 5000" in told[0] and "1 prompts leave no room" in told[1]
    found = store.read(out, Response)
    assert [r.task_id for r in found] == ["t/0", "t/2"]
    assert max(r.n_tokens for r in found) == 256 - len(add_problem.prompt.rstrip("\n"))
    alone = verb("--out", out, problems=written(tmp_path / "q.jsonl", rows[1:2]))
    assert alone.exit_code == 1 and "no answer to any of 1 tasks" in alone.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--temperature", "-1"], "temperature = -1.0: expected 0 (greedy) or more"),
        (["--temperature", "1", "--temperature", "1"], "one of them comes twice"),
        (["--n", "2"], "greedy answers are all the same"),
        (["--engine", "warp"], "unknown engine 'warp': expected one of auto, transformers"),
        (["--engine", "vllm"], "start a server, `vllm serve MODEL --port 8000`"),
        (["--cluster", "slurm"], "--cluster 'slurm': expected one of local, ray"),
        (["--prompt-format", "chat"], "has no chat template"),
        (["--model", "no/such/folder"], "no/such/folder: no such model folder"),
        (["--model", ""], "no model is named"),
        (["--out", "answers.txt"], "expected a name that ends in .jsonl or .parquet"),
        (["--since", "2022-07-01"], "needs a day, as 2025-01-31"),
    ],
)
def test_what_is_asked_wrongly_is_named(verb, options, told):
    found = verb(*options)
    assert found.exit_code == 2, found.output
    assert told in " ".join(found.stderr.split()) and "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": None}, "toy.jsonl:2: Problem without prompt"),
        ({"prompt": " \n"}, "t/1: no prompt"),
        ({"task_id": "t/0"}, "toy.jsonl:2: t/0 stands in line 1 too"),
    ],
)
def test_a_task_that_cannot_be_asked_is_named(verb, toy, change, told):
    rows = [row for _, row in store.read_rows(Path(toy))]
    rows[1] |= change
    written(Path(toy), rows)
    found = verb()
    assert found.exit_code == 2 and told in found.stderr, found.output


def test_a_server_is_asked_and_its_recording_answers_without_it(verb, tmp_path):
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    how = ["--n", 2, "--temperature", 1, "--prompt-format", "chat"]
    with ScriptedEndpoint() as server:
        done = verb("--engine", f"openai@{server.url}", *how, "--out", out, model="scripted")
    assert done.exit_code == 0, done.output
    found = store.read(out, Response)
    assert len(found) == 2 * N and all(r.text.startswith("reply ") for r in found)
    assert {r.source for r in found} == {"scripted"}
    replies = Path(f"{out}.shards") / "replies"
    replayed = verb("--engine", f"replay@{replies}", *how, "--out", again, model="scripted")
    assert replayed.exit_code == 0, replayed.output
    assert again.read_bytes() == out.read_bytes()
    other = verb("--engine", f"replay@{replies}", *how, "--seed", 1, model="scripted")
    assert other.exit_code == 2 and "no recorded reply" in other.stderr, other.output


def test_a_server_that_refuses_every_prompt_is_said_with_its_reason_and_exits_1(verb, toy):
    with ScriptedEndpoint(lambda prompt, number: "a refusal") as server:
        done = verb("--engine", f"openai@{server.url}", "--n", 1, model="scripted")
    told = "note: scripted: no answer to 5 of 5 requests, refused: HTTP 422: not such a text"
    assert done.exit_code == 1 and told in done.output
    assert "no answer to any of 5 tasks" in done.output


@pytest.mark.slow
def test_an_interrupted_command_leaves_with_130_and_the_same_command_goes_on(
    verb, toy, tmp_path, tiny_model
):
    rows = [row | {"task_id": f"t/{n}/{row['task_id']}"} for n in range(400) for row in _rows(toy)]
    written(Path(toy), rows)
    out = tmp_path / "out.jsonl"
    options = ["--temperature", "1", "--max-new-tokens", "20", "--out", str(out)]
    command = [sys.executable, "-m", "rrtf", "sample", toy, "--model", str(tiny_model), *options]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    shards = Path(f"{out}.shards")
    end = time.monotonic() + 120
    while not (shards.exists() and list(shards.glob("*.jsonl"))) and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    told = process.communicate()[1]
    assert process.returncode == 130 and f"goes on from {shards}" in told, told
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("*.jsonl")}
    assert not out.exists() and 1 <= len(kept) < len(rows) / 32
    assert verb(*options).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(store.read(out, Response)) == len(rows)


def _rows(path: str) -> list[dict]:
    return [row for _, row in store.read_rows(Path(path))]
