"""What an audit shows: tables, the pairs to look at, the certificate, and a page of all that."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from rrtf import config, probes, similarity, store
from rrtf.audit.detectors import Behaviour, Settings
from rrtf.audit.rows import Corpus, Material, Row
from rrtf.audit.verdict import GENERIC_NODES, Audit, Pair, pair_of, pairs
from rrtf.figures import tables
from rrtf.probes import Kinds, Outputs
from rrtf.records import Leak

N_PAIRS, N_LISTED = 20, 500  # on the page
SHOWN = 4000  # characters of one side of a pair
BARE = "tasks without a reference, seen by text only"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:76em;margin:2em auto;padding:0 1em;
color:#222}}h1{{font-size:1.5em}}h2{{font-size:1.15em;margin-top:2em}}
.rrtf-table{{width:auto}}</style></head>
<body>
{body}
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The benchmark task whose program acts most like a row's: `agreement` on all probes and
    `resemblance` (Jaccard) of the words, both in [0, 1]."""

    task_id: str
    benchmark_task_id: str
    agreement: float
    resemblance: float


def out_of_sight(result: Audit) -> list[dict[str, Any]]:
    """Table rows: what no n-gram, or no probe, could see, and how often rows repeat each other."""
    short = [
        {
            "what": f"tasks that no {n}-gram finds: too short, or all shared with others",
            "count": len(ids),
        }
        for n, ids in result.too_short.items()
    ]
    silent = [
        {"what": f"{name} whose program says nothing on the probes", "count": len(ids)}
        for name, ids in result.unseen.items()
    ]
    repeats = sum(len(group) - 1 for group in result.duplicates)
    return [*short, *silent, {"what": "rows that repeat another's function", "count": repeats}]


def detector_rows(result: Audit) -> list[dict[str, Any]]:
    """One table row per detector: what it found, how much of that is chance, what it misses.

    `found of same function` is the share of the pairs of equal behaviour that the detector also
    reports: its recall where behaviour is taken for the truth (None if there is no such pair).
    Without that detector there is no such column.
    """
    same = pairs(result.leaks, "behaviour")
    observed = "behaviour" in result.detectors
    table = []
    for name in result.detectors:
        leaks, chance = pairs(result.leaks, name), pairs(result.collisions, name)
        share = len(leaks & same) / len(same) if same else None
        table.append(
            {
                "detector": name,
                "pairs": len(leaks) + len(chance),
                "leaks": len(leaks),
                "chance": len(chance),
                "rows leaking": len({pair[0] for pair in leaks}),
                "tasks leaked": len({pair[1:] for pair in leaks}),
                **({"found of same function": share} if observed else {}),
                "removes": name in result.remove_on,
            }
        )
    return table


def agreement_matrix(result: Audit) -> list[list[int]]:
    """Counts (D, D): pairs that both detectors found, leaks and chance together."""
    found = [pairs([*result.leaks, *result.collisions], name) for name in result.detectors]
    return [[len(one & other) for other in found] for one in found]


def task_rows(result: Audit) -> list[dict[str, Any]]:
    """One table row per leaked task: how many rows leak it, who says so, the worst row."""
    return [
        {"benchmark": benchmark, "task": task, **told}
        for (benchmark, task), told in _gathered(
            result.leaks, "row", lambda leak: pair_of(leak)[1:], lambda leak: leak.task_id
        )
    ]


def row_rows(result: Audit) -> list[dict[str, Any]]:
    """One table row per leaking row: the tasks it leaks, who says so, whether it goes."""
    return [
        {"row": row, **told, "removed": row in result.dropped}
        for row, told in _gathered(
            result.leaks,
            "task",
            lambda leak: leak.task_id,
            lambda leak: f"{leak.benchmark}: {leak.benchmark_task_id}",
        )
    ]


def _gathered(
    leaks: Sequence[Leak], other: str, key: Callable[[Leak], Any], named: Callable[[Leak], str]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Findings by `key`, the widest agreement on one pair first, then most pairs.

    How many of the `other` side (`named`), which detectors, and the one most agree on.
    """
    groups: defaultdict[Any, list[Leak]] = defaultdict(list)
    for leak in leaks:
        groups[key(leak)].append(leak)
    told = []
    for found, members in groups.items():
        by_other = Counter(map(named, members))
        names = ", ".join(dict.fromkeys(leak.detector for leak in members))
        worst = min(by_other, key=lambda name: (-by_other[name], name))
        row = {f"{other}s": len(by_other), "detectors": names, f"worst {other}": worst}
        told.append((-by_other[worst], -len(by_other), found, row))
    yield from ((found, row) for *_, found, row in sorted(told, key=lambda item: item[:3]))


def stage_rows(audits: Mapping[str, Audit]) -> list[dict[str, Any]]:
    """One table row per set of rows and benchmark in which something leaks: what, and by whom.

    `audits` are those of the sets that follow each other (seeds, each round, responses, the final
    set), all against the same benchmarks.
    """
    found = {leak.benchmark for result in audits.values() for leak in result.leaks}
    table = []
    for name, result in audits.items():
        for benchmark in sorted(found) or [""]:
            leaks = [leak for leak in result.leaks if leak.benchmark == benchmark]
            tasks = {d: len({k.benchmark_task_id for k in leaks if k.detector == d})
                     for d in result.detectors}  # fmt: skip
            table.append(
                {
                    "set": name,
                    "rows": result.n_rows,
                    "benchmark": benchmark,
                    "rows leaking": len({leak.task_id for leak in leaks}),
                    "tasks leaked": len({leak.benchmark_task_id for leak in leaks}),
                    **tasks,
                }
            )
    return table


def worst_pairs(result: Audit, count: int) -> list[list[Leak]]:
    """The `count` leaking pairs that most detectors found, worst first, each with its findings.

    Ties are ordered by the sum of the scores, then by task ids.
    """
    by_pair: defaultdict[Pair, list[Leak]] = defaultdict(list)
    for leak in result.leaks:
        by_pair[pair_of(leak)].append(leak)
    found = by_pair.values()
    return sorted(
        found, key=lambda leaks: (-len(leaks), -sum(k.score for k in leaks), pair_of(leaks[0]))
    )[:count]


def only_by(result: Audit, detector: str) -> list[list[Leak]]:
    """The pairs that `detector` alone calls a leak, each with its one finding."""
    others = {pair_of(leak) for leak in result.leaks if leak.detector != detector}
    own = [leak for leak in result.leaks if leak.detector == detector]
    return [[leak] for leak in own if pair_of(leak) not in others]


def compare(
    found: Sequence[Sequence[Leak]],
    rows: Sequence[Row],
    benchmarks: Mapping[str, Sequence[Row]],
    *,
    longest: int = 0,
) -> list[tuple[str, str, str]]:
    """(who found it, the row, the benchmark task) as text for each pair of `found`.

    A side of more than `longest` characters, where that is given, is cut, and says so.
    """
    ours = {row.task_id: row for row in rows}
    theirs = {(name, task.task_id): task for name, tasks in benchmarks.items() for task in tasks}
    shown = []
    for leaks in found:
        row = ours[leaks[0].task_id]
        task = theirs[leaks[0].benchmark, leaks[0].benchmark_task_id]
        names = ", ".join(f"{leak.detector} ({leak.score:.2f})" for leak in leaks)
        title = f"{row.task_id} and {task.task_id}: {names}"
        shown.append((title, *(_shown(side, longest) for side in (row, task))))
    return shown


def _shown(row: Row, longest: int) -> str:
    """The program where it holds the description, else the description and what answers it."""
    text = row.code if row.code and row.text in row.code else row.whole
    return f"{text[:longest]}\n[...]" if 0 < longest < len(text) else text


def answers(
    rows: Mapping[str, Row], behaviour: Mapping[Row, Behaviour], *, n_random: int, seed: int
) -> list[dict[str, str]]:
    """What several programs returned on each probe: one table row a probe, one column a name.

    The programs must have been observed with the same argument types.
    """
    kinds = next(iter(behaviour[next(iter(rows.values()))]))
    inputs = probes.probe_inputs(kinds, n_random=n_random, seed=seed)
    outputs = {name: behaviour[row][kinds] for name, row in rows.items()}
    return [
        {"arguments": ", ".join(map(repr, args))} | {name: o[at] for name, o in outputs.items()}
        for at, args in enumerate(inputs)
    ]


def nearest(
    rows: Sequence[Row], tasks: Sequence[Row], behaviour: Mapping[Row, Behaviour]
) -> list[Neighbour]:
    """For each row with a telling behaviour, the task of the same types that acts most like it.

    Of several the first is taken. Shows whether words tell anything about behaviour.
    """
    by_kinds: defaultdict[Kinds, list[tuple[Row, Outputs]]] = defaultdict(list)
    for task in tasks:
        for kinds, outputs in behaviour.get(task, {}).items():
            by_kinds[kinds].append((task, outputs))
    found = []
    for row in rows:
        for kinds, outputs in behaviour.get(row, {}).items():
            if by_kinds[kinds] and probes.is_telling(outputs):
                same = [probes.agreement(outputs, theirs) for _, theirs in by_kinds[kinds]]
                task = by_kinds[kinds][same.index(max(same))][0]
                words = [similarity.words(side.text) for side in (row, task)]
                resemblance = similarity.jaccard(*words)
                found.append(Neighbour(row.task_id, task.task_id, max(same), resemblance))
    return found


def certificate(
    result: Audit, benchmarks: Mapping[str, Sequence[Row]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What was checked, how, and what came out: everything needed to check the claim again.

    ValueError if rows in differ from rows kept + rows dropped by reason.
    """
    reasons = Counter(result.dropped.values())
    kept = result.n_rows - len(result.dropped)
    if kept + sum(reasons.values()) != result.n_rows:
        raise ValueError(f"{result.n_rows} rows in, {kept} kept, dropped {dict(reasons)}")
    return {
        "rows": {"in": result.n_rows, "kept": kept, "dropped": dict(reasons)},
        "benchmarks": {name: len(tasks) for name, tasks in benchmarks.items()},
        "rule": result.rule,
        "settings": dict(settings),
        "detectors": detector_rows(result),
        "too_short": {str(n): list(ids) for n, ids in result.too_short.items()},
        "unseen": {name: list(ids) for name, ids in result.unseen.items()},
        "duplicates": [list(group) for group in result.duplicates],
    }


def finding_rows(result: Audit) -> list[dict[str, Any]]:
    """A line per finding: the leak, and whether the rule takes it for chance."""
    sides = ((result.leaks, False), (result.collisions, True))
    return [store.to_row(leak) | {"chance": chance} for leaks, chance in sides for leak in leaks]


def benchmark_rows(result: Audit, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """A table row per benchmark: its tasks, and how many of them leak.

    `leaked` are those that a detector of `remove_on` found, `only resembled` those that others
    did; `only by chance` met none but collisions.
    """
    table = []
    for name, size in sizes.items():
        leaks, chance = (
            [leak for leak in side if leak.benchmark == name]
            for side in (result.leaks, result.collisions)
        )
        found = {leak.benchmark_task_id for leak in leaks}
        removing = [leak for leak in leaks if leak.detector in result.remove_on]
        leaked = {leak.benchmark_task_id for leak in removing}
        table.append(
            {
                "benchmark": name,
                "tasks": size,
                "leaked": len(leaked),
                "only resembled": len(found - leaked),
                "only by chance": len({leak.benchmark_task_id for leak in chance} - found),
                "rows leaking": len({leak.task_id for leak in removing}),
            }
        )
    return table


def certify(
    result: Audit, material: Material, settings: Settings, *, name: str, embedding: str
) -> dict[str, Any]:
    """What was checked against what, by hashes; detectors, thresholds, rule; what was not seen.

    The hash of rows or tasks is that of what was compared: id, text, code, answer of each.
    """
    path, tasks, rows = Path(name), material.tasks, material.rows
    told = {"embedding": embedding or "TF-IDF and LSA", **asdict(settings)}
    last = {key: told.pop(key) for key in ("remove_on", "seed")}
    told |= {"generic_nodes": GENERIC_NODES, **last}
    n = settings.substring_words
    return certificate(result, tasks, told) | {
        "what": name,
        "fields": material.fields.told(),
        "sha256": {
            **({"file": store.sha256(path)} if path.exists() else {}),
            "rows": _digest(rows),
            **{benchmark: _digest(members) for benchmark, members in tasks.items()},
        },
        "rrtf": config.version(),
        "not seen": {
            "rows without a Python function, seen by text only": sum(
                not row.entry_point for row in rows
            ),
            "rows without any text": sum(not row.whole.strip() for row in rows),
            BARE: {b: sum(not t.code for t in members) for b, members in tasks.items()},
            f"descriptions of fewer than {n} words, which no substring finds": sum(
                len(Corpus([t]).words[0]) < n for members in tasks.values() for t in members
            ),
            "kinds": [
                "a task told in other words or another language and solved in another way"
                + ("" if "execution" in result.detectors else " (its tests were not run)"),
                "what the models saw in their own pre-training",
            ],
        },
    }


def _digest(rows: Sequence[Row]) -> str:
    return hashlib.sha256(store.encode(rows, ".jsonl")).hexdigest()


def page(result: Audit, material: Material, paper: Mapping[str, Any]) -> str:
    """The whole audit as one HTML page that needs nothing else: tables, then the worst pairs."""
    matrix = [
        {"": name, **dict(zip(result.detectors, counts, strict=True))}
        for name, counts in zip(result.detectors, agreement_matrix(result), strict=True)
    ]
    shown = {
        "By detector": detector_rows(result),
        "By benchmark": benchmark_rows(result, paper["benchmarks"]),
        "Pairs that two detectors agree on": matrix,
        "Tasks that leak": task_rows(result),
        "Rows that leak": row_rows(result),
    }
    found = worst_pairs(result, N_PAIRS)
    worst = compare(found, material.rows, material.tasks, longest=SHOWN)
    title = escape(f"Leak audit of {paper['what']}")
    told = (
        f"{result.n_rows} rows ({paper['fields']}) against {', '.join(material.tasks)}: "
        f"{len(result.dropped)} rows go, removed on {', '.join(result.remove_on)}."
    )
    parts = [f"<h1>{title}</h1><p>{escape(told)}</p><p>{escape(result.rule)}</p>"]
    for what, rows in shown.items():
        table = tables.table(rows[:N_LISTED], digits=2, height=30).data if rows else "<p>None.</p>"
        parts.append(f"<h2>{what}{f': {len(rows)}' * (len(rows) > N_LISTED)}</h2>{table}")
    parts.append(
        f"<h2>The worst pairs</h2><p>Training row on the left, benchmark task on the right; runs "
        f"of four equal words are marked.</p>{tables.side_by_side(worst).data}"
    )
    unseen = {what: n for what, n in paper["not seen"].items() if isinstance(n, int)}
    unseen |= {BARE: sum(paper["not seen"][BARE].values())}
    unseen |= dict.fromkeys(paper["not seen"]["kinds"])
    rows = [{"what": what, "count": count} for what, count in unseen.items()]
    rows = [*out_of_sight(result), *rows]
    parts.append(f"<h2>Not seen</h2>{tables.table(rows).data}")
    return _PAGE.format(title=title, body="\n".join(parts))
