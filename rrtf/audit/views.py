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
    counts = {f"tasks that no {n}-gram finds: too short, or all shared with others": len(ids)
              for n, ids in result.too_short.items()}  # fmt: skip
    for name, ids in result.unseen.items():
        counts[f"{name} whose program says nothing on the probes"] = len(ids)
    counts["rows that repeat another's function"] = sum(len(g) - 1 for g in result.duplicates)
    return [{"what": what, "count": count} for what, count in counts.items()]


def detector_rows(result: Audit) -> list[dict[str, Any]]:
    """One table row per detector: what it found, how much of that is chance, what it misses.

    `found of same function` is the share of the pairs of equal behaviour that the detector also
    reports: its recall where behaviour is taken for the truth (None if there is no such pair).
    Without that detector there is no such column.
    """
    same, table = pairs(result.leaks, "behaviour"), []
    for name in result.detectors:
        leaks, chance = pairs(result.leaks, name), pairs(result.collisions, name)
        row = {"detector": name, "pairs": len(leaks) + len(chance), "leaks": len(leaks)}
        row |= {"chance": len(chance), "rows leaking": len({pair[0] for pair in leaks})}
        row["tasks leaked"] = len({pair[1:] for pair in leaks})
        if "behaviour" in result.detectors:
            row["found of same function"] = len(leaks & same) / len(same) if same else None
        table.append(row | {"removes": name in result.remove_on})
    return table


def agreement_matrix(result: Audit) -> list[list[int]]:
    """Counts (D, D): pairs that both detectors found, leaks and chance together."""
    found = [pairs([*result.leaks, *result.collisions], name) for name in result.detectors]
    return [[len(one & other) for other in found] for one in found]


def task_rows(result: Audit) -> list[dict[str, Any]]:
    """One table row per leaked task: how many rows leak it, who says so, the worst row."""
    found = _gathered(result.leaks, "row", lambda k: pair_of(k)[1:], lambda k: k.task_id)
    return [{"benchmark": benchmark, "task": task, **told} for (benchmark, task), told in found]


def row_rows(result: Audit) -> list[dict[str, Any]]:
    """One table row per leaking row: the tasks it leaks, who says so, whether it goes."""
    named = "{0.benchmark}: {0.benchmark_task_id}".format
    found = _gathered(result.leaks, "task", lambda leak: leak.task_id, named)
    return [{"row": row, **told, "removed": row in result.dropped} for row, told in found]


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
            row = {"set": name, "rows": result.n_rows, "benchmark": benchmark}
            row["rows leaking"] = len({leak.task_id for leak in leaks})
            row["tasks leaked"] = len({leak.benchmark_task_id for leak in leaks})
            row |= {d: len({pair[2] for pair in pairs(leaks, d)}) for d in result.detectors}
            table.append(row)
    return table


def worst_pairs(result: Audit, count: int) -> list[list[Leak]]:
    """The `count` leaking pairs that most detectors found, worst first, each with its findings.

    Ties are ordered by the sum of the scores, then by task ids.
    """
    found: defaultdict[Pair, list[Leak]] = defaultdict(list)
    for leak in result.leaks:
        found[pair_of(leak)].append(leak)
    worst = sorted((-len(of), -sum(k.score for k in of), pair) for pair, of in found.items())
    return [found[pair] for *_, pair in worst[:count]]


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
    ours, theirs = {row.task_id: row for row in rows}, Corpus.of_benchmarks(benchmarks).placed
    shown = []
    for leaks in found:
        row_id, *place = pair_of(leaks[0])
        sides = ours[row_id], theirs[tuple(place)]
        names = ", ".join(f"{leak.detector} ({leak.score:.2f})" for leak in leaks)
        title = f"{row_id} and {place[1]}: {names}"
        shown.append((title, *(_shown(side, longest) for side in sides)))
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
                alike = similarity.jaccard(*(similarity.words(one.text) for one in (row, task)))
                found.append(Neighbour(row.task_id, task.task_id, max(same), alike))
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
    removing = [leak for leak in result.leaks if leak.detector in result.remove_on]
    sides, table = (removing, result.leaks, result.collisions), []
    for name, size in sizes.items():
        of = [{pair for pair in pairs(side) if pair[1] == name} for side in sides]
        leaked, found, chance = ({pair[2] for pair in side} for side in of)
        row = {"benchmark": name, "tasks": size, "leaked": len(leaked)}
        row |= {"only resembled": len(found - leaked), "only by chance": len(chance - found)}
        table.append(row | {"rows leaking": len({pair[0] for pair in of[0]})})
    return table


def certify(
    result: Audit,
    material: Material,
    tasks: Mapping[str, Sequence[Row]],
    settings: Settings,
    *,
    name: str,
    embedding: str,
) -> dict[str, Any]:
    """What was checked against what, by hashes; detectors, thresholds, rule; what was not seen.

    The hash of rows or tasks is that of what was compared: id, text, code, answer of each.
    """
    path, rows = Path(name), material.rows
    told = {"embedding": embedding or "TF-IDF and LSA", **asdict(settings)}
    last = {key: told.pop(key) for key in ("remove_on", "seed")}
    told |= {"generic_nodes": GENERIC_NODES, **last}
    n = settings.substring_words
    short = sum(len(Corpus([t]).words[0]) < n for of in tasks.values() for t in of)
    otherwise = "a task told in other words or another language and solved in another way"
    if "execution" not in result.detectors:
        otherwise += " (its tests were not run)"
    digests = {"file": store.sha256(path)} if path.exists() else {}
    digests |= {what: _digest(of) for what, of in {"rows": rows, **tasks}.items()}
    bare = sum(not row.entry_point for row in rows)
    return certificate(result, tasks, told) | {
        "what": name,
        "fields": material.fields.told(),
        "sha256": digests,
        "rrtf": config.version(),
        "not seen": {
            "rows without a Python function, seen by text only": bare,
            "rows without any text": sum(not row.whole.strip() for row in rows),
            BARE: {b: sum(not t.code for t in members) for b, members in tasks.items()},
            f"descriptions of fewer than {n} words, which no substring finds": short,
            "kinds": [otherwise, "what the models saw in their own pre-training"],
        },
    }


def _digest(rows: Sequence[Row]) -> str:
    return hashlib.sha256(store.encode(rows, ".jsonl")).hexdigest()


def page(
    result: Audit,
    material: Material,
    tasks: Mapping[str, Sequence[Row]],
    paper: Mapping[str, Any],
) -> str:
    """The whole audit as one HTML page that needs nothing else: tables, then the worst pairs."""
    names, matrix = result.detectors, agreement_matrix(result)
    shown = {
        "By detector": detector_rows(result),
        "By benchmark": benchmark_rows(result, paper["benchmarks"]),
        "Pairs that two detectors agree on": [
            {"": name, **dict(zip(names, counts, strict=True))}
            for name, counts in zip(names, matrix, strict=True)
        ],
        "Tasks that leak": task_rows(result),
        "Rows that leak": row_rows(result),
    }
    title = escape(f"Leak audit of {paper['what']}")
    told = (
        f"{result.n_rows} rows ({paper['fields']}) against {', '.join(tasks)}: "
        f"{len(result.dropped)} rows go, removed on {', '.join(result.remove_on)}."
    )
    parts = [f"<h1>{title}</h1><p>{escape(told)}</p><p>{escape(result.rule)}</p>"]
    for what, rows in shown.items():
        table = tables.table(rows[:N_LISTED], digits=2, height=30).data if rows else "<p>None.</p>"
        parts.append(f"<h2>{what}{f': {len(rows)}' * (len(rows) > N_LISTED)}</h2>{table}")
    worst = compare(worst_pairs(result, N_PAIRS), material.rows, tasks, longest=SHOWN)
    parts.append(
        f"<h2>The worst pairs</h2><p>Training row on the left, benchmark task on the right; runs "
        f"of four equal words are marked.</p>{tables.side_by_side(worst).data}"
    )
    unseen = {what: n for what, n in paper["not seen"].items() if isinstance(n, int)}
    unseen |= {BARE: sum(paper["not seen"][BARE].values())}
    unseen |= dict.fromkeys(paper["not seen"]["kinds"])
    rows = [{"what": what, "count": count} for what, count in unseen.items()]
    parts.append(f"<h2>Not seen</h2>{tables.table([*out_of_sight(result), *rows]).data}")
    return _PAGE.format(title=title, body="\n".join(parts))
