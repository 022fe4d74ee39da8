"""Rows that somebody brings: JSON, JSON lines, Parquet, each plain or gzip, or a hub data set.

`rows` is the one entry: a file, a folder or a data set's name in, (where, row) out. Errors name
the file and the line; what cannot be read is never passed over.
"""

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


def rows(name: str) -> Iterator[tuple[str, Any]]:
    """(`file:line`, row) of a file, `-` for lines of standard input, or a data set by its name.

    A data set is a folder, or `owner/name` on the hub, read through `datasets` without running
    code of its repository; all splits, each row's place named `name:split:number`. Errors as
    `read_rows`; FileNotFoundError where there is neither file nor data set.
    """
    path = Path(name)
    if name == "-" or path.is_file() or path.name.removesuffix(".gz").endswith(_SUFFIXES):
        yield from ((f"{name}:{number}", row) for number, row in read_rows(path))
        return
    for split, table in _data_set(name).items():
        yield from ((f"{name}:{split}:{at}", row) for at, row in enumerate(table, start=1))


_SUFFIXES = (".json", ".jsonl", ".parquet")


def _data_set(name: str) -> dict[str, Any]:
    """split -> its rows."""
    import datasets

    path = Path(name)
    saved = any((path / file).exists() for file in ("dataset_dict.json", "state.json"))
    try:
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:  # of many kinds, of `datasets`, the hub and the network
        reason = (str(error) or type(error).__name__).splitlines()[0]
        what = "folder of a data set" if path.is_dir() else "file, and no data set that can be had"
        raise FileNotFoundError(f"{name}: no such {what}: {reason}") from error
    return found if isinstance(found, dict) else {"rows": found}


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, row) of a `.jsonl`, `.json`, `.parquet` file, or `.gz` of it; `-` is stdin.

    A `.json` file holds a list of rows, or lines as `.jsonl` does; rows of lists and of tables are
    numbered from 1. ValueError names the file, and the line where there is one, of what is no
    UTF-8, no JSON, or breaks off; FileNotFoundError.
    """
    path = Path(path)
    kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if str(path) != "-" and not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if kind == ".parquet":
        yield from enumerate(_parquet_rows(path), start=1)
    elif kind == ".json":
        yield from _json_rows(path)
    else:
        yield from _lines(path)


def open_text(path: Path) -> io.TextIOWrapper:
    """A file as UTF-8 text, plain or gzip; `-` is standard input. FileNotFoundError."""
    if str(path) != "-" and not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    return io.TextIOWrapper(_open(path), encoding="utf-8", newline="\n")


def _open(path: Path) -> Any:
    if str(path) == "-":
        return sys.stdin.buffer
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _value(line, path, number)
    except _DAMAGED as error:
        raise _damaged(path, number, error) from error


def _damaged(path: Path, number: int, error: Exception) -> ValueError:
    return ValueError(f"{path}: truncated or damaged gzip file after line {number} ({error})")


def _value(line: bytes, path: Path, number: int) -> Any:
    where = f"{path}:{number}"
    try:
        return json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 text ({error})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON line ({error})") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a JSON list; of lines where the file has one object a line, whatever its name."""
    try:
        with _open(path) as file:
            data = file.read()
    except _DAMAGED as error:
        raise ValueError(f"{path}: truncated or damaged gzip file ({error})") from error
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text ({error})") from error
    except (ValueError, RecursionError) as error:
        if not (data.lstrip().startswith(b"{") and "Extra data" in str(error)):
            raise ValueError(f"{path}: not JSON ({error})") from error
        numbered = enumerate(data.splitlines(), start=1)
        yield from ((at, _value(line, path, at)) for at, line in numbered if line.strip())
        return
    if not isinstance(found, list):
        raise ValueError(f"{path}: expected a JSON list of objects")
    yield from enumerate(found, start=1)


def _parquet_rows(path: Path) -> list[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        with _open(path) as file:
            return pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowInvalid, *_DAMAGED) as error:
        raise ValueError(f"{path}: truncated or damaged Parquet file ({error})") from error
