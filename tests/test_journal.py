"""Appended rows: whole lines after whatever happens, one writer at a time."""

import pytest

from rrtf.engines.endpoint import Journal, read


def test_rows_come_back_in_the_order_of_their_coming(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    assert list(read(path)) == []
    for part in range(3):
        with Journal(path) as journal:
            journal.append({"part": part, "text": "naïve\n✓"})
    assert list(read(path)) == [{"part": part, "text": "naïve\n✓"} for part in range(3)]


@pytest.mark.parametrize("lost", range(1, 24))
def test_a_last_line_without_its_end_is_not_read_and_is_cut_off(tmp_path, lost):
    path = tmp_path / "rows.jsonl"
    with Journal(path) as journal:
        journal.append({"a": 1})
        journal.append({"text": "0123456"})
    whole = path.read_bytes()
    assert len(whole.splitlines()[1]) == 19
    path.write_bytes(whole[:-lost])
    rows = [{"a": 1}] if lost <= 20 else []
    assert list(read(path)) == rows
    with Journal(path) as journal:
        journal.append({"b": 2})
    assert list(read(path)) == [*rows, {"b": 2}]


def test_a_torn_line_longer_than_a_look_is_found_to_its_beginning(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"text": "' + b"x" * 200_000)
    with Journal(path) as journal:
        journal.append({"b": 2})
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'


def test_a_block_of_zeros_after_a_power_cut_is_a_torn_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + bytes(4096))
    with Journal(path):
        pass
    assert path.read_bytes() == b'{"a": 1}\n'


@pytest.mark.parametrize("line", ["nonsense", '{"a": ', "[1]", "\x00"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n{{"b": 2}}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: .*delete the line to go on"):
        list(read(path))


def test_bytes_that_are_no_text_are_a_damaged_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:1"):
        list(read(path))


def test_a_journal_has_one_writer_and_any_number_of_readers(tmp_path):
    path = tmp_path / "rows.jsonl"
    with Journal(path) as journal:
        journal.append({"a": 1})
        with pytest.raises(OSError, match="another process is writing to it"):
            Journal(path)
        assert list(read(path)) == [{"a": 1}]
    with Journal(path):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Journal(tmp_path / "file" / "rows.jsonl")
