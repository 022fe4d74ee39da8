"""What the paper prints, read from `data/paper.toml`: rates as counts of tasks."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrtf import config, stats

Figures = Mapping[str, Any]
Row = Mapping[str, Any]  # a line of results, ours or the paper's
LEVELS = ("easy", "medium", "hard")  # of LeetCode
IN_FIG_5 = ("PanGu-Coder2", "WizardCoder", "StarCoder")


@dataclass(frozen=True, slots=True)
class Count:
    """Tasks that one model solves: (solved, tasks) for each part that is printed apart.

    `sampled`: the rate is a mean over samples, and its count only the nearest whole number.
    """

    name: str
    parts: tuple[tuple[int, int], ...]
    sampled: bool = False

    @property
    def solved(self) -> int:
        """Over all parts."""
        return sum(count for count, _ in self.parts)

    @property
    def tasks(self) -> int:
        """Over all parts."""
        return sum(tasks for _, tasks in self.parts)

    @property
    def rate(self) -> stats.Estimate:
        """The share of tasks solved, with Wilson's interval."""
        return stats.wilson(self.solved, self.tasks)

    @property
    def interval(self) -> str:
        """`54.6 to 69.3`: that of `rate`, in percent."""
        return f"{100 * self.rate.low:.1f} to {100 * self.rate.high:.1f}"


def place() -> Path:
    """The file of the paper's figures; a stage that reads it records its hash."""
    return config.home() / "data" / "paper.toml"


def figures(path: Path | None = None) -> Figures:
    """The content of `data/paper.toml`, or of another file of its form."""
    return tomllib.loads((path or place()).read_text(encoding="utf-8"))


def solved(percent: float, n_tasks: int) -> int:
    """The whole number of tasks behind a printed greedy rate; ValueError if there is none.

    The paper rounds some rates and cuts others, so one unit of the last printed digit is allowed.
    """
    count = round(percent / 100 * n_tasks)
    unit = 10.0 ** -len(str(percent).partition(".")[2])
    if abs(100 * count / n_tasks - percent) >= unit:
        raise ValueError(f"{percent} % is no whole number of {n_tasks} tasks")
    return count


def is_whole(percent: float, n_tasks: int) -> bool:
    """Whether a printed rate can be a number of solved tasks."""
    try:
        solved(percent, n_tasks)
    except ValueError:
        return False
    return True


def tasks_of(paper: Figures, benchmark: str) -> int:
    """How many tasks a benchmark has."""
    return paper["benchmarks"][benchmark]["tasks"]


def row(paper: Figures, table: str, **wanted: Any) -> Mapping[str, Any]:
    """The first row of `table` with these values; ValueError if there is none."""
    for found in paper[table]["rows"]:
        if all(found.get(name) == value for name, value in wanted.items()):
            return found
    raise ValueError(f"paper.toml: no row of {table} with {wanted}")


def name_of(found: Mapping[str, Any]) -> str:
    """How a row of any table is called: by its model, its variant or its rows of data."""
    if "steps_per_epoch" in found:
        return f"{found['size']:,} rows"
    return found["model"] if "model" in found else f"{found['variant']} {found['precision']}"


def counts(paper: Figures, table: str, column: str, name: str) -> Iterator[Count]:
    """The counts of every row of that name; ValueError if there is none or it has no figure."""
    if table == "figure_5":
        yield Count(name, ((solved_by(paper, name, column), tasks_of(paper, "humaneval")),))
        return
    there = [found for found in paper[table]["rows"] if name_of(found) == name]
    if not there:
        raise ValueError(f"paper.toml: {table} has no row of {name}")
    yield from (count_of(paper, table, column, found) for found in there)


def count(paper: Figures, table: str, column: str, name: str) -> Count:
    """The first of `counts`."""
    return next(counts(paper, table, column, name))


def count_of(paper: Figures, table: str, column: str, found: Row) -> Count:
    """The count of one row, named with whoever reported its rate; ValueError as `counts`."""
    by = found.get("reported_by")
    name = f"{name_of(found)} ({by})" if by else name_of(found)
    if column == "leetcode":
        marks = paper["benchmarks"]["leetcode"]
        return Count(name, tuple((found[f"leetcode_{level}"], marks[level]) for level in LEVELS))
    if column not in found:
        raise ValueError(f"paper.toml: {table} has no {column} of {name}")
    n_tasks = tasks_of(paper, column if column in paper["benchmarks"] else "humaneval")
    if table == "table_2":
        return Count(name, ((round(found[column] / 100 * n_tasks), n_tasks),), sampled=True)
    return Count(name, ((solved(found[column], n_tasks), n_tasks),))


def solved_by(paper: Figures, model: str, column: str) -> int:
    """Tasks of Fig 5 that `model` solves, `column` being `greedy` or `pass_at_200`."""
    return sum(found[column] for found in paper["figure_5"]["rows"] if model in found["solved_by"])


def only(paper: Figures, a: str, b: str, column: str) -> int:
    """Tasks of Fig 5 that `a` solves and `b` does not."""
    rows = paper["figure_5"]["rows"]
    return sum(r[column] for r in rows if a in r["solved_by"] and b not in r["solved_by"])


def regions(paper: Figures) -> dict[str, tuple[tuple[str, ...], dict[tuple[str, ...], int]]]:
    """Fig 5 as `charts.overlap` draws it: title -> (models, solvers -> tasks)."""
    titles = {"greedy": "greedy", "pass_at_200": "within 200 samples"}
    return {
        title: (IN_FIG_5, {tuple(r["solved_by"]): r[column] for r in paper["figure_5"]["rows"]})
        for column, title in titles.items()
    }


BENCHMARKS = ("humaneval", "codereval", "leetcode")


def sampled_rows(paper: Figures) -> list[dict[str, Any]]:
    """Table 2 (HumanEval, sampled), percent; intervals for pass@1.

    The counts behind sampled rates are not printed. Wilson's interval of the nearest whole number
    of tasks is an upper bound of the width: every task's rate is averaged over samples.
    """
    return [
        {"model": row["model"], "size": row.get("size"),
         "reported by": row.get("reported_by", "the paper"), "pass@1": row["pass_at_1"],
         "95 %, at most": count_of(paper, "table_2", "pass_at_1", row).interval,
         "pass@10": row.get("pass_at_10"), "pass@100": row.get("pass_at_100")}
        for row in paper["table_2"]["rows"]
    ]  # fmt: skip


def greedy_rows(paper: Figures) -> list[dict[str, Any]]:
    """Table 3 (greedy) for a reader: tasks solved, percent, Wilson's interval; by benchmark."""
    rows = []
    for row in paper["table_3"]["rows"]:
        shown = {"model": row["model"], "size": row["size"]}
        for name in BENCHMARKS:
            of = count_of(paper, "table_3", name, row)
            percent = row.get(name, 100 * of.rate.value)
            head = f"{paper['benchmarks'][name]['name']}, of {of.tasks}"
            shown[head] = f"{of.solved} = {percent:.2f} % ({of.interval})"
        rows.append(shown)
    return rows


def greedy_panels(paper: Figures) -> dict[str, list[tuple[str, float, float, float]]]:
    """Table 3 as `charts.intervals` draws it: benchmark -> (model, rate, low, high)."""
    panels = {}
    for name in BENCHMARKS:
        of = [count_of(paper, "table_3", name, row) for row in paper["table_3"]["rows"]]
        lines = [(one.name, one.rate.value, one.rate.low, one.rate.high) for one in of]
        panels[f"{paper['benchmarks'][name]['name']}, {of[0].tasks} tasks"] = lines
    return panels


def difficulty_rows(paper: Figures) -> list[dict[str, Any]]:
    """LeetCode of Table 3 by difficulty: solved of all, with Wilson intervals in percent."""
    rows = []
    for row in paper["table_3"]["rows"]:
        shown = {"model": row["model"]}
        parts = count_of(paper, "table_3", "leetcode", row).parts
        for level, part in zip(LEVELS, parts, strict=True):
            shown[f"{level}, of {part[1]}"] = part[0]
            shown[f"{level} 95 %"] = Count(level, (part,)).interval
        rows.append(shown)
    return rows


def inference_rows(paper: Figures) -> list[dict[str, Any]]:
    """Table 4 with counts, Wilson intervals and memory and speed against the first row."""
    rows, full = [], paper["table_4"]["rows"][0]
    for row in paper["table_4"]["rows"]:
        of = count_of(paper, "table_4", "humaneval", row)
        shown = {"variant": of.name}
        for name, key, ratio in (("GPU GB", "memory_gb", "times smaller"),
                                 ("ms/token", "ms_per_token", "times faster")):  # fmt: skip
            shown |= {name: row[key], ratio: full[key] / row[key]}
        rows.append(shown | {"solved": of.solved, "%": row["humaneval"], "95 %": of.interval})
    return rows


def size_rows(paper: Figures) -> list[dict[str, Any]]:
    """Fig 4: rows, steps per epoch, the batch these imply, the best point with its interval.

    `low` and `high` are shares of tasks, `implied batch` is rows per step.
    """
    rows = []
    for row in paper["figure_4"]["rows"]:
        of, steps = count_of(paper, "figure_4", "humaneval", row), row["steps_per_epoch"]
        rows.append(
            {"data": of.name, "steps per epoch": steps, "implied batch": round(row["size"] / steps),
             "solved": of.solved, "best %": row["humaneval"], "95 %": of.interval,
             "low": of.rate.low, "high": of.rate.high}
        )  # fmt: skip
    return rows
