"""What a verb is given: problems, samples, and the limits of programs."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rrtf import config
from rrtf.cli import screen
from rrtf.cli.options import Given
from rrtf.engines import Decoding
from rrtf.evaluate import grade, samples
from rrtf.evaluate.samples import Sample
from rrtf.records import Execution, Problem, Response
from rrtf.sample import Author, sample
from rrtf.sandbox.executor import Limits


def load_problems(
    name: str, *, data: Path | None = None, since: str | None = None, **accepted
) -> list[Problem]:
    """`grade.load_problems`; what the benchmark leaves out is said on standard error."""
    tasks = grade.load_problems(name, data=data, since=since, **accepted)
    for note in grade.refusals(name, data=data, **accepted):
        screen.tell(f"note: {note}")
    return tasks


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
    """`grade.execute` on problems of this name, as the options of a verb say."""
    more = vars(given)
    return partial(
        grade.execute,
        limits=limits(given, name),
        workers=given.workers,
        cluster=more.get("cluster", "local"),
        shards=screen.folder(more.get("shards", "")),
        packages=more.get("packages", ()),
    )


def load(given: Given, lines: str, **options) -> tuple[list[Problem], list[Sample], dict[str, int]]:
    """(problems, samples, lines left out) as a verb's options say; `options` of `samples.read`."""
    if given.tasks == "-" and lines == "-":
        raise ValueError("only one of the two can be standard input (-)")
    tasks = tasks_of(given)
    allow = given.allow_unknown or bool(vars(given).get("since"))
    how = {"extract": given.extract, "renamed": given.rename, "allow_unknown": allow}
    return tasks, *samples.read(lines, tasks, **how, **options)


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
