"""`samples.html`: every answer of a run, or of anybody's files, in one page that opens offline.

The answers lie in it as a table of columns, every text once, packed by gzip; the page's own script
(`templates/report/samples.js`) unpacks, filters, sorts, colours and compares them, and takes no
text from a file for markup. Without JavaScript there are the totals and the first answers.
"""

import base64
import builtins
import gzip
import hashlib
import json
import keyword
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

from rrtf import config, store
from rrtf.prompts import extract, form_of, judged_target
from rrtf.records import Execution, Leak, Outcome, Problem, RankedGroup, Response

PAGE = "samples.html"
STATIC = 100  # answers of the table that needs no script
SHOWN_LOGS = 3  # decimals of a token's log-probability

Key = tuple[str, str, int]  # task, source and index of an answer
Logs = Sequence[tuple[str, float]]  # the tokens of an answer and their log-probabilities


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranked groups of answers, the pairs trained on, and the format of their texts."""

    groups: Sequence[RankedGroup]
    pairs: Sequence[RankedGroup]
    prompt_format: str
    teachers: Sequence[str]  # the sources that may be imitated


@dataclass(frozen=True, slots=True)
class Part:
    """The answers of one stage, and what was made of them.

    `executions` are matched by task, source and index; an answer may be without. `logs` are of
    answers by key: each a model's name (or '') with the tokens as that model sees them.
    """

    stage: str
    responses: Sequence[Response]
    executions: Sequence[Execution]
    ranking: Ranking | None = None
    logs: Mapping[Key, Sequence[tuple[str, Logs]]] = field(default_factory=dict)


def token_logs(row: Mapping[str, Any]) -> Logs:
    """The tokens of a line of samples with `logprobs` as OpenAI's servers give it; () if none.

    Of a chat (`content`: objects of `token` and `logprob`), or of a completion (`tokens` beside
    `token_logprobs`, the first of which may be null).
    """
    told = row.get("logprobs")
    if not isinstance(told, Mapping):
        return ()
    parts = told.get("content") or ()
    tokens = told.get("tokens") or [part.get("token") for part in parts]
    values = told.get("token_logprobs") or [part.get("logprob") for part in parts]
    both = zip(tokens, values, strict=False)
    return [(str(token), float(value)) for token, value in both if value is not None]


def logs_of(found: Iterable[tuple[Response, Mapping]]) -> dict[Key, list[tuple[str, Logs]]]:
    """The `token_logs` of answers and the lines they came in, by key."""
    every = {_key(response): token_logs(row) for response, row in found}
    return {key: [("", logs)] for key, logs in every.items() if logs}


def _key(one: Response | Execution) -> Key:
    return one.task_id, one.source, one.index


def write_answers(
    out: str, problems: Sequence[Problem], parts: Sequence[Part], *, title: str
) -> None:
    """The page of somebody's answers, into a file of this name."""
    store.write_bytes(Path(out), page(problems, parts, title=title))


def page(
    problems: Sequence[Problem],
    parts: Sequence[Part],
    *,
    title: str,
    stories: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    stamp: str = "",
    index: str = "",
) -> bytes:
    """The page of these answers; the same records give the same bytes.

    `stories` tells of a task what happened to it, as (what, text); `stamp` stands in a comment at
    the top; `index` is the page that this one leads back to.
    """
    answered = {response.task_id for part in parts for response in part.responses}
    known = {problem.task_id: problem for problem in problems}
    shown = _with_parents(answered, known)
    order = {name: at for at, name in enumerate(dict.fromkeys([*known, *sorted(answered)]))}
    rows = [row for part in parts for row in _rows(part, known)]
    rows.sort(key=lambda row: order[row["task"]])  # stable: by stage within a task
    tasks = [_task(known, name, (stories or {}).get(name, ())) for name in order if name in shown]
    words = {"keywords": keyword.kwlist, "builtins": [n for n in dir(builtins) if n[0] != "_"]}
    table = {"tasks": tasks, "n": len(rows), **words, **_columns(rows, known)}
    plain = json.dumps(table, separators=(",", ":")).encode()
    script = _template("samples.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    back = f'<a href="{escape(index)}">{escape(index)}</a>' if index else ""
    holes = {
        "stamp": stamp,
        "title": escape(title),
        "told": escape(_told(rows, len(answered))),
        "back": back,
        "digest": digest,
        "static": _static(rows),
        "data": base64.b64encode(gzip.compress(plain, 9, mtime=0)).decode(),
        "script": script,
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda hole: holes[hole[1]], _template("samples.html"))
    return text.encode(errors="replace")  # half a surrogate pair is no UTF-8


def _template(name: str) -> str:
    return files("rrtf.report").joinpath("templates", "report", name).read_text(encoding="utf-8")


def _with_parents(names: Collection[str], known: Mapping[str, Problem]) -> set[str]:
    """The tasks and all that they were made from."""
    found: set[str] = set()
    for name in names:
        while name and name not in found:
            found.add(name)
            name = known[name].parent_id if name in known else ""
    return found


def _task(
    known: Mapping[str, Problem], name: str, story: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    problem = known.get(name)
    row = store.to_row(problem) if problem else {"task_id": name}
    names = ("task_id", "prompt", "test", "canonical_solution", "source", "spec", "parent_id",
             "operator", "depth")  # fmt: skip
    return {n: row[n] for n in names if row.get(n)} | ({"story": list(story)} if story else {})


def _rows(part: Part, known: Mapping[str, Problem]) -> Iterable[dict[str, Any]]:
    """One row per answer: what it is, its verdict, its place in its group, its use in training."""
    runs = {_key(run): run for run in part.executions}
    places = _placed(part, known)
    for r in sorted(part.responses, key=lambda r: (r.source, r.index)):
        run, logs = runs.get(_key(r)), part.logs.get(_key(r), ())
        row = {"stage": part.stage, "model": r.source, "task": r.task_id, "index": r.index}
        row |= {"temperature": r.temperature, "tokens": r.n_tokens or None}
        row |= {"finish": r.finish_reason, "text": r.text, "program": r.program}
        row |= {"outcome": run.outcome.name if run else "not judged"}
        row |= {"reason": run.reason if run else "", "isolation": run.isolation if run else ""}
        row |= {"passed": run.n_passed if run else None, "total": run.n_tests if run else None}
        row |= {"failed": _failed(run), **places.get(_key(r), _NOWHERE)}
        row["logs"] = [[name, *zip(*_rounded(own), strict=True)] for name, own in logs if own]
        means = [sum(value for _, value in own) / len(own) for _, own in logs if own]
        yield row | {"mean": round(means[0], SHOWN_LOGS) if means else None}


def _rounded(logs: Logs) -> list[tuple[str, float]]:
    return [(token, round(value, SHOWN_LOGS)) for token, value in logs]


def _failed(run: Execution | None) -> str:
    """The assertion that failed first, in lines; '' where the verdict does not say."""
    number = getattr(run, "failed_test", 0)
    if not number:
        return ""
    line = getattr(run, "failed_line", 0)
    where = f"assertion {number}" + (f", line {line} of the tests" if line else "")
    told = {"called": "call", "expected": "expected", "got": "got"}
    lines = [f"{word:9}{text}" for name, word in told.items() if (text := getattr(run, name, ""))]
    return "\n".join([where, *lines])


_NOWHERE: dict[str, Any] = {"score": None, "rank": None, "used": ""}


def _placed(part: Part, known: Mapping[str, Problem]) -> dict[Key, dict[str, Any]]:
    """Of every answer to a task with a ranked group: its score, its rank (1 is best), its use.

    A group holds every program once, in any layout: an answer that is not in it repeats one that
    is, or could not be a target of training.
    """
    if part.ranking is None:
        return {}
    answers, found = defaultdict(list), {}
    for r in part.responses:
        answers[r.task_id].append(r)
    pairs = {pair.task_id: pair for pair in part.ranking.pairs}
    for group in part.ranking.groups:
        taken: set[int] = set()
        for r, k in matched(group, known, answers[group.task_id], part.ranking):
            if k is None:
                cut = "cut off" if r.finish_reason == "length" else "no target"
                found[_key(r)] = {**_NOWHERE, "used": f"left out: {cut}"}
                continue
            rank = 1 + sum(score > group.scores[k] for score in group.scores)
            use = "repeats another" if k in taken else _use(group, k, pairs.get(group.task_id))
            found[_key(r)] = {"score": group.scores[k], "rank": rank, "used": use}
            taken.add(k)
    return found


def matched(
    group: RankedGroup,
    known: Mapping[str, Problem],
    answers: Sequence[Response],
    ranking: Ranking,
) -> Iterator[tuple[Response, int | None]]:
    """Each of a task's answers with the place in its group that holds its code, None if none does.

    As `rank.rank` finds it: those of a teacher first, a program once in any layout.
    """
    problem, style = known[group.task_id], ranking.prompt_format
    forms = [form_of(extract(problem, text)) for text in group.responses]
    for r in sorted(answers, key=lambda r: (r.source not in ranking.teachers, r.source, r.index)):
        text = judged_target(problem, r, style, prompt=group.prompt)
        form = None if text is None else form_of(extract(problem, text))
        yield r, forms.index(form) if form in forms and r.finish_reason != "length" else None


def _use(group: RankedGroup, k: int, pair: RankedGroup | None) -> str:
    """What training made of response `k`, in the words of the page."""
    if k == group.sft_index:
        return "imitated and ranked" if pair else "imitated by sft alone"
    if pair and group.responses[k] in pair.responses[1:]:
        return "ranked below"
    return "not drawn" if pair else "no pair"


_CODED = ("stage", "model", "task", "finish", "outcome", "reason", "isolation", "used")
_PLAIN = ("index", "temperature", "tokens", "passed", "total", "score", "rank", "mean", "logs")


def _columns(rows: Sequence[Mapping[str, Any]], known: Mapping[str, Problem]) -> dict[str, Any]:
    """The rows by column: numbers as they are, words and texts by their place in a list of each.

    A program is mostly a prompt and what stands behind it: `head` characters of the prompt, the
    text but for `from` characters before and `left` behind, and a text of its own, `rest`.
    """
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in _PLAIN}
    columns = {
        name: column for name, column in columns.items() if column.count(_NOTHING[name]) < len(rows)
    }
    for name in _CODED:
        columns[name] = _coded(row[name] for row in rows)
    cuts = [_cut(row, known) for row in rows]
    for at, name in enumerate(("head", "from", "left")):
        columns[name] = [cut[at] for cut in cuts]
    columns |= {"text": _coded(row["text"] for row in rows), "rest": _coded(c[3] for c in cuts)}
    return columns | {"failed": _coded(row["failed"] for row in rows)}


_NOTHING: dict[str, Any] = dict.fromkeys(_PLAIN) | {"logs": []}


def _coded(words: Iterable[str]) -> dict[str, list]:
    """`words`: each once, in the order of their first use; `at`: how many words ago, 0 if new.

    Answers alike stand near each other, so that these numbers are small and pack well.
    """
    places: dict[str, int] = {}
    at = [len(places) - places.setdefault(word, len(places)) for word in words]
    return {"words": list(places), "at": at}


def _cut(row: Mapping[str, Any], known: Mapping[str, Problem]) -> tuple[int, int, int, str]:
    """(head, from, left, rest): `prompt[:head] + text[from:len(text) - left] + rest` is run."""
    prompt = known[row["task"]].prompt if row["task"] in known else ""
    text, program = row["text"], row["program"]
    head = _alike(prompt, program)
    at = text.find(program[head:])
    if at >= 0:
        return head, at, len(text) - at - len(program) + head, ""
    same = _alike(text, program[head:])
    return head, 0, len(text) - same, program[head + same :]


def _alike(one: str, other: str) -> int:
    """How many characters both begin with."""
    both = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda two: two[0] == two[1], both))


def _told(rows: Sequence[Mapping[str, Any]], n_tasks: int) -> str:
    """What the page holds, in a sentence."""
    judged = [row["outcome"] for row in rows if row["total"] is not None]
    share = (
        f"; {100 * judged.count('PASS') / len(judged):.1f} % of those judged pass" if judged else ""
    )
    models = len({row["model"] for row in rows})
    return f"{len(rows):,} answers of {models:,} sources to {n_tasks:,} tasks{share}."


def _static(rows: Sequence[Mapping[str, Any]]) -> str:
    """Totals by stage and source, and the first answers, as tables without a script."""
    kinds = [outcome.name for outcome in reversed(Outcome)]
    count = Counter((row["stage"], row["model"], row["outcome"]) for row in rows)
    totals = Counter((row["stage"], row["model"]) for row in rows)
    sums = [
        [*who, f"{total}", *(f"{count[*who, kind]}" for kind in kinds)]
        for who, total in totals.items()
    ]
    first = [
        [row["outcome"], row["task"], row["model"], f"{row['index']}", row["reason"],
         "" if row["total"] is None else f"{row['passed']}/{row['total']}", row["used"],
         row["stage"]]
        for row in rows[:STATIC]
    ]  # fmt: skip
    code = [row["program"] for row in rows[:STATIC]]
    heads = ["verdict", "task", "source", "#", "reason", "tests", "training", "stage"]
    return (
        f"{_table(['stage', 'source', 'answers', *kinds], sums)}"
        f"<h2>The first {len(first)} answers</h2>{_table(heads, first, code)}"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], code: Sequence[str] = ()) -> str:
    """Rows as HTML; under each, where there is one, its code, folded."""
    said = "".join(f"<th>{escape(head)}</th>" for head in heads)
    lines = []
    for at, row in enumerate(rows):
        lines.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>")
        if code:
            text = f"<details><summary>code</summary><pre>{escape(code[at])}</pre></details>"
            lines.append(f'<tr><td colspan="{len(heads)}">{text}</td></tr>')
    body = "\n".join(lines)
    return f"<table><thead><tr>{said}</tr></thead><tbody>{body}</tbody></table>"


def write_run(profile: str) -> Path | None:
    """`samples.html` among the reports of `profile`, from what its finished stages saved.

    None, and no page, where no stage has answers; a page is left as it is while nothing changed.
    """
    path, done = config.report_dir(profile) / PAGE, _finished(profile)
    if not {"sample", "evaluate"} & done.keys():
        path.unlink(missing_ok=True)
        return None
    looks = (Path(__file__).parent / "templates" / "report").glob("samples.*")
    of = [store.sha256(one) for one in [Path(__file__), *sorted(looks)]] + [
        told["outputs"] for told in done.values()
    ]
    stamp = hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
    if not path.exists() or stamp not in path.open(encoding="utf-8").readline():
        place = config.run_dir(profile)
        run = _Run({word: place / config.stage_name(word) for word in done}, done)
        title = f"Every answer of the {profile} run"
        more = {"stories": run.stories(), "stamp": stamp, "index": "index.html"}
        store.write_bytes(path, page(run.problems(), run.parts(), title=title, **more))
    return path


_STAGES = ("evolve", "audit", "sample", "rank", "train", "evaluate")


def _finished(profile: str) -> dict[str, dict]:
    """The manifests of the stages that are finished and read what those before them have now."""
    names = {word: config.stage_name(word) for word in _STAGES}
    done, made = {}, {}
    for word, name in names.items():
        told = store.manifest(profile, name)
        read = told["inputs"].items() if told else ()
        of_stages = [(key, sha) for key, sha in read if key.partition("/")[0] in names.values()]
        if told and all(made.get(key) == sha for key, sha in of_stages):
            done[word] = told
            made |= {f"{name}/{file}": sha for file, sha in told["outputs"].items()}
    return done


@dataclass(frozen=True, slots=True)
class _Run:
    """The folders of the finished stages of a run, and their manifests."""

    folders: Mapping[str, Path]
    manifests: Mapping[str, Mapping[str, Any]]

    def rows(self, word: str, pattern: str, kind: type | None = None) -> list:
        """The records (or rows as they are) in the files of a finished stage, none elsewhere."""
        paths = sorted(self.folders[word].glob(pattern)) if word in self.folders else []
        if kind:
            return [row for path in paths for row in store.read(path, kind)]
        return [row for path in paths for _, row in store.read_rows(path)]

    def problems(self) -> list[Problem]:
        names = ("seeds.jsonl", "train.jsonl", "test.jsonl")
        return [problem for name in names for problem in self.rows("evolve", name, Problem)]

    def parts(self) -> list[Part]:
        """The answers trained on, and those of the contenders."""
        ranking, responses = None, self.rows("sample", "responses.jsonl", Response)
        if "rank" in self.folders:
            groups, pairs = (self.rows("rank", f"{n}.jsonl", RankedGroup) for n in _RANKED)
            style = self.manifests["rank"]["settings"]["prompt_format"]
            teachers = {r.source for r in responses if r.source.startswith("teacher")}
            ranking = Ranking(groups, pairs, style, sorted(teachers))
        first = Part(
            "training", responses, self.rows("rank", "executions.jsonl", Execution), ranking
        )
        said = [self.rows("evaluate", f"{name}*.jsonl", kind) for name, kind in _SAID.items()]
        return [replace(first, logs=self.logs(first)), Part("evaluation", *said)]

    def logs(self, part: Part) -> dict[Key, list[tuple[str, Logs]]]:
        """Of the answers in pairs that 05 looked into: their tokens by model."""
        found: dict[Key, list[tuple[str, Logs]]] = defaultdict(list)
        if part.ranking is None:
            return found
        answers = defaultdict(list)
        for r in part.responses:
            answers[r.task_id].append(r)
        pairs = {pair.task_id: pair for pair in part.ranking.pairs}
        known = {problem.task_id: problem for problem in self.problems()}
        keys: dict[str, dict[int, Key]] = {}
        for row in self.rows("train", "likelihoods.jsonl"):
            name = row["task_id"]
            if name not in keys:
                placed = matched(pairs[name], known, answers[name], part.ranking)
                keys[name] = {k: _key(r) for r, k in reversed([*placed]) if k is not None}
            for k, key in keys[name].items():
                logs = zip(row["tokens"][k], row["log_probs"][k], strict=True)
                found[key].append((row["model"], [*logs]))
        return found

    def stories(self) -> dict[str, list[tuple[str, str]]]:
        """What became of every training problem: (stage, sentence)."""
        told: dict[str, list[tuple[str, str]]] = defaultdict(list)
        kept = {problem.task_id for problem in self.rows("audit", "train.jsonl", Problem)}
        leaks = defaultdict(list)
        for leak in self.rows("audit", "leaks.jsonl", Leak):
            leaks[leak.task_id].append(leak)
        for problem in (
            self.rows("evolve", "train.jsonl", Problem) if "audit" in self.folders else ()
        ):
            told[problem.task_id].append(("audit", _audited(problem.task_id in kept,
                                                            leaks[problem.task_id])))  # fmt: skip
        for row in self.rows("rank", "strengths.jsonl"):
            killed = sum(outcome != Outcome.PASS.name for outcome in row["outcomes"])
            words = (
                f"the tests see {killed} of {len(row['outcomes'])} faults put into the reference"
            )
            told[row["task_id"]].append(("tests", words))
        pairs = {pair.task_id: pair for pair in self.rows("rank", "pairs.jsonl", RankedGroup)}
        for group in self.rows("rank", "groups.jsonl", RankedGroup):
            told[group.task_id].append(("rank", _ranked(group, pairs.get(group.task_id))))
        losses = defaultdict(list)
        for row in self.rows("train", "likelihoods.jsonl"):
            parts = f"{row['model']}: L_rank {row['L_rank']:.3f}, L_ft {row['L_ft']:.2f}"
            losses[row["task_id"]].append(parts)
        for name, lines in losses.items():
            told[name].append(("loss before and after", "; ".join(lines)))
        return told


_RANKED = ("groups", "pairs")
_SAID = {"responses": Response, "executions": Execution}


def _audited(kept: bool, leaks: Sequence[Leak]) -> str:
    found = {(leak.detector, leak.benchmark, leak.benchmark_task_id) for leak in leaks}
    likeness = "; ".join(f"{detector}: {name} {task}" for detector, name, task in sorted(found))
    verdict = "kept" if kept else "removed, not trained on"
    return f"{verdict}; " + (f"resembles {likeness}" if likeness else "resembles no held-out task")


def _ranked(group: RankedGroup, pair: RankedGroup | None) -> str:
    """The group in a sentence, and the pair that was made of it."""
    size = f"{len(group.responses)} different programs"
    if pair is None:
        return f"{size}; no pair: nobody to compare with, or dropped by the filter"
    sides = [
        f"{source} ({outcome.name}, {score:g})"
        for source, outcome, score in zip(pair.sources, pair.outcomes, pair.scores, strict=True)
    ]
    return f"{size}; a pair: {sides[0]} is imitated, and ranked against {', '.join(sides[1:])}"
