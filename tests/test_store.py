"""Records on disk: whole or absent, named where they are wrong; stages that know they are done."""

import gzip
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rrtf import config, store
from rrtf.records import Execution, Outcome, Problem, RankedGroup, Response, TaskScore

RESPONSES = [Response("t/1", "student", i, f"text {i}\n", "x = 'ä\u2028'", 3) for i in range(3)]
EXECUTION = Execution("t/1", "s", 0, Outcome.PASS, "", 3, 3, "process")
GROUP = RankedGroup(
    "t/1", "def f():", ("a", "b"), ("teacher", "student"),
    (Outcome.PASS, Outcome.FAILED_TESTS), (3.5, 2.0), 0,
)  # fmt: skip
SCORES = [TaskScore("base", "nano", f"t/{i}", 4, i, temperature=0.2) for i in range(3)]
WHOLE = store.encode(RESPONSES[:1], ".jsonl")
STAGE = "00_rrtf_by_hand"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_HOME", str(tmp_path))
    return tmp_path


def opened() -> store.Stage:
    return store.Stage.open(STAGE, config.resolve("smoke", STAGE))


# --- records -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("records", [RESPONSES, [EXECUTION], [GROUP], SCORES], ids=lambda r: "")
def test_records_come_back_equal_from_every_form(tmp_path, name, records):
    path = tmp_path / name
    store.write(path, records)
    assert store.read(path, type(records[0])) == records


def test_no_records_at_all_come_back_as_none(tmp_path):
    for name in ("a.jsonl", "a.parquet"):
        store.write(tmp_path / name, [])
        assert store.read(tmp_path / name, Response) == []


def test_a_problem_on_disk_has_humanevals_field_names(tmp_path, add_problem):
    store.write(tmp_path / "p.jsonl", [add_problem])
    row = json.loads((tmp_path / "p.jsonl").read_text())
    assert row["test"] == add_problem.tests and row["canonical_solution"] == add_problem.reference
    assert "tests" not in row and "reference" not in row
    assert store.read(tmp_path / "p.jsonl", Problem) == [add_problem]


def test_humanevals_own_lines_are_read_and_their_other_fields_ignored(tmp_path):
    row = {"task_id": "HumanEval/0", "prompt": "p", "entry_point": "f", "test": "t", "level": 2}
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    (problem,) = store.read(path, Problem)
    assert problem.tests == "t" and problem.reference == ""


def test_json_lists_lines_and_gzip_are_told_by_the_name(tmp_path):
    rows = [{"task_id": "a", "source": "s", "index": 0, "text": "", "program": ""}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    (tmp_path / "b.jsonl").write_text(json.dumps(rows[0]) + "\n\n")
    found = [store.read(tmp_path / name, Response) for name in ("a.json", "a.json.gz", "b.jsonl")]
    assert found[0] == found[1] == found[2] == [Response("a", "s", 0, "", "")]


@pytest.mark.parametrize(
    "name, data, says",
    [
        ("a.jsonl", WHOLE + b'{"task', "a.jsonl:2: not a JSON line"),
        ("a.jsonl", b"[1, 2]\n", "a.jsonl:1: expected a JSON object, found list"),
        ("a.jsonl", b'{"task_id": "x"}\n', "a.jsonl:1: Response without source, index"),
        ("a.jsonl", WHOLE + b"\xff\xfe\n", "a.jsonl:2: not UTF-8"),
        ("a.jsonl.gz", gzip.compress(WHOLE * 999)[:-12], "truncated or damaged gzip"),
        ("a.jsonl.gz", b"not gzip", "truncated or damaged gzip"),
        ("a.json", b"[1,", "a.json: not JSON"),
        ("a.json", b"{}", "a.json: expected a JSON list"),
        ("a.parquet", b"PAR1 but no more", "a.parquet: "),
    ],
)
def test_a_broken_file_is_an_error_that_names_file_and_line(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError) as caught:
        store.read(tmp_path / name, Response)
    assert says in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    for name in ("none.jsonl", "none.parquet"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
            store.read(tmp_path / name, Response)


def test_half_a_surrogate_pair_is_named_by_file_and_line(tmp_path):
    rows = [store.to_row(GROUP), store.to_row(replace(GROUP, responses=("\ud83d", "b")))]
    path = tmp_path / "g.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for read in (lambda: store.read(path, RankedGroup), lambda: list(store.rows(str(path)))):
        with pytest.raises(ValueError, match=r"g\.jsonl:2: half a surrogate pair"):
            read()


def test_a_value_that_is_no_outcome_is_an_error_that_names_the_line(tmp_path):
    row = store.to_row(EXECUTION) | {"outcome": "GREAT"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"a\.jsonl:1: .*GREAT"):
        store.read(tmp_path / "a.jsonl", Execution)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("task_id", 11, "task_id: no text"), ("test", ["x"], "test: no text"),
     ("spec", {"a": 1}, "spec: no text"), ("depth", "1", "depth: no whole number"),
     ("depth", True, "depth: no whole number"), ("depth", 1.5, "depth: no whole number")],
)  # fmt: skip
def test_a_field_that_holds_another_kind_of_value_is_named(
    tmp_path, add_problem, field, value, says
):
    row = store.to_row(add_problem)
    path = tmp_path / "a.jsonl"
    store.write(path, [row, row | {field: value}])
    with pytest.raises(ValueError, match=f"a.jsonl:2: {says}"):
        store.read(path, Problem)
    store.write(path, [row | {"spec": None, "depth": None}])
    assert store.read(path, Problem) == [add_problem], "empty is as not given"


def test_equal_records_are_equal_bytes():
    for suffix in (".jsonl", ".parquet"):
        assert store.encode(SCORES, suffix) == store.encode(list(SCORES), suffix)


# --- bytes -------------------------------------------------------------------------------------


def test_a_file_killed_while_being_written_is_never_half_there(tmp_path):
    program = (
        "import os; from pathlib import Path; from rrtf import store\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
        f"store.write_bytes(Path({str(tmp_path / 'a.txt')!r}), b'new')\n"
    )
    (tmp_path / "a.txt").write_text("old")
    done = subprocess.run([sys.executable, "-c", program], cwd=config.home())
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_write_that_fails_names_the_file_and_leaves_nothing_beside(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*a\.txt: No space left on device"):
        store.write_bytes(tmp_path / "a.txt", b"x")
    assert list(tmp_path.iterdir()) == []


def test_the_hash_of_a_folder_sees_names_and_contents_but_nothing_hidden(tmp_path):
    (tmp_path / "f" / "g").mkdir(parents=True)
    (tmp_path / "f" / "g" / "a").write_text("1")
    before = store.sha256(tmp_path / "f")
    (tmp_path / "f" / ".progress").write_text("x")
    assert store.sha256(tmp_path / "f") == before
    (tmp_path / "f" / "g" / "a").rename(tmp_path / "f" / "g" / "b")
    assert store.sha256(tmp_path / "f") != before


# --- shards ------------------------------------------------------------------------------------


def echo(batch: list[int]) -> list[Response]:
    return [replace(RESPONSES[0], index=i) for i in batch]


def test_finished_shards_are_not_worked_again_and_the_result_is_the_same(tmp_path):
    worked: list = []

    def work(batch):
        worked.append(batch)
        if len(worked) == 2:
            raise KeyboardInterrupt
        return echo(batch)

    batches = [[0, 1], [2], [3, 4]]
    with pytest.raises(KeyboardInterrupt):
        store.through_shards(tmp_path, batches, list, work, Response)
    result = store.through_shards(tmp_path, batches, list, work, Response)
    assert worked == [[0, 1], [2], [2], [3, 4]]
    assert result == echo([0, 1, 2, 3, 4])


def test_another_key_is_another_shard(tmp_path):
    for setting in (0.2, 0.8):
        store.through_shards(tmp_path, [[0]], lambda b, s=setting: [b, s], echo, Response)
    assert len(list(tmp_path.iterdir())) == 2


def test_progress_of_shards_is_told_from_first_to_last(tmp_path):
    told: list = []
    store.through_shards(
        tmp_path, [[0], [1]], list, echo, Response, progress=lambda *at: told.append(at)
    )
    assert told == [(1, 2), (2, 2)]


# --- stages ------------------------------------------------------------------------------------


def test_a_finished_stage_is_fresh_until_settings_inputs_or_outputs_change(home):
    stage = opened()
    assert store.stale("smoke", STAGE, stage.settings) == "not run yet"
    (home / "mine.txt").write_text("1")
    stage.data(home / "mine.txt")
    stage.save("rows.jsonl", RESPONSES)
    stage.finish(counts={"rows": 3})
    assert store.stale("smoke", STAGE, stage.settings) == ""
    changed = stage.settings | {"seed": 1}
    assert store.stale("smoke", STAGE, changed) == "settings changed: seed"
    (home / "mine.txt").write_text("2")
    assert "mine.txt changed" in store.stale("smoke", STAGE, stage.settings)
    (home / "mine.txt").unlink()
    assert "mine.txt is gone" in store.stale("smoke", STAGE, stage.settings)
    (home / "mine.txt").write_text("1")
    (stage.folder / "rows.jsonl").write_text("")
    assert "output rows.jsonl" in store.stale("smoke", STAGE, stage.settings)


def test_opening_a_stage_changes_nothing_and_its_first_save_takes_the_manifest_away(home):
    opened().finish(counts={})
    stage = opened()
    assert store.manifest("smoke", STAGE)
    stage.save("other.jsonl", [])
    assert store.manifest("smoke", STAGE) is None


def test_where_a_person_runs_a_notebook_a_line_below_the_cell_says_how_long_it_takes(
    home, monkeypatch
):
    shown, lines = [], []
    handle = SimpleNamespace(update=lambda line, raw: lines.append(line["text/plain"]))

    def display(line, raw, display_id):
        shown.append(line["text/plain"])
        return handle

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    opened().progress("updates")(5, 5)
    tell = opened().progress("updates")
    tell(1, 2), tell(2, 2)
    assert len(shown) == 2 and len(lines) == 1 and "2/2 [00:0" in lines[0]
    monkeypatch.setenv(store.RUN_MARKER, "a run")
    opened().progress("updates")(5, 5)
    assert len(shown) == 2, "the runner shows it"


@pytest.mark.parametrize("text", ["", '{"settings": {', "[]", "{}"])
def test_a_damaged_manifest_means_not_run_yet(home, text):
    stage = opened()
    (stage.folder / "manifest.json").write_text(text)
    assert store.stale("smoke", STAGE, stage.settings) == "not run yet"


def test_what_differs_between_equal_runs_stays_outside_the_hashes(home):
    manifests = []
    for seconds in (1.0, 2.0):
        stage = opened()
        stage.save("rows.parquet", SCORES)
        stage.note("timings.json", {"seconds": seconds})
        stage.finish(counts={"rows": 3}, figures={"pass_at_1": 0.5})
        manifests.append(store.manifest("smoke", STAGE))
    assert manifests[0]["outputs"] == manifests[1]["outputs"]
    assert list(manifests[0]["outputs"]) == ["rows.parquet"]
    assert manifests[0]["beside"] == ["timings.json"]


def test_reading_from_a_stage_that_was_not_run_says_which_to_run(home):
    with pytest.raises(FileNotFoundError, match="run stage 04_rank first"):
        opened().input("rank/groups.jsonl")


def test_an_input_is_recorded_with_the_hash_it_had_when_read(home):
    stage = opened()
    stage.save("rows.jsonl", RESPONSES)
    stage.finish(counts={})
    after = store.Stage.open("evolve", config.resolve("smoke", "evolve"))
    assert after.load("rrtf_by_hand/rows.jsonl", Response) == RESPONSES
    assert after.inputs == {f"{STAGE}/rows.jsonl": stage.outputs["rows.jsonl"]}


def test_a_file_of_the_checkout_is_recorded_by_its_place_in_it(home):
    stage = opened()
    stage.data(config.home() / "data" / "README.md")
    assert list(stage.inputs) == ["data/README.md"]
    stage.finish(counts={})
    assert store.stale("smoke", STAGE, stage.settings) == ""
