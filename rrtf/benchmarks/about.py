"""What benchmarks tell of their tasks beside the problem: difficulty, date, level."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rrtf.benchmarks import catalogue

GROUPS = ("difficulty", "level")


def facts(name: str, *, data: Path | None = None) -> dict[str, dict[str, str]]:
    """Per task what its benchmark tells: `difficulty` (Easy, Medium, Hard), `date` (ISO), `level`
    and `function`, the name behind CoderEval's ids.

    {} for a benchmark that tells nothing. `date` is missing from LeetCodeDataset v0.2, whose rows
    have question numbers instead (`created_after`). Errors as `catalogue.rows`.
    """
    tell = _TOLD.get(catalogue.entry(name).name)
    rows = catalogue.rows(name, data) if tell else ()
    return {row["task_id"] if "task_id" in row else row["_id"]: tell(row) for row in rows}


def groups(name: str, by: str, *, data: Path | None = None) -> dict[str, str]:
    """task_id -> its `difficulty` or `level`; ValueError where the benchmark tells none."""
    if by not in GROUPS:
        raise ValueError(f"by {by!r}: expected one of {', '.join(GROUPS)}")
    if by not in _KEYS.get(_TOLD.get(catalogue.entry(name).name), ()):
        others = [n for n, tell in _TOLD.items() if by in _KEYS[tell]]
        raise ValueError(f"{name} has no {by}: known of {', '.join(others)}")
    return {task_id: told[by] for task_id, told in facts(name, data=data).items()}


def created_after(name: str, day: str, *, data: Path | None = None) -> set[str]:
    """The tasks created after `day` (ISO): the benchmark's own dates, else its question numbers.

    ValueError for a malformed day, a benchmark without either, and a day for which the catalogue
    knows no question number.
    """
    try:
        after = date.fromisoformat(day)
    except ValueError:
        raise ValueError(f"since {day!r}: expected a date as 2022-07-01") from None
    known = catalogue.entry(name)
    if known.cuts:
        return _numbered_after(known, after.isoformat(), data)
    if "date" not in _KEYS.get(_TOLD.get(name), ()):
        dated = [n for n, tell in _TOLD.items() if "date" in _KEYS[tell]]
        cut = [n for n in catalogue.names() if catalogue.entry(n).cuts]
        raise ValueError(f"{name} has no dates: known of {', '.join([*dated, *cut])}")
    told = facts(name, data=data)
    return {task for task, each in told.items() if date.fromisoformat(each["date"]) > after}


def _numbered_after(known: catalogue.Entry, day: str, data: Path | None) -> set[str]:
    if day not in known.cuts:
        raise ValueError(
            f"since {day}: the rows of {known.name} carry no dates, only question numbers; the "
            f"first number after a day is known of {', '.join(known.cuts)}"
        )
    numbers = range(known.cuts[day], known.undated)
    rows = catalogue.rows(known.name, data)
    return {row["task_id"] for row in rows if row["meta"]["question_id"] in numbers}


def _contest(row: Mapping[str, Any]) -> dict[str, str]:
    """DeepSeek's rows state the start of the contest, in seconds."""
    day = datetime.fromtimestamp(row["start_time"], UTC).date()
    return {"difficulty": row["meta"]["difficulty"], "date": day.isoformat()}


def _estimated(row: Mapping[str, Any]) -> dict[str, str]:
    meta = row["meta"]
    return {"difficulty": meta["difficulty"], "date": meta["estimated_date"]}


def _difficulty(row: Mapping[str, Any]) -> dict[str, str]:
    return {"difficulty": row["meta"]["difficulty"]}


def _level(row: Mapping[str, Any]) -> dict[str, str]:
    return {"level": row["level"], "function": row["name"]}


_TOLD: dict[str, Callable[[Mapping[str, Any]], dict[str, str]]] = {
    "leetcode": _contest,
    "leetcode-v0.2-train": _difficulty,
    "leetcode-v0.3-test": _estimated,
    "codereval-subset": _level,
    "codereval": _level,
}
_KEYS: dict[Callable | None, Sequence[str]] = {
    _contest: ("difficulty", "date"),
    _estimated: ("difficulty", "date"),
    _difficulty: ("difficulty",),
    _level: ("level", "function"),
}
