"""Stage 03: what student and teacher answer, at several temperatures (section 3.2.1).

Tasks are sampled in fixed shards, each with a seed derived from what it is, so the result depends
neither on the number of processes or nodes nor on interruptions.
"""

import functools
import itertools
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any, TypeVar

from rrtf import config, engines, prompts, store
from rrtf.cluster import PLACES, spread
from rrtf.records import Problem, Response

Item = TypeVar("Job")


def work_off(
    work: Callable[[Item], None],
    jobs: Sequence[Item],
    *,
    helpers: int,
    ready: Callable[[], bool],
    progress: Callable[[int], None],
) -> None:
    """`work(job)` for every job, here and by `helpers` fresh processes of one thread each.

    A helper calls `ready` first and leaves if that is false. Results lie where `work` puts them;
    `progress` is told how many jobs are done. A job that fails ends the call with its error, a
    helper that is killed with an OSError; whatever ends the call ends the helpers.
    """
    context = get_context("spawn")
    begun = context.Value("l", 0)
    crew = [_hire(context, (work, list(jobs), begun, ready)) for _ in range(helpers)]
    done = 0
    try:
        for number in _numbers(begun, len(jobs)):
            work(jobs[number])
            done += 1 + _heard(crew, wait=False)
            progress(done)
        while done < len(jobs):
            done += _heard(crew, wait=True)
            progress(done)
    finally:
        for process, pipe in crew:
            process.terminate()
            process.join()
            pipe.close()


def _numbers(begun: Any, total: int) -> Iterator[int]:
    """The jobs that nobody has begun, each as it is taken."""
    while True:
        with begun.get_lock():
            number = begun.value
            begun.value += 1
        if number >= total:
            return
        yield number


def _hire(context: Any, task: tuple) -> tuple[Any, connection.Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_help, args=(theirs, *task), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends with the process
    return process, ours


def _help(
    pipe: connection.Connection,
    work: Callable[[Item], None],
    jobs: Sequence[Item],
    begun: Any,
    ready: Callable[[], bool],
) -> None:
    """What a helper does; it says True for every job done, and as its last word False or an error.

    A caller that was killed is noticed when it is told of a job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller is interrupted, and ends its helpers
    config.set_threads(1)
    try:
        try:
            for number in _numbers(begun, len(jobs)) if ready() else ():
                work(jobs[number])
                pipe.send(True)
            pipe.send(False)
        except Exception as error:
            pipe.send(error)
    except BrokenPipeError:
        pass


def _heard(crew: list[tuple[Any, connection.Connection]], *, wait: bool) -> int:
    """How many jobs the helpers say are done since they were heard last."""
    done = 0
    pipes = [pipe for _, pipe in crew if not pipe.closed]
    for pipe in connection.wait(pipes, None if wait else 0):
        try:
            said = pipe.recv()
        except EOFError:
            raise OSError("a helping process was killed; what was finished is kept") from None
        if isinstance(said, Exception):
            raise said
        if not said:
            pipe.close()
        done += said
    return done


SHARD = 32  # tasks
WORTH_A_PROCESS = 7e9  # answers times bytes of the model; fewer are there before it has started
LIBRARIES = ("torch", "transformers", "tokenizers", "ctranslate2")  # they decide samples too


@dataclass(frozen=True, slots=True)
class Job:
    """One shard of tasks at one temperature."""

    temperature: float
    problems: tuple[Problem, ...]


def sample(
    problems: Sequence[Problem],
    *,
    model: str | Path,
    source: str,
    temperature: float,
    n_samples: int,
    shards: Path,
    **options,
) -> list[Response]:
    """`n_samples` answers of `model` to every problem at one temperature, by task and index.

    Options as in `sample_temperatures`.
    """
    return sample_temperatures(
        problems,
        model=model,
        source=source,
        temperatures=[temperature],
        n_samples=n_samples,
        shards=shards,
        **options,
    )


def sample_temperatures(
    problems: Sequence[Problem],
    *,
    model: str | Path,
    source: str,
    temperatures: Sequence[float],
    n_samples: int,
    shards: Path,
    engine: str = "auto",
    top_p: float = 1.0,
    max_new_tokens: int = 140,
    prompt_format: str = "starcoder",
    seed: int = 0,
    workers: int = 1,
    cluster: str = "local",
    progress: Callable[[int, int], None] | None = None,
) -> list[Response]:
    """`n_samples` answers per problem and temperature, by task; `index` counts through them all.

    Finished shards lie in the folder `shards` and are not sampled again; those of this
    machine's CPU, of its GPU and of a cluster are told apart, because they may differ.
    `workers` above 1 are processes of one thread that open the model once each; for few
    answers, and on a GPU, there is one. `cluster` is `local` or `ray`: there every GPU, where
    there are none every CPU, has a worker (`cluster.spread`), which needs the model under the
    same name. An engine that asks a server (`engines.remote`) has its own concurrency: it asks
    from here, in one process, and its replies are kept in `shards` too.

    ValueError for a task or a temperature that comes twice, a task without a prompt, or a bad
    option; FileNotFoundError for a missing model; RuntimeError for nodes that differ in the model
    or in the engine that `auto` means there.
    """
    if cluster not in PLACES:
        raise ValueError(f"unknown cluster {cluster!r}: expected one of {', '.join(PLACES)}")
    for temperature in temperatures:
        engines.check_sampling(
            n=n_samples, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens
        )
    jobs = _jobs(problems, temperatures)
    away = engines.remote(engine)
    settings = {"model": str(model), "identity": _identity(model, engine), "engine": engine}
    settings |= {"source": source, "n_samples": n_samples, "top_p": top_p, "seed": seed}
    settings |= {"max_new_tokens": max_new_tokens, "prompt_format": prompt_format}
    device = "server" if away else "nodes" if cluster == "ray" else engines.device()
    places = [store.shard_path(shards, _key(job, settings, device)) for job in jobs]
    left = [(job, path) for job, path in zip(jobs, places, strict=True) if not path.exists()]

    def tell(done: int) -> None:
        if progress:
            progress(len(jobs) - len(left) + done, len(jobs))

    if cluster == "ray" and not away:
        _on_cluster(left, settings, tell)
    else:
        _here(left, settings, 1 if away else workers, shards / "replies" if away else None, tell)
    read = [_saved(job, path, n_samples) for job, path in zip(jobs, places, strict=True)]
    return _numbered(list(itertools.chain(*read)))


@functools.cache
def version() -> str:
    """The code and the libraries that decide what is sampled."""
    found = [store.version("rrtf.sample")]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version_of(name).partition('+')[0]}")  # +cpu, +cu130: one code
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _jobs(problems: Sequence[Problem], temperatures: Sequence[float]) -> list[Job]:
    """The shards; of a problem only what its answers depend on."""
    ordered = sorted(problems, key=lambda problem: problem.task_id)
    for first, second in itertools.pairwise(ordered):
        if first.task_id == second.task_id:
            raise ValueError(f"{first.task_id}: the task comes twice")
    for problem in ordered:
        if not problem.prompt.strip():
            raise ValueError(f"{problem.task_id}: no prompt; the model has nothing to continue")
    if len(set(temperatures)) < len(temperatures):
        raise ValueError(f"temperatures {list(temperatures)}: one of them comes twice")
    bare = [Problem(p.task_id, p.prompt, p.entry_point, tests="") for p in ordered]
    shards = [tuple(bare[at : at + SHARD]) for at in range(0, len(bare), SHARD)]
    return [Job(temperature, shard) for temperature in temperatures for shard in shards]


def _identity(model: str | Path, engine: str) -> str:
    """The hash of a local model's files, the name of any other; what a server has, and which."""
    if engines.remote(engine):
        return f"{engine} {engines.served_name(engine, model)}"
    resolved = engines.resolve_model(model)
    return store.sha256(Path(resolved)) if Path(resolved).is_dir() else str(resolved)


def _key(job: Job, settings: dict[str, Any], device: str) -> dict[str, Any]:
    """Everything that the answers of a shard depend on; the device says what `auto` means."""
    named = {name: value for name, value in settings.items() if name not in ("model", "identity")}
    tasks = [[p.task_id, p.prompt, p.entry_point] for p in job.problems]
    named |= {"model": settings["identity"], "temperature": job.temperature, "tasks": tasks}
    return named | {"device": device, "version": version()}


def _saved(job: Job, path: Path, n_samples: int) -> list[Response]:
    """A shard's answers; ValueError where its file was changed or cut."""
    found = store.read(path, Response)
    wanted = [problem.task_id for problem in job.problems for _ in range(n_samples)]
    if [response.task_id for response in found] != wanted:
        raise ValueError(
            f"{path}: damaged: expected {len(wanted)} answers, {n_samples} to each task; delete "
            "it to have them sampled again"
        )
    return found


# Who samples.


def _here(
    left: Sequence[tuple[Job, Path]],
    settings: dict[str, Any],
    workers: int,
    replies: Path | None,
    tell: Callable[[int], None],
) -> None:
    """Shards into their files by this process and, where it is worth it, by helpers."""
    opened = {"replies": replies} if replies else {}
    n_answers = sum(len(job.problems) for job, _ in left) * settings["n_samples"]
    helpers = min(workers, len(left)) - 1
    if helpers > 0:
        helpers = min(helpers, int(n_answers * _size(settings["model"]) / WORTH_A_PROCESS))
    work_off(
        functools.partial(_save, opened=opened, **settings),
        left,
        helpers=max(helpers, 0),
        ready=functools.partial(
            _ready, settings["engine"], settings["model"], settings["identity"]
        ),
        progress=tell,
    )


def _size(model: str) -> int:
    """Bytes of a model's files."""
    return sum(path.stat().st_size for path in engines.model_folder(model).iterdir())


def _save(place: tuple[Job, Path], *, opened: dict[str, Path], **settings) -> None:
    job, path = place
    store.write(path, _answer(job, opened=opened, **settings))


def _ready(engine: str, model: str, identity: str) -> bool:
    """Opens the model; False on a GPU, which one process fills."""
    if engines.processes(2) == 1:
        return False
    _opened(engine, model, identity)
    return True


def _on_cluster(
    left: Sequence[tuple[Job, Path]], settings: dict[str, Any], tell: Callable[[int], None]
) -> None:
    """Shards into their files, sampled by the nodes of a cluster."""
    made: set[str] = set()
    done = itertools.count(1)
    folder = Path(settings["model"])
    named = settings | {"model": str(folder.absolute())} if folder.is_dir() else settings

    def message(place: tuple[Job, Path]) -> dict[str, Any]:
        job, _ = place
        tasks = [[p.task_id, p.prompt, p.entry_point] for p in job.problems]
        return {"settings": named, "temperature": job.temperature, "tasks": tasks}

    def finished(place: tuple[Job, Path], answered: dict[str, Any]) -> None:
        made.add(answered["made_by"])
        if len(made) > 1:
            raise RuntimeError(
                f"the nodes differ: {' and '.join(sorted(made))}; name an engine that is the same "
                "on all of them, and have one revision of the model"
            )
        store.write(place[1], answered["responses"])
        tell(next(done))

    uses_gpu = settings["engine"] in ("auto", "transformers")
    spread(answer, left, message=message, finished=finished, gpu=uses_gpu)


def answer(message: dict[str, Any], cpus: int) -> dict[str, Any]:
    """A shard's answers on a node of a cluster, JSON in and out, and what made them.

    FileNotFoundError where the node lacks the model, RuntimeError where it has another.
    """
    settings = message["settings"]
    folder = _checked(settings["model"], settings["engine"], settings["identity"])
    job = Job(message["temperature"], tuple(Problem(*task, "") for task in message["tasks"]))
    responses = [store.to_row(response) for response in _answer(job, opened={}, **settings)]
    opened = _opened(settings["engine"], settings["model"], settings["identity"])
    return {"responses": responses, "made_by": f"{opened.name} on {opened.device}, {folder}"}


@functools.cache
def _checked(model: str, engine: str, identity: str) -> str:
    """The name of the node's model folder, for a hub's model its revision, once it is checked."""
    folder = engines.model_folder(model)
    found = _identity(model, engine)
    if found != identity:
        raise RuntimeError(f"{model}: another model than the caller's ({found}, not {identity})")
    return folder.name


def _answer(
    job: Job,
    *,
    model: str,
    identity: str,
    engine: str,
    source: str,
    n_samples: int,
    top_p: float,
    max_new_tokens: int,
    prompt_format: str,
    seed: int,
    opened: dict[str, Path],
) -> list[Response]:
    ids = [problem.task_id for problem in job.problems]
    ask = engines.asker(model, prompt_format, engine=engine)
    try:
        answers = _opened(engine, model, identity, **opened).generate(
            [ask(problem) for problem in job.problems],
            n=n_samples,
            temperature=job.temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            stops=prompts.stops(job.problems, prompt_format),
            seed=config.derive_seed(seed, source, str(job.temperature), *ids),
        )
    except ValueError as error:
        raise ValueError(f"sampling {ids[0]} to {ids[-1]}: {error}") from error
    return [
        Response(
            task_id=problem.task_id,
            source=source,
            index=index,
            text=completion.text,
            program=prompts.extract(problem, completion.text),
            n_tokens=completion.n_tokens,
            finish_reason=completion.finish_reason,
            temperature=job.temperature,
        )
        for problem, row in zip(job.problems, answers, strict=True)
        for index, completion in enumerate(row)
    ]


_HELD: dict[tuple, engines.Generator] = {}  # the engine of this process


def _opened(engine: str, model: str, identity: str, **options: Path) -> engines.Generator:
    """The engine of this process; `identity` opens it anew when the folder's content changed."""
    key = engine, model, identity, *options.values()
    if key not in _HELD:
        _HELD.clear()  # first: two models, or the servers of two, may not fit beside each other
        _HELD[key] = engines.open_engine(engine, model, threads=1, **options)
    return _HELD[key]


def _numbered(responses: Sequence[Response]) -> list[Response]:
    """By task; `index` counts a source's answers to a task in the order they came."""
    seen: defaultdict[str, int] = defaultdict(int)
    numbered = []
    for response in responses:
        numbered.append(replace(response, index=seen[response.task_id]))
        seen[response.task_id] += 1
    return sorted(numbered, key=lambda response: (response.task_id, response.index))


# What the stage looks at.


def survey(responses: Sequence[Response]) -> list[dict[str, str | float | int]]:
    """One row per source and temperature: how many, how different, how long, how well-formed.

    `distinct` is the mean share of different programs among a prompt's answers of the row.
    """
    groups: defaultdict[tuple[str, float], list[Response]] = defaultdict(list)
    for response in responses:
        groups[response.source, response.temperature].append(response)
    return [
        {"source": source, "temperature": temperature} | _describe(group)
        for (source, temperature), group in sorted(groups.items())
    ]


def lengths(responses: Sequence[Response]) -> dict[str, list[int]]:
    """Generated tokens of every answer, by source and temperature."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for response in sorted(responses, key=lambda r: (r.source, r.temperature)):
        found[f"{response.source}, T = {response.temperature:g}"].append(response.n_tokens)
    return dict(found)


def _describe(group: Sequence[Response]) -> dict[str, float | int]:
    by_task: defaultdict[str, list[str]] = defaultdict(list)
    for response in group:
        by_task[response.task_id].append(response.program)
    distinct = [len(set(programs)) / len(programs) for programs in by_task.values()]
    return {
        "responses": len(group),
        "per prompt": len(group) / len(by_task),
        "distinct": sum(distinct) / len(distinct),
        "mean tokens": sum(response.n_tokens for response in group) / len(group),
        "cut by length": sum(r.finish_reason == "length" for r in group) / len(group),
        "parses": sum(prompts.parses(response.program) for response in group) / len(group),
    }
