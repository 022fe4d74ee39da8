"""Rows that somebody brings are read as they are, or refused with file and line."""

import functools
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from rrtf import store

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
        ("a.jsonl", LINES + b'{"a": "\xff"}\n', "a.jsonl:3: not UTF-8 text"),
        ("a.json", b'[\n{"a": "\xff"}\n]', "a.json:2: not UTF-8 text"),
        ("a.jsonl", LINES + b'{"a": \n', "a.jsonl:3: not a JSON line"),
        ("a.json", b'[{"a": 1},', "a.json: not JSON"),
        ("a.json", b'{"a": 1}', "a.json: expected a JSON list"),
        ("a.json", LINES + b"{", "a.json:3: not a JSON line"),
        ("a.jsonl.gz", packed(LINES * 9)[:-9], "truncated or damaged gzip file after line"),
        ("a.json.gz", packed(b"[1]" * 99)[:-9], "truncated or damaged gzip file"),
        ("a.jsonl.gz", b"plain text", "truncated or damaged gzip file after line 0"),
        ("a.parquet", b"PAR1", "truncated or damaged Parquet file"),
        ("a.parquet.gz", packed(b"PAR1" * 99)[:-9], "truncated or damaged Parquet file"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}.*") as caught:
        list(store.rows(str(tmp_path / name)))
    assert says in str(caught.value)


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
    with pytest.raises(FileNotFoundError, match="no such file"):
        list(store.rows(str(tmp_path / "none.jsonl")))
    with pytest.raises(FileNotFoundError, match="no such folder of a data set"):
        list(store.rows(str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="no such file, and no data set"):
        list(store.rows("nobody/has-this-set"))


def test_standard_input_is_lines(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES)))
    assert list(store.rows("-")) == [("-:1", ROWS[0]), ("-:2", ROWS[1])]


BLANKS = packed(b" " * (64 << 20))  # 64 KB; files of several are one line, or one text
READS = """
import sys, time
from rrtf import store
from rrtf.engines import endpoint
began = time.monotonic()
try:
    print(len(list({}(sys.argv[1]))))
except ValueError as error:
    print(error)
most = store.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(int(most) >> 10, time.monotonic() - began)
"""


def read_apart(path, call="store.rows"):
    """(what was said or how many rows there were, MiB at most, seconds) in a process."""
    code, environment = READS.format(call), os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True
    )
    said, numbers = done.stdout.splitlines()
    return said, *map(float, numbers.split())


@pytest.mark.parametrize(
    "name, data, says",
    [
        ("a.jsonl.gz", BLANKS * 16, "a.jsonl.gz:1: a line of more than 128 MiB"),
        ("b.jsonl.gz", BLANKS * 160, "b.jsonl.gz:1: a line of more than 128 MiB"),
        ("c.jsonl.gz", packed(b'{}\n"') + BLANKS * 16, "c.jsonl.gz:2: a line of more than"),
        ("d.json.gz", BLANKS * 16, "d.json.gz: unpacks to more than 128 MiB"),
        ("e.json.gz", packed(b'["') + BLANKS * 160, "e.json.gz: unpacks to more than 1"),
        ("f.parquet.gz", BLANKS * 16, "f.parquet.gz: unpacks to more than 128 MiB"),
        ("g.gz", BLANKS * 16, "g.gz:1: a line of more than 128 MiB"),
    ],
)
def test_a_small_file_that_unpacks_to_much_is_refused_soon_and_in_little_memory(
    tmp_path, name, data, says
):
    (tmp_path / name).write_bytes(data)
    said, size, seconds = read_apart(tmp_path / name)
    assert says in said and size < 300 and seconds < 10


def test_a_parquet_file_that_unpacks_to_much_is_refused(tmp_path):
    table = pyarrow.table({"text": [" " * (200 << 20)]})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    said, size, _ = read_apart(tmp_path / "a.parquet")
    assert "unpacks to more than 128 MiB" in said and size < 300


def test_a_journal_and_a_value_of_json_have_the_same_bounds(tmp_path):
    with (tmp_path / "replies.jsonl").open("wb") as file:
        file.truncate(200 << 20)
    journal = "(lambda name: endpoint.read(store.Path(name)))"
    said, size, _ = read_apart(tmp_path / "replies.jsonl", journal)
    assert "replies.jsonl:1: a line of more than 128 MiB" in said and size < 300
    (tmp_path / "samples.json.gz").write_bytes(BLANKS * 16)
    said, size, _ = read_apart(tmp_path / "samples.json.gz", "store.read_json")
    assert "unpacks to more than 128 MiB" in said and size < 300


def test_a_line_of_100_mb_and_a_packed_list_of_one_are_read(tmp_path):
    line = b'{"a": "' + b"x" * 100_000_000 + b'"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line, 1) + packed(LINES))
    found = [row for _, row in store.read_rows(tmp_path / "a.jsonl.gz")]
    assert len(found[0]["a"]) == 100_000_000 and found[1:] == ROWS
    (tmp_path / "a.json.gz").write_bytes(packed(json.dumps(ROWS * 50_000).encode()))
    assert sum(1 for _ in store.read_rows(tmp_path / "a.json.gz")) == 100_000
