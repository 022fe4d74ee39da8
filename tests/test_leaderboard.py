"""The board and the command `evaluate`: ranks, paired tests, and who is put on it."""

import json
import os
import signal
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rrtf import __main__, stats, store
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


def run(*arguments: str, stdin: str | None = None):
    before = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(
            __main__.app, ["evaluate", *map(str, arguments)], input=stdin, env={"COLUMNS": "80"}
        )
    finally:
        signal.signal(signal.SIGTERM, before)


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


def test_single_samples_are_compared_by_mcnemar_and_holm_runs_over_all_pairs():
    columns = {"a": [1] * 30, "b": [1] * 15 + [0] * 15, "c": [1] * 12 + [0] * 18}
    board = board_of(scores(**columns))
    raw = []
    for row, (a, b) in zip(board.pairs, combinations("abc", 2), strict=True):
        only_a = sum(x > y for x, y in zip(columns[a], columns[b], strict=True))
        raw.append(stats.mcnemar(only_a, 0))
        assert (row.a, row.b, row.test, row.p) == (a, b, "exact McNemar", raw[-1])
        assert row.difference == pytest.approx(only_a / 30)
    assert [row.p_holm for row in board.pairs] == stats.holm(raw)
    assert [entry.told_apart for entry in board.entries] == [None, True, True]
    assert results.matrix(board)["a", "b"] == "+50.0*"


def test_several_samples_or_families_call_for_a_permutation():
    ten = [TaskScore("ten", "toy", f"t{i:03}", 10, i % 8, 0, 1.0) for i in range(20)]
    board = board_of(ten + scores(one=[1] * 20))
    (row,) = board.pairs
    differences = [1 - stats.pass_at_k(10, i % 8, 1) for i in range(20)]
    assert row.test == "paired permutation over tasks"
    assert row.p == stats.permutation(differences, seed=0)
    grouped = [
        TaskScore(name, "toy", f"t{i}", 1, int(i % 5 < least), family=f"f{i % 5}")
        for name, least in (("x", 4), ("y", 2))
        for i in range(20)
    ]
    (row,) = board_of(grouped).pairs
    assert row.test == "paired permutation over families" and row.n_families == 5


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
    apart = [r for r in found if (r.model == "a") == (r.task_id in ("t000", "t001"))]
    with pytest.raises(ValueError, match="a, b: no task that all of them answered"):
        board_of(apart)


def test_scores_that_make_no_board_are_refused():
    with pytest.raises(ValueError, match="of one benchmark; these scores are of: none"):
        board_of([])
    with pytest.raises(ValueError, match="these scores are of: other, toy"):
        board_of([*scores(a=[1]), TaskScore("a", "other", "t", 1, 1)])
    with pytest.raises(ValueError, match="t000: two scores of a"):
        board_of([*scores(a=[1]), *scores(a=[0])])


def test_a_model_that_comes_twice_is_named_by_its_label():
    twice = [TaskScore("m", "toy", "t", 1, 1, seed, 0.0) for seed in (0, 1)]
    names = list(results.by_entry([*twice, *[TaskScore("x", "toy", "t", 1, 1)]]))
    assert names == ["m/0@0", "m/1@0", "x"]


def test_one_task_has_a_rate_and_no_test():
    board = board_of(scores(a=[1], b=[0]))
    assert board.pairs == () and [entry.rank for entry in board.entries] == [1, 2]
    assert [entry.told_apart for entry in board.entries] == [None, None]


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


def test_files_become_a_board_with_paired_tests(tmp_path, toy):
    files = [f"{kind}={lines(tmp_path / f'{kind}.jsonl', rows(kind))}" for kind in BODIES]
    result = run(toy, *files)
    assert result.exit_code == 0, result.output
    shown = [line.split() for line in result.stdout.splitlines()]
    assert next(s for s in shown if "good" in s)[:4] == ["1", "good", "pass@1", "100.00"]
    assert next(s for s in shown if "fair" in s)[:5] == ["2", "~", "fair", "pass@1", "50.00"]
    assert next(s for s in shown if "poor" in s)[:4] == ["3", "poor", "pass@1", "0.00"]
    assert ["1", "good", "+50.0", "+100.0*"] in shown
    assert "exact McNemar, after Holm over all pairs (3)" in " ".join(result.stdout.split())
    assert max(map(len, result.stdout.splitlines())) <= 80


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
        again = CliRunner().invoke(__main__.app, ["grade", toy, str(file), "--extract", "program"])
        assert ["PASS", str(expected)] in [line.split()[:2] for line in again.stdout.splitlines()]
    verdicts = [row for _, row in store.read_rows(out / "verdicts.jsonl")]
    assert len(verdicts) == 36 and {row["source"] for row in verdicts} == {"a/0@1", "b/0@0"}


def test_the_same_command_goes_on_from_what_is_kept(tmp_path, toy):
    out, file = tmp_path / "out", lines(tmp_path / "a.jsonl", rows("good"))
    first, again = (run(toy, file, "--out", out) for _ in range(2))
    assert first.exit_code == again.exit_code == 0
    assert first.stdout == again.stdout
    assert len(list((out / "shards").glob("*.jsonl"))) == 1


def test_every_file_has_its_own_fields_and_extraction(tmp_path, toy):
    texts = [{"id": r["task_id"], "out": r["completion"] + "\nprint(1"} for r in rows("good")]
    a = f"a={lines(tmp_path / 'a.jsonl', texts)}"
    b = f"b={lines(tmp_path / 'b.jsonl', rows('fair'))}"
    names = ("--rename", "a:id=task_id", "--rename", "a:out=completion")
    assert " 100.00" in run(toy, a, b, *names, "--extract", "a=raw").stdout
    assert " 100.00" not in run(toy, a, b, *names, "--extract", "a=program").stdout
    result = run(toy, a, b)
    assert result.exit_code == 2 and "a.jsonl:1,2" in result.stderr


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("=x",), "'=x': expected NAME=FILE"),
        (("{a}", "--extract", "best"), "--extract 'best': expected auto"),
        (("{a}", "--extract", "raw", "--extract", "program"), "raw and program for all"),
        (("{a}", "--rename", "b:x=y"), "--rename b:x=y: no entry 'b'"),
        (("{a}", "--rename", "x"), "--rename 'x': expected THEIRS=OURS"),
        (("{a}", "--temperature", "a=hot"), "--temperature hot: expected a number"),
        (("-", "b=-"), "only one file of samples can be standard input"),
        (("--model", "nano-nobody"), "the shipped model 'nano-nobody' is not there"),
        (("--model", "./nowhere"), "nowhere: no such model folder"),
    ],
)
def test_what_is_asked_for_wrongly_is_named_before_anything_runs(tmp_path, toy, arguments, says):
    named = {"a": lines(tmp_path / "a.jsonl", rows("good"))}
    result = run(toy, *(text.format(**named) for text in arguments), stdin="")
    assert result.exit_code == 2, result.output
    assert says in result.stderr and result.stdout == ""


def test_a_part_of_the_tasks_is_allowed_if_asked_for_and_named(tmp_path, toy):
    short = lines(tmp_path / "short.jsonl", rows("good", tasks=range(1, 7)))
    result = run(toy, short, lines(tmp_path / "all.jsonl", rows("fair")), "--allow-missing")
    assert result.exit_code == 0, result.output
    assert "toy, 6 tasks of 12: NOT the whole benchmark" in result.stdout
    assert "(answered: short 6, all 12)" in " ".join(result.stdout.split())


def test_several_sources_of_one_file_are_several_entries(tmp_path, toy):
    both = [r | {"source": kind} for kind in ("good", "poor") for r in rows(kind)]
    result = run(toy, f"x={lines(tmp_path / 'x.jsonl', both)}")
    assert result.exit_code == 0
    assert "x:good" in result.stdout and "x:poor" in result.stdout


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


def test_a_list_of_texts_is_as_many_samples(tmp_path, toy):
    lists = [{"task_id": f"t/{i}", "samples": [BODIES[k].format(i) for k in ("good", "poor")]}
             for i in range(1, N + 1)]  # fmt: skip
    result = run(toy, lines(tmp_path / "a.jsonl", lists), "--rename", "samples=completion")
    assert result.exit_code == 0, result.output
    assert " 50.00" in result.stdout


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


def one_each(model: str, answers: str, **fields) -> list[TaskScore]:
    """One sample a task, `1` for a right one."""
    return [TaskScore(model, "b", f"t/{i}", 1, int(c), **fields) for i, c in enumerate(answers)]


def test_every_task_is_flagged_or_clean_and_the_parts_add_up():
    found = exam.by_leak(one_each("m", "1110100000"), {"t/0", "t/1", "t/2", "t/3"})
    (every,), (clean,), (leaking,) = (found[part] for part in exam.PARTS)
    assert (every.n_tasks, clean.n_tasks, leaking.n_tasks) == (10, 6, 4)
    assert (every.value, clean.value, leaking.value) == (0.4, pytest.approx(1 / 6), 0.75)
    interval = stats.wilson(3, 4)
    assert (leaking.low, leaking.high) == (interval.low, interval.high)


def test_several_samples_give_pass_at_k_of_every_part_and_model():
    rows = [TaskScore(m, "b", f"t/{i}", 4, c) for m in "xy" for i, c in enumerate((4, 1, 0))]
    found = exam.by_leak(rows, {"t/0"}, ks=(1, 2, 10))
    assert [(r.model, r.metric) for r in found["clean"]] == [
        ("x", "pass@1"), ("x", "pass@2"), ("y", "pass@1"), ("y", "pass@2")]  # fmt: skip
    assert found["clean"][1].value == pytest.approx(stats.pass_at_k(4, 1, 2) / 2)
    assert found["flagged"][0].value == 1.0


def test_seeds_and_temperatures_are_kept_apart():
    rows = one_each("m", "10", seed=1) + one_each("m", "11", seed=2)
    assert [r.value for r in exam.by_leak(rows, set())["all"]] == [0.5, 1.0]


def test_a_part_without_tasks_has_no_rate():
    found = exam.by_leak(one_each("m", "10"), set())
    assert found["flagged"] == [] and found["clean"][0] == found["all"][0]


def test_the_whole_is_the_rate_of_the_board():
    rows = one_each("m", "110") + one_each("n", "100")
    whole = {row.model: row for row in exam.by_leak(rows, {"t/0"})["all"]}
    for entry in results.board(rows, margin=0.02, seed=0).entries:
        assert entry.rates[0] == whole[entry.name]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="t/9: flagged, but without a score"):
        exam.by_leak(one_each("m", "10"), {"t/9"})
    with pytest.raises(ValueError, match="one benchmark"):
        exam.by_leak([], set())
    with pytest.raises(ValueError, match="two scores of one task"):
        exam.by_leak(one_each("m", "1") * 2, set())


def test_the_flagged_tasks_are_those_of_the_benchmark_asked_for():
    leaks = [Leak("r", name, f"{name}/1", "code", 1.0, "") for name in ("a", "b")]
    assert exam.flagged_tasks(leaks, "a") == {"a/1"}
    assert exam.flagged_tasks([], "a") == set()
    with pytest.raises(ValueError, match="no leak of c: these are of a, b"):
        exam.flagged_tasks(leaks, "c")


def test_a_published_model_s_rate_is_that_of_its_parts_together():
    name = "generations/starcoder2-15b-instruct/humaneval.eval_results.json.gz"
    path = Path(os.environ.get("RRTF_DATA", "")) / name
    if not os.environ.get("RRTF_DATA") or not path.exists():
        pytest.skip("RRTF_DATA names no folder with published generations")
    runs = store.read_json(path)["eval"]
    rows = [TaskScore("starcoder2", "humaneval", task, 1, int(run[0]["base_status"] == "pass"))
            for task, run in runs.items()]  # fmt: skip
    found = exam.by_leak(rows, {task for task in runs if int(task.partition("/")[2]) < 40})
    (every,), (clean,), (leaking,) = (found[part] for part in exam.PARTS)
    assert round(100 * every.value, 1) == 72.6
    assert (leaking.n_tasks, clean.n_tasks) == (40, 124)
    together = 40 * leaking.value + 124 * clean.value
    assert together == pytest.approx(164 * every.value)


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
