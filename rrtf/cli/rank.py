"""The verb `rank`: responses in, ranked groups or pairs for other libraries out."""

from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console

from rrtf import config, engines
from rrtf import rank as ranking
from rrtf.cli import inputs, screen
from rrtf.cli.options import Given
from rrtf.evaluate import samples
from rrtf.evaluate.samples import Sample
from rrtf.records import Execution, Outcome, Problem, RankedGroup
from rrtf.strength import examine

Judge = Callable[..., list[Execution]]
RECORDED = str(config.resolve("nano", "rank")["prompt_format"])  # of texts, where none is named


def rank(given: Given) -> None:
    """Rank the responses to each problem by their situation, the teacher's first, and pair them.

    Lines that carry a verdict (outcome, reason, n_passed, n_tests, isolation) keep it, the others
    are graded. Writes ranked groups, ready for training.
    """
    scores = {outcome: getattr(given, f"score_{outcome.name.lower()}") for outcome in Outcome}
    ranking.check_scores(scores, given.tie_break, given.pass_ratio)
    judge = inputs.judge(given, given.tasks)
    screen.check_out(given.out, given.tasks, given.responses)
    tasks, found, unknown = inputs.load(
        given, given.responses, verdicts=True, beside=given.verdicts
    )
    samples.check_sources(found, given.teacher, given.responses)
    kept, ranked, lost = _sound(given, tasks, found, judge)
    executions = _executions(kept, ranked, judge)
    groups, left_out = ranking.rank(
        kept,
        [sample.response for sample in ranked],
        executions,
        teacher=given.teacher,
        scores=scores,
        tie_break=given.tie_break,
        pass_ratio=given.pass_ratio,
        prompts=_prompts_read(given, kept, found),
        prompt_format=given.prompt_format or RECORDED,
    )
    pair = partial(ranking.pairs, groups, pairing=given.pairing, seed=given.seed)
    before, _ = pair(teacher_filter="none")
    after, dropped = pair(teacher_filter=given.teacher_filter)
    rows, equal = ranking.preferences(after)
    if given.out:
        screen.write(given.out, rows if given.pairs else after)
    console = Console(stderr=given.out == "-", highlight=False)
    console.print(screen.reason_table(executions))
    console.print("\npairs by situation, and those the filter keeps")
    named = ("teacher", "kept")
    table = [
        {name if name in named else f"student {name}": count for name, count in row.items()}
        for row in ranking.filter_rows(before, after)
    ]
    console.print(screen.rows_table(table))
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
    if given.pairs:
        compared = _size(after) - len(after)
        tables.append(screen.ledger("pairs", compared, equal, "kept", len(rows)))
    console.print("", *tables, sep="\n")
    screen.say(console, f"isolation: {screen.levels(executions)}")
    screen.say_written(console, given.out, f"{len(rows if given.pairs else after)} lines")


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
    answered = {sample.response.task_id for sample in found}
    least = given.min_strength
    asked = [problem for problem in problems if problem.task_id in answered]
    with screen.progress("checking tests") as tick:
        broken, strengths = examine.examine(
            asked,
            n_mutants=given.n_mutants if least else 0,
            seed=given.seed,
            limits=inputs.limits(given, given.tasks),
            execute=judge,
            progress=tick,
        )
    kept, lost = examine.drop_broken(asked, broken)
    if least:
        kept, weak = examine.drop_weak(kept, strengths, min_strength=least)
        lost |= weak
    names = {problem.task_id for problem in kept}
    silent = [problem for problem in problems if problem.task_id not in answered]
    return [*kept, *silent], [s for s in found if s.response.task_id in names], lost


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
        return {problem.task_id: problem.prompt for problem in problems}
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
