"""Rows that somebody brings are read as they are, or refused with file and line."""

import functools
import gzip
import io
import json
import sys

import pytest

from rrtf import store

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
