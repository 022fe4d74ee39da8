"""Stage 03: what student and teacher answer, at several temperatures (section 3.2.1).

Tasks are sampled in fixed shards, each with a seed derived from what it is, so the result depends
neither on the number of processes or nodes nor on interruptions.
"""

import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from rrtf import config, engines, prompts, store
from rrtf.cluster import check_place, side_by_side, spread
from rrtf.engines import Decoding
from rrtf.records import Execution, Outcome, Problem, Response

SHARD = 32  # tasks
GPU_ANSWERS = 8192  # of a shard on a GPU, so that its batches can be large; not measured
WORTH_A_PROCESS = 7e9  # answers times bytes of the model; fewer are there before it has started
TEACHER = "teacher"  # the source of the first, and of the one that is taken of several
LIBRARIES = ("torch", "transformers", "tokenizers", "ctranslate2")  # they decide samples too


@dataclass(frozen=True, slots=True)
class Author:
    """Who answers, under the name `source`: a model, what it is opened in, how it is asked."""

    model: str
    source: str
    engine: str
    prompt_format: str


def teachers(
    models: Sequence[str], spelled: Sequence[str], formats: Sequence[str], *, student: Author
) -> list[Author]:
    """Who teaches, under the sources `teacher`, `teacher-2`, ...

    `spelled` are their engines and `formats` their prompt formats: one for all or one each, and
    where there is none, or it is "", the student's. ValueError for another number, and where
    there is no teacher.
    """
    if not models or "" in models:
        raise ValueError("no teacher is named; give one, e.g. --set shared.teacher=FOLDER-OR-NAME")
    each = []
    for name, own in (("teacher_engine", spelled), ("teacher_prompt_format", formats)):
        if len(own) not in (0, 1, len(models)):
            raise ValueError(
                f"{name}: {len(own)} for {len(models)} teachers: expected one for all or one each"
            )
        each.append([*(own or [""])] * (len(models) if len(own) < 2 else 1))
    return [
        Author(
            model,
            f"{TEACHER}-{at}" if at > 1 else TEACHER,
            engine or student.engine,
            prompt_format or student.prompt_format,
        )
        for at, (model, engine, prompt_format) in enumerate(zip(models, *each, strict=True), 1)
    ]


def of_one_teacher(
    responses: Sequence[Response], executions: Sequence[Execution], teachers: Sequence[str]
) -> tuple[list[Response], list[Execution], dict[str, int]]:
    """(responses, their executions, responses left out by reason) with one teacher for each task.

    Of several sources in `teachers` a task keeps the one with an answer in the highest situation,
    the first named among equals, as the source TEACHER; a single one stays as it is. The paper
    has several teachers and one answer, and does not say how it is chosen. Without teachers each
    task's best answer takes that place (`best_as_teacher`).
    """
    if not teachers:
        return *best_as_teacher(responses, executions), {}
    if len(teachers) == 1:
        return list(responses), list(executions), {}
    best: dict[str, tuple[Outcome, int]] = {}
    for run in executions:
        if run.source in teachers:
            place = run.outcome, -teachers.index(run.source)
            best[run.task_id] = max(place, best.get(run.task_id, place))
    kept = []
    for response, run in zip(responses, executions, strict=True):
        if run.source in teachers:
            if run.source != teachers[-best[run.task_id][1]]:
                continue
            response, run = replace(response, source=TEACHER), replace(run, source=TEACHER)
        elif run.source == TEACHER:
            raise ValueError(f"{run.task_id}: a source {TEACHER!r} that is no teacher")
        kept.append((response, run))
    lost = len(responses) - len(kept)
    reason = {"response: another teacher's is taken": lost} if lost else {}
    return [r for r, _ in kept], [run for _, run in kept], reason


def best_as_teacher(
    responses: Sequence[Response], executions: Sequence[Execution]
) -> tuple[list[Response], list[Execution]]:
    """Both, each task's best whole answer as one of TEACHER: the first in the highest situation.

    Of those that fail tests the one that passes most of them.
    """
    best: dict[str, tuple[Outcome, float, int]] = {}
    for at, (response, run) in enumerate(zip(responses, executions, strict=True)):
        if response.source == TEACHER:
            raise ValueError(f"{run.task_id}: a source {TEACHER!r}, not named as --teacher")
        if response.finish_reason != "length":
            place = run.outcome, run.n_passed / max(1, run.n_tests), -at
            best[run.task_id] = max(place, best.get(run.task_id, place))
    found = list(responses), list(executions)
    for *_, at in best.values():
        for side in found:
            side[-at] = replace(side[-at], source=TEACHER)
    return found


def asker(author: Author) -> engines.Asker:
    """The function from a problem to what `author` is given; errors as `engines.asker`."""
    away = engines.remote(author.engine)
    return engines.asker(author.model, author.prompt_format, away=away)


@dataclass(frozen=True, slots=True)
class Job:
    """One shard of tasks, and all that its answers depend on; `identity` is that of the model."""

    author: Author
    identity: str
    decoding: Decoding
    n_samples: int
    problems: tuple[Problem, ...]


def sample(
    problems: Sequence[Problem],
    author: Author,
    *,
    decodings: Sequence[Decoding],
    n_samples: int,
    shards: Path,
    workers: int,
    cluster: str,
    progress: Callable[[int, int], None] | None = None,
) -> list[Response]:
    """`n_samples` answers per problem and decoding, by task; `index` counts through them all.

    The decodings differ in their temperature. Finished shards lie in the folder `shards` and are
    not sampled again; those of this machine's CPU, of its GPU and of a cluster are told apart,
    because they may differ. `workers` above 1 are processes of one thread that open the model once
    each; for few answers, and on a GPU, there is one. `cluster` is `local` or `ray`: there every
    GPU, where there are none every CPU, has a worker (`cluster.spread`), which needs the model
    under the same name. An engine that asks a server (`engines.remote`) has its own concurrency:
    it asks from here, in one process, and its replies are kept in `shards` too.

    A prompt that fills all that the model can hold has no answer; that, and answers that end where
    the model's positions do, is noted (`engines.note`).

    ValueError for a task or a temperature that comes twice, a task without a prompt, or a bad
    option; FileNotFoundError for a missing model; RuntimeError for nodes that differ in the model
    or in the engine that `auto` means there.
    """
    check_place(cluster)
    for decoding in decodings:
        engines.check_sampling(decoding, n_samples)
    away = engines.remote(author.engine)
    device = "server" if away else "nodes" if cluster == "ray" else engines.device()
    size = max(SHARD, GPU_ANSWERS // n_samples) if device == "cuda" else SHARD
    jobs = _jobs(problems, author, decodings, n_samples, size)
    if cluster == "ray" and not away:
        work = functools.partial(_on_cluster, jobs)
    else:
        ask = functools.partial(_answer, **({"replies": shards / "replies"} if away else {}))
        work = functools.partial(_here, jobs, ask, 1 if away else workers)
    key = functools.partial(_key, device=device)
    found = store.through_shards(shards, jobs, key=key, kind=Response, work=work, progress=progress)
    _tell_of_room(author, decodings[0].max_new_tokens, found)
    refused = Counter(r.finish_reason for r in found if r.finish_reason.startswith(engines.REFUSED))
    for why, count in refused.items():
        engines.note(f"{author.source}: no answer to {count} of {len(found)} requests, {why}")
    without = {engines.NO_ROOM, *refused}
    return _numbered([answer for answer in found if answer.finish_reason not in without])


def _tell_of_room(author: Author, longest: int, found: Sequence[Response]) -> None:
    """Notes what the model could not hold: answers that had less room, and prompts with none."""
    most = None if engines.remote(author.engine) else engines.positions(author.model)
    held = f"{author.source} holds {most or 'no more'} tokens, prompt and answer together"
    reasons = [(r.finish_reason, r.n_tokens < longest) for r in found]
    cut, none = reasons.count(("length", True)), reasons.count((engines.NO_ROOM, True))
    if (most and longest >= most) or (cut and most):
        engines.note(
            f"{held}: {cut} of {len(found)} answers end there, before max_new_tokens = {longest}"
        )
    if none:
        tasks = {r.task_id for r in found if r.finish_reason == engines.NO_ROOM}
        engines.note(f"{held}: {len(tasks)} prompts leave no room for an answer and are left out")


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


def _jobs(
    problems: Sequence[Problem],
    author: Author,
    decodings: Sequence[Decoding],
    n_samples: int,
    size: int,
) -> list[Job]:
    """The shards, of `size` tasks; of a problem only what its answers depend on."""
    ordered = sorted(problems, key=lambda problem: problem.task_id)
    for first, second in itertools.pairwise(ordered):
        if first.task_id == second.task_id:
            raise ValueError(f"{first.task_id}: the task comes twice")
    for problem in ordered:
        if not problem.prompt.strip():
            raise ValueError(f"{problem.task_id}: no prompt; the model has nothing to continue")
    temperatures = [decoding.temperature for decoding in decodings]
    if len(set(temperatures)) < len(temperatures):
        raise ValueError(f"temperatures {temperatures}: one of them comes twice")
    bare = [Problem(p.task_id, p.prompt, p.entry_point, tests="") for p in ordered]
    shards = [tuple(bare[at : at + size]) for at in range(0, len(bare), size)]
    identity = _identity(author)
    return [Job(author, identity, how, n_samples, one) for how in decodings for one in shards]


def _identity(author: Author) -> str:
    """The hash of a local model's files, the name of any other; what a server has, and which."""
    if engines.remote(author.engine):
        return f"{author.engine} {engines.served_name(author.engine, author.model)}"
    resolved = engines.resolve_model(author.model)
    return store.sha256(Path(resolved)) if Path(resolved).is_dir() else str(resolved)


def _message(job: Job) -> dict[str, Any]:
    """A job as JSON has it."""
    tasks = [[p.task_id, p.prompt, p.entry_point] for p in job.problems]
    return asdict(replace(job, problems=())) | {"problems": tasks}


def _key(job: Job, device: str) -> dict[str, Any]:
    """Everything that the answers of a shard depend on; the device says what `auto` means."""
    named = _message(replace(job, author=replace(job.author, model="")))
    return named | {"device": device, "version": version()}


def _here(
    jobs: Sequence[Job],
    ask: Callable[[Job], list[Response]],
    workers: int,
    left: Sequence[int],
    put: store.Put,
) -> None:
    """Asks in this process or, where it is worth it, in several."""
    waiting, author = [jobs[number] for number in left], jobs[0].author
    processes = min(workers, len(left))
    if processes > 1:
        size = sum(p.stat().st_size for p in engines.model_folder(author.model).iterdir())
        bytes_of_all = sum(len(job.problems) * job.n_samples for job in waiting) * size
        processes = min(engines.processes(processes), 1 + int(bytes_of_all / WORTH_A_PROCESS))
    if processes > 1:
        engines.settle(author.engine, author.model)
    for at, answers in side_by_side(ask, waiting, processes=processes):
        put(left[at], answers)


def _on_cluster(jobs: Sequence[Job], left: Sequence[int], put: store.Put) -> None:
    """Has the nodes of a cluster asked."""
    made: set[str] = set()

    def message(number: int) -> dict[str, Any]:
        job = jobs[number]
        folder = Path(job.author.model)
        model = str(folder.absolute() if folder.is_dir() else folder)
        return _message(replace(job, author=replace(job.author, model=model)))

    def finished(number: int, answered: dict[str, Any]) -> None:
        made.add(answered["made_by"])
        if len(made) > 1:
            raise RuntimeError(
                f"the nodes differ: {' and '.join(sorted(made))}; name an engine that is the same "
                "on all of them, and have one revision of the model"
            )
        put(number, [store.from_row(row, Response) for row in answered["responses"]])

    uses_gpu = jobs[0].author.engine in ("auto", "transformers")
    spread(answer, left, message=message, finished=finished, gpu=uses_gpu)


def answer(message: dict[str, Any], cpus: int) -> dict[str, Any]:
    """A shard's answers on a node of a cluster, JSON in and out, and what made them.

    FileNotFoundError where the node lacks the model, RuntimeError where it has another.
    """
    problems = tuple(Problem(*task, "") for task in message["problems"])
    author, decoding = Author(**message["author"]), Decoding(**message["decoding"])
    job = Job(author, message["identity"], decoding, message["n_samples"], problems)
    folder = _checked(author, job.identity)
    responses = [store.to_row(response) for response in _answer(job)]
    opened = _opened(job)
    return {"responses": responses, "made_by": f"{opened.name} on {opened.device}, {folder}"}


@functools.cache
def _checked(author: Author, identity: str) -> str:
    """The name of the node's model folder, for a hub's model its revision, once it is checked."""
    folder = engines.model_folder(author.model)
    found = _identity(author)
    if found != identity:
        raise RuntimeError(
            f"{author.model}: another model than the caller's ({found}, not {identity})"
        )
    return folder.name


def _answer(job: Job, **opened: Path) -> list[Response]:
    author, decoding = job.author, job.decoding
    ids = [problem.task_id for problem in job.problems]
    ask = asker(author)
    seed = config.derive_seed(decoding.seed, author.source, str(decoding.temperature), *ids)
    try:
        answers = _opened(job, **opened).generate(
            [ask(problem) for problem in job.problems],
            n=job.n_samples,
            decoding=replace(decoding, seed=seed),
            stops=prompts.stops(job.problems, author.prompt_format),
        )
    except ValueError as error:
        raise ValueError(f"sampling {ids[0]} to {ids[-1]}: {error}") from error
    told = {"source": author.source, "temperature": decoding.temperature}
    return prompts.responses(job.problems, answers, **told)


_HELD: dict[tuple, engines.Generator] = {}  # the engine of this process


def _opened(job: Job, **options: Path) -> engines.Generator:
    """The engine of this process; the identity opens it anew when the folder's content changed."""
    key = job.author.engine, job.author.model, job.identity, *options.values()
    if key not in _HELD:
        _HELD.clear()  # first: two models, or the servers of two, may not fit beside each other
        engine = engines.open_engine(job.author.engine, job.author.model, threads=1, **options)
        _HELD[key] = engine
    return _HELD[key]


def _numbered(responses: Sequence[Response]) -> list[Response]:
    """By task; `index` counts a source's answers to a task in the order they came."""
    seen: defaultdict[str, int] = defaultdict(int)
    numbered = []
    for response in responses:
        numbered.append(replace(response, index=seen[response.task_id]))
        seen[response.task_id] += 1
    return sorted(numbered, key=lambda response: (response.task_id, response.index))


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


def variety(responses: Sequence[Response]) -> str:
    """How many prompts have answers that differ, in words: a ranking needs such."""
    programs: defaultdict[str, set[str]] = defaultdict(set)
    for response in responses:
        programs[response.task_id].add(response.program)
    varied = sum(len(found) > 1 for found in programs.values())
    told = f"{varied} of {len(programs)} prompts have answers that differ from each other"
    single = len(responses) == len(programs)
    return "One answer a prompt: it is compared with the teacher's only." if single else f"{told}."


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
