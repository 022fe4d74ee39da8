"""Which benchmarks there are, where their rows lie, and whether they are the right rows.

`data/benchmarks.toml` says it; rows are looked for in the folder given, in `$RRTF_DATA`, in the
Hugging Face cache and on the hub. Only JSON lines, JSON and Parquet are read; nothing that a
repository of the hub holds is ever run.
"""

import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from rrtf import config, store
from rrtf.nano.problems import world


@dataclass(frozen=True, slots=True)
class Entry:
    """One benchmark of `data/benchmarks.toml`; the file says what each field means."""

    name: str
    file: str
    home: str
    licence: str
    rows: int
    fields: tuple[str, ...]
    sha256: str
    hub: str = ""
    hub_files: tuple[str, ...] = ()
    cpu_seconds: float | None = None  # of a program, where the usual would fail right answers
    git_blob: str = ""
    split: str = ""
    cuts: Mapping[str, int] = field(default_factory=dict)
    undated: int = 0


@cache
def entries() -> Mapping[str, Entry]:
    """All benchmarks by name."""
    table = tomllib.loads(config.data_text("benchmarks.toml"))
    return {
        name: Entry(name, **{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})
        for name, row in table.items()
    }


def names() -> tuple[str, ...]:
    """The names that `load` knows."""
    return tuple(entries())


def entry(name: str) -> Entry:
    """The entry of `name`; ValueError with the known names."""
    if name not in entries():
        raise ValueError(f"unknown benchmark {name!r}: expected one of {', '.join(names())}")
    return entries()[name]


def raw_rows(name: str, data: Path | None) -> list[dict]:
    """The rows of a benchmark, only the fields that are used, checked against the catalogue.

    ValueError for a wrong number of rows, a missing field or another hash, with the file;
    FileNotFoundError with every place that was looked at.
    """
    return located(name, data)[1]


def located(name: str, data: Path | None) -> tuple[list[Path], list[dict]]:
    """(the files that hold the rows, the rows); errors as `rows`."""
    known, looked = entry(name), []
    for paths in [_generated(known)] if known.split else _places(known, data, looked):
        found = [
            _fields(known, row, f"{path}:{number}")
            for path in paths
            for number, row in _numbered(known, path)
        ]
        _check(known, found, paths)
        return paths, found
    raise FileNotFoundError(
        f"{name}: {known.file} not found. Looked at: {'; '.join(looked)}. Get it from {known.home} "
        "and name its folder with --data or $RRTF_DATA"
    )


def missing(name: str) -> str:
    """Where the rows of a benchmark were looked for on this machine, or `''`: they are here.

    The hub is not asked. ValueError for an unknown name.
    """
    known, looked = entry(name), []
    found = known.split or next(_places(known, None, looked, hub=False), None)
    return "" if found else "; ".join(looked)


def digest(found: Sequence[Mapping]) -> str:
    """The hash of rows that `data/benchmarks.toml` states."""
    total = hashlib.sha256()
    for row in found:
        total.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return total.hexdigest()


def _generated(known: Entry) -> list[Path]:
    """The file of a set that is drawn from the grammar, made where the user's cache lacks it."""
    path = config.cache_dir() / "nano" / f"{known.name}-{known.sha256[:16]}.jsonl"
    if not path.exists():
        problems, _ = world(WORKERS, last=known.split)[known.split]
        store.write(path, problems)
    return [path]


def _numbered(known: Entry, path: Path) -> Iterator[tuple[int, object]]:
    """(number, row) of a file; of a dump with RECORDS at its top, the numbers of its records."""
    if not known.git_blob:
        yield from store.read_rows(path)
        return
    data = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if blob != known.git_blob:
        raise ValueError(
            f"{path}: this is not {Path(known.file).name} of {known.home}: expected git blob "
            f"{known.git_blob}, found {blob}"
        )
    yield from enumerate(json.loads(data)["RECORDS"], start=1)


def _fields(known: Entry, row: object, where: str) -> dict:
    if not isinstance(row, dict) or set(known.fields) - set(row):
        missing = sorted(set(known.fields) - set(row if isinstance(row, dict) else ()))
        raise ValueError(f"{where}: a row of {known.name} without {', '.join(missing)}")
    return {field: row[field] for field in known.fields}


def _check(known: Entry, found: list[dict], paths: Sequence[Path]) -> None:
    where = ", ".join(map(str, paths))
    if len(found) != known.rows:
        raise ValueError(f"{where}: {known.name} has {known.rows} rows, found {len(found)}")
    if known.sha256 and (actual := digest(found)) != known.sha256:
        raise ValueError(
            f"{where}: these are not the rows of {known.name}: expected sha256 {known.sha256}, "
            f"found {actual}"
        )


def _places(
    known: Entry, data: Path | None, looked: list[str], *, hub: bool = True
) -> Iterator[list[Path]]:
    """Files that hold the rows, nearest first; where there were none is added to `looked`."""
    for folder in (data, os.environ.get("RRTF_DATA")):
        if folder:
            yield from _in_folder(known, Path(folder), looked)
    if not os.environ.get("RRTF_DATA"):
        looked.append("$RRTF_DATA, which is not set")
    if known.hub:
        for cached in (True, False) if hub else (True,):
            yield from _in_hub(known, cached, looked)
    else:
        looked.append("no repository of the Hugging Face hub holds these rows")


def _in_folder(known: Entry, folder: Path, looked: list[str]) -> Iterator[list[Path]]:
    plain = known.file.removesuffix(".gz")
    for file in (known.file, plain, f"{plain}.gz", Path(known.file).name, Path(plain).name):
        if (folder / file).is_file():
            yield [folder / file]
            return
    looked.append(str(folder / known.file))


def _in_hub(known: Entry, cached: bool, looked: list[str]) -> Iterator[list[Path]]:
    try:
        config.need("the Hugging Face hub", "huggingface_hub", "pyarrow")
    except OSError as lacking:
        looked += [str(lacking)] * cached
        return
    import huggingface_hub

    get = partial(huggingface_hub.hf_hub_download, known.hub, repo_type="dataset")
    try:
        paths = [Path(get(filename=file, local_files_only=cached)) for file in known.hub_files]
    except OSError as error:  # the hub's own errors are such, also that of a file not in the cache
        reason = (str(error) or type(error).__name__).splitlines()[0]
        looked.append("the Hugging Face cache" if cached else f"the hub ({known.hub}: {reason})")
        return
    yield paths


WORKERS = 2  # that draw a set of the grammar; the result does not depend on it
GROUPS = ("difficulty", "level")


def facts(name: str, *, data: Path | None = None) -> dict[str, dict[str, str]]:
    """Per task what its benchmark tells: `difficulty` (Easy, Medium, Hard), `date` (ISO), `level`
    and `function`, the name behind CoderEval's ids.

    {} for a benchmark that tells nothing. `date` is missing from LeetCodeDataset v0.2, whose rows
    have question numbers instead (`created_after`). Errors as `catalogue.rows`.
    """
    keys, tell = _TOLD.get(entry(name).name, _NOTHING)
    rows = raw_rows(name, data) if keys else ()
    told = {row.get("task_id", row.get("_id")): tell(row) for row in rows}
    return {task_id: dict(zip(keys, values, strict=True)) for task_id, values in told.items()}


def groups(name: str, by: str, *, data: Path | None = None) -> dict[str, str]:
    """task_id -> its `difficulty` or `level`; ValueError where the benchmark tells none."""
    if by not in GROUPS:
        raise ValueError(f"by {by!r}: expected one of {', '.join(GROUPS)}")
    if by not in _TOLD.get(entry(name).name, _NOTHING)[0]:
        others = [n for n, (keys, _) in _TOLD.items() if by in keys]
        raise ValueError(f"{name} has no {by}: known of {', '.join(others)}")
    return {task_id: told[by] for task_id, told in facts(name, data=data).items()}


def day_of(text: str) -> date:
    """The day that a text names; ValueError for another form than ISO's."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"since {text!r}: expected a date as 2022-07-01") from None


def created_after(name: str, day: str, *, data: Path | None = None) -> set[str]:
    """The tasks created after `day` (ISO): the benchmark's own dates, else its question numbers.

    ValueError for a malformed day, a benchmark without either, and a day for which the catalogue
    knows no question number.
    """
    after, known = day_of(day), entry(name)
    if known.cuts:
        return _numbered_after(known, after.isoformat(), data)
    if "date" not in _TOLD.get(name, _NOTHING)[0]:
        dated = [n for n, (keys, _) in _TOLD.items() if "date" in keys]
        cut = [n for n in names() if entry(n).cuts]
        raise ValueError(f"{name} has no dates: known of {', '.join([*dated, *cut])}")
    told = facts(name, data=data)
    return {task for task, each in told.items() if date.fromisoformat(each["date"]) > after}


def _numbered_after(known: Entry, day: str, data: Path | None) -> set[str]:
    if day not in known.cuts:
        raise ValueError(
            f"since {day}: the rows of {known.name} carry no dates, only question numbers; the "
            f"first number after a day is known of {', '.join(known.cuts)}"
        )
    numbers = range(known.cuts[day], known.undated)
    rows = raw_rows(known.name, data)
    return {row["task_id"] for row in rows if row["meta"]["question_id"] in numbers}


def _contest(row: Mapping[str, Any]) -> tuple[str, str]:
    """DeepSeek's rows state the start of the contest, in seconds."""
    day = datetime.fromtimestamp(row["start_time"], UTC).date()
    return row["meta"]["difficulty"], day.isoformat()


def _meta(*names: str) -> Callable[[Mapping[str, Any]], tuple]:
    return lambda row: tuple(row["meta"][name] for name in names)


def _level(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["level"], row["name"]


_NOTHING: tuple[tuple[str, ...], Callable[[Mapping[str, Any]], tuple]] = ((), lambda row: ())
_TOLD = {
    "leetcode": (("difficulty", "date"), _contest),
    "leetcode-v0.2-train": (("difficulty",), _meta("difficulty")),
    "leetcode-v0.3-test": (("difficulty", "date"), _meta("difficulty", "estimated_date")),
    "codereval-subset": (("level", "function"), _level),
    "codereval": (("level", "function"), _level),
}
