"""Rates of the tasks that the training data leaks, beside those of the others."""

import json
import os
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rrtf import __main__, stats, store
from rrtf.evaluate import exam, results
from rrtf.records import Leak, TaskScore


def scores(model: str, answers: str, **fields) -> list[TaskScore]:
    """One sample a task, `1` for a right one."""
    return [TaskScore(model, "b", f"t/{i}", 1, int(c), **fields) for i, c in enumerate(answers)]


def test_every_task_is_flagged_or_clean_and_the_parts_add_up():
    found = exam.by_leak(scores("m", "1110100000"), {"t/0", "t/1", "t/2", "t/3"})
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
    rows = scores("m", "10", seed=1) + scores("m", "11", seed=2)
    assert [r.value for r in exam.by_leak(rows, set())["all"]] == [0.5, 1.0]


def test_a_part_without_tasks_has_no_rate():
    found = exam.by_leak(scores("m", "10"), set())
    assert found["flagged"] == [] and found["clean"][0] == found["all"][0]


def test_the_whole_is_the_rate_of_the_board():
    rows = scores("m", "110") + scores("n", "100")
    whole = {row.model: row for row in exam.by_leak(rows, {"t/0"})["all"]}
    for entry in results.board(rows, margin=0.02, seed=0).entries:
        assert entry.rates[0] == whole[entry.name]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="t/9: flagged, but without a score"):
        exam.by_leak(scores("m", "10"), {"t/9"})
    with pytest.raises(ValueError, match="one benchmark"):
        exam.by_leak([], set())
    with pytest.raises(ValueError, match="two scores of one task"):
        exam.by_leak(scores("m", "1") * 2, set())


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


@pytest.fixture
def toy(tmp_path) -> tuple[Path, Path]:
    """Four tasks and an answer to each, of which the first two are right."""
    tasks = [
        {
            "task_id": f"t/{i}",
            "prompt": "def add(a):\n",
            "entry_point": "add",
            "test": f"def check(candidate):\n    assert candidate(1) == {i + 1}\n",
        }
        for i in range(4)
    ]
    answers = [{"task_id": f"t/{i}", "completion": f"    return a + {i % 2}\n"} for i in range(4)]
    for name, rows in (("toy", tasks), ("mine", answers)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "toy.jsonl", tmp_path / "mine.jsonl"


def run(*arguments: object):
    before = signal.getsignal(signal.SIGTERM)
    try:
        given = ["evaluate", *map(str, arguments), "--isolation", "none", "--workers", "1"]
        return CliRunner().invoke(__main__.app, given, env={"COLUMNS": "80"})
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_verb_prints_the_parts_under_the_board(toy, tmp_path):
    leaks = tmp_path / "leaks.jsonl"
    store.write(leaks, [Leak("r", "toy", "t/0", "execution", 1.0, "f passes 1 of 1 tests")])
    done = run(*toy, "--flagged", leaks)
    assert done.exit_code == 0, done.output
    rows = [line.split()[:5] for line in done.output.splitlines() if line.startswith("mine")]
    assert rows == [
        ["mine", "pass@1", "4", "all", "50.00"],
        ["mine", "pass@1", "3", "clean", "33.33"],
        ["mine", "pass@1", "1", "flagged", "100.00"],
    ]
    assert "easier than the others" in " ".join(done.output.split())


def test_leaks_of_another_benchmark_are_refused_before_anything_runs(toy, tmp_path):
    leaks = tmp_path / "leaks.jsonl"
    store.write(leaks, [Leak("r", "mbpp", "t/0", "code", 1.0, "")])
    done = run(*toy, "--flagged", leaks)
    assert done.exit_code == 2 and "no leak of toy: these are of mbpp" in done.output
