"""Stage 03: what student and teacher answer, at several temperatures (section 3.2.1).

Tasks are sampled in fixed shards, each with a seed derived from what it is, so the result depends
neither on the number of processes nor on interruptions.
"""

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rrtf import asking, config, engines, prompts, store
from rrtf.records import Problem, Response

SHARD = 32  # tasks
WORTH_A_PROCESS = 1000  # answers; fewer are there before a process has loaded its libraries


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
    progress: Callable[[int, int], None] | None = None,
) -> list[Response]:
    """`n_samples` answers per problem and temperature, by task; `index` counts through them all.

    Finished shards lie in the folder `shards` and are not sampled again. `workers` above 1 are
    processes of one thread that open the model once each; for few answers, and on a GPU, there
    is one. ValueError for a task id or a temperature that comes twice, or a bad option.
    """
    for temperature in temperatures:
        engines.check_sampling(
            n=n_samples, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens
        )
    jobs = _jobs(problems, temperatures)
    n_answers = len(problems) * n_samples * len(temperatures)
    work = functools.partial(
        _through_shard,
        model=str(model),
        identity=_identity(model),
        engine=engine,
        source=source,
        n_samples=n_samples,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        prompt_format=prompt_format,
        seed=seed,
        shards=shards,
    )
    workers = min(workers, len(jobs), n_answers // WORTH_A_PROCESS)
    workers = engines.processes(workers) if workers > 1 else 1
    run = _in_processes if workers > 1 else _here
    return _numbered(run(work, jobs, workers, progress))


def _jobs(problems: Sequence[Problem], temperatures: Sequence[float]) -> list[Job]:
    ordered = sorted(problems, key=lambda problem: problem.task_id)
    for first, second in itertools.pairwise(ordered):
        if first.task_id == second.task_id:
            raise ValueError(f"{first.task_id}: the task comes twice")
    if len(set(temperatures)) < len(temperatures):
        raise ValueError(f"temperatures {list(temperatures)}: one of them comes twice")
    shards = [tuple(ordered[at : at + SHARD]) for at in range(0, len(ordered), SHARD)]
    return [Job(temperature, shard) for temperature in temperatures for shard in shards]


def _identity(model: str | Path) -> str:
    """The hash of a local model's files, the name of any other."""
    resolved = engines.resolve_model(model)
    return store.sha256(Path(resolved)) if Path(resolved).is_dir() else str(resolved)


def _here(
    work: Callable[[Job], list[Response]],
    jobs: Sequence[Job],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[Response]:
    results: list[Response] = []
    for done, job in enumerate(jobs, start=1):
        results += work(job)
        if progress:
            progress(done, len(jobs))
    return results


def _in_processes(
    work: Callable[[Job], list[Response]],
    jobs: Sequence[Job],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[Response]:
    """As `_here`, by `workers` fresh processes; a failing shard cancels those not begun."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=config.set_threads,
        initargs=(1,),
    )
    with pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if progress:
                    progress(done, len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [response for future in futures for response in future.result()]


def _through_shard(job: Job, *, shards: Path, identity: str, **settings) -> list[Response]:
    """The responses of one job, from its shard file or sampled into it."""

    def key(job: Job) -> dict:
        texts = [[problem.task_id, problem.prompt] for problem in job.problems]
        named = {name: value for name, value in settings.items() if name != "model"}
        return named | {"model": identity, "temperature": job.temperature, "tasks": texts}

    work = functools.partial(_answer, identity=identity, **settings)
    return store.through_shards(shards, [job], key, work, Response)


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
) -> list[Response]:
    ids = [problem.task_id for problem in job.problems]
    ask = asking.asker(model, prompt_format)
    try:
        answers = _opened(engine, model, identity).generate(
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


@functools.lru_cache(maxsize=1)
def _opened(engine: str, model: str, identity: str) -> engines.Generator:
    """The engine of this process; `identity` opens it anew when the folder's content changed."""
    return engines.open_engine(engine, model, threads=1)


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
