"""Records on disk: whole or absent, named where they are wrong; stages that know they are done."""

import csv
import functools
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pytest
from pyarrow import parquet

from rrtf import config, store
from rrtf.records import Execution, Outcome, Problem, RankedGroup, Response, TaskScore

RESPONSES = [Response("t/1", "student", i, f"text {i}\n", "x = 'ä\u2028'", 3) for i in range(3)]
EXECUTION = Execution("t/1", "s", 0, Outcome.PASS, "", 3, 3, "process")
GROUP = RankedGroup(
    "t/1", "def f():", ("a", "b"), ("teacher", "student"),
    (Outcome.PASS, Outcome.FAILED_TESTS), (3.5, 2.0), 0,
)  # fmt: skip
SCORES = [TaskScore("base", "nano", f"t/{i}", 4, i, temperature=0.2) for i in range(3)]
STAGE = "00_rrtf_by_hand"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_HOME", str(tmp_path))
    return tmp_path


def opened() -> store.Stage:
    return store.Stage.open(STAGE, config.resolve("smoke", STAGE))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("records", [RESPONSES, [EXECUTION], [GROUP], SCORES, []], ids=lambda r: "")
def test_records_come_back_equal_from_every_form(tmp_path, name, records):
    path = tmp_path / name
    store.write(path, records)
    assert store.read(path, type(records[0]) if records else Response) == records


def test_a_table_keeps_every_cell_in_csv_markdown_and_latex(tmp_path):
    rows = [{"name": 'a|b, "c"\nd', "n": 3}, {"name": "50 % of x_1", "p": 0.5, "n": None}]
    for end in store.TABLES:
        store.write(tmp_path / f"t{end}", rows)
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [*csv.reader(file)] == [["name", "n", "p"], [rows[0]["name"], "3", ""],
                                       ["50 % of x_1", "", "0.5"]]  # fmt: skip
    assert (tmp_path / "t.md").read_text().splitlines() == [
        "| name | n | p |", "| --- | ---: | ---: |", r'| a\|b, "c"<br>d | 3 |  |',
        "| 50 % of x_1 |  | 0.5 |",
    ]  # fmt: skip
    lines = (tmp_path / "t.tex").read_text().splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}" and lines[-1] == r"\end{tabular}"
    assert r"50 \% of x\_1 &  & 0.5 \\" in lines


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


@pytest.mark.parametrize(
    "row, kind, says",
    [
        ([1, 2], Response, "list"),
        ({"task_id": "x"}, Response, "Response without source, index"),
        (store.to_row(EXECUTION) | {"outcome": "GREAT"}, Execution, "GREAT"),
    ],
)
def test_a_row_that_is_no_record_is_named_by_file_and_line(tmp_path, row, kind, says):
    (tmp_path / "a.jsonl").write_text("\n" + json.dumps(row))
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*{says}"):
        store.read(tmp_path / "a.jsonl", kind)


def test_half_a_surrogate_pair_is_named_by_file_and_line(tmp_path):
    rows = [store.to_row(GROUP), store.to_row(replace(GROUP, responses=("\ud83d", "b")))]
    path = tmp_path / "g.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for read in (lambda: store.read(path, RankedGroup), lambda: list(store.rows(str(path)))):
        with pytest.raises(ValueError, match=r"g\.jsonl:2: half a surrogate pair"):
            read()


@pytest.mark.parametrize(
    ("field", "value"),
    [("task_id", 11), ("test", ["x"]), ("spec", {"a": 1}), ("depth", "1"), ("depth", True),
     ("depth", 1.5)],
)  # fmt: skip
def test_a_field_that_holds_another_kind_of_value_is_named(tmp_path, add_problem, field, value):
    row = store.to_row(add_problem)
    path = tmp_path / "a.jsonl"
    store.write(path, [row, row | {field: value}])
    with pytest.raises(ValueError, match=f"a.jsonl:2: {field}: no "):
        store.read(path, Problem)
    store.write(path, [row | {"spec": None, "depth": None}])
    assert store.read(path, Problem) == [add_problem], "empty is as not given"


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


BATCHES = [[0, 1], [2], [3, 4]]


def echo(batch: list[int]) -> list[Response]:
    return [replace(RESPONSES[0], index=i) for i in batch]


def last_first(left, put) -> None:
    for number in reversed(left):
        put(number, echo(BATCHES[number]))


def through(folder, work=last_first, **how) -> list[Response]:
    given = {"key": list, "kind": Response} | how
    return store.through_shards(folder, BATCHES, work=work, **given)


def test_a_batch_that_is_there_is_not_worked_again_and_the_result_is_the_same(tmp_path):
    worked, told = [], []

    def interrupted(left, put):
        worked.append(left)
        put(1, echo([2]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        through(tmp_path, interrupted)

    def go_on(left, put):
        worked.append(left)
        last_first(left, put)

    result = through(tmp_path, go_on, progress=lambda *at: told.append(at))
    assert worked == [[0, 1, 2], [0, 2]] and told == [(1, 3), (2, 3), (3, 3)]
    assert result == echo([0, 1, 2, 3, 4]) == through(tmp_path, None) == through(None)
    through(tmp_path, key=lambda batch: [batch, 0.8])
    assert len(list(tmp_path.iterdir())) == 6, "another key is another shard"


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "exchanged", "garbage"])
def test_a_damaged_shard_is_named_and_never_trusted(tmp_path, damage):
    result = through(tmp_path)
    path, other, _ = sorted(tmp_path.iterdir())
    text = path.read_text()
    wrong = {
        "flipped": text.replace('"n_tokens": 3', '"n_tokens": 4', 1),
        "cut": text[: text.rindex("{")],
        "emptied": "",
        "exchanged": other.read_text(),
        "garbage": text[: len(text) // 2],
    }
    assert wrong[damage] != text
    path.write_text(wrong[damage])
    with pytest.raises(ValueError, match=f"{path.name}: damaged"):
        through(tmp_path)
    path.unlink()
    assert through(tmp_path) == result and path.read_text() == text


def test_a_finished_stage_is_fresh_until_settings_inputs_or_outputs_change(home):
    def stale(**changed):
        return store.stale("smoke", STAGE, stage.settings | changed)

    stage = opened()
    assert stale() == "not run yet"
    mine = home / "mine.txt"
    mine.write_text("1")
    stage.data(mine)
    stage.data(config.home() / "data" / "README.md")
    assert list(stage.inputs)[1] == "data/README.md", "by its place in the checkout"
    stage.save("rows.jsonl", RESPONSES)
    stage.finish(counts={"rows": 3})
    assert stale() == "" and "seed" in stale(seed=1)
    mine.write_text("2")
    assert "mine.txt changed" in stale()
    mine.unlink()
    assert "mine.txt is gone" in stale()
    mine.write_text("1")
    (stage.folder / "rows.jsonl").write_text("")
    assert "output rows.jsonl" in stale()


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
    with pytest.raises(FileNotFoundError, match="04_rank"):
        opened().input("rank/groups.jsonl")


def test_an_input_is_recorded_with_the_hash_it_had_when_read(home):
    stage = opened()
    stage.save("rows.jsonl", RESPONSES)
    stage.finish(counts={})
    after = store.Stage.open("evolve", config.resolve("smoke", "evolve"))
    assert after.load("rrtf_by_hand/rows.jsonl", Response) == RESPONSES
    assert after.inputs == {f"{STAGE}/rows.jsonl": stage.outputs["rows.jsonl"]}


ROOT = Path(__file__).resolve().parent.parent
packed = functools.partial(gzip.compress, mtime=0)  # equal in every process that shares the tests
ROWS = [{"instruction": "Añade uno.", "output": "x + 1"}, {"instruction": "b", "output": None}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize(
    "name, data",
    [
        ("a.jsonl", LINES),
        ("a.jsonl.gz", packed(LINES)),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json.gz", packed(json.dumps(ROWS).encode())),
        ("a.json", LINES),  # lines under the name of a list, as the hub has many
        ("a.jsonl", b"\xef\xbb\xbf" + LINES),
        ("a.jsonl", LINES.replace(b"\n", b"\r\n") + b"\n\n"),
        ("a.parquet", store.encode(ROWS, ".parquet")),
        ("a.parquet.gz", packed(store.encode(ROWS, ".parquet"))),
    ],
)
def test_every_form_gives_the_same_rows(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    found = list(store.rows(str(tmp_path / name)))
    assert [row for _, row in found] == ROWS
    assert [where for where, _ in found] == [f"{tmp_path / name}:{n}" for n in (1, 2)]


@pytest.mark.parametrize(
    "name, data, says",
    [
        ("a.jsonl", LINES + b'{"a": "\xff"}\n', "a.jsonl:3: .*UTF-8"),
        ("a.json", b'[\n{"a": "\xff"}\n]', "a.json:2: .*UTF-8"),
        ("a.jsonl", LINES + b'{"a": \n', "a.jsonl:3: .*JSON"),
        ("a.json", b'[{"a": 1},', "a.json: .*JSON"),
        ("a.json", b'{"a": 1}', "a.json: .*list"),
        ("a.json", LINES + b"{", "a.json:3: .*JSON"),
        ("a.jsonl.gz", packed(LINES * 9)[:-9], "damaged gzip file after line"),
        ("a.json.gz", packed(b"[1]" * 99)[:-9], "damaged gzip file"),
        ("a.jsonl.gz", b"plain text", "damaged gzip file after line 0"),
        ("a.parquet", b"PAR1", "damaged Parquet file"),
        ("a.parquet.gz", packed(b"PAR1" * 99)[:-9], "damaged Parquet file"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}.*") as caught:
        list(store.rows(str(tmp_path / name)))
    assert re.search(says, str(caught.value))


def test_a_data_set_is_read_from_its_folder_split_by_split(tmp_path):
    import datasets

    table = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "s")
    table.to_parquet(tmp_path / "plain" / "train.parquet")
    saved = list(store.rows(str(tmp_path / "s")))
    assert saved[0] == (f"{tmp_path / 's'}:train:1", ROWS[0])
    assert [row for _, row in saved] == [*ROWS, ROWS[1]]
    assert [row for _, row in store.rows(str(tmp_path / "plain"))] == ROWS


def test_a_name_that_is_neither_file_nor_data_set_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, says in ((tmp_path / "none.jsonl", "none.jsonl: no such file"),
                       (tmp_path / "none.parquet", "none.parquet: no such file"),
                       (tmp_path, "no such folder of a data set"),
                       ("nobody/has-this-set", "nobody/.*no data set")):  # fmt: skip
        with pytest.raises(FileNotFoundError, match=says):
            list(store.rows(str(name)))


def test_standard_input_is_lines(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES)))
    assert list(store.rows("-")) == [("-:1", ROWS[0]), ("-:2", ROWS[1])]


BLANKS = packed(b" " * (64 << 20))  # 64 KB; files of several are one line, or one text
READS = """
import sys, time
from rrtf import store
from rrtf.engines import endpoint
began = time.process_time()
try:
    print(len(list({}(sys.argv[1]))))
except ValueError as error:
    print(error)
most = store.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(int(most) >> 10, time.process_time() - began)
"""


ROWS_OF = "store.rows"


def read_apart(path, call):
    """(what was said or how many rows there were, MiB at most, CPU seconds) in a process."""
    code, environment = READS.format(call), os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True
    )
    said, numbers = done.stdout.splitlines()
    return said, *map(float, numbers.split())


def swollen() -> bytes:
    """A Parquet file of less than 1 MiB with a text of 200 MiB."""
    table, sink = pyarrow.table({"text": [" " * (200 << 20)]}), pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", use_dictionary=False)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "name, data, says, call",
    [
        ("a.jsonl.gz", lambda: BLANKS * 160, "a.jsonl.gz:1: a line of more than 128 MiB", ROWS_OF),
        ("b.gz", lambda: packed(b'{}\n"') + BLANKS * 16, "b.gz:2: a line of more than", ROWS_OF),
        ("c.json.gz", lambda: packed(b'["') + BLANKS * 160, "unpacks to more than 1", ROWS_OF),
        ("d.parquet.gz", lambda: BLANKS * 16, "unpacks to more than 128 MiB", ROWS_OF),
        ("e.parquet", swollen, "unpacks to more than 128 MiB", ROWS_OF),
        ("f.json.gz", lambda: BLANKS * 16, "unpacks to more than 128 MiB", "store.read_json"),
        ("g.jsonl", lambda: b" " * (129 << 20), "g.jsonl:1: a line of more than 128 MiB",
         "(lambda name: endpoint.read(store.Path(name)))"),
    ],
)  # fmt: skip
def test_what_holds_more_than_its_bounds_is_refused_soon_and_in_little_memory(
    tmp_path, name, data, says, call
):
    (tmp_path / name).write_bytes(data())
    said, size, seconds = read_apart(tmp_path / name, call)
    assert says in said and size < 300 and seconds < 10


def test_a_line_of_100_mb_and_a_packed_list_of_one_are_read(tmp_path):
    line = b'{"a": "' + b"x" * 100_000_000 + b'"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line, 1) + packed(LINES))
    found = [row for _, row in store.read_rows(tmp_path / "a.jsonl.gz")]
    assert len(found[0]["a"]) == 100_000_000 and found[1:] == ROWS
    (tmp_path / "a.json.gz").write_bytes(packed(json.dumps(ROWS * 50_000).encode()))
    assert sum(1 for _ in store.read_rows(tmp_path / "a.json.gz")) == 100_000


def test_a_parser_that_another_thread_disturbed_is_asked_again():
    told = [SystemError("AST constructor recursion depth mismatch"), None]

    def work():
        if error := told.pop(0):
            raise error
        return "parsed"

    assert store.undisturbed(work) == "parsed" and not told
