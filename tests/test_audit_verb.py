"""The verb `audit` on anybody's rows: what it prints, writes, removes and refuses."""

import ast
import gzip
import json
import re
import sys

import pytest
import restyling
from typer.testing import CliRunner

from rrtf import benchmarks, store
from rrtf.__main__ import app
from rrtf.audit.rows import from_problem
from rrtf.sandbox import lanes

TASKS = benchmarks.load("nano-validation")
LEAK = from_problem(TASKS[0])
ROWS = [
    {"instruction": "Name a colour.", "input": "", "output": "blue", "n": 1},
    {"instruction": f"Please do this.\n{LEAK.text}", "input": "", "output": "```\nx\n```"},
    {"instruction": "Write the same.", "input": "", "output": LEAK.code},
]


def run(*words: object):
    return CliRunner().invoke(app, ["audit", *map(str, words)])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    store.write(path, ROWS)
    return path


def test_a_task_hidden_in_the_rows_is_found_removed_and_certified(file, tmp_path):
    out, clean, page, paper = (tmp_path / n for n in ("f.jsonl", "c.jsonl.gz", "r.html", "p.json"))
    result = run(file, "--benchmarks", "nano-validation", "--out", out, "--clean", clean,
                 "--report", page, "--certificate", paper)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "fields: description: instruction, input; answer: output" in result.stderr
    found = [row for _, row in store.read_rows(out)]
    hit = {row["detector"] for row in found if row["benchmark_task_id"] == TASKS[0].task_id
           and row["task_id"] == "rows:2" and not row["chance"]}  # fmt: skip
    assert {"exact substring", "normalised substring"} <= hit
    kept = [row for _, row in store.read_rows(clean)]
    assert ROWS[0] in kept and ROWS[1] not in kept and ROWS[2] not in kept
    told = store.read_json(paper)
    rows = told["rows"]
    assert rows["in"] == 3 == rows["kept"] + sum(rows["dropped"].values())
    assert told["sha256"]["file"] == store.sha256(file)
    assert len(told["sha256"]["nano-validation"]) == 64
    assert told["settings"]["generic_nodes"] == 40 and told["not seen"]["kinds"]


def test_the_page_stands_alone_and_marks_what_is_shared(file, tmp_path):
    page = tmp_path / "r.html"
    run(file, "--benchmarks", "nano-validation", "--report", page)
    text = page.read_text()
    assert "<mark" in text and "The worst pairs" in text and "rows:2" in text
    assert not re.search(r'(?:src|href)\s*=\s*"', text) and "@import" not in text


def test_the_same_rows_in_other_files_have_the_same_certificate_but_for_the_file(file, tmp_path):
    zipped = tmp_path / "rows.jsonl.gz"
    zipped.write_bytes(gzip.compress(file.read_bytes()))
    papers = []
    for path in (file, zipped):
        run(path, "--benchmarks", "nano-validation", "--certificate", tmp_path / "p.json")
        papers.append(store.read_json(tmp_path / "p.json"))
    assert papers[0]["sha256"].pop("file") != papers[1]["sha256"].pop("file")
    assert [paper.pop("what") for paper in papers] == [str(file), str(zipped)]
    assert papers[0] == papers[1]


def test_clean_rows_pass_and_all_stay(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "What rhymes with orange?"}] * 2))
    result = run(path, "--benchmarks", "nano-validation,nano-test")
    assert result.exit_code == 0 and "2 rows: 2 stay, 0 go" in result.stdout


@pytest.mark.parametrize(
    "words, says",
    [
        (("--benchmarks", "humanevil"), "unknown benchmark 'humanevil'"),
        (("--benchmarks", ","), "expected names, as in humaneval,mbpp"),
        (("--fields", "title"), "no row has a field 'title'; they have input, instruction, n"),
        (("--out", "here.txt"), "expected a name that ends in .jsonl or .parquet"),
        (("--embedding", "some/model"), "needs the package sentence-transformers"),
        (("--report", __file__ + "/r.html"), "--report"),
        (("--clean", "here.txt"), "--clean here.txt: expected a name that ends in"),
    ],
)
def test_bad_input_exits_with_two_and_says_what(file, words, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    given = words if "--benchmarks" in words else ("--benchmarks", "nano-validation", *words)
    result = run(file, *given)
    assert result.exit_code == 2 and says in result.stderr


def test_rows_without_text_name_their_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": ["b"]}\n')
    result = run(path, "--benchmarks", "nano-validation")
    assert result.exit_code == 2
    assert f"{path}:2: no text in field 'prompt', but list" in result.stderr
    path.write_text('{"prompt": "a"}\n[1]\n')
    assert f"{path}:2: expected a JSON object, found list" in run(path).stderr
    path.write_text("")
    assert "no rows in it" in run(path, "--benchmarks", "nano-validation").stderr


def test_a_benchmark_that_is_named_and_absent_is_an_error(file, tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = run(file, "--benchmarks", "leetcode")
    assert result.exit_code == 2 and "leetcode" in result.stderr


@pytest.mark.skipif(lanes.probe() not in lanes.LEVELS[:2], reason="needs an isolated sandbox")
def test_what_passes_a_tasks_tests_in_other_words_is_found_by_running_it_alone(tmp_path):
    task = next(t for t in TASKS if len(ast.dump(ast.parse(t.prompt + t.reference))) > 900)
    code = restyling.renamed(restyling.inside(task.prompt + task.reference, task.entry_point))[0]
    rows = tmp_path / "rows.jsonl"
    told = "Schreibe ein Programm."
    store.write(rows, [{"instruction": told, "output": code}, {"instruction": told, "output": "1"}])
    common = (rows, "--benchmarks", "nano-validation")
    plain, ran = tmp_path / "plain.jsonl", tmp_path / "ran.jsonl"
    assert run(*common, "--out", plain).exit_code == 0
    assert not list(store.read_rows(plain))
    saved = tmp_path / "shards"
    result = run(*common, "--out", ran, "--execute", "--workers", 1, "--shards", saved)
    assert result.exit_code == 0, result.stderr
    found = [row for _, row in store.read_rows(ran)]
    assert {(row["task_id"], row["detector"]) for row in found} == {("rows:1", "execution")}
    assert task.task_id in {row["benchmark_task_id"] for row in found}
    assert any(saved.rglob("*.jsonl"))
