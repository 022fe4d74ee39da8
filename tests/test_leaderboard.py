"""The board and the command `evaluate`: ranks, paired tests, and who is put on it."""

import json
import math
import re
import shutil
import subprocess
import sys
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
from conftest import rrtf

from rrtf import config, stats, store
from rrtf.cli import evaluate
from rrtf.evaluate import entries, exam, grade, results, samples
from rrtf.records import Leak, Problem, Response, TaskScore

BODIES = {  # right for so many of the tasks of `tasks`
    "good": "    return a + {0}\n",
    "fair": "    return a + {0} if {0} % 2 else a\n",
    "poor": "    return a\n",
}
N = 12


def problem(number: int) -> dict:
    return {
        "task_id": f"t/{number}",
        "prompt": f'def add(a):\n    """Add {number}."""\n',
        "entry_point": "add",
        "canonical_solution": f"    return a + {number}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {number + 1}\n",
    }


def lines(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(kind: str, n: int = 1, *, field: str = "completion", tasks=range(1, N + 1)) -> list[dict]:
    return [{"task_id": f"t/{i}", field: BODIES[kind].format(i)} for i in tasks for _ in range(n)]


@pytest.fixture
def toy(tmp_path) -> str:
    return lines(tmp_path / "toy.jsonl", [problem(i) for i in range(1, N + 1)])


run = partial(rrtf, "evaluate", columns=80)


def scores(**solved: list[int]) -> list[TaskScore]:
    """Entries of one sample per task, from 0s and 1s in the order of tasks."""
    return [
        TaskScore(name, "toy", f"t{at:03}", 1, right)
        for name, column in solved.items()
        for at, right in enumerate(column)
    ]


def board_of(rows, margin=0.02):
    return results.board(rows, margin=margin, seed=0)


def test_entries_are_ranked_and_equal_rates_share_a_rank():
    board = board_of(scores(low=[1, 0, 0, 0], a=[1, 1, 0, 0], b=[0, 0, 1, 1]))
    assert [(entry.name, entry.rank) for entry in board.entries] == [("a", 1), ("b", 1), ("low", 3)]
    assert [entry.told_apart for entry in board.entries] == [None, False, False]
    alone = board_of(scores(a=[1], b=[0]))
    assert alone.pairs == () and [entry.rank for entry in alone.entries] == [1, 2]
    assert [entry.told_apart for entry in alone.entries] == [None, None]
    twice = [TaskScore("m", "toy", "t", 1, 1, seed, 0.0) for seed in (0, 1)]
    assert list(results.by_entry([*twice, *scores(x=[1])])) == ["m/0@0", "m/1@0", "x"]


def test_every_pair_is_compared_the_better_first_and_holm_runs_over_all():
    columns = {"a": [1] * 30, "b": [1] * 15 + [0] * 15, "c": [1] * 12 + [0] * 18}
    ten = [TaskScore("ten", "toy", f"t{i:03}", 10, 1, 0, 1.0) for i in range(30)]
    board = board_of([*ten, *scores(**columns)])
    pairs = list(combinations(["a", "b", "c", "ten"], 2))
    assert [(row.a, row.b) for row in board.pairs] == pairs
    assert [row.test.split()[0] for row in board.pairs] == [
        "paired" if "ten" in pair else "exact" for pair in pairs
    ]
    first = board.pairs[0]
    assert (first.difference, first.p) == (0.5, stats.mcnemar(15, 0))
    assert [row.p_holm for row in board.pairs] == stats.holm([row.p for row in board.pairs])
    assert [entry.told_apart for entry in board.entries] == [None, True, True, True]
    assert results.matrix(board)["a", "b"] == "+50.0*"


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([], "none"),
        ([*scores(a=[1]), TaskScore("a", "other", "t", 1, 1)], "other, toy"),
        ([*scores(a=[1]), TaskScore("b", "toy", "t", 1, 1)], "a, b: no task"),
    ],
)
def test_scores_that_make_no_board_are_refused(rows, names):
    with pytest.raises(ValueError, match=names):
        board_of(rows)


def test_a_small_difference_on_many_tasks_is_called_equal_only_within_the_margin():
    a = [1, 0] * 1000
    b = [*a[:-2], 1, 1]
    (row,) = board_of(
        scores(a=a, b=b),
    ).pairs
    assert results.mark(row) == "="
    (row,) = board_of(scores(a=a, b=b), margin=0.0001).pairs
    assert results.mark(row) == ""


def test_entries_of_different_tasks_are_compared_on_those_that_all_answered_and_it_is_said():
    found = scores(a=[1, 1, 0, 1], b=[1, 0, 0, 1])
    board = board_of([row for row in found if (row.model, row.task_id) != ("b", "t001")])
    assert board.n_tasks == 3 and board.pairs[0].n_tasks == 3
    assert [(entry.name, entry.n_answered) for entry in board.entries] == [("a", 4), ("b", 3)]
    assert [entry.rates[0].value for entry in board.entries] == [2 / 3, 2 / 3]
    assert "compared on the 3 tasks that all entries answered" in results.notes(board)[0]


def test_a_board_says_how_much_of_its_noise_is_samples_and_how_many_would_show_two_points():
    def entries(n: int, **right: int) -> list[TaskScore]:
        """Of every entry: of the first half of 1,000 tasks so many of ten right, of the others."""
        return [
            TaskScore(name, "toy", f"t{i:03}", n, (c if i < 500 else 10 - c) * n // 10, 0, 1.0)
            for name, c in right.items()
            for i in range(1000)
        ]

    alike = board_of(entries(10, a=5, b=5)).noise  # each 0.25 / 9 a task; none is the tasks'
    bar = (0.02 / stats.smallest_detectable(1.0)) ** 2
    least = math.ceil(10 * 2 * 0.25 / 9 / 1000 / bar)
    assert "0 % the choice of tasks, 100 % the samples" in alike
    assert f"with {least:,} samples a task, or" in alike
    apart = board_of(entries(10, a=9, b=1)).noise  # 0.8 ahead or behind: no samples mend that
    assert re.search("97 % the choice of tasks.* with no number of samples, but with 1.,", apart)
    single = board_of(scores(a=[1, 0] * 50, b=[1, 1] * 50)).noise
    assert "not to be told apart by one sample a task" in single and "with at least" in single
    assert alike in results.notes(board_of(entries(10, a=5, b=5)))


def test_the_matrix_of_many_entries_is_printed_in_blocks_that_fit(capsys):
    from rich.console import Console

    names = [f"a model with a name as long as this {i}" for i in range(30)]
    cells = {pair: "+12.3*" for pair in combinations(names, 2)}
    console = Console(width=80)
    for table in evaluate.pair_tables(names, cells, width=80):
        console.print(table)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("+12.3*") == len(cells)


def test_what_is_kept_can_be_read_back_by_everybody(tmp_path, toy):
    out, whole = tmp_path / "out", [r | {"task_id": r["task_id"]} for r in rows("good", 2)]
    whole = [{"task_id": r["task_id"], "text": f"```\n{r['completion']}```"} for r in whole]
    files = [f"a={lines(tmp_path / 'a.jsonl', whole)}", lines(tmp_path / "b.jsonl", rows("fair"))]
    result = run(toy, *files, "--out", out)
    assert result.exit_code == 0, result.output
    summary = store.read_json(out / "summary.json")
    assert {r["model"]: r["value"] for r in summary["results"]} == {"a": 1.0, "b": 0.5}
    assert all(store.sha256(out / name) == digest for name, digest in summary["files"].items())
    for name, expected in (("a", 24), ("b", 6)):
        file = out / "samples" / f"{name}.jsonl"
        known = grade.load_problems(toy)
        prompts_of = {p.task_id: p.prompt for p in known}
        for _, row in store.read_rows(file):
            assert set(row) == {"task_id", "completion"}
            compile(prompts_of[row["task_id"]] + row["completion"], "program", "exec")
        again = rrtf("grade", toy, file, "--extract", "program")
        assert ["PASS", str(expected)] in [line.split()[:2] for line in again.stdout.splitlines()]
    verdicts = [row for _, row in store.read_rows(out / "verdicts.jsonl")]
    assert len(verdicts) == 36 and {row["source"] for row in verdicts} == {"a/0@1", "b/0@0"}


# The fields that evaleval/every_eval_ever's instance_level_eval.schema.json, version 0.3.0 (commit
# 9bce413), requires of a sample of a single turn, by place, with their types
REQUIRED = {
    "": {"schema_version": str, "evaluation_id": str, "model_id": str, "evaluation_name": str,
         "sample_id": str, "interaction_type": str, "input": dict, "output": dict,
         "answer_attribution": list, "evaluation": dict},
    "input": {"raw": str, "reference": list},
    "output": {"raw": list},
    "answer_attribution": {"turn_idx": int, "source": str, "extracted_value": str,
                           "extraction_method": str, "is_terminal": bool},
    "evaluation": {"score": float, "is_correct": bool},
}  # fmt: skip
OPTIONAL = {"evaluation_result_id", "sample_hash", "metadata"}  # others are refused


def test_samples_leave_in_the_forms_of_every_eval_ever_and_eval_arena(tmp_path, toy):
    out = tmp_path / "out"
    files = [f"{kind}={lines(tmp_path / f'{kind}.jsonl', rows(kind, 2))}" for kind in BODIES]
    assert run(toy, *files, "--out", out).exit_code == 0
    instances = [row for _, row in store.read_rows(out / "every_eval_ever.jsonl")]
    for row in instances:
        assert row.keys() == REQUIRED[""].keys() | OPTIONAL
        for place, fields in REQUIRED.items():
            part = row[place] if place else row
            for name, kind in fields.items():
                assert type((part[0] if isinstance(part, list) else part)[name]) is kind
        assert row["schema_version"] == "0.3.0" and row["interaction_type"] == "single_turn"
        assert all(isinstance(value, str) for value in row["metadata"].values())
    assert len({(r["model_id"], r["sample_id"], r["metadata"]["index"]) for r in instances}) == 72
    assert len({row["evaluation_id"] for row in instances}) == len(BODIES)
    assert sum(row["evaluation"]["score"] for row in instances) == 24 + 12
    arena = [row for _, row in store.read_rows(out / "eval_arena.jsonl")]
    assert len({(r["benchmark_id"], r["model"], r["example_id"]) for r in arena}) == 3 * N
    for row in arena:
        assert row.keys() == {"benchmark_id", "model", "example_id", "pass1", "correct", "count"}
        assert row["pass1"] * row["count"] == row["correct"] <= row["count"] == 2


def test_a_board_leaves_as_a_table_of_every_form(tmp_path, toy):
    file = lines(tmp_path / "fair.jsonl", rows("fair"))
    for end, head in (("csv", "rank,entry,metric"), ("md", "| rank | entry |"), ("tex", r"\begin")):
        table = tmp_path / f"board.{end}"
        done = run(toy, file, "--table", table, "--out", tmp_path / "out")
        assert done.exit_code == 0 and f"the table in {table}" in done.stdout.replace("\n", "")
        assert table.read_text().startswith(head)
        assert table.read_bytes() == (tmp_path / "out" / table.name).read_bytes()
    graded = rrtf("grade", toy, file, "--table", tmp_path / "rates.csv")
    assert graded.exit_code == 0
    head, line = (tmp_path / "rates.csv").read_text().splitlines()
    assert head == "source,of,metric,percent,low,high,tasks,samples,interval"
    assert line.startswith(",all,pass@1,50.0,")
    wrong = rrtf("grade", toy, file, "--table", "rates.txt")
    assert wrong.exit_code == 2 and "--table rates.txt: expected a name that ends" in wrong.output


def test_the_same_command_goes_on_from_what_is_kept(tmp_path, toy):
    out, file = tmp_path / "out", lines(tmp_path / "a.jsonl", rows("good"))
    first, again = (run(toy, file, "--out", out) for _ in range(2))
    assert first.exit_code == again.exit_code == 0
    assert first.stdout == again.stdout
    assert len(list((out / "shards").glob("*.jsonl"))) == 1


def test_every_file_has_its_own_fields_and_extraction(tmp_path, toy):
    texts = [{"id": r["task_id"], "out": [r["completion"] + "\nprint(1"]} for r in rows("good")]
    a = f"a={lines(tmp_path / 'a.jsonl', texts)}"
    b = f"b={lines(tmp_path / 'b.jsonl', rows('fair'))}"
    names = ("--rename", "a:id=task_id", "--rename", "a:out=completion")
    assert " 100.00" in run(toy, a, b, *names, "--extract", "a=raw").stdout
    assert " 100.00" not in run(toy, a, b, *names, "--extract", "a=program").stdout
    result = run(toy, a, b)
    assert result.exit_code == 2 and "a.jsonl:1,2" in result.stderr


def test_several_sources_of_one_file_are_several_entries_of_the_tasks_they_have(tmp_path, toy):
    few = {"good": range(1, 7), "poor": range(1, N + 1)}
    both = [r | {"source": kind} for kind in few for r in rows(kind, tasks=few[kind])]
    result = run(toy, f"x={lines(tmp_path / 'x.jsonl', both)}", "--allow-missing")
    assert result.exit_code == 0
    shown = " ".join(result.stdout.split())
    assert "toy, 6 tasks of 12: NOT the whole benchmark" in shown
    assert "(answered: x:good 6, x:poor 12)" in shown


@pytest.mark.slow
def test_a_shipped_model_is_sampled_judged_and_kept(tmp_path, toy):
    few = lines(tmp_path / "few.jsonl", [problem(i) for i in range(1, 4)])
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rrtf", "evaluate", few, "--model", "s=nano-student"]
    command += ["--model", "nano-teacher-slips", "--out", str(out), "--n", "2"]
    command += ["--temperature", "0.8", "--top-p", "0.95"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    answers = store.read(out / "responses.jsonl", Response)
    assert len(answers) == 12 and {r.source for r in answers} == {
        "s/0@0.8",
        "nano-teacher-slips/0@0.8",
    }
    written = sorted(path.name for path in (out / "samples").iterdir())
    assert written == ["nano-teacher-slips.jsonl", "s.jsonl"]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == found.stdout


def known() -> list[Problem]:
    return [store.from_row(problem(i), Problem) for i in range(1, 3)]


def test_a_list_of_lists_is_read_in_the_order_of_the_problems(tmp_path):
    path = tmp_path / "generations.json"
    path.write_text(json.dumps([["a", "b"], ["c"]]))
    found = [row for _, row in samples.folder_rows(str(path), known())]
    assert [(row["task_id"], row["solution"]) for row in found] == [
        ("t/1", "a"), ("t/1", "b"), ("t/2", "c")
    ]  # fmt: skip
    path.write_text(json.dumps([["a"]]))
    with pytest.raises(ValueError, match=r"lists for 1 tasks.*the problems are 2"):
        samples.folder_rows(str(path), known())


def test_results_of_evalplus_hold_their_solutions(tmp_path):
    path = tmp_path / "eval_results.json"
    runs = [{"task_id": "t/1", "solution": "x", "base_status": "pass"}]
    path.write_text(json.dumps({"date": "", "eval": {"t/1": runs}}))
    assert [row for _, row in samples.folder_rows(str(path), known())] == [
        {"task_id": "t/1", "solution": "x"}
    ]
    path.write_text(json.dumps({"eval": {"t/1": {"nfiles": 1}}}))
    with pytest.raises(ValueError, match="eval of t/1: expected a list of objects"):
        samples.folder_rows(str(path), known())
    path.write_text(json.dumps({"t/1": "x"}))
    with pytest.raises(ValueError, match="expected a list of objects, a list of lists"):
        samples.folder_rows(str(path), known())


def test_a_folder_of_programs_is_read_by_the_names_of_its_folders(tmp_path):
    for name, text in (("t_1/0.py", "a"), ("t_1/10.py", "c"), ("t_1/2.py", "b"), ("t_2/0.py", "d")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [
        (row["task_id"], row["solution"]) for _, row in samples.folder_rows(str(tmp_path), known())
    ]
    assert found == [("t/1", "a"), ("t/1", "b"), ("t/1", "c"), ("t/2", "d")]


def test_what_an_entry_was_sampled_at_is_stated_or_follows_from_its_samples(tmp_path, toy):
    tasks = grade.load_problems(toy)
    for text, n, stated, expected in [
        ("a={}", 1, (), "a/0@0"),
        ("a={}", 2, (), "a/0@1"),
        ("a={}", 2, ("a=0.8",), "a/0@0.8"),
    ]:
        file = lines(tmp_path / "a.jsonl", rows("good", n))
        (one,) = entries.entrants([text.format(file)], temperature=stated)
        found = entries.read([one], tasks)[0]
        assert {response.source for response in found} == {expected}


def test_every_task_is_flagged_or_clean_and_a_part_has_the_rates_of_its_tasks():
    rows = [TaskScore(m, "b", f"t/{i}", 4, c) for m in "xy" for i, c in enumerate((4, 1, 0))]
    found = exam.by_leak(rows, {"t/0"}, ks=(1, 2, 10))
    assert list(found) == ["all", "clean", "flagged"]
    assert [(r.model, r.metric, r.n_tasks) for r in found["clean"]] == [
        ("x", "pass@1", 2), ("x", "pass@2", 2), ("y", "pass@1", 2), ("y", "pass@2", 2)
    ]  # fmt: skip
    assert found["clean"] == [r for m in "xy" for r in results.rates(m, rows[1:3], (1, 2))]
    assert [r.value for r in found["flagged"]] == [1.0] * 4
    board = results.board(rows, ks=(2,), margin=0.02, seed=0)
    assert [rate for entry in board.entries for rate in entry.rates] == found["all"]
    assert exam.by_leak(rows, set())["flagged"] == []
    seeds = [TaskScore("m", "b", "t", 1, c, seed=c) for c in (0, 1)]
    assert [(r.model, r.value) for r in exam.by_leak(seeds, set())["all"]] == [
        ("m/0@0", 0.0), ("m/1@0", 1.0)
    ]  # fmt: skip


def test_the_flagged_tasks_are_those_of_the_benchmark_asked_for():
    leaks = [Leak("r", name, f"{name}/1", "code", 1.0, "") for name in ("a", "b")]
    assert exam.flagged_tasks(leaks, "a") == {"a/1"}
    assert exam.flagged_tasks([], "a") == set()
    with pytest.raises(ValueError, match="no leak of c: these are of a, b"):
        exam.flagged_tasks(leaks, "c")


def test_the_verb_prints_the_parts_under_the_board(tmp_path, toy):
    leaks, mine = tmp_path / "leaks.jsonl", lines(tmp_path / "mine.jsonl", rows("fair"))
    found = [Leak("r", "toy", f"t/{i}", "execution", 1.0, "") for i in (1, 2, 3)]
    store.write(leaks, found)
    done = run(toy, mine, "--flagged", leaks)
    assert done.exit_code == 0, done.output
    shown = [line.split()[:5] for line in done.output.splitlines() if line.startswith("mine")]
    assert shown == [
        ["mine", "pass@1", "12", "all", "50.00"],
        ["mine", "pass@1", "9", "clean", "44.44"],
        ["mine", "pass@1", "3", "flagged", "66.67"],
    ]
    assert "easier than the others" in " ".join(done.output.split())
    store.write(leaks, [Leak("r", "mbpp", "t/1", "code", 1.0, "")])
    done = run(toy, mine, "--flagged", leaks)
    assert done.exit_code == 2 and "no leak of toy: these are of mbpp" in done.output


def test_the_audit_of_ones_own_tasks_names_them_as_the_board_does(tmp_path):
    folder = config.home() / "notebooks" / "examples"
    tasks, found = folder / "problems.jsonl", tmp_path / "found.jsonl"
    how = ("--benchmarks", tasks, "--execute", "--out", found)
    done = rrtf("audit", folder / "rows.jsonl", *how)
    assert done.exit_code == 0, done.output
    leaks = {row["benchmark_task_id"] for _, row in store.read_rows(found) if not row["chance"]}
    assert leaks == {"own/0"}
    board = run(tasks, f"teacher={folder / 'teacher.jsonl'}", "--flagged", found)
    parts = [line.split()[2:4] for line in board.output.splitlines() if "pass@1  " in line]
    assert ["1", "flagged"] in parts and ["2", "clean"] in parts, board.output
    shutil.copy(tasks, tmp_path / "problems.jsonl")
    both = f"{tasks},{tmp_path / 'problems.jsonl'}"
    twice = rrtf("audit", folder / "rows.jsonl", "--benchmarks", both)
    assert twice.exit_code == 2 and "two are called problems" in twice.output
