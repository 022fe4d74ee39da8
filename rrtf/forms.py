"""The forms that published samples come in, each read as lines of `task_id` and a text.

- lines of objects, JSON lists of objects, Parquet: as they are;
- a JSON list of lists of programs, the n of the first task first (bigcode-evaluation-harness);
- a JSON object whose `eval` maps a task to its solutions (EvalPlus's results);
- a folder of `HumanEval_0/0.py`, one program per file (EvalPlus's samples as code).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrtf import store
from rrtf.records import Problem

KNOWN = "a list of objects, a list of lists of programs, or EvalPlus's results ({'eval': ...})"


def rows(name: str, problems: Sequence[Problem]) -> Iterator[tuple[int, Any]]:
    """(number, row) of a file or folder of samples, `-` for lines of standard input.

    Numbers are lines of a file, or count the samples of another form. ValueError names a file
    in none of these forms, or a list whose length is not that of `problems`.
    """
    path = Path(name)
    if path.is_dir():
        return _of_folder(path, problems)
    if path.name.removesuffix(".gz").endswith(".json") and path.exists():
        return _of_json(name, _value(path), problems)
    return store.read_rows(path)


def _value(path: Path) -> Any:
    try:
        return store.read_json(path)
    except (ValueError, EOFError, OSError, RecursionError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(f"{path}: not JSON, or damaged ({error})") from error


def _of_json(name: str, value: Any, problems: Sequence[Problem]) -> Iterator[tuple[int, Any]]:
    match value:
        case {"eval": Mapping() as of_task}:
            found = _of_results(name, of_task)
        case [list(), *_]:
            found = _of_lists(name, value, problems)
        case list():
            found = value
        case _:
            raise ValueError(f"{name}: expected {KNOWN}")
    return enumerate(found, start=1)


def _of_results(name: str, of_task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """EvalPlus's results: a list of samples per task, each with its verdicts and `solution`."""
    found = []
    for task_id, runs in of_task.items():
        if not (isinstance(runs, list) and all(isinstance(run, Mapping) for run in runs)):
            raise ValueError(f"{name}: eval of {task_id}: expected a list of objects")
        found += [{"task_id": task_id, "solution": run.get("solution")} for run in runs]
    return found


def _of_lists(name: str, lists: Sequence[Any], problems: Sequence[Problem]) -> list[dict[str, Any]]:
    if len(lists) != len(problems):
        raise ValueError(
            f"{name}: lists for {len(lists)} tasks, which cannot be told which they are: the "
            f"problems are {len(problems)}"
        )
    found = []
    for place, (texts, problem) in enumerate(zip(lists, problems, strict=True), start=1):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name}: item {place}: expected a list of programs")
        found += [{"task_id": problem.task_id, "solution": text} for text in texts]
    return found


def _of_folder(folder: Path, problems: Sequence[Problem]) -> Iterator[tuple[int, Any]]:
    """Task ids as their folders spell them: with `_` for `/`."""
    known = {problem.task_id.replace("/", "_"): problem.task_id for problem in problems}
    files = [path for path in folder.glob("*/*.py") if path.stem.isdecimal()]
    if not files:
        raise ValueError(f"{folder}: a folder; expected TASK/0.py, TASK/1.py, ... in it")
    order = sorted(files, key=lambda path: (path.parent.name, int(path.stem)))
    found = [
        {"task_id": known.get(path.parent.name, path.parent.name), "solution": _text(path)}
        for path in order
    ]
    return enumerate(found, start=1)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from error
