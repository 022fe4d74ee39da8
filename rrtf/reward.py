"""Rewards for other people's trainers: a row and an answer in, what its tests say of it out.

    rewards = Rewards()
    verdicts = rewards(rows, completions)          # one a completion, in their order
    trainer = GRPOTrainer(reward_funcs=rewards.trl, ...)

`Rewards` keeps its sandboxes warm and may be called by any number of threads at once. A row is a
task in one of the forms that `benchmarks.tasks` reads, as a mapping or as its JSON. The program is
found in a completion as in any answer (`prompts.read`), and judged as SECURITY.md says.

A failure that is not the answer's is no zero. It is tried again, `TRIES` times in all, and then the
score is None (`Verdict.failure_kind` says why): a sandbox that failed (`sandbox`), a program that
somebody killed (`killed`; one that kills itself looks the same, and learns nothing by it), tests
that cannot be run (`tests`). Every door hands this on in its trainer's own way.
"""

import asyncio
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

from rrtf import config, rank
from rrtf.benchmarks import tasks
from rrtf.prompts import extract
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import joint, wire
from rrtf.sandbox.executor import Bench, Limits
from rrtf.sandbox.lanes import PROGRAMS_PER_JOB
from rrtf.store import undisturbed

TRIES = 3
SANDBOX, KILLED, TESTS = "sandbox", "killed", "tests"  # kinds of failures
Completion = str | Sequence[Any]  # a text, or the messages of a chat
Row = Problem | Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests say of one answer: `score` from 0 to 1, None where they could say nothing.

    `execution` has the situation, the reason and the first test that failed; it is None where
    the sandbox failed. `program` is what was judged.
    """

    score: float | None
    execution: Execution | None
    program: str
    failure_kind: str = ""
    failure_reason: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """What a trainer's log can hold, always the same names."""
        run = self.execution
        return {
            "mask_sample": self.score is None,
            "failure_kind": self.failure_kind,
            "failure_reason": self.failure_reason,
            "outcome": run.outcome.name if run else "",
            "reason": run.reason if run else "",
        }


class Rewards:
    """Judges that stay warm; calls of all threads share `workers` of them.

    `limits` and `workers` are those of the profile nano and one a core unless they are given.
    `partial`: a program that fails tests gets its share of those that hold, not 0.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        workers: int | None = None,
        partial: bool = False,
        packages: Sequence[str] = (),
    ):
        self.limits, self.partial, self.packages = limits or usual_limits(), partial, packages
        self.workers = workers or len(os.sched_getaffinity(0))
        self._lock, self._owner = threading.Lock(), 0
        self._pool: ThreadPoolExecutor
        self._bench: Bench

    def __call__(self, rows: Sequence[Row], completions: Sequence[Completion]) -> list[Verdict]:
        """One verdict per completion. ValueError names the first row that is no task."""
        return [future.result() for future in self.submit(rows, completions)]

    async def verdicts(self, rows: Sequence[Row], completions: Sequence[Completion]) -> list:
        """The same, for an event loop."""
        asked = await asyncio.to_thread(self.submit, rows, completions)
        return list(await asyncio.gather(*map(asyncio.wrap_future, asked)))

    def submit(self, rows: Sequence[Row], completions: Sequence[Completion]) -> list[Future]:
        """A future of each verdict."""
        if len(rows) != len(completions):
            raise ValueError(f"{len(rows)} rows but {len(completions)} completions")
        places: dict[Problem, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(task(row, f"row {place}"), []).append(place)
        pool, futures = self._ready(), {place: Future() for place in range(len(rows))}
        for problem, where in places.items():
            size = max(1, min(PROGRAMS_PER_JOB, -(-len(where) // self.workers)))
            for start in range(0, len(where), size):
                some = {at: text_of(completions[at]) for at in where[start : start + size]}
                pool.submit(self._judge, problem, some, futures)
        return [futures[place] for place in range(len(rows))]

    def close(self) -> None:
        """Waits for what is under way and ends the sandboxes; a later call starts anew."""
        with self._lock:
            if self._owner == os.getpid():
                self._pool.shutdown()
                self._bench.close()
            self._owner = 0

    def __enter__(self) -> "Rewards":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _ready(self) -> ThreadPoolExecutor:
        """The threads of this process: a fork has neither its parent's nor its sandboxes."""
        with self._lock:
            if self._owner != os.getpid():
                self._bench = Bench(self.limits, packages=self.packages)
                self._pool = ThreadPoolExecutor(self.workers, "rrtf-reward")
                self._owner = os.getpid()
            return self._pool

    def _judge(self, problem: Problem, texts: dict[int, str], futures: dict[int, Future]) -> None:
        """Has every future of `texts` answered, whatever happens."""
        try:
            programs = undisturbed(
                lambda: {at: extract(problem, text) for at, text in texts.items()}
            )
            found, why = self._executions(problem, programs)
            for at, program in programs.items():
                futures[at].set_result(self._verdict(found.get(at), program, why))
        except BaseException as error:
            for at in texts:
                if not futures[at].done():
                    futures[at].set_exception(error)

    def _executions(
        self, problem: Problem, programs: dict[int, str]
    ) -> tuple[dict[int, Execution], str]:
        """(verdicts of the programs, the sandbox's latest failure); what was lost is run again."""
        found: dict[int, Execution] = {}
        why = ""
        for _ in range(TRIES):
            asked = [at for at in programs if at not in found or found[at].reason in wire.KILLED]
            if not asked:
                break
            responses = [Response(problem.task_id, "", at, "", programs[at]) for at in asked]

            def take(new: dict[int, Execution], asked: list[int] = asked) -> None:
                found.update({asked[place]: run for place, run in new.items()})

            try:
                self._bench.judge([problem], responses, 1, finished=take)
            except (RuntimeError, OSError, SystemError) as error:  # the last: `undisturbed`
                why = str(error)
        return found, why

    def _verdict(self, run: Execution | None, program: str, why: str) -> Verdict:
        if run is None:
            return Verdict(None, None, program, SANDBOX, why)
        if run.reason in wire.KILLED:
            return Verdict(None, run, program, KILLED, run.reason)
        if wire.is_unusable(run.reason):
            return Verdict(None, run, program, TESTS, run.reason)
        values = {situation: float(situation is Outcome.PASS) for situation in Outcome}
        score = rank.score(run, False, values, tie=0.0, pass_ratio=float(self.partial))
        return Verdict(score, run, program)

    # Doors. What they take and give is the trainers' own.

    def trl(
        self, prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        """TRL's reward function (GRPO, RLOO): the columns of its data set are the rows.

        A column `task` holds whole rows instead. None is a score that TRL leaves out.
        """
        return [verdict.score for verdict in self(_columns(prompts, columns), completions)]

    def pairs(
        self, prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any
    ) -> list[dict[str, Any]]:
        """`prompt, chosen, rejected` for DPO: best and worst answer of every run of equal prompts.

        Their order is the paper's: the situation, then the share of tests that hold. Prompts whose
        answers are all alike give no pair.
        """
        verdicts, found = self(_columns(prompts, columns), completions), []
        for _, some in groupby(range(len(prompts)), key=lambda at: prompts[at]):
            judged = [at for at in some if verdicts[at].score is not None]
            ranked = sorted(judged, key=lambda at: _standing(verdicts[at].execution))
            if ranked and _standing(verdicts[ranked[0]].execution) < _standing(
                verdicts[ranked[-1]].execution
            ):
                texts = {"chosen": completions[ranked[-1]], "rejected": completions[ranked[0]]}
                found.append({"prompt": prompts[ranked[0]]} | texts)
        return found

    async def verifiers(
        self,
        completion: Completion,
        info: Any = None,
        answer: Any = "",
        state: Any = None,
        **_: Any,
    ) -> float:
        """A function for a rubric of `verifiers`; the row is `info` and what `answer` adds to it.

        A failure is NaN and stands in the state's `error`, by which rollouts are left out.
        """
        row = dict(_mapping(info) or {}) | dict(_mapping(answer) or {})
        (verdict,) = await self.verdicts([row], [completion])
        if verdict.score is None and state is not None:
            state["error"] = RuntimeError(f"{verdict.failure_kind}: {verdict.failure_reason}")
        return _number(verdict)

    async def verify(self, row: Row, response: Any) -> dict[str, Any]:
        """NeMo Gym's `verify`: what a response of it has beside the request's own fields.

        `response` is the request's, with its `output`. The reward of a masked sample is a
        placeholder, because Gym wants a number.
        """
        (verdict,) = await self.verdicts([row], [response])
        return {"reward": verdict.score or 0.0} | verdict.fields


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping | None = None
) -> dict[str, Any]:
    """verl's reward function; the row is `ground_truth` and what `extra_info` says beside.

    `ground_truth` is a row or its JSON, a list of assertions, or the text of tests.
    A failure's score is NaN, which verl's filter of groups (`metric: score`) leaves out; without
    that filter drop samples by `mask_sample`.
    """
    held = ground_truth if isinstance(ground_truth, list) else _mapping(ground_truth)
    if not isinstance(held, Mapping):
        held = {"assertions": held} if held else {"test": ground_truth}
    (verdict,) = usual(os.getpid())([dict(extra_info or {}) | dict(held)], [solution_str])
    return {"score": _number(verdict)} | verdict.fields


@cache
def usual(pid: int) -> Rewards:
    """The `Rewards` of a process, for doors that are functions."""
    return Rewards()


def usual_limits() -> Limits:
    """Those of the profile nano."""
    table = config.resolve("nano", "rank")
    return Limits(*(table[n] for n in ("cpu_seconds", "wall_seconds", "memory_mb", "isolation")))


def task(row: Row, where: str) -> Problem:
    """The problem of a row; ValueError names `where` it stands."""
    if isinstance(row, Problem):
        return row
    found = _mapping(row)
    if found is None:
        raise ValueError(f"{where}: expected a task, as a mapping or its JSON")
    problem = tasks.problem(found, where)
    if joint.is_joint(problem):
        raise ValueError(
            f"{where}: its tests ask to run beside the program, which could forge them"
        )
    return problem


def text_of(completion: Any) -> str:
    """What a model says last: of a text, of messages, of a response with its `output`."""
    if isinstance(completion, str):
        return completion
    if (output := _get(completion, "output")) is not None:
        return text_of(output)
    if (content := _get(completion, "content")) is not None:
        return content if isinstance(content, str) else "".join(map(_part, content))
    said = [one for one in completion if _get(one, "role") in ("assistant", None)]
    said = [one for one in said if _get(one, "content") is not None]
    return text_of(said[-1]) if said else ""


def _part(part: Any) -> str:
    text = part if isinstance(part, str) else _get(part, "text")
    return text if isinstance(text, str) else ""


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _mapping(value: Any) -> Mapping | None:
    """A mapping, or the one whose JSON this is."""
    if isinstance(value, Mapping):
        return value
    return _of_json(value) if isinstance(value, str) else None


@lru_cache(maxsize=64)
def _of_json(text: str) -> Mapping | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _columns(prompts: Sequence[Any], columns: Mapping[str, Any]) -> list[Row]:
    """The row of each prompt; a prompt that is a text is the row's, a chat's stays outside."""
    lists = {n: v for n, v in columns.items() if isinstance(v, list) and len(v) == len(prompts)}
    if "task" in lists:
        return lists["task"]
    rows = ({name: values[at] for name, values in lists.items()} for at in range(len(prompts)))
    return [
        {"prompt": prompt if isinstance(prompt, str) else ""} | row
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def _standing(run: Execution) -> float:
    """The situation, and within it the share of tests that hold, less than a step of these."""
    values = {situation: float(situation) for situation in Outcome}
    return rank.score(run, False, values, tie=0.0, pass_ratio=0.5)


def _number(verdict: Verdict) -> float:
    return float("nan") if verdict.score is None else verdict.score
