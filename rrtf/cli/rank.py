"""The verb `rank`: responses in, ranked groups or pairs for other libraries out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rrtf import config, engines, prompts
from rrtf import rank as ranking
from rrtf.cli import inputs, screen
from rrtf.cli.options import Given
from rrtf.evaluate import samples
from rrtf.evaluate.samples import Sample
from rrtf.execution import reason_rows
from rrtf.records import Execution, Outcome, Problem, RankedGroup
from rrtf.report.samples import Part, Ranking, logs_of, write_answers
from rrtf.sample import TEACHER, of_one_teacher
from rrtf.strength import examine

Judge = Callable[..., list[Execution]]
RECORDED = str(config.resolve("nano", "rank")["prompt_format"])  # of texts, where none is named


def rank(given: Given) -> None:
    """Rank the responses to each problem by their situation, the teacher's first, and pair them.

    Without --teacher the best answer to each task stands in the teacher's place, and is preferred
    to what is worse only. Every response is judged, unless --trust-verdicts takes what its line
    says (outcome, reason, n_passed, n_tests, isolation). Writes ranked groups, ready for training.
    """
    scores = {outcome: getattr(given, f"score_{outcome.name.lower()}") for outcome in Outcome}
    ranking.check_scores(scores, given.tie_break, given.pass_ratio)
    judge = inputs.judge(given, given.tasks)
    if given.verdicts and not given.trust_verdicts:
        raise ValueError("--verdicts: what somebody wrote counts only with --trust-verdicts")
    drops = [name for name in MARKS if getattr(given, f"drop_{name}")]
    if drops and not given.pairs:
        raise ValueError("--drop-failing and --drop-ties leave out pairs: they go with --pairs")
    if not given.responses:
        raise ValueError("no file of responses is named")
    named = _named(given)
    screen.check_out(given.out, given.tasks, *named.values())
    screen.check_out(given.report, given.tasks, *named.values(), option="--report", ends=(".html",))
    screen.check_table(given, given.tasks, *named.values())
    screen.check_there(*named.values(), given.verdicts)
    tasks, found, unknown = _read(given, named)
    teachers = list(dict.fromkeys(given.teacher))
    found = found if teachers else [_of_the_student(sample) for sample in found]
    for name in teachers or [""]:
        samples.check_sources(found, name, ", ".join(named.values()))
    kept, ranked, lost = _sound(given, tasks, found, judge)
    executions = _executions(kept, ranked, judge)
    answers = [sample.response for sample in ranked]
    taken, runs, others = of_one_teacher(answers, executions, teachers)
    if not teachers:
        answers, executions = taken, runs
    style = given.prompt_format or RECORDED
    groups, left_out = ranking.rank(
        kept,
        taken,
        runs,
        teacher=teachers[0] if len(teachers) == 1 else TEACHER,
        scores=scores,
        tie_break=given.tie_break if teachers else 0.0,
        pass_ratio=given.pass_ratio,
        prompts=_prompts_read(given, kept, found),
        prompt_format=style,
    )
    pair = partial(ranking.pairs, groups, pairing=given.pairing, seed=given.seed)
    before, _ = pair(teacher_filter="none")
    after, dropped = pair(teacher_filter=given.teacher_filter)
    rows, left = ranking.preferences(after)
    made = len(rows) + sum(left.values())
    for words, holds in map(MARKS.get, drops):
        keep = [row for row in rows if not holds(row)]
        left[f"pair: {words}"] = len(rows) - len(keep)
        rows = keep
    if given.out:
        screen.write(given.out, rows if given.pairs else after)
    if given.report:
        ranks = Ranking(groups, after, style, teachers or [TEACHER])
        logs = logs_of((sample.response, sample.row) for sample in ranked)
        part = Part("given", answers, executions, ranks, logs)
        write_answers(given.report, kept, [part], title=f"Ranked answers to {given.tasks}")
    console = screen.console(given.out)
    console.print(screen.reason_table(executions))
    console.print("\npairs by situation, and those the filter keeps")
    named = ("teacher", "kept")
    table = [
        {name if name in named else f"student {name}": count for name, count in row.items()}
        for row in ranking.filter_rows(before, after)
    ]
    console.print(screen.rows_table(table))
    strangers = sum(unknown.values())
    left_out |= others | {
        "response: of an unknown task": strangers,
        "response: its problem is left out": len(found) - len(ranked),
    }
    lost |= _groupless(kept, groups, ranked) | dropped
    tables = [
        screen.ledger("responses", len(found) + strangers, left_out, "in groups", _size(groups)),
        screen.ledger("problems", len(tasks), lost, "kept", len(after)),
    ]
    if given.pairs:
        tables.append(screen.ledger("pairs", made, left, "kept", len(rows)))
    console.print("", *tables, sep="\n")
    for name, (words, holds) in MARKS.items() if given.pairs else ():
        count = sum(map(holds, rows))
        drop = f"; --drop-{name} leaves them out" if count else ""
        screen.say(console, f"of these pairs, {words}: {count}{drop}")
    if failing := sum(g.outcomes[g.sft_index] != Outcome.PASS for g in after):
        told = "the answer to imitate fails: {}; --filter must_pass leaves them out"
        screen.say(console, f"of {len(after)} groups, {told.format(failing)}")
    screen.say(console, f"isolation: {screen.levels(executions)}")
    screen.say_written(console, given.out, f"{len(rows if given.pairs else after)} lines")
    screen.say_written(console, given.report, "every answer")
    screen.write_table(console, given, reason_rows(executions))


# What is counted of pairs, and left out by `--drop-NAME`: in words, and whether a row is such.
MARKS: dict[str, tuple[str, Callable[[dict], bool]]] = {
    "failing": (
        "the chosen answer fails", lambda row: row["chosen_outcome"] != Outcome.PASS.name
    ),
    "ties": (
        "both are in one situation", lambda row: row["chosen_outcome"] == row["rejected_outcome"]
    ),
}  # fmt: skip


def _of_the_student(sample: Sample) -> Sample:
    """A sample, of the source `student` where it names none."""
    r, run = sample.response, sample.execution
    source = r.source or "student"
    run = run and replace(run, source=source)
    return replace(sample, response=replace(r, source=source), execution=run)


def _named(given: Given) -> dict[str, str]:
    """As it was given -> the file, which may stand behind SOURCE=."""
    texts = {text: text.partition("=") for text in given.responses}
    files = {
        text: file if sign and not Path(text).exists() else text
        for text, (_, sign, file) in texts.items()
    }
    if len(files) > 1 and any(text == file for text, file in files.items()):
        raise ValueError("several files of responses: name the source of each, SOURCE=FILE")
    return files


def _read(
    given: Given, named: dict[str, str]
) -> tuple[list[Problem], list[Sample], dict[str, int]]:
    """(problems, samples of all files, lines left out); of one source they are counted on."""
    sources = {text: text[: -len(file) - 1] for text, file in named.items() if text != file}
    options = {"verdicts": given.trust_verdicts, "beside": given.verdicts}
    options["others"] = {*sources.values(), *given.teacher}
    tasks, found, unknown, after = [], [], Counter(), Counter()
    for text, file in named.items():
        source = sources.get(text, "")
        tasks, new, left = inputs.load(given, file, tasks, source=source, **options)
        first, unknown = Counter(after), unknown + Counter(left)
        for sample in new:
            r, run = sample.response, sample.execution
            index = r.index + first[r.task_id, r.source]
            after[r.task_id, r.source] = max(after[r.task_id, r.source], index + 1)
            run = run and replace(run, index=index)
            found.append(replace(sample, response=replace(r, index=index), execution=run))
    if not given.trust_verdicts and any("outcome" in sample.row for sample in found):
        screen.tell("note: the verdicts in the lines are not used; --trust-verdicts believes them")
    return tasks, found, dict(unknown)


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(given.shards)


def _size(groups: Sequence[RankedGroup]) -> int:
    return sum(len(group.responses) for group in groups)


def _sound(
    given: Given, problems: Sequence[Problem], found: Sequence[Sample], judge: Judge
) -> tuple[list[Problem], list[Sample], dict[str, int]]:
    """(problems whose own reference passes and whose tests see enough, the samples of these,
    problems left out by reason); problems without a response are not looked at."""
    answered, least = {sample.response.task_id for sample in found}, given.min_strength
    mutate = {"n_mutants": given.n_mutants if least else 0, "seed": given.seed}
    kept, broken, strengths = inputs.examined(given, problems, answered, judge, **mutate)
    lost = {"problem: its own reference fails": len(broken)} if broken else {}
    if least:
        asked = [problem for problem in kept if problem.task_id in answered]
        strong, weak = examine.drop_weak(asked, strengths, min_strength=least)
        kept = strong + [problem for problem in kept if problem.task_id not in answered]
        lost |= weak
    names = {problem.task_id for problem in kept}
    return kept, [s for s in found if s.response.task_id in names], lost


def _executions(
    problems: Sequence[Problem], found: Sequence[Sample], judge: Judge
) -> list[Execution]:
    """The verdicts that the lines carry; the others are graded now."""
    bare = [sample.response for sample in found if sample.execution is None]
    with screen.progress("grading") as tick:
        runs = iter(judge(problems, bare, progress=tick) if bare else ())
    return [sample.execution or next(runs) for sample in found]


def _prompts_read(
    given: Given, problems: Sequence[Problem], found: Sequence[Sample]
) -> dict[str, str]:
    """What each response continues: the problem's prompt, or for recorded texts its format."""
    kinds = {sample.kind: sample.where for sample in reversed(found)}
    style = given.prompt_format
    if not style and len(kinds) > 1:
        told = " but ".join(f"{where} has a {kind}" for kind, where in kinds.items())
        raise ValueError(f"{told}: say by --prompt-format what prompt they all continue")
    style = style or (RECORDED if "text" in kinds else "")
    if not style:
        return {problem.task_id: prompts.visible(problem) for problem in problems}
    ask = engines.asker(given.student, style)
    return {problem.task_id: ask(problem) for problem in problems}


def _groupless(
    problems: Sequence[Problem], groups: Sequence[RankedGroup], found: Sequence[Sample]
) -> dict[str, int]:
    """The problems that have no ranked group, by reason."""
    answered = {sample.response.task_id for sample in found}
    silent = sum(problem.task_id not in answered for problem in problems)
    return {
        "problem: no response": silent,
        "problem: no complete teacher response": len(problems) - silent - len(groups),
    }
