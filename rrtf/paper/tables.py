"""Tables 2, 3 and 4 and Fig 4 with the intervals that the paper does not print."""

from typing import Any

from rrtf import stats
from rrtf.paper.printed import LEVELS, Figures, counts, name_of, solved, tasks_of

BENCHMARKS = ("humaneval", "codereval", "leetcode")


def sampled_rows(paper: Figures) -> list[dict[str, Any]]:
    """Table 2 (HumanEval, sampled), percent; intervals for pass@1.

    The counts behind sampled rates are not printed. Wilson's interval of the nearest whole number
    of tasks is an upper bound of the width: every task's rate is averaged over samples.
    """
    n_tasks, rows = tasks_of(paper, "humaneval"), []
    for row in paper["table_2"]["rows"]:
        rate = stats.wilson(round(row["pass_at_1"] / 100 * n_tasks), n_tasks)
        rows.append(
            {
                "model": row["model"],
                "size": row.get("size"),
                "reported by": row.get("reported_by", "the paper"),
                "pass@1": row["pass_at_1"],
                "95 %, at most": _percent(rate),
                "pass@10": row.get("pass_at_10"),
                "pass@100": row.get("pass_at_100"),
            }
        )
    return rows


def greedy_rows(paper: Figures) -> list[dict[str, Any]]:
    """Table 3 (greedy) for a reader: tasks solved, percent, Wilson's interval; by benchmark."""
    rows = []
    for row in paper["table_3"]["rows"]:
        shown = {"model": row["model"], "size": row["size"]}
        for name in BENCHMARKS:
            (count,) = counts(paper, "table_3", name, row["model"])
            rate = stats.wilson(count.solved, count.tasks)
            head = f"{paper['benchmarks'][name]['name']}, of {count.tasks}"
            percent = row.get(name, 100 * rate.value)
            shown[head] = f"{count.solved} = {percent:.2f} % ({_percent(rate)})"
        rows.append(shown)
    return rows


def difficulty_rows(paper: Figures) -> list[dict[str, Any]]:
    """LeetCode of Table 3 by difficulty: solved of all, with Wilson intervals in percent."""
    marks = paper["benchmarks"]["leetcode"]
    return [
        {"model": row["model"]}
        | {
            head: value
            for level in LEVELS
            for head, value in (
                (f"{level}, of {marks[level]}", row[f"leetcode_{level}"]),
                (f"{level} 95 %", _percent(stats.wilson(row[f"leetcode_{level}"], marks[level]))),
            )
        }
        for row in paper["table_3"]["rows"]
    ]


def greedy_panels(paper: Figures) -> dict[str, list[tuple[str, float, float, float]]]:
    """Table 3 as `figures.intervals` draws it: benchmark -> (model, rate, low, high)."""
    panels = {}
    for name in BENCHMARKS:
        mark, lines = paper["benchmarks"][name], []
        for row in paper["table_3"]["rows"]:
            (count,) = counts(paper, "table_3", name, row["model"])
            rate = stats.wilson(count.solved, count.tasks)
            lines.append((row["model"], rate.value, rate.low, rate.high))
        panels[f"{mark['name']}, {mark['tasks']} tasks"] = lines
    return panels


def inference_rows(paper: Figures) -> list[dict[str, Any]]:
    """Table 4 with counts, Wilson intervals and memory and speed against the first row."""
    n_tasks, full = tasks_of(paper, "humaneval"), paper["table_4"]["rows"][0]
    return [
        {
            "variant": name_of(row),
            "GPU GB": row["memory_gb"],
            "times smaller": full["memory_gb"] / row["memory_gb"],
            "ms/token": row["ms_per_token"],
            "times faster": full["ms_per_token"] / row["ms_per_token"],
            "solved": solved(row["humaneval"], n_tasks),
            "%": row["humaneval"],
            "95 %": _percent(stats.wilson(solved(row["humaneval"], n_tasks), n_tasks)),
        }
        for row in paper["table_4"]["rows"]
    ]


def size_rows(paper: Figures) -> list[dict[str, Any]]:
    """Fig 4: rows, steps per epoch, the batch these imply, the best point with its interval.

    `low` and `high` are shares of tasks, `implied batch` is rows per step.
    """
    n_tasks, rows = tasks_of(paper, "humaneval"), []
    for row in paper["figure_4"]["rows"]:
        rate = stats.wilson(solved(row["humaneval"], n_tasks), n_tasks)
        rows.append(
            {
                "data": name_of(row),
                "steps per epoch": row["steps_per_epoch"],
                "implied batch": round(row["size"] / row["steps_per_epoch"]),
                "solved": solved(row["humaneval"], n_tasks),
                "best %": row["humaneval"],
                "95 %": _percent(rate),
                "low": rate.low,
                "high": rate.high,
            }
        )
    return rows


def _percent(rate: stats.Estimate) -> str:
    return f"{100 * rate.low:.1f} to {100 * rate.high:.1f}"
