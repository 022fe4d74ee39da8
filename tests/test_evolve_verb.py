"""The verb `evolve`: files in and out, tables that add up, clear errors, replies never repeated."""

import gzip
import json
import re

import pytest
from scripted_teacher import CODE, Teacher, kind, reply
from typer.testing import CliRunner

from rrtf import __main__, store
from rrtf.engines import endpoint
from rrtf.evolve import asking, offline
from rrtf.nano import evolution
from rrtf.nano.problems import build
from rrtf.records import Instruction, Problem

URL = "http://127.0.0.1:9/v1"
TASKS = (
    "Return the sum of a list of whole numbers.",
    "Add up the prices of everything in a shopping basket.",
    "Compute what one team scored from its points per game.",
)
ROWS = [{"instruction": task, "input": "", "output": CODE} for task in TASKS]


@pytest.fixture
def teacher(monkeypatch):
    """Puts a scripted teacher in the endpoint's place; what it was told lies in `.options`."""

    def install(**replaced):
        double = Teacher(**replaced)

        def ask(asks, **options):
            double.options = options
            return double(asks)

        monkeypatch.setattr(endpoint, "ask", ask)
        return double

    return install


@pytest.fixture
def run(tmp_path):
    """Calls the verb on rows written to a file in `tmp_path`."""
    store.write(tmp_path / "rows.jsonl", ROWS)

    def call(*more, seeds="rows.jsonl", url=URL, **kwargs):
        place = seeds if seeds == "-" else str(tmp_path / seeds)
        asked = ["--engine", url, "--model", "m"] if url else []
        return CliRunner().invoke(
            __main__.app, ["evolve", place, *asked, *map(str, more)], **kwargs
        )

    return call


def _words(text):
    return " ".join(text.split())


def test_rows_their_evolutions_and_the_tables_of_reasons(run, teacher, tmp_path):
    teacher()
    out, gone = tmp_path / "out.jsonl", tmp_path / "gone.jsonl"
    done = run("--rounds", 2, "--out", out, "--dropped", gone)
    assert done.exit_code == 0, done.output
    words = _words(done.output)
    kept, dropped = store.read(out, Instruction), [row for _, row in store.read_rows(gone)]
    assert "6 attempts" in words and "3 evolved" in words
    assert "-3 adds nothing to its parent" in words, "the teacher says the same twice"
    assert f"6 rows {len(kept)} kept" in words
    assert len(kept) + len(dropped) == len(ROWS) + 6
    known = {row.task_id: row for row in kept}
    children = [row for row in kept if row.depth]
    assert len(children) == 3
    for row in children:
        assert offline.lineage(row, known)[0].task_id == row.seed_id
        assert row.generator == "m" and row.prompt_version == asking.version()
    assert all(row["reason"] for row in dropped)


def test_problems_with_tests_can_be_graded_and_keep_their_family(run, teacher, tmp_path):
    teacher()
    out = tmp_path / "problems.jsonl"
    done = run("--rounds", 1, "--tests", "--out", out, "--workers", 1)
    assert done.exit_code == 0, done.output
    words = _words(done.output)
    assert re.search(r"inputs 30 kept", words) and "6 rows 6 problems with tests" in words
    assert re.search(r"tests of 6 problems kill \d+ of \d+ mutants", words)
    assert "all answers to each task are one text" in words
    problems, rows = store.read(out, Problem), store.read(out, Instruction)
    assert [p.task_id for p in problems] == [r.task_id for r in rows]
    assert all(p.tests and p.entry_point == "total" and p.reference for p in problems)
    assert {r.seed_id for r in rows} == {"rows/1", "rows/2", "rows/3"}
    samples = [{"task_id": p.task_id, "completion": p.reference} for p in problems]
    store.write(tmp_path / "samples.jsonl", samples)
    graded = CliRunner().invoke(
        __main__.app, ["grade", str(out), str(tmp_path / "samples.jsonl"), "--workers", "1"]
    )
    assert graded.exit_code == 0 and "100.0" in graded.output, graded.output


def test_what_is_asked_for_reaches_the_endpoint(run, teacher, tmp_path):
    double = teacher()
    options = ["--concurrency", 3, "--attempts", 2, "--rate", 60, "--spend", 99, "--timeout", 5]
    options += ["--temperature", 0.5, "--top-p", 0.8, "--max-new-tokens", 77, "--api-key-env", "K"]
    done = run("--out", tmp_path / "o.jsonl", "--weights", "0,0,0,0,1", *options)
    assert done.exit_code == 0, done.output
    told = double.options
    assert told["endpoint"] == endpoint.Endpoint(URL, "m", "K")
    assert told["replies"] == tmp_path / "o.jsonl.replies"
    names = ("concurrency", "attempts", "requests_per_minute", "max_spend_tokens", "timeout")
    assert [told[name] for name in names] == [3, 2, 60, 99, 5]
    asked = double.asks[0]
    assert (asked.temperature, asked.top_p, asked.max_tokens) == (0.5, 0.8, 77)
    assert {row.operator for row in store.read(tmp_path / "o.jsonl", Instruction)} == {
        "", "tighten",
    }  # fmt: skip


def test_the_same_command_gives_the_same_bytes(run, teacher, tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        teacher()
        assert run("--rounds", 2, "--tests", "--out", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_no_rounds_sieve_rows_without_a_request(run, teacher, tmp_path):
    double = teacher()
    rows = [*ROWS, {"instruction": "Write a Java program that adds.", "output": "x"}]
    store.write(tmp_path / "rows.jsonl", rows)
    done = run("--rounds", 0)
    assert done.exit_code == 0 and not double.asks
    assert "4 rows -1 another language than Python 3 kept" in _words(done.output)
    assert "4 rows" in run("--rounds", 0, "--no-clean", "--out", tmp_path / "o.jsonl").output


def test_requests_without_a_reply_are_said_and_can_be_asked_again(run, teacher):
    silent = teacher(evolve=reply("", error="HTTP 500"))
    done = run()
    assert done.exit_code == 1 and {kind(ask) for ask in silent.asks} == {"evolve"}
    assert "-3 no reply" in _words(done.output)
    assert "3 requests have no reply; the same command asks them again: HTTP 500" in done.output
    assert "no reply to any of 3 requests" in done.output
    teacher(answer=reply("", error="HTTP 500"))
    assert run("--rounds", 2).exit_code == 1


def test_rows_come_from_standard_input_and_go_to_standard_output(run, teacher):
    teacher()
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    done = run("--out", "-", seeds="-", input=lines)
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["depth"] for line in done.stdout.splitlines()].count(1) == 3


def test_a_dead_endpoint_fails_and_says_where(run, tmp_path):
    done = run("--attempts", 1, "--out", tmp_path / "o.jsonl")
    assert done.exit_code == 1 and URL in done.output and "goes on" in done.output
    assert not (tmp_path / "o.jsonl").exists()


def _bytes(name, data):
    return lambda folder: (folder / name).write_bytes(data)


PACKED = gzip.compress(json.dumps(ROWS).encode())


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl", b'{"code": "x"}\n', "a.jsonl:1: no field with a task's text"),
        ("b.jsonl", b'{"instruction": "caf\xe9"}\n', "not UTF-8"),
        ("c.json.gz", PACKED[: len(PACKED) // 2], "truncated or damaged gzip"),
        ("d.jsonl", b'{"instruction": "a"\n', "d.jsonl:1: not a JSON line"),
        ("e.json", b"{}", "expected a JSON list"),
        ("f.jsonl", b"", "no rows"),
        ("g.parquet", b"PAR1", "damaged Parquet"),
    ],
)
def test_files_that_cannot_be_read_are_bad_input(run, teacher, tmp_path, name, data, told):
    double = teacher()
    (tmp_path / name).write_bytes(data)
    done = run(seeds=name)
    assert done.exit_code == 2 and told in done.output and not double.asks, done.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--weights", "1,2"], "expected 5 numbers"),
        (["--weights", "0,0,0,0,0"], "all are 0"),
        (["--after-failure", "again"], "--after-failure 'again'"),
        (["--tests", "--agreement", "0.5"], "above 0.5"),
        (["--out", "x.txt"], "ends in .jsonl"),
        (["--rename", "a"], "THEIRS=OURS"),
        (["--rename", "a=b"], "expected instruction, input, output"),
        (["--out", "o.jsonl", "--dropped", "o.jsonl"], "is --out too"),
    ],
)
def test_options_out_of_range_are_bad_input_before_anything_is_asked(
    run, teacher, tmp_path, monkeypatch, options, told
):
    monkeypatch.chdir(tmp_path)
    double = teacher()
    done = run(*options)
    assert done.exit_code == 2 and told in done.output and not double.asks, done.output


def test_nano_problems_evolve_without_a_model(run, tmp_path):
    seeds = build("finetune", 10, shard_size=10, workers=2)[0]
    store.write(tmp_path / "seeds.jsonl", seeds)
    done = run("--rounds", 1, "--out", tmp_path / "o.jsonl", seeds="seeds.jsonl", url="")
    assert done.exit_code == 0, done.output
    found = store.read(tmp_path / "o.jsonl", Problem)
    expected, dropped = offline.evolve_problems(
        seeds, rounds=1, weights=dict(zip(evolution.METHODS, (3, 3, 3, 1, 1), strict=True)),
        seed=20230727, isolation="landlock+seccomp", workers=1,
    )  # fmt: skip
    assert found == [*seeds, *expected]
    assert f"{10} attempts" in _words(done.output) and len(expected) + sum(dropped.values()) == 10


def test_rows_that_are_no_nano_problems_are_refused_without_a_model(run, tmp_path):
    done = run(url="")
    assert done.exit_code == 2 and "Problem without" in done.output
    store.write(tmp_path / "p.jsonl", [Problem("a/1", "def f(x):\n", "f", "x")])
    done = run(seeds="p.jsonl", url="")
    assert done.exit_code == 2 and "--engine URL" in done.output


def test_replies_that_are_saved_are_not_asked_for_again(run, tmp_path, monkeypatch):
    """The real client against a server that counts: the second run needs no server at all."""
    from scripted_endpoint import ScriptedEndpoint

    with ScriptedEndpoint(lambda prompt, number: "ok") as server:
        url = server.url
        first = run("--out", tmp_path / "o.jsonl", "--dropped", tmp_path / "d.jsonl", url=url)
    assert first.exit_code == 0, first.output
    before = (tmp_path / "o.jsonl").read_bytes(), (tmp_path / "d.jsonl").read_bytes()
    again = run("--out", tmp_path / "o.jsonl", "--dropped", tmp_path / "d.jsonl", url=url)
    assert again.exit_code == 0, again.output
    assert before == ((tmp_path / "o.jsonl").read_bytes(), (tmp_path / "d.jsonl").read_bytes())
