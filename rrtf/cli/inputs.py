"""What a verb is given: problems, samples, and the limits of programs."""

import re
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from rrtf import config, engines
from rrtf.benchmarks import tasks
from rrtf.cli import screen
from rrtf.cli.options import Given
from rrtf.engines import Decoding
from rrtf.evaluate import grade, samples
from rrtf.evaluate.samples import Sample
from rrtf.records import Execution, Problem, Response
from rrtf.sample import Author, sample
from rrtf.sandbox import joint, packages
from rrtf.sandbox.executor import Limits
from rrtf.strength import examine
from rrtf.strength.examine import Strength


def load_problems(
    name: str, *, data: Path | None = None, since: str | None = None, **accepted
) -> list[Problem]:
    """`grade.load_problems`; what the benchmark leaves out is said on standard error."""
    with screen.progress(f"{name}: values that are expected") as tick:
        problems = grade.load_problems(name, data=data, since=since, progress=tick, **accepted)
    for note in grade.refusals(name, data=data, **accepted):
        screen.tell(f"note: {note}")
    for line in tasks.forms(problems):
        screen.tell(f"note: {line}")
    return problems


def tasks_of(given: Given) -> list[Problem]:
    """`load_problems` as the options of a verb say."""
    more = vars(given)
    accepted = {name: more[name] for name in ("joint", "packages") if name in more}
    since = more.get("since") or None
    return load_problems(given.tasks, data=screen.folder(given.data), since=since, **accepted)


def limits(given: Given, name: str = "") -> Limits:
    """What a program may use, as the options say, else as the benchmark `name` does."""
    return grade.limits(
        name,
        cpu_seconds=given.cpu_seconds or None,
        wall_seconds=given.wall_seconds or None,
        memory_mb=given.memory_mb,
        isolation=given.isolation,
    )


def judge(given: Given, name: str) -> Callable[..., list[Execution]]:
    """`grade.execute` on problems of this name, as the options of a verb say.

    What programs import that they cannot see here is said on standard error.
    """
    more = vars(given)
    execute = partial(
        grade.execute,
        limits=limits(given, name),
        workers=given.workers,
        cluster=more.get("cluster", "local"),
        shards=screen.folder(more.get("shards", "")),
        packages=more.get("packages", ()),
    )

    def judged(tasks: Sequence[Problem], answers: Sequence[Response], **how) -> list[Execution]:
        executions = execute(tasks, answers, **how)
        ended = [_imported(*pair) for pair in zip(answers, executions, strict=True)]
        unseen = set().union(*ended) - {*more.get("packages", ()), *sys.stdlib_module_names}
        if unseen and (missing := packages.installed(unseen)):
            names, count = ",".join(sorted(missing)), sum(bool(n & missing) for n in ended)
            way = f": --packages {names} lets them" if "packages" in more else ""
            screen.tell(f"note: {count} programs end at an import; they see no {names} here{way}")
        return executions

    return judged


_IMPORT = re.compile(r"(?m)^([ \t]*)(?:import|from)[ \t]+(\w+)")


def _imported(answer: Response, run: Execution) -> set[str]:
    """What a program imports that ended at an import, or may have: standard input tells no name."""
    if run.reason not in ("ModuleNotFoundError", "exit_1"):
        return set()
    found = _IMPORT.findall(answer.program)
    return {name for indent, name in found if not indent or run.reason != "exit_1"}


def examined(
    given: Given, tasks: Sequence[Problem], answered: Collection[str], judge: Callable, **options
) -> tuple[list[Problem], dict[str, str], list[Strength]]:
    """(problems to judge by, task_id -> why another is left out, the strength of their tests).

    Looked at are those `answered`: their own reference is judged first, and where --joint allows
    it those that fail are tried once more in that mode. `options` of `examine.examine`. What is
    left out, and what has no reference, is said on standard error.
    """
    asked = [problem for problem in tasks if problem.task_id in answered]
    how = {"limits": limits(given, given.tasks), "execute": judge}
    with screen.progress("judging references") as tick:
        broken, strengths = examine.examine(asked, progress=tick, **how, **options)
    unproven = [name for name, why in broken.items() if why == examine.NO_REFERENCE]
    lost = {name: why for name, why in broken.items() if why != examine.NO_REFERENCE}
    weaker = [joint.mark(problem) for problem in asked if problem.task_id in lost]
    rescued: dict[str, Problem] = {}
    if given.joint and weaker:
        still = examine.broken_references(weaker, **how)
        rescued = {problem.task_id: problem for problem in weaker if problem.task_id not in still}
        lost = {name: why for name, why in lost.items() if name not in rescued}
    for note in _of_references(lost, list(rescued), unproven, given.joint):
        screen.tell(f"note: {note}")
    kept = [rescued.get(p.task_id, p) for p in tasks if p.task_id not in lost]
    return kept, lost, strengths


def sound(
    given: Given, tasks: list[Problem], responses: Sequence[Response], judge: Callable
) -> tuple[list[Problem], list[Response], dict[str, str]]:
    """(problems to judge by, the responses to them, task_id -> why another is left out).

    The references of a benchmark are known to pass; those of other problems are `examined`.
    ValueError where nothing is left.
    """
    if grade.is_benchmark(given.tasks):
        return tasks, list(responses), {}
    answered = {response.task_id for response in responses}
    kept, lost, _ = examined(given, tasks, answered, judge, n_mutants=0, seed=0)
    left = [response for response in responses if response.task_id not in lost]
    if not left:
        raise ValueError(f"{given.tasks}: no problem is left to grade by")
    return kept, left, lost


def _of_references(
    lost: dict[str, str], rescued: Sequence[str], unproven: Sequence[str], allowed: bool
) -> list[str]:
    notes = []
    if lost:
        told = "; ".join(f"{name}: {lost[name]}" for name in list(lost)[: samples.SHOWN])
        more = "; ..." if len(lost) > samples.SHOWN else ""
        out = "" if allowed else ". --joint may serve tests whose values cannot cross to the judge"
        why = "their own reference does not pass their tests here"
        notes.append(f"{len(lost)} problems are left out, {why}: {told}{more}{out}")
    if rescued:
        where = "in the candidate's own process, where a program can forge the verdict"
        notes.append(f"{len(rescued)} problems are judged {where} ({samples.some(rescued)})")
    if unproven:
        proof = "no reference, so nothing shows that a right program passes their tests"
        notes.append(f"{len(unproven)} problems have {proof} ({samples.some(unproven)})")
    return notes


def load(
    given: Given, lines: str, tasks: Sequence[Problem] = (), **options
) -> tuple[Sequence[Problem], list[Sample], dict[str, int]]:
    """(problems, samples, lines left out) as a verb's options say; `options` of `samples.read`.

    `tasks` are the problems where another file was read for them before.
    """
    if given.tasks == "-" and lines == "-":
        raise ValueError("only one of the two can be standard input (-)")
    tasks = tasks or tasks_of(given)
    allow = given.allow_unknown or bool(vars(given).get("since"))
    how = {"extract": given.extract, "renamed": given.rename, "allow_unknown": allow}
    return tasks, *samples.read(lines, tasks, **how, **options)


def need_engine(verb: str, engine: str) -> None:
    """OSError where what this engine runs on, or is asked through, is not installed."""
    away = engines.remote(engine)
    config.need(verb, *(("openai", "httpx") if away else ("torch", "transformers")))


def longest(model: str) -> int:
    """Where an answer is cut if nobody says: a shipped model's as in the nano profile, else 512."""
    ships = model.startswith("nano-") and not Path(model).exists()
    profile = "nano" if ships else "gpu80"
    return int(config.resolve(profile, "sample")["max_new_tokens"])


def sampled(
    given: Given,
    tasks: Sequence[Problem],
    author: Author,
    decodings: Sequence[Decoding],
    *,
    kept: str,
    cluster: str,
) -> list[Response]:
    """The answers of a model, in shards in the folder `kept` where one is named.

    OSError where the engine, a server or a cluster is not to be had.
    """
    how = {"n_samples": given.n_samples, "workers": given.workers, "cluster": cluster}
    with screen.kept_in(kept) as shards, screen.progress(f"sampling {author.source}") as tick:
        try:
            return sample(tasks, author, decodings=decodings, shards=shards, progress=tick, **how)
        except (ImportError, RuntimeError) as error:
            raise OSError(f"{author.source}: {error}") from error
