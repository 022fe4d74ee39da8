"""The paper's own figures (`data/paper.toml`), completed by intervals and checked for sense.

The paper prints rates without uncertainty. HumanEval has 164 tasks, so much follows from the
figures alone; nothing here is measured by this project.
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from rrtf import config, stats

Figures = Mapping[str, Any]


def figures() -> Figures:
    """The content of `data/paper.toml`."""
    return tomllib.loads(config.data_text("paper.toml"))


def solved(percent: float, n_tasks: int) -> int:
    """The whole number of tasks behind a printed greedy rate; ValueError if there is none."""
    count = round(percent / 100 * n_tasks)
    if abs(100 * count / n_tasks - percent) > 0.06:
        raise ValueError(f"{percent} % is no whole number of {n_tasks} tasks")
    return count


def sampled_rows(paper: Figures) -> list[dict[str, Any]]:
    """Table 2 (HumanEval, sampled), percent; intervals for pass@1.

    The counts behind sampled rates are not printed. Wilson's interval of the nearest whole number
    of tasks is an upper bound of the width: every task's rate is averaged over samples.
    """
    n_tasks, rows = paper["benchmarks"]["humaneval"]["tasks"], []
    for row in paper["table_2"]["rows"]:
        rate = stats.wilson(round(row["pass_at_1"] / 100 * n_tasks), n_tasks)
        rows.append(
            {
                "model": row["model"],
                "size": row.get("size"),
                "reported by": row.get("reported_by", "the paper"),
                "pass@1": row["pass_at_1"],
                "95 %": _percent(rate),
                "pass@10": row.get("pass_at_10"),
                "pass@100": row.get("pass_at_100"),
            }
        )
    return rows


def greedy_rows(paper: Figures) -> list[dict[str, Any]]:
    """Table 3 (greedy): tasks solved on each benchmark, with Wilson intervals in percent."""
    marks, rows = paper["benchmarks"], []
    for row in paper["table_3"]["rows"]:
        shown = {"model": row["model"], "size": row["size"]}
        for name in ("humaneval", "codereval"):
            count = solved(row[name], marks[name]["tasks"])
            shown[f"{name} solved"] = count
            shown[f"{name} %"] = row[name]
            shown[f"{name} 95 %"] = _percent(stats.wilson(count, marks[name]["tasks"]))
        count = sum(row[f"leetcode_{level}"] for level in ("easy", "medium", "hard"))
        shown["leetcode solved"] = count
        shown["leetcode 95 %"] = _percent(stats.wilson(count, marks["leetcode"]["tasks"]))
        rows.append(shown)
    return rows


def _percent(rate: stats.Estimate) -> str:
    return f"{100 * rate.low:.1f} to {100 * rate.high:.1f}"


def solved_by(paper: Figures, model: str, column: str) -> int:
    """Tasks of Fig 5 that `model` solves, `column` being `greedy` or `pass_at_200`."""
    return sum(row[column] for row in paper["figure_5"]["rows"] if model in row["solved_by"])


def only(paper: Figures, a: str, b: str, column: str) -> int:
    """Tasks of Fig 5 that `a` solves and `b` does not."""
    rows = paper["figure_5"]["rows"]
    return sum(r[column] for r in rows if a in r["solved_by"] and b not in r["solved_by"])


def paired(paper: Figures, a: str, b: str, column: str = "greedy") -> dict[str, Any]:
    """Two models on the same HumanEval tasks, exact McNemar from the regions of Fig 5."""
    only_a, only_b = only(paper, a, b, column), only(paper, b, a, column)
    n_tasks = paper["benchmarks"]["humaneval"]["tasks"]
    return {
        "a": a,
        "b": b,
        "decoding": column,
        "only a": only_a,
        "only b": only_b,
        "difference": (only_a - only_b) / n_tasks,
        "p": stats.mcnemar(only_a, only_b),
        "test": "exact McNemar",
    }


def audit(paper: Figures) -> list[dict[str, Any]]:
    """What the printed figures say about each other: rows `fact, place, values`, all computed."""
    return [
        _size_and_batch(paper),
        _two_star_coders(paper),
        _margin_over_wizard_coder(paper),
        _margin_on_codereval(paper),
        _two_gpt_rates(paper),
        _quantisation_noise(paper),
        _greedy_agreement(paper),
    ]


def shown(facts: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The facts of `audit` as rows of text, values with at most two decimals."""
    return [
        {"place": row["place"], "fact": row["fact"], "values": _lines(row["values"])}
        for row in facts
    ]


def _lines(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' ')}: {_text(v)}" for name, v in values.items())


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _fact(fact: str, place: str, **values: Any) -> dict[str, Any]:
    return {"fact": fact, "place": place, "values": values}


def _row(paper: Figures, table: str, **wanted: Any) -> Mapping[str, Any]:
    for row in paper[table]["rows"]:
        if all(row.get(name) == value for name, value in wanted.items()):
            return row
    raise ValueError(f"paper.toml: no row of {table} with {config.describe(wanted)}")


def _size_and_batch(paper: Figures) -> dict[str, Any]:
    batches = {
        str(row["size"]): round(row["size"] / row["steps_per_epoch"])
        for row in paper["figure_4"]["rows"]
    }
    return _fact(
        "the data sizes of Fig 4 were trained with different batch sizes", "Fig 4",
        stated_batch=paper["training"]["global_batch"], implied_batch=batches,
    )  # fmt: skip


def _two_star_coders(paper: Figures) -> dict[str, Any]:
    n_tasks = paper["benchmarks"]["humaneval"]["tasks"]
    rate = _row(paper, "table_2", model="StarCoder")["pass_at_100"]
    within_200 = solved_by(paper, "StarCoder", "pass_at_200")
    return _fact(
        "StarCoder solves fewer tasks within 200 samples than its pass@100 needs",
        "Fig 5, Table 2",
        solved_within_200=within_200,
        share_within_200=100 * within_200 / n_tasks,
        pass_at_100=rate,
        least_tasks_for_pass_at_100=-int(-rate / 100 * n_tasks // 1),
        contradiction=100 * within_200 / n_tasks < rate,
    )


def _margin_over_wizard_coder(paper: Figures) -> dict[str, Any]:
    test = paired(paper, "PanGu-Coder2", "WizardCoder")
    return _fact(
        "greedy lead over WizardCoder on HumanEval", "Fig 5",
        only_pangu_coder2=test["only a"], only_wizardcoder=test["only b"],
        difference_points=100 * test["difference"], p=test["p"], test=test["test"],
    )  # fmt: skip


def _margin_on_codereval(paper: Figures) -> dict[str, Any]:
    n_tasks = paper["benchmarks"]["codereval"]["tasks"]
    ours, base = (
        solved(_row(paper, "table_3", model=name)["codereval"], n_tasks)
        for name in ("PanGu-Coder2", "StarCoder")
    )
    return _fact(
        "lead over the untuned StarCoder on CoderEval, in functions", "Table 3",
        pangu_coder2=ours, starcoder=base, lead=ours - base, n_tasks=n_tasks,
    )  # fmt: skip


def _two_gpt_rates(paper: Figures) -> dict[str, Any]:
    rate = _row(paper, "table_2", model="PanGu-Coder2")["pass_at_1"]
    rivals = {
        row["reported_by"]: row["pass_at_1"]
        for row in paper["table_2"]["rows"]
        if row["model"] == "GPT-3.5"
    }
    return _fact(
        "better than GPT-3.5 holds for some of its reported rates only", "Table 2",
        pangu_coder2=rate, gpt_3_5=rivals,
        better_than=[name for name, value in rivals.items() if rate > value],
    )  # fmt: skip


def _quantisation_noise(paper: Figures) -> dict[str, Any]:
    n_tasks = paper["benchmarks"]["humaneval"]["tasks"]
    full = _row(paper, "table_4", precision="float16")["humaneval"]
    int8 = _row(paper, "table_4", variant="CTranslate2")["humaneval"]
    share = full / 100
    return _fact(
        "CTranslate2 int8 against float16 is within the noise of 164 tasks", "Table 4",
        more_tasks=solved(int8, n_tasks) - solved(full, n_tasks),
        difference_points=round(int8 - full, 2),
        standard_error_points=100 * (share * (1 - share) / n_tasks) ** 0.5,
    )  # fmt: skip


def _greedy_agreement(paper: Figures) -> dict[str, Any]:
    n_tasks = paper["benchmarks"]["humaneval"]["tasks"]
    names: Sequence[str] = ("PanGu-Coder2", "WizardCoder", "StarCoder")
    return _fact(
        "the greedy regions of Fig 5 add up to the counts of Table 3", "Fig 5, Table 3",
        figure_5={name: solved_by(paper, name, "greedy") for name in names},
        table_3={
            name: solved(_row(paper, "table_3", model=name)["humaneval"], n_tasks)
            for name in names
        },
    )  # fmt: skip
