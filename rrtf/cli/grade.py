"""What the command line's verbs do and print: arguments in, files and tables out."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rrtf import config, engines, rank, store
from rrtf.cli import evaluate, inputs, screen
from rrtf.evaluate import exam, grade, results
from rrtf.records import Execution, Leak, Outcome, Problem, RankedGroup
from rrtf.sandbox.joint import SUFFIX


def grade_samples(
    problems: str,
    lines: str,
    *,
    extract: str = "auto",
    ks: str | None = None,
    out: str | None = None,
    data: Path | None = None,
    allow_missing: bool = False,
    allow_unknown: bool = False,
    flaky: bool = False,
    renamed: Sequence[str] | None = None,
    by: str | None = None,
    since: str | None = None,
    joint: bool = False,
    packages: Sequence[str] = (),
    **options,
) -> None:
    """The verb `grade`; `options` are those of `execution.execute`.

    `since`, `joint` and `packages` as `benchmarks.load`; `by` names what `benchmarks.groups` knows.
    ValueError and FileNotFoundError before anything runs for what a caller can get wrong.
    """
    options = grade.limits(problems, options)
    asked = grade.parse_ks(ks) if ks else None
    screen.check_out(out, problems, lines)
    reads = {"extract": extract, "renamed": renamed, "allow_unknown": allow_unknown or bool(since)}
    groups = grade.groups(problems, by, data=data) if by else {}
    chosen = {"data": data, "since": since, "joint": joint, "packages": packages}
    tasks, found, unknown = inputs.load(problems, lines, chosen=chosen, **reads)
    options |= {"packages": packages}
    absent = inputs.check_present(lines, found, tasks, allow_missing=allow_missing)
    responses = [sample.response for sample in found]
    ks_of = grade.choose_ks(grade.sizes(responses), asked)
    for note in inputs.notes(found):
        inputs.tell(f"note: {note}")
    started = time.monotonic()
    with screen.progress("grading") as tick:
        executions = grade.execute(tasks, responses, progress=tick, **options)
    unstable: list[bool] | None = None
    if flaky:
        with screen.progress("repeating") as tick:
            unstable = grade.flaky(tasks, responses, executions, progress=tick, **options)
    seconds = time.monotonic() - started
    if out:
        marks = unstable or [None] * len(executions)
        rows = [
            grade.verdict(run, mark) | {"reading": sample.reading}
            for sample, run, mark in zip(found, executions, marks, strict=True)
        ]
        screen.write(out, rows)
    console = Console(stderr=out == "-", highlight=False)
    if not out:
        console.print(_reasons(executions))
        console.print()
    rates = grade.sample_rates(executions, ks_of) + grade.rates_by(executions, ks_of, groups)
    console.print(screen.rate_table(rates, len(tasks)))
    for line in _closing(executions, unstable, absent, unknown, seconds):
        screen.say(console, line)
    if out and out != "-":
        screen.say(console, f"{len(executions)} verdicts in {out}")


def _closing(
    executions: Sequence[Execution],
    unstable: Sequence[bool] | None,
    absent: Mapping[str, Sequence[str]],
    unknown: Mapping[str, int],
    seconds: float,
) -> Iterator[str]:
    """What is said under the table: tasks missing or unknown, flaky samples, isolation, time."""
    if unknown:
        yield inputs.left_out(unknown)
    for source, tasks in absent.items():
        who = f"{source}: " if source else ""
        names = inputs.some(tasks)
        yield f"{who}NOT the whole benchmark: no sample for {len(tasks)} tasks ({names})"
    if unstable is not None:
        names = list(
            dict.fromkeys(run.task_id for run, bad in zip(executions, unstable, strict=True) if bad)
        )
        which = f" ({inputs.some(names)})" if names else ""
        yield f"flaky: {sum(unstable)} of {len(executions)} verdicts change when repeated{which}"
    if forgeable := sum(run.isolation.endswith(SUFFIX) for run in executions):
        yield (
            f"joint: {forgeable} of {len(executions)} verdicts come from tests in the candidate's "
            "own process, and a program can forge those"
        )
    yield f"isolation: {_levels(executions)}; {len(executions)} samples in {seconds:.1f} s"


def _reasons(executions: Sequence[Execution]) -> Table:
    totals = Counter(run.source for run in executions)
    return screen.reason_table(rank.reason_rows(executions), dict(sorted(totals.items())))


def evaluate_entries(
    problems: str,
    entrants: Sequence[evaluate.Entrant],
    *,
    out: Path | None = None,
    ks: str | None = None,
    margin: float,
    data: Path | None = None,
    allow_missing: bool = False,
    allow_unknown: bool = False,
    flagged: Path | None = None,
    sampling: Mapping[str, Any],
    **options,
) -> None:
    """The verb `evaluate`: one board of all entries; `options` are those of `execution.execute`.

    `flagged` is a file of leaks: the board is followed by the rates on the tasks that leak and on
    the others. Errors as `grade_samples`, besides those of sampling and of `leaderboard.board`.
    """
    options = grade.limits(problems, options)
    asked = grade.parse_ks(ks) if ks else grade.KS
    screen.check_folder(out)
    name = inputs.name_of(problems)
    leaking = exam.flagged_tasks(_leaks(flagged), name) if flagged else set()
    tasks = inputs.load_problems(problems, data=data)
    how = {"allow_missing": allow_missing, "allow_unknown": allow_unknown, "folder": out}
    responses = evaluate.answers(entrants, tasks, sampling=sampling, **how)
    if ks:
        evaluate.check_ks(responses, asked)
    if out:
        options["shards"] = out / "shards"
    with screen.progress("grading") as tick:
        executions = grade.execute(tasks, responses, progress=tick, **options)
    scores = evaluate.scores(tasks, executions, benchmark=name)
    board = results.board(scores, ks=asked, margin=margin)
    console = Console(highlight=False)
    _print_board(console, board, len(tasks), margin)
    if flagged:
        answered = leaking & {row.task_id for row in scores}
        console.print(screen.parts_table(exam.by_leak(scores, answered, ks=asked)))
        screen.explain(console, exam.CAUTION)
    screen.say(console, f"isolation: {_levels(executions)}; {len(executions)} samples")
    if out:
        told = {"problems": problems, "margin": margin, "sampling": dict(sampling)}
        told |= {"entries": [store.to_row(one) for one in entrants]}
        told |= {name: value for name, value in options.items() if name != "shards"}
        evaluate.save(out, board, tasks, responses, executions, scores, settings=told)
        screen.say(console, f"samples, verdicts, scores and board in {out}")


def _leaks(path: Path) -> list[Leak]:
    """The findings of the verb `audit` that its rule does not take for chance."""
    return [
        store.from_row(row, Leak, f"{path}:{number}")
        for number, row in store.read_rows(path)
        if not (isinstance(row, dict) and row.get("chance"))
    ]


def _print_board(console: Console, board: results.Board, n_problems: int, margin: float) -> None:
    """Rates, then the matrix of paired differences, then what has to be known to read them."""
    part = "" if board.n_tasks == n_problems else f" of {n_problems}: NOT the whole benchmark"
    screen.say(console, f"{board.benchmark}, {board.n_tasks} tasks{part}\n")
    console.print(screen.board_table(board.entries))
    if board.pairs:
        told = f"* told apart, = equal within {100 * margin:g} points, else undecided"
        screen.explain(console, f"\npass@1 of the row minus that of the column, in points; {told}")
    names = [entry.name for entry in board.entries]
    for table in screen.pair_tables(names, results.matrix(board), width=console.width):
        console.print(table)
    console.print()
    for line in [results.ESTIMAND, *results.notes(board)]:
        screen.explain(console, line)


def rank_responses(
    problems: str,
    lines: str,
    *,
    teacher: str,
    as_pairs: bool = False,
    out: str | None = None,
    data: Path | None = None,
    extract: str = "auto",
    renamed: Sequence[str] | None = None,
    prompt_format: str | None = None,
    verdicts: str | None = None,
    allow_unknown: bool = False,
    settings: Mapping[str, config.Value],
    **options,
) -> None:
    """The verb `rank`; `settings` are those of the stage, `options` those of `execution.execute`.

    Errors as `grade_samples`; besides a response without a source, or a teacher that is none of
    the sources.
    """
    options = grade.limits(problems, options)
    screen.check_out(out, problems, lines)
    reads = {"extract": extract, "renamed": renamed, "allow_unknown": allow_unknown}
    reads |= {"verdicts": True, "beside": verdicts}
    tasks, found, unknown = inputs.load(problems, lines, chosen={"data": data}, **reads)
    _check_responses(found, teacher, lines)
    kept, ranked, lost = _sound(tasks, found, settings, options)
    executions = _executions(kept, ranked, options)
    read = _prompts_read(kept, found, prompt_format, settings)
    settings = {**settings, "prompt_format": prompt_format or settings["prompt_format"]}
    groups, left_out = _groups(kept, ranked, executions, teacher, settings, read)
    how = {"pairing": settings["pairing"], "seed": settings["seed"]}
    before, _ = rank.pairs(groups, teacher_filter="none", **how)
    after, dropped = rank.pairs(groups, teacher_filter=settings["teacher_filter"], **how)
    rows, equal = rank.preferences(after)
    if out:
        screen.write(out, rows if as_pairs else after)
    console = Console(stderr=out == "-", highlight=False)
    console.print(_reasons(executions))
    console.print("\npairs by situation, and those the filter keeps")
    console.print(screen.situation_table(rank.filter_rows(before, after)))
    strangers = sum(unknown.values())
    left_out |= {
        "response: of an unknown task": strangers,
        "response: its problem is left out": len(found) - len(ranked),
    }
    lost |= _groupless(kept, groups, ranked) | dropped
    tables = [
        screen.ledger("responses", len(found) + strangers, left_out, "in groups", _size(groups)),
        screen.ledger("problems", len(tasks), lost, "kept", len(after)),
    ]
    if as_pairs:
        compared = _size(after) - len(after)
        tables.append(screen.ledger("pairs", compared, equal, "kept", len(rows)))
    console.print("", *tables, sep="\n")
    screen.say(console, f"isolation: {_levels(executions)}")
    if out and out != "-":
        screen.say(console, f"{len(rows if as_pairs else after)} lines in {out}")


def _groups(
    problems: Sequence[Problem],
    found: Sequence[inputs.Sample],
    executions: Sequence[Execution],
    teacher: str,
    settings: Mapping[str, config.Value],
    read: Mapping[str, str],
) -> tuple[list[RankedGroup], dict[str, int]]:
    """`rank.rank` with the scores of the settings."""
    return rank.rank(
        problems,
        [sample.response for sample in found],
        executions,
        teacher=teacher,
        scores={outcome: settings[f"score_{outcome.name.lower()}"] for outcome in Outcome},
        tie_break=settings["tie_break"],
        pass_ratio=settings["pass_ratio"],
        prompts=read,
        prompt_format=settings["prompt_format"],
    )


def _size(groups: Sequence[RankedGroup]) -> int:
    return sum(len(group.responses) for group in groups)


def _levels(executions: Sequence[Execution]) -> str:
    return " and ".join(sorted({run.isolation for run in executions}))


def rank_settings(
    texts: Sequence[str] | None, given: Mapping[str, config.Value | None]
) -> dict[str, config.Value]:
    """The stage's settings with `rank.KEY=VALUE` texts and with what is `given` by name."""
    overrides = dict(config.parse_override(text) for text in texts or ())
    overrides |= {f"rank.{name}": value for name, value in given.items() if value is not None}
    config.check_overrides(overrides)
    return config.resolve("nano", "rank", overrides)


def _sound(
    problems: Sequence[Problem],
    found: Sequence[inputs.Sample],
    settings: Mapping[str, config.Value],
    options: Mapping[str, Any],
) -> tuple[list[Problem], list[inputs.Sample], dict[str, int]]:
    """(problems whose own reference passes and whose tests see enough, the samples of these,
    problems left out by reason); problems without a response are not looked at."""
    from rrtf.strength import examine

    answered = {sample.response.task_id for sample in found}
    asked = [problem for problem in problems if problem.task_id in answered]
    least = settings["min_strength"]
    limit = settings["n_mutants"] if least else 0
    how = {"limit": limit, "seed": settings["seed"], "execute": grade.execute}
    with screen.progress("checking tests") as tick:
        broken, strengths = examine.examine(asked, progress=tick, **how, **options)
    kept, lost = examine.drop_broken(asked, broken)
    if least:
        kept, weak = examine.drop_weak(kept, strengths, min_strength=least)
        lost |= weak
    names = {problem.task_id for problem in kept}
    silent = [problem for problem in problems if problem.task_id not in answered]
    return [*kept, *silent], [s for s in found if s.response.task_id in names], lost


def _check_responses(found: Sequence[inputs.Sample], teacher: str, file: str) -> None:
    """ValueError for lines that cannot be ranked, and for a teacher that none is from."""
    mistakes = []
    for sample in found:
        if not sample.response.source:
            mistakes.append((sample.where, "no source: whose response is this?"))
        elif sample.kind == "solution":
            text = "a solution; ranking needs a completion, which is what is learned"
            mistakes.append((sample.where, text))
        elif not store.is_unicode(sample.response.text):
            mistakes.append((sample.where, f"{sample.kind}: half a surrogate pair, no Unicode"))
    inputs.refuse(mistakes)
    counts = Counter(sample.response.source for sample in found)
    if teacher not in counts:
        known = ", ".join(f"{name} ({n})" for name, n in counts.items())
        raise ValueError(f"{file}: no response of {teacher!r}: the sources are {known}")


def _executions(
    problems: Sequence[Problem], found: Sequence[inputs.Sample], options: Mapping[str, Any]
) -> list[Execution]:
    """The verdicts that the lines carry; the others are graded now."""
    bare = [sample.response for sample in found if sample.execution is None]
    with screen.progress("grading") as tick:
        runs = iter(grade.execute(problems, bare, progress=tick, **options) if bare else ())
    return [sample.execution or next(runs) for sample in found]


def _prompts_read(
    problems: Sequence[Problem],
    found: Sequence[inputs.Sample],
    asked: str | None,
    settings: Mapping[str, config.Value],
) -> dict[str, str]:
    """What each response continues: the problem's prompt, or for recorded texts its format.

    The format `chat` takes the template of the settings' `student`.
    """
    kinds = {sample.kind: sample.where for sample in reversed(found)}
    if asked is None and len(kinds) > 1:
        told = " but ".join(f"{where} has a {kind}" for kind, where in kinds.items())
        raise ValueError(f"{told}: say by --prompt-format what prompt they all continue")
    style = asked or (settings["prompt_format"] if "text" in kinds else None)
    if style is None:
        return {problem.task_id: problem.prompt for problem in problems}
    ask = engines.asker(settings["student"], style)
    return {problem.task_id: ask(problem) for problem in problems}


def _groupless(
    problems: Sequence[Problem], groups: Sequence[RankedGroup], found: Sequence[inputs.Sample]
) -> dict[str, int]:
    """The problems that have no ranked group, by reason."""
    answered = {sample.response.task_id for sample in found}
    silent = sum(problem.task_id not in answered for problem in problems)
    return {
        "problem: no response": silent,
        "problem: no complete teacher response": len(problems) - silent - len(groups),
    }
