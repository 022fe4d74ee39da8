"""The commands `grade` and `rank`: every line accounted for, every mistake named, exact figures."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import rrtf as run

from rrtf import store
from rrtf.benchmarks import catalogue
from rrtf.cli import screen
from rrtf.evaluate import grade, results, samples
from rrtf.records import Execution, Outcome, RankedGroup, TaskScore
from rrtf.sandbox import joint

C, R, F, P = Outcome
ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("RRTF_DATA", ROOT / "no such folder"))

ADD = {
    "task_id": "t/add",
    "prompt": 'def add(a, b):\n    """Add."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"
    "    assert candidate(2, 2) == 4\n",
}
NEG = {
    "task_id": "t/neg",
    "prompt": 'def neg(a):\n    """Negate."""\n',
    "entry_point": "neg",
    "canonical_solution": "    return -a\n",
    "test": "def check(candidate):\n    assert candidate(1) == -1\n",
}
BROKEN = ADD | {"task_id": "t/broken", "canonical_solution": "    return a - b\n"}
RIGHT, WRONG = "    return a + b\n", "    return a * b\n"  # WRONG gives 4 for (2, 2)


def lines(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def answer(task_id: str = "t/add", completion: str = RIGHT, **more) -> dict:
    return {"task_id": task_id, "completion": completion, **more}


@pytest.fixture
def toy(tmp_path) -> str:
    """Two problems in a file."""
    return lines(tmp_path / "problems.jsonl", [ADD, NEG])


def refused(tmp_path, toy, rows, *options) -> str:
    """What stderr says of samples that are bad input."""
    result = run("grade", toy, lines(tmp_path / "samples.jsonl", rows), *options)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


def test_there_is_one_verdict_per_line_in_the_order_of_the_lines(tmp_path, toy):
    rows = [
        answer(completion=WRONG),
        answer("t/neg", "    return -a\n"),
        {"task_id": "t/add", "solution": "add = lambda a, b: a + b"},
        answer(completion="    raise KeyError\n"),
    ]
    out = tmp_path / "out" / "verdicts.jsonl"
    result = run("grade", toy, lines(tmp_path / "s.jsonl", rows), "--out", out)
    assert result.exit_code == 0, result.output
    verdicts = [json.loads(line) for line in out.read_text().splitlines()]
    assert [v["task_id"] for v in verdicts] == ["t/add", "t/neg", "t/add", "t/add"]
    assert [v["outcome"] for v in verdicts] == ["FAILED_TESTS", "PASS", "PASS", "RUNTIME_ERROR"]
    assert [v["passed"] for v in verdicts] == [False, True, True, False]
    assert [(v["n_passed"], v["n_tests"]) for v in verdicts] == [(1, 2), (1, 1), (2, 2), (0, 2)]
    assert verdicts[3]["reason"] == "KeyError"
    assert list(verdicts[0]) == [
        "task_id", "completion", "index", "passed", "outcome", "reason", "n_passed", "n_tests",
        "isolation", *grade.FIRST_FAILED, "reading",
    ]  # fmt: skip
    assert [v["index"] for v in verdicts] == [0, 0, 1, 2]
    assert [v["reading"] for v in verdicts[:3]] == ["text: continuation"] * 2 + ["as it is"]
    assert "unequal n: t/neg has 1 samples, t/add has 3" in result.stderr
    again = tmp_path / "again.jsonl"
    run("grade", toy, tmp_path / "s.jsonl", "--out", again, "--workers", "1")
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize("name", ["v.parquet", "v.jsonl.gz", "v.parquet.gz"])
def test_the_output_takes_the_form_that_its_name_asks_for(tmp_path, toy, name):
    rows = [answer(), answer("t/neg", "    return a\n")]
    samples_file = lines(tmp_path / "s.jsonl", rows)
    files = [tmp_path / name, tmp_path / f"again-{name}"]
    for path in files:
        assert run("grade", toy, samples_file, "--out", path).exit_code == 0
    found = [row for _, row in store.read_rows(files[0])]
    assert [(row["passed"], row.get("got")) for row in found] == [(True, None), (False, "1")]
    if "gz" in name:
        assert gzip.decompress(files[0].read_bytes())
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("form", ["json", "jsonl.gz", "json.gz", "parquet", "parquet.gz", "crlf"])
def test_problems_and_samples_may_come_in_every_form_of_file(tmp_path, form):
    names = []
    for name, rows in {"p": [ADD, NEG], "s": [answer(), answer("t/neg", "    return a\n")]}.items():
        path = tmp_path / f"{name}.{form if form != 'crlf' else 'jsonl'}"
        if "parquet" in form:
            data = store.encode(rows, ".parquet")
        elif "jsonl" in form:
            data = store.encode(rows, ".jsonl")
        elif form == "crlf":
            data = store.encode(rows, ".jsonl").replace(b"}\n", b"}\r\n") + b"\r\n"
        else:
            data = json.dumps(rows).encode()
        path.write_bytes(gzip.compress(data) if form.endswith("gz") else data)
        names.append(path)
    given = names
    if form == "crlf":
        given = ["-", names[1]]
    result = run("grade", *given, "--out", "-", stdin=names[0].read_bytes())
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["passed"] for line in result.stdout.splitlines()] == [True, False]
    assert "pass@1" in result.stderr


def test_recorded_responses_are_graded_by_their_program(tmp_path, toy):
    program = ADD["prompt"] + RIGHT
    rows = [
        {"task_id": "t/add", "source": "m", "index": 0, "text": "prose", "program": program},
        {"task_id": "t/neg", "source": "m", "index": 0, "text": "    return -a\n", "program": ""},
    ]
    result = run("grade", toy, lines(tmp_path / "s.jsonl", rows))
    assert result.exit_code == 0 and "100.00" in result.stdout
    other = {"task_id": "t/neg", "source": "x", "index": 0, "text": "    return -a\n"}
    apart = lines(tmp_path / "t.jsonl", [*rows, other, other | {"index": 1}])
    raw = run("grade", toy, apart, "--extract", "raw", "--allow-missing")
    shown = [line.split() for line in raw.stdout.splitlines()]
    assert [words[:3] for words in shown if "pass@1" in words] == [
        ["m", "pass@1", "50.00"], ["x", "pass@1", "100.00"]
    ]  # fmt: skip
    assert "NOT the whole benchmark: no sample for 1 tasks (t/add)" in raw.stdout
    assert "1 of 4 lines repeat" in raw.stderr and "t.jsonl:4 = " in raw.stderr


def test_a_flaky_verdict_is_marked_also_where_the_first_was_saved(tmp_path, toy):
    by_hash = "    return a + b if hash('{}') % 2 else 0\n"
    rows = [answer(completion=by_hash.format(i)) for i in range(12)]
    rows += [answer("t/neg", "    return -a\n")] * 12
    out, samples_file = tmp_path / "v.jsonl", lines(tmp_path / "s.jsonl", rows)
    how = ("--flaky", "--out", out, "--shards", tmp_path / "shards")
    first = None
    for _ in range(2):
        result = run("grade", toy, samples_file, *how)
        assert result.exit_code == 0, result.output
        marks = [row["flaky"] for _, row in store.read_rows(out)]
        assert sum(marks[:12]) > 6 and not any(marks[12:])
        assert f"flaky: {sum(marks)} of 24 verdicts change when repeated (t/add)" in result.stdout
        assert first in (None, out.read_bytes())
        first = out.read_bytes()


def test_a_field_can_be_read_under_its_own_name(tmp_path, toy):
    rows = [
        {"task_id": "t/add", "code": ADD["prompt"] + RIGHT, "run": 1},
        {"task_id": "t/neg", "code": NEG["prompt"] + "    return a\n", "run": 1},
    ]
    said = refused(tmp_path, toy, rows)
    assert "neither completion nor solution (it has task_id, code, run; --rename" in said
    names = ("--rename", "code=solution", "--rename", "run=index")
    result = run("grade", toy, tmp_path / "samples.jsonl", *names)
    assert result.exit_code == 0 and "50.00" in result.stdout
    assert "--rename 'code': expected" in refused(tmp_path, toy, rows, "--rename", "code")
    assert ":1,2: no field 'body'" in refused(tmp_path, toy, rows, "--rename", "body=solution")


@pytest.mark.parametrize(
    "row, says",
    [
        ({"completion": RIGHT}, "no task_id (it has completion)"),
        ({"task_id": 3.5, "completion": RIGHT}, "task_id: expected text, found float"),
        ({"task_id": 3, "completion": RIGHT}, "unknown task_id '3'"),
        (answer("t/sub"), "unknown task_id 't/sub': the 2 problems are 't/add' to 't/neg'"),
        ({"task_id": "t/add"}, "neither completion nor solution"),
        (answer(solution="x"), "both completion and solution"),
        (answer(text="x"), "both completion and text"),
        (answer(program="x"), "both completion and program"),
        ({"task_id": "t/add", "completion": [3]}, "completion: expected text, found int"),
        ({"task_id": "t/add", "completion": []}, "completion: an empty list"),
        (answer(completion=["a"], index=0), "completion: a list of samples goes with no index"),
        ({"task_id": "t/add", "completion": None}, "neither completion nor solution"),
        (answer(index="0"), "index: expected a whole number from 0 on, found '0'"),
        (answer(index=-1), "index: expected a whole number from 0 on, found -1"),
        (answer(index=True), "index: expected a whole number from 0 on, found True"),
        (answer(source=1), "source: expected text, found int"),
        ([answer()], "expected a JSON object, found list"),
        ("text", "expected a JSON object, found str"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, toy, row, says):
    said = refused(tmp_path, toy, [answer("t/neg", "    return -a\n"), row])
    assert f"samples.jsonl:2: {says}" in said


@pytest.mark.parametrize("text", ['{"task_id": "t/add", "compl', "[" * 100_000, "1" * 5000, "nul"])
def test_a_line_that_is_no_json_is_named(tmp_path, toy, text):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(answer()) + "\n\n" + text)
    result = run("grade", toy, path)
    assert result.exit_code == 2
    assert f"{path}:3: not a JSON line" in result.stderr


def test_the_lines_of_standard_input_are_named_too(toy):
    result = run("grade", toy, "-", stdin='{"task_id": "t/add", "completion": ""}\n{')
    assert result.exit_code == 2 and "-:2: not a JSON line" in result.stderr
    result = run("grade", toy, "-", stdin=b"\xff\xfe")
    assert result.exit_code == 2 and "not UTF-8 text" in result.stderr


def test_all_mistakes_are_named_at_once_and_equal_ones_together(tmp_path, toy):
    rows = [answer(), {"task_id": "t/add"}, answer("t/x"), {"task_id": "t/neg"}]
    said = refused(tmp_path, toy, rows)
    assert "samples.jsonl:2,4: neither completion" in said
    assert "samples.jsonl:3: unknown task_id 't/x'" in said
    many = [answer(f"t/{i}") for i in range(50)] + [{}] * 50
    said = refused(tmp_path, toy, many)
    assert said.count("unknown task_id") == samples.TOLD and "and 31 more such mistakes" in said
    assert "and 30 more lines: no task_id" in refused(tmp_path, toy, [{}] * 50)


def test_lines_of_unknown_tasks_can_be_left_out_and_are_counted(tmp_path, toy):
    rows = [answer("t/x"), answer(), answer("t/neg", "    return a\n"), answer("t/x")]
    out = tmp_path / "v.jsonl"
    samples_file = lines(tmp_path / "s.jsonl", rows)
    result = run("grade", toy, samples_file, "--allow-unknown", "--out", out)
    assert result.exit_code == 0, result.output
    assert "left out: 2 lines of 1 tasks that are no problems here (t/x)" in result.stdout
    assert [row["passed"] for _, row in store.read_rows(out)] == [True, False]
    alone = lines(tmp_path / "x.jsonl", [answer("t/x")])
    result = run("grade", toy, alone, "--allow-unknown")
    assert result.exit_code == 2 and "no samples in it: 1 lines, all of unknown" in result.stderr


def test_a_k_that_n_does_not_allow_is_refused_if_asked_for_and_left_out_if_not(tmp_path, toy):
    rows = [answer()] * 10 + [answer("t/neg", "    return -a\n")] * 9
    said = refused(tmp_path, toy, rows, "--k", "1,10")
    assert "--k 10: t/neg has 9 samples" in said
    result = run("grade", toy, tmp_path / "samples.jsonl")
    assert "pass@1 " in result.stdout and "pass@10" not in result.stdout
    assert "9 to 10" in result.stdout
    for bad in ("a", "1.5", "-1"):
        assert "expected whole numbers from 1 on" in refused(tmp_path, toy, rows, f"--k={bad}")


@pytest.mark.parametrize(
    "row, says",
    [
        (ADD | {"prompt": None}, "Problem without prompt"),
        (ADD | {"prompt": 3}, "prompt: no text"),
        (ADD | {"task_id": 11}, "task_id: no text"),
        (ADD | {"test": " "}, "t/add has no test"),
        ({k: v for k, v in ADD.items() if k != "test"}, "t/add has no test"),
        (ADD | {"plus_input": [[1, 2]]}, "name the benchmark (humaneval+ or mbpp+)"),
        (ADD, "t/add stands in line 1 too"),
        ([], "expected a JSON object"),
    ],
)
def test_a_bad_problem_is_named_by_file_and_line(tmp_path, row, says):
    problems = lines(tmp_path / "problems.jsonl", [ADD, row])
    result = run("grade", problems, lines(tmp_path / "s.jsonl", [answer()]))
    assert result.exit_code == 2
    assert f"{problems}:2: " in result.stderr and says in result.stderr


OWN = [
    ADD,
    NEG | {"task_id": "own/broken", "test": "def check(candidate:\n"},
    NEG | {"task_id": "own/wrong", "canonical_solution": "    return a\n"},
    NEG | {"task_id": "own/unproven", "canonical_solution": ""},
    NEG | {"task_id": "own/crosses", "test": "import re\nassert neg(1) == re.compile('a')\n",
           "canonical_solution": "    import re\n    return re.compile('a')\n"},
]  # fmt: skip


def test_problems_whose_reference_does_not_pass_are_named_and_left_out_of_every_rate(tmp_path):
    problems, out = lines(tmp_path / "p.jsonl", OWN), tmp_path / "s.jsonl_results.jsonl"
    rows = [answer(p["task_id"], p["canonical_solution"] or "    return -a\n") for p in OWN]
    answers = lines(tmp_path / "s.jsonl", rows)
    result = run("grade", problems, answers)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "3 problems are left out" in said and "own/wrong: FAILED_TESTS (wrong_value)" in said
    assert "own/broken: unusable_tests: the tests do not compile" in said
    assert "own/crosses: FAILED_TESTS (cannot_cross)" in said and "--joint" in said
    assert "1 problems have no reference" in said and "own/unproven" in said
    assert "100.00" in result.stdout and "2 of 5" in result.stdout
    verdicts = [row for _, row in store.read_rows(out)]
    assert [v["passed"] for v in verdicts] == [True, None, None, True, None]
    assert verdicts[1]["reason"].startswith("unusable_tests") and len(verdicts) == len(rows)
    result = run("grade", problems, answers, "--joint")
    assert "3 of 5" in result.stdout and "1 of 3 verdicts come from tests in" in result.stdout
    assert "1 problems are judged in the candidate's own process" in " ".join(result.stderr.split())
    board = run("evaluate", problems, f"a={answers}")
    assert board.exit_code == 0 and "3 problems are left out" in " ".join(board.stderr.split())
    alone = lines(tmp_path / "one.jsonl", rows[1:2])
    result = run("grade", problems, alone, "--allow-missing")
    assert result.exit_code == 2 and "no problem is left to grade by" in result.stderr


def test_strange_characters_are_samples_like_others(tmp_path, toy):
    rows = [answer(completion="    return '\ud800'\n"), answer(completion="    return '\0'\n"),
            answer(completion="    return 'ä\u2028'\n"), answer("t/neg", "")]  # fmt: skip
    out = tmp_path / "v.jsonl"
    result = run("grade", toy, lines(tmp_path / "s.jsonl", rows), "--out", out)
    assert result.exit_code == 0, result.output
    reasons = [row["reason"] for _, row in store.read_rows(out)]
    assert reasons[:2] == ["encoding", "null_bytes"] and reasons[2] == "wrong_value"


def test_names_that_a_program_or_a_file_chooses_reach_no_terminal_as_commands(tmp_path, toy):
    named = "    raise type('\\x1b[31m[bold]', (Exception,), {})\n"
    rows = [
        answer(completion=named, source="[red]\x1b]0;x"),
        answer("t/neg", source="[red]\x1b]0;x"),
    ]
    result = run("grade", toy, lines(tmp_path / "s.jsonl", rows))
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output and "[red]" in result.stdout
    said = refused(tmp_path, toy, [answer(source="\x1b[2J")])
    assert "\x1b" not in said and "[2J" in said


@pytest.mark.slow
def test_an_interrupted_run_leaves_with_130_no_output_and_shards_that_it_goes_on_from(
    tmp_path, toy
):
    sleepy = "    import time\n    time.sleep(0.4 + {} / 1000)\n    return a + b\n"
    rows = [answer("t/neg", f"    return -a + {i} - {i}\n") for i in range(520)]
    rows += [answer(completion=sleepy.format(i)) for i in range(12)]
    samples_file, shards = lines(tmp_path / "s.jsonl", rows), tmp_path / "shards"
    out = tmp_path / "v.jsonl"
    command = [sys.executable, "-m", "rrtf", "grade", toy, samples_file, "--out", str(out)]
    command += ["--shards", str(shards)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(shards.glob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"interrupted; the same command goes on from {shards}" in said
    assert "Traceback" not in said and not out.exists()
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("*.jsonl")}
    assert len(kept) == 1
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert sum(row["passed"] for _, row in store.read_rows(out)) == 532


def runs(source: str, *passed: tuple[str, int, int]) -> list[Execution]:
    """Executions from (task, n, c)."""
    return [
        Execution(task, source, i, P if i < c else F, "", int(i < c), 1, "namespaces")
        for task, n, c in passed
        for i in range(n)
    ]


def test_rates_are_those_of_evaluation_over_all_tasks_and_by_group():
    executions = runs("m", ("a", 5, 2), ("b", 4, 0), ("c", 6, 6)) + runs("x", ("a", 1, 1))
    found = grade.sample_rates(executions, (1, 3), {"a": "g", "b": "h", "c": "g"})
    scores = [TaskScore("m", "", t, n, c) for t, n, c in (("a", 5, 2), ("b", 4, 0), ("c", 6, 6))]
    assert found[""][:2] == results.rates("m", scores, (1, 3))
    assert [row.value for row in found[""]] == pytest.approx([1.4 / 3, (0.9 + 0 + 1) / 3, 1])
    assert [(row.model, row.metric, row.n_tasks) for row in found["g"]] == [
        ("m", "pass@1", 2), ("m", "pass@3", 2), ("x", "pass@1", 1),
    ]  # fmt: skip
    assert [row.value for row in found["h"]] == [0, 0]


RESPONSES = [
    answer("t/add", RIGHT, source="teacher"),
    answer("t/add", WRONG, source="student"),
    answer("t/add", "    return a + (b)\n", source="student"),
    answer("t/add", WRONG, source="student"),  # repeats
    answer("t/neg", "    return a\n", source="teacher"),
    answer("t/neg", "    return -a\n", source="student"),
]


def ledger_of(text: str, what: str) -> dict[str, int]:
    """The lines `3 problems / -1 reason / 2 kept` of a printed ledger."""
    rows = [line.split(maxsplit=1) for line in text.splitlines()]
    start = next(i for i, row in enumerate(rows) if len(row) == 2 and row[1].strip() == what)
    found: dict[str, int] = {}
    for number, reason in rows[start:]:
        found[reason.strip()] = int(number)
        if reason.strip() in ("kept", "in groups"):
            return found
    raise AssertionError(text)


def test_ranking_writes_groups_and_accounts_for_every_response_and_problem(tmp_path):
    problems = lines(tmp_path / "p.jsonl", [ADD, NEG, BROKEN, ADD | {"task_id": "t/silent"}])
    rows = [*RESPONSES, answer("t/broken", source="teacher"), answer("t/broken", source="student")]
    rows += [answer("t/x", source="student")]
    out = tmp_path / "groups.jsonl"
    result = run("rank", problems, lines(tmp_path / "r.jsonl", rows), "--teacher", "teacher",
                 "--pairing", "all", "--allow-unknown", "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    (group,) = store.read(out, RankedGroup)
    assert group.task_id == "t/add" and group.prompt == ADD["prompt"]
    assert group.responses == (RIGHT, WRONG, "    return a + (b)\n")
    assert group.sources == ("teacher", "student", "student")
    assert group.outcomes == (P, F, P) and group.scores == (3.5, 2.0, 3.0)
    problems_in = ledger_of(result.stdout, "problems")
    assert problems_in == {
        "problems": 4,
        "problem: its own reference fails": -1,
        "problem: no response": -1,
        "prompt: the teacher scores below the student": -1,
        "kept": 1,
    }
    responses_in = ledger_of(result.stdout, "responses")
    assert responses_in.pop("responses") == 9 and responses_in.pop("in groups") == 5
    assert responses_in == {
        "response: of an unknown task": -1,
        "response: its problem is left out": -2,
        "response: repeats another of its task": -1,
    }


def test_pairs_are_exported_as_trl_reads_them(tmp_path, toy):
    out = tmp_path / "pairs.jsonl"
    responses = lines(tmp_path / "r.jsonl", RESPONSES)
    how = ("--teacher", "teacher", "--pairs", "--pairing", "all", "--out", out)
    assert run("rank", toy, responses, *how).exit_code == 0
    rows = [row for _, row in store.read_rows(out)]
    assert rows[0] == {
        "task_id": "t/add", "prompt": ADD["prompt"],
        "chosen": RIGHT, "chosen_source": "teacher", "chosen_outcome": "PASS", "chosen_score": 3.5,
        "rejected": WRONG, "rejected_source": "student", "rejected_outcome": "FAILED_TESTS",
        "rejected_score": 2.0,
    }  # fmt: skip
    assert len(rows) == 2
    result = run("rank", toy, responses, *how, "--filter", "none")
    assert "the chosen answer fails: 0" in result.stdout
    assert "both are in one situation: 1; --drop-ties leaves them out" in result.stdout
    fewer = run("rank", toy, responses, *how, "--filter", "none", "--drop-ties")
    assert ledger_of(fewer.stdout, "pairs")["pair: both are in one situation"] == -1
    assert run("rank", toy, responses, *how, "--filter", "none").exit_code == 0
    last = [row for _, row in store.read_rows(out)][-1]
    assert (last["chosen"], last["rejected"]) == ("    return -a\n", "    return a\n")
    result = run("rank", toy, responses, *how, "--filter", "none", "--set", "rank.tie_break=0")
    assert "equal scores" in result.stdout
    assert ledger_of(result.stdout, "pairs") == {"pairs": 3, "pair: equal scores": -1, "kept": 2}


def test_without_a_teacher_a_models_best_answer_stands_in_its_place(tmp_path, toy):
    """One that was cut off is no target, and equal scores make no pair."""
    cut = answer("t/neg", "    return -a\n") | {"finish_reason": "length"}
    of_neg = [answer("t/neg", f"    return {text}\n") for text in ("a", "a + 1")]
    rows = [
        answer("t/add", WRONG),
        answer("t/add", "    return 0\n"),
        answer("t/add"),
        cut,
        *of_neg,
    ]
    out, page = tmp_path / "groups.jsonl", tmp_path / "answers.html"
    how = ("rank", toy, lines(tmp_path / "own.jsonl", rows), "--pairing", "all", "--out", out)
    result = run(*how, "--report", page)
    assert result.exit_code == 0, result.output
    groups = {group.task_id: group for group in store.read(out, RankedGroup)}
    assert groups["t/add"].responses[0] == RIGHT and groups["t/add"].scores[0] == 3.0
    assert groups["t/add"].sources == ("teacher", "student", "student")
    assert set(groups["t/neg"].scores) == {2.0} and "-a" not in str(groups["t/neg"].responses)
    assert "of 2 groups, the answer to imitate fails: 1; --filter must_pass" in result.stdout
    assert "imitated" in page.read_text()
    assert run(*how, "--pairs").exit_code == 0
    pairs = [row for _, row in store.read_rows(out)]
    assert [(row["chosen"], row["rejected_outcome"]) for row in pairs] == [
        (RIGHT, "FAILED_TESTS"), (RIGHT, "FAILED_TESTS")]  # fmt: skip


def test_verdicts_of_the_lines_or_of_a_file_beside_them_are_used_as_they_are(tmp_path, toy):
    """The verdicts are turned round here, so that they cannot come from another execution."""
    verdicts = [
        grade.verdict(Execution("", "", 0, F if r["completion"] == RIGHT else P, "x", n, 1, "none"))
        | {"task_id": r["task_id"], "index": None}
        for r in RESPONSES
        for n in [int(r["completion"] != RIGHT)]
    ]
    beside = lines(tmp_path / "v.jsonl", verdicts)
    how = ("--teacher", "teacher", "--filter", "none", "--pairing", "all", "--out", "-")
    responses = lines(tmp_path / "r.jsonl", RESPONSES)
    apart = run("rank", toy, responses, *how, "--trust-verdicts", "--verdicts", beside)
    joined = lines(tmp_path / "j.jsonl", [r | v for r, v in zip(RESPONSES, verdicts, strict=True)])
    carried = run("rank", toy, joined, *how, "--trust-verdicts")
    judged, alone = run("rank", toy, joined, *how), run("rank", toy, responses, *how)
    assert judged.stdout == alone.stdout != carried.stdout
    assert "the verdicts in the lines are not used" in judged.stderr
    assert apart.exit_code == carried.exit_code == 0, carried.output
    assert apart.stdout == carried.stdout
    first = json.loads(apart.stdout.splitlines()[0])
    assert first["outcomes"] == ["FAILED_TESTS", "PASS", "PASS"]


WHOLE = {"outcome": "PASS", "reason": "", "n_passed": 1, "n_tests": 1, "isolation": "none"}
OF_TEACHER = answer(source="teacher")
BESIDE = WHOLE | {"task_id": "t/add"}


@pytest.mark.parametrize(
    ("rows", "verdicts", "says"),
    [
        ([answer()], None, "r.jsonl:1: no source"),
        ([{"task_id": "t/add", "source": "a", "solution": "x"}], None, "r.jsonl:1: a solution"),
        ([answer(completion="\ud800", source="a")], None, "r.jsonl:1: completion: half a"),
        ([answer(source="a")], None, "'teacher': the sources are a (1)"),
        ([OF_TEACHER | {"outcome": "PASS"}], None, "r.jsonl:1: a verdict without reason, n_pass"),
        ([OF_TEACHER | WHOLE | {"outcome": "FINE"}], None, "r.jsonl:1: outcome 'FINE'"),
        ([OF_TEACHER | WHOLE | {"n_passed": 3}], None, "r.jsonl:1: PASS with 3 of 1 tests"),
        ([OF_TEACHER | WHOLE | {"n_passed": 0}], None, "r.jsonl:1: PASS with 0 of 1 tests"),
        ([OF_TEACHER | WHOLE | {"passed": False}], None, "r.jsonl:1: passed is False"),
        ([OF_TEACHER | WHOLE | {"n_tests": 1.5}], None, "r.jsonl:1: n_tests"),
        ([OF_TEACHER, answer(source="a")], [BESIDE], "r.jsonl:2: "),
        ([OF_TEACHER], [BESIDE] * 2, "v.jsonl:2: "),
        ([OF_TEACHER], [BESIDE | {"task_id": "t/neg"}], "v.jsonl:1: a verdict on 't/neg'"),
        ([OF_TEACHER], [{"task_id": "t/add"}], "v.jsonl:1: no verdict"),
        ([OF_TEACHER | WHOLE], [BESIDE], "r.jsonl:1: has a verdict of its own"),
    ],
)
def test_a_line_that_cannot_be_ranked_by_its_verdict_is_named(tmp_path, toy, rows, verdicts, says):
    beside = ("--verdicts", lines(tmp_path / "v.jsonl", verdicts)) if verdicts else ()
    responses = lines(tmp_path / "r.jsonl", rows)
    result = run("rank", toy, responses, "--teacher", "teacher", "--trust-verdicts", *beside)
    assert result.exit_code == 2 and says in result.stderr, result.output


def test_responses_come_as_one_file_for_each_source(tmp_path, toy):
    named = [
        f"{source}={lines(tmp_path / f'{at}.jsonl', rows)}"
        for at, (source, rows) in enumerate((
            ("student", [answer(completion=WRONG)]),
            ("teacher", [answer(completion=RIGHT)]),
            ("student", [answer(completion="    return a\n"), answer("t/neg", "    return a\n")]),
            ("teacher", [answer("t/neg", "    return -a\n", source="teacher")]),
        ))
    ]  # fmt: skip
    how = ("--teacher", "teacher", "--pairing", "all", "--filter", "none", "--out", "-")
    result = run("rank", toy, *named, *how)
    assert result.exit_code == 0, result.output
    groups = [json.loads(line) for line in result.stdout.splitlines()]
    assert [group["sources"] for group in groups] == [
        ["teacher", "student", "student"], ["teacher", "student"]
    ]  # fmt: skip
    result = run("rank", toy, named[0], named[1].partition("=")[2], *how)
    assert result.exit_code == 2 and "name the source of each" in result.stderr
    result = run("rank", toy, named[3].replace("teacher=", "student="), *how)
    assert result.exit_code == 2 and "3.jsonl:1: source 'teacher' in a file" in result.stderr
    own = [answer(completion=RIGHT, source="org/model-15b")]
    sampled = f"teacher={lines(tmp_path / 'own.jsonl', own)}"
    result = run("rank", toy, named[0], sampled, *how)
    assert json.loads(result.stdout)["sources"] == ["teacher", "student"], result.output
    lines(tmp_path / "own.jsonl", [*own, answer(completion=WRONG, source="another")])
    result = run("rank", toy, named[0], sampled, *how)
    assert result.exit_code == 2 and "own.jsonl:2: source 'another' in a file" in result.stderr


def test_recorded_texts_continue_the_prompt_as_it_was_sampled_from(tmp_path, toy):
    rows = [{"task_id": "t/add", "source": s, "index": 0, "text": "\n" + body, "program": ""}
            for s, body in (("teacher", RIGHT), ("student", WRONG))]  # fmt: skip
    responses = lines(tmp_path / "r.jsonl", rows)
    result = run("rank", toy, responses, "--teacher", "teacher", "--pairs", "--out", "-")
    row = json.loads(result.stdout)
    assert row["prompt"] == ADD["prompt"].rstrip("\n")
    compile(row["prompt"] + row["chosen"], "pair", "exec")
    mixed = lines(tmp_path / "m.jsonl", [rows[0], answer(source="student", index=0)])
    result = run("rank", toy, mixed, "--teacher", "teacher")
    assert result.exit_code == 2 and "m.jsonl:1 has a text: say by" in result.stderr


def test_what_is_trained_on_is_the_reading_that_was_judged(tmp_path, toy):
    """`raw` cuts behind the body, `verbatim` does not."""
    text = RIGHT + "\nprint(add(1, 1))\n"
    rows = [answer(completion=text, source="teacher"), answer(completion=WRONG, source="student")]
    responses, found = lines(tmp_path / "r.jsonl", rows), {}
    for how in ("raw", "verbatim"):
        options = ("--teacher", "teacher", "--extract", how, "--out", "-")
        result = run("rank", toy, responses, *options)
        found[how] = json.loads(result.stdout.splitlines()[0])["responses"][0]
    assert (found["raw"].strip("\n"), found["verbatim"]) == (RIGHT.strip("\n"), text)


def test_problems_whose_tests_see_little_can_be_dropped(tmp_path):
    blind = NEG | {
        "task_id": "t/blind",
        "test": "def check(candidate):\n    assert candidate(0) < 9\n",
    }
    problems = lines(tmp_path / "p.jsonl", [ADD, blind])
    rows = [*RESPONSES[:2], answer("t/blind", "    return -a\n", source="teacher"),
            answer("t/blind", "    return a\n", source="student")]  # fmt: skip
    responses = lines(tmp_path / "r.jsonl", rows)
    result = run("rank", problems, responses, "--teacher", "teacher", "--min-strength", "0.6")
    assert result.exit_code == 0, result.output
    found = ledger_of(result.stdout, "problems")
    assert found["problem: its tests kill less than 0.6 of the mutants"] == -1
    assert found["kept"] == 1


def test_a_ledger_that_does_not_add_up_is_an_error():
    with pytest.raises(ValueError, match="problems: 3 in, but 1 kept"):
        screen.ledger("problems", 3, {"x": 1}, "kept", 1)


PUBLISHED = {
    "starcoder2-15b-instruct/humaneval.jsonl.gz": 72.561,
    "qwen2.5-coder-1.5b/humaneval.jsonl.gz": 43.902,
    "qwen2.5-coder-7b/humaneval.jsonl.gz": 61.585,
    "evol-replit-3b/humaneval.jsonl.gz": 31.098,
    "gpt-3.5-turbo/humaneval_n10.jsonl.gz": 76.951,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_come_out_of_published_samples(name):
    file = DATA / "generations" / name
    if not file.exists():
        pytest.skip("published samples are not here")
    names = ("--rename", "code=solution") if name.startswith("gpt") else ()
    result = run("grade", DATA / "humaneval" / "HumanEval.jsonl.gz", file, *names)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("pass@1 "))
    assert float(line.split()[1]) == pytest.approx(PUBLISHED[name], abs=0.0051)


def test_limits_are_what_was_asked_for_or_what_the_benchmark_needs():
    asked = {"cpu_seconds": None, "wall_seconds": None, "memory_mb": 512, "isolation": "none"}
    found = grade.limits("mine.jsonl", **asked)
    assert (found.cpu_seconds, found.wall_seconds) == (2.0, 6.0)
    assert grade.limits("humaneval+", **asked).cpu_seconds > 2.0
    assert grade.limits("humaneval+", **asked | {"cpu_seconds": 5.0}).wall_seconds == 15.0


def test_a_file_that_asks_for_joint_tests_is_refused_until_that_is_accepted(tmp_path):
    marked = ADD | {"test": joint.MARK + ADD["test"]}
    problems = lines(tmp_path / "p.jsonl", [marked, NEG])
    answers = lines(tmp_path / "s.jsonl", [answer(), answer("t/neg", "    return -a\n")])
    result = run("grade", problems, answers)
    assert result.exit_code == 2 and "p.jsonl:1: t/add asks for its tests to run" in result.stderr
    result = run("grade", problems, answers, "--joint", "--out", tmp_path / "v.jsonl")
    assert result.exit_code == 0, result.output
    assert "joint: 1 of 2 verdicts come from tests in the candidate's own process" in result.stdout
    told = [row["isolation"] for _, row in store.read_rows(tmp_path / "v.jsonl")]
    assert [isolation.endswith(", joint") for isolation in told] == [True, False]


STDIN_ROW = {"input_output": '{"inputs": ["1 2"], "outputs": ["3"]}'}


def test_packages_are_named_on_the_command_line_and_are_part_of_a_shards_name(tmp_path, toy):
    body = "    import numpy\n    return int(numpy.add(a, b))\n"
    answers = lines(tmp_path / "s.jsonl", [answer(completion=body)])
    shards = tmp_path / "shards"
    rest = (toy, answers, "--allow-missing", "--shards", shards)
    result = run("grade", *rest)
    assert result.exit_code == 0 and "ModuleNotFoundError" in result.stdout
    way = "note: 1 programs end at an import; they see no numpy here: --packages numpy lets them"
    assert way in result.stderr
    result = run("grade", *rest, "--packages", "numpy")
    assert result.exit_code == 0 and "100.00" in result.stdout, result.output
    assert "import" not in result.stderr
    bare = lines(tmp_path / "b.jsonl", [answer(completion="    import __main__, nowhere\n")])
    result = run("grade", toy, bare, "--allow-missing")
    assert result.exit_code == 0 and "--packages" not in result.stderr, result.output
    reads = lines(tmp_path / "r.jsonl", [{"task_id": "s", "question": "Add.", **STDIN_ROW}])
    total = "import numpy\nprint(numpy.add(*map(int, input().split())))\n"
    printing = lines(tmp_path / "p.jsonl", [{"task_id": "s", "solution": total}])
    assert way in run("grade", reads, printing).stderr
    assert len(list(shards.iterdir())) == 2 * 2  # of the references, of the answers
    result = run("grade", *rest, "--packages", "no_such_package")
    assert result.exit_code == 2 and "'no_such_package' is not installed" in result.stderr


CONTESTS = [
    {
        "task_id": name,
        "prompt": "class Solution:\n    def f(self, x):\n        ",
        "test": "my_solution = Solution()\nassert my_solution.f(1) == 2\n",
        "meta": {"difficulty": difficulty},
        "start_time": start,
    }
    for name, difficulty, start in (
        ("old", "Easy", 1650000000), ("easy", "Easy", 1700000000), ("hard", "Hard", 1705804200),
    )
]  # fmt: skip


def test_the_tasks_of_a_file_can_be_those_created_after_a_day(tmp_path, toy):
    days = [(ADD, "2025-01-01T00:00:00"), (NEG, "2025-02-01")]
    tasks = lines(tmp_path / "p.jsonl", [row | {"contest_date": day} for row, day in days])
    rows = lines(tmp_path / "s.jsonl", [answer(), answer("t/neg")])
    late = run("grade", tasks, rows, "--since", "2025-01-15").stdout
    assert "left out: 1 lines of 1 tasks" in late and "1 samples in" in late
    none = run("grade", tasks, rows, "--since", "2026-01-01")
    assert none.exit_code == 2 and "no task of it was created after 2026-01-01" in none.stderr
    told = run("grade", toy, rows, "--since", "2024-01-01").stderr
    assert "problems.jsonl:1: --since 2024-01-01 needs a day, as 2025-01-31, in" in told


def test_rates_are_shown_by_difficulty_of_the_tasks_created_after_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "raw_rows", lambda name, data: CONTESTS)
    rows = [answer(task["task_id"], f"return x + {n < 2:d}\n") for n, task in enumerate(CONTESTS)]
    answers = lines(tmp_path / "s.jsonl", rows)
    result = run("grade", "leetcode", answers, "--since", "2022-07-01", "--by", "difficulty")
    assert result.exit_code == 0, result.output
    assert "left out: 1 lines of 1 tasks that are no problems here (old)" in result.stdout
    table = [line.split() for line in result.stdout.splitlines() if "pass@1" in line]
    assert [cells[:3] for cells in table] == [
        ["all", "pass@1", "50.00"], ["Easy", "pass@1", "100.00"], ["Hard", "pass@1", "0.00"]
    ]  # fmt: skip
