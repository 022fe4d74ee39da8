"""The command `sample`: lines that grade, rank and evaluate read, and mistakes named at once."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_endpoint import ScriptedEndpoint
from typer.testing import CliRunner

from rrtf import __main__, store
from rrtf.records import Response

ROOT = Path(__file__).resolve().parent.parent
N = 5


@pytest.fixture
def toy(add_problem, tmp_path) -> str:
    rows = [store.to_row(add_problem) | {"task_id": f"t/{number}"} for number in range(N)]
    return written(tmp_path / "toy.jsonl", rows)


def written(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(verb: str, *arguments: object, stdin: str | None = None):
    before = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(
            __main__.app, [verb, *map(str, arguments)], input=stdin, env={"COLUMNS": "80"}
        )
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def ask(toy, tiny_model):
    """Samples the toy problems by the tiny model."""

    def call(*options, problems=toy, model=tiny_model, **kwargs):
        short = ["--max-new-tokens", 8] if "--max-new-tokens" not in options else []
        return run("sample", problems, "--model", model, *short, *options, **kwargs)

    return call


def test_every_task_is_answered_n_times_at_every_temperature(ask, tmp_path, tiny_model):
    out = tmp_path / "out.jsonl"
    done = ask("--n", 2, "--temperature", 0.5, "--temperature", 1.5, "--out", out)
    assert done.exit_code == 0, done.output
    found = store.read(out, Response)
    expected = [(f"t/{i}", k, (0.5, 0.5, 1.5, 1.5)[k]) for i in range(N) for k in range(4)]
    assert [(r.task_id, r.index, r.temperature) for r in found] == expected
    assert {r.source for r in found} == {tiny_model.name}
    table = [line.split() for line in done.output.splitlines()]
    assert table[0] == [
        "source",
        "T",
        "answers",
        "a",
        "task",
        "distinct",
        "tokens",
        "cut",
        "parses",
    ]
    assert [row[:4] for row in table[1:3]] == [
        [tiny_model.name, T, "10", "2.00"] for T in ("0.50", "1.50")
    ]
    assert f"20 answers to {N} tasks in {out}" in done.output


def test_what_it_writes_is_what_grade_rank_and_evaluate_read(ask, toy, tmp_path, tiny_model):
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    for out, n in ((ours, 2), (theirs, 3)):
        assert ask("--n", n, "--temperature", 1, "--out", out).exit_code == 0
    graded = run("grade", toy, ours, "--workers", 1)
    assert graded.exit_code == 0 and "pass@1" in graded.output, graded.output
    board = run("evaluate", toy, f"a={ours}", f"b={theirs}", "--workers", 1)
    assert board.exit_code == 0 and f"toy, {N} tasks" in board.output, board.output
    rows = [row for _, row in store.read_rows(ours)]
    rows += [row | {"source": "teacher"} for _, row in store.read_rows(theirs)]
    both = written(tmp_path / "both.jsonl", rows)
    ranked = run("rank", toy, both, "--teacher", "teacher", "--workers", 1)
    assert ranked.exit_code == 0 and f"{5 * N} responses" in " ".join(ranked.output.split())


def test_without_out_there_is_a_table_and_nothing_is_kept(ask, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = ask()
    assert done.exit_code == 0 and done.output.split()[0] == "source"
    assert sorted(tmp_path.iterdir()) == before


def test_lines_go_through_pipes_and_into_gz(ask, toy, tmp_path):
    out = tmp_path / "out.jsonl.gz"
    assert ask("--out", out).exit_code == 0
    piped = ask("--out", "-", problems="-", stdin=Path(toy).read_text())
    assert piped.exit_code == 0 and "source" in piped.stderr
    assert piped.stdout == gzip.decompress(out.read_bytes()).decode()
    assert len(piped.stdout.splitlines()) == N


def test_the_same_command_only_reads_and_another_one_samples(ask, tmp_path, monkeypatch):
    from rrtf import sample

    out = tmp_path / "out.jsonl"
    assert ask("--n", 2, "--temperature", 1, "--out", out).exit_code == 0
    first = out.read_bytes()
    out.unlink()
    monkeypatch.setattr(sample, "_answer", lambda *a, **k: 1 / 0)
    assert ask("--n", 2, "--temperature", 1, "--out", out).exit_code == 0
    assert out.read_bytes() == first
    again = ask("--n", 2, "--temperature", 1, "--seed", 5, "--out", out)
    assert isinstance(again.exception, ZeroDivisionError)


def test_what_a_model_cannot_hold_is_said_once_and_ends_no_run(ask, add_problem, tmp_path):
    rows = [store.to_row(add_problem) | {"task_id": f"t/{n}"} for n in range(3)]
    rows[1]["prompt"] = "#" * 300 + "\n" + rows[1]["prompt"]
    out = tmp_path / "out.jsonl"
    done = ask("--max-new-tokens", 5000, "--out", out, problems=written(tmp_path / "p.jsonl", rows))
    assert done.exit_code == 0, done.output
    told = [line for line in done.output.splitlines() if line.startswith("note: ")]
    assert len(told) == 2 and all("model holds 256 tokens" in line for line in told)
    assert "before max_new_tokens = 5000" in told[0] and "1 prompts leave no room" in told[1]
    assert [r.task_id for r in store.read(out, Response)] == ["t/0", "t/2"]
    alone = ask("--out", out, problems=written(tmp_path / "q.jsonl", rows[1:2]))
    assert alone.exit_code == 1 and "no answer to any of 1 tasks" in alone.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--temperature", "-1"], "temperature = -1.0: expected 0 (greedy) or more"),
        (["--temperature", "nan"], "temperature = nan"),
        (["--temperature", "1", "--temperature", "1"], "one of them comes twice"),
        (["--n", "2"], "greedy answers are all the same"),
        (["--top-p", "0"], "top_p = 0.0: expected a value in (0, 1]"),
        (["--max-new-tokens", "-1"], "--max-new-tokens"),
        (["--engine", "warp"], "unknown engine 'warp': expected one of auto, transformers"),
        (["--engine", "vllm"], "start a server, `vllm serve MODEL --port 8000`"),
        (["--cluster", "slurm"], "--cluster 'slurm': expected one of local, ray"),
        (["--prompt-format", "prose"], "prose"),
        (["--prompt-format", "chat"], "has no chat template"),
        (["--model", "no/such/folder"], "no/such/folder: no such model folder"),
        (["--model", ""], "no model is named"),
        (["--model", "nano-nobody"], "the shipped model 'nano-nobody' is not there"),
        (["--out", "answers.txt"], "expected a name that ends in .jsonl or .parquet"),
        (["--since", "2022-07-01"], "dates are known of benchmarks"),
    ],
)
def test_what_is_asked_wrongly_is_named(ask, options, told):
    found = ask(*options)
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
def test_a_task_that_cannot_be_asked_is_named(ask, toy, change, told):
    rows = [row for _, row in store.read_rows(Path(toy))]
    rows[1] |= change
    written(Path(toy), rows)
    found = ask()
    assert found.exit_code == 2 and told in found.stderr, found.output


def test_a_server_is_asked_and_its_recording_answers_without_it(ask, tmp_path):
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    how = ["--n", 2, "--temperature", 1, "--prompt-format", "chat"]
    with ScriptedEndpoint() as server:
        done = ask("--engine", f"openai@{server.url}", *how, "--out", out, model="scripted")
    assert done.exit_code == 0, done.output
    found = store.read(out, Response)
    assert len(found) == 2 * N and all(r.text.startswith("reply ") for r in found)
    assert {r.source for r in found} == {"scripted"}
    replies = Path(f"{out}.shards") / "replies"
    replayed = ask("--engine", f"replay@{replies}", *how, "--out", again, model="scripted")
    assert replayed.exit_code == 0, replayed.output
    assert again.read_bytes() == out.read_bytes()
    other = ask("--engine", f"replay@{replies}", *how, "--seed", 1, model="scripted")
    assert other.exit_code == 2 and "no recorded reply" in other.stderr, other.output


def test_a_server_that_refuses_every_prompt_is_said_with_its_reason_and_exits_1(ask, toy):
    with ScriptedEndpoint(lambda prompt, number: "a refusal") as server:
        done = ask("--engine", f"openai@{server.url}", "--n", 1, model="scripted")
    told = "note: scripted: no answer to 5 of 5 requests, refused: HTTP 422: not such a text"
    assert done.exit_code == 1 and told in done.output
    assert "no answer to any of 5 tasks" in done.output


@pytest.mark.slow
def test_an_interrupted_command_leaves_with_130_and_the_same_command_goes_on(
    ask, toy, tmp_path, tiny_model
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
    assert ask(*options).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(store.read(out, Response)) == len(rows)


def _rows(path: str) -> list[dict]:
    return [row for _, row in store.read_rows(Path(path))]
