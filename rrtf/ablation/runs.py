"""The registered runs: one arm with one seed, at every rate; and one line for each training.

The ledger (`data/ablation.jsonl`) grows as they end; what it holds is not run again. A line holds
which problems were solved, so that every paired test can be repeated from it.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

from rrtf import config, engines, execution, prompts, sample, store, train
from rrtf.ablation import sets
from rrtf.ablation.registration import (
    ALL_TESTS,
    ANCHORS,
    BASES,
    FIRST,
    HOME,
    Arm,
    Registration,
    as_it_is,
)
from rrtf.ablation.sets import Answers
from rrtf.cluster import side_by_side
from rrtf.engines import Decoding
from rrtf.nano import corpus, grammar, pretrain
from rrtf.nano import problems as nano_problems
from rrtf.records import Outcome, Problem, RankedGroup, Response
from rrtf.sandbox.executor import Limits

ANCHOR_SEEDS = 3  # draws of the rows without training


@dataclass(frozen=True, slots=True)
class Line:
    """One training, or what a model answers without.

    `prompts` were trained on, `wrong` of them with a target that does not pass the arm's tests;
    `tokens` went through the network in an update, on average. Bit i of `validated` and
    `solved` (hexadecimal, the first problem is the highest bit) says whether the greedy answer
    solved problem i of the seed's validation problems and of the test problems; `solved` is empty
    where another rate was chosen. `key` is the hash of what was asked for (a line with another is
    no answer to it), `learnt` that of the training set.
    """

    study: str
    arm: str
    seed: int
    learning_rate: float
    prompts: int
    wrong: int
    tokens: float
    n_validation: int
    validated: str
    n_test: int
    solved: str
    learnt: str
    key: str


@dataclass(frozen=True)
class Bench:
    """Where and on what the runs in one world are made; `bases` are the start models by name.

    The plan's own has the name "".
    """

    plan: Registration
    problems: tuple[Problem, ...]
    validation: tuple[tuple[Problem, ...], ...]
    test: tuple[Problem, ...]
    bases: Mapping[str, Path]
    limits: Limits
    folder: Path

    def judge(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list:
        """Verdicts, kept in the folder."""
        how = {"limits": self.limits, "workers": 1, "cluster": "local"}
        return execution.execute(problems, responses, **how, shards=self.folder / "shards")

    def sampled(
        self, model: str | Path, problems: Sequence[Problem], *decodings: Decoding, n: int = 1
    ) -> list[Response]:
        """Answers of `model`, kept in the folder."""
        author = sample.Author(str(model), "student", "auto", "starcoder")
        where = {"shards": self.folder / "shards", "workers": 1, "cluster": "local"}
        return sample.sample(problems, author, decodings=decodings, n_samples=n, **where)


def decodings(plan: Registration, seed: int) -> list[Decoding]:
    """How the student answers its prompts: as in stage 03, drawn anew by the seed."""
    own = config.resolve(plan.profile, "sample")
    cut = own["top_p"], own["max_new_tokens"], config.derive_seed(seed, "ablation") % 2**31
    return [Decoding(temperature, *cut) for temperature in own["temperatures"]]


def greedy(plan: Registration) -> Decoding:
    """How the examined models answer."""
    return Decoding(0.0, 1.0, config.resolve(plan.profile, "sample")["max_new_tokens"], 0)


def student(bench: Bench, base: str, seed: int, tests: int) -> Answers:
    """What the start model answers to the training prompts, with the verdicts of so many tests."""
    how = decodings(bench.plan, seed)
    n = bench.plan.answers // len(how)
    answers = bench.sampled(bench.bases[base], bench.problems, *how, n=n)
    return Answers(answers, bench.judge(sets.weakened(bench.problems, tests), answers))


def teacher(bench: Bench, errors: str, accuracy: int, seed: int, tests: int) -> Answers:
    """What the arm's teacher answers, with the verdicts of so many tests."""
    if errors:
        made = {"errors": errors, "accuracy": accuracy, "seed": seed}
        answers = sets.made(bench.problems, **made)
    else:
        temperature = config.resolve(bench.plan.profile, "sample")["teacher_temperature"]
        how = [replace(decodings(bench.plan, seed)[0], temperature=t) for t in temperature]
        taught = bench.sampled(engines.model_folder(bench.plan.teacher), bench.problems, *how)
        answers = [replace(answer, **sets.TEACHER) for answer in taught]
    return Answers(answers, bench.judge(sets.weakened(bench.problems, tests), answers))


def groups_of(arm: Arm, bench: Bench, seed: int) -> list[RankedGroup]:
    """The training set of an arm and seed."""
    ask = engines.asker(bench.bases[arm.base], "starcoder")
    asked = {problem.task_id: ask(problem) for problem in bench.problems}
    answers = student(bench, arm.base, seed, arm.tests)
    taught = teacher(bench, arm.errors, arm.accuracy, seed, arm.tests)
    how = (arm, bench.plan, bench.problems, asked, answers, taught)
    return sets.training_set(*how, seed=seed)


def recipe(arm: Arm, plan: Registration, *, rate: float, seed: int) -> train.Recipe:
    """How `arm` is trained with this seed."""
    own = {k: v for k, v in plan.objectives[arm.objective].items() if k not in LISTS}
    own |= {name: getattr(plan, name) for name in ("updates", "groups_per_batch", "precision")}
    order = config.derive_seed(seed, "ablation", "order") % 2**31
    own |= {"seed": order, "epochs": 0.0, "threads": 1}
    return train.Recipe.of(config.resolve(plan.profile, "train"), learning_rate=rate, **own)


LISTS = ("rates", "max_responses")  # of an objective, no options of a training


def solved(model: str | Path, problems: Sequence[Problem], bench: Bench) -> list[int]:
    """Whether the model's greedy answer solves each problem."""
    answers = bench.sampled(model, problems, greedy(bench.plan))
    return _passing(problems, answers, bench)


def _passing(problems: Sequence[Problem], answers: Sequence[Response], bench: Bench) -> list[int]:
    by_task = Counter(
        run.task_id for run in bench.judge(problems, answers) if run.outcome == Outcome.PASS
    )
    return [int(by_task[problem.task_id] > 0) for problem in problems]


def unit(bench: Bench, job: tuple[Arm, int]) -> list[Line]:
    """An arm with one seed: trained at every rate, the rate chosen, its model examined."""
    arm, seed = job
    plan, groups, base = bench.plan, groups_of(arm, bench, seed), bench.bases[arm.base]
    validation = bench.validation[seed]
    with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
        there = replace(bench, folder=Path(scratch))
        lines = []
        for rate in plan.rates(arm):
            output = Path(scratch) / f"{rate:g}"
            how = {"recipe": recipe(arm, plan, rate=rate, seed=seed), "overwrite": True}
            train.train(groups, model=base, output=output, **how)
            marks = solved(output, validation, there)
            lines.append(_line(arm, seed, rate, bench, groups, output, packed(marks)))
        best = chosen(lines)
        marks = solved(Path(scratch) / f"{best.learning_rate:g}", bench.test, there)
    finished = replace(best, n_test=len(marks), solved=packed(marks))
    return [finished if line is best else line for line in lines]


def chosen(lines: Sequence[Line]) -> Line:
    """Of the lines of one arm and seed the one with most validation problems solved."""
    return max(
        sorted(lines, key=lambda line: line.learning_rate),
        key=lambda line: sum(unpacked(line.validated, line.n_validation)),
    )


def _line(
    arm: Arm, seed: int, rate: float, bench: Bench, groups: Sequence, output: Path, marks: str
) -> Line:
    facts = store.read_json(output / "training.json")
    return Line(
        study=arm.study, arm=arm.name, seed=seed, learning_rate=rate, prompts=len(groups),
        wrong=sum(group.outcomes[group.sft_index] != Outcome.PASS for group in groups),
        tokens=round(facts["tokens"] / bench.plan.updates, 1),
        n_validation=len(bench.validation[seed]), validated=marks, n_test=0, solved="",
        learnt=hashlib.sha256(store.encode(groups, ".jsonl")).hexdigest()[:16],
        key=key_of(arm, seed, rate, bench),
    )  # fmt: skip


def key_of(arm: Arm, seed: int, rate: float, bench: Bench) -> str:
    """The hash of what decides a line, but for the engine that drew the answers."""
    plan = bench.plan
    asked = [problem.task_id for problem in (*bench.validation[seed], *bench.test)]
    parts = [
        {**asdict(arm), "study": "", "seeds": 0, "seed": seed, "rate": rate},
        plan.data[arm.data],
        {k: v for k, v in plan.objectives[arm.objective].items() if k != "rates"},
        [plan.precision, plan.prompts, plan.updates, plan.groups_per_batch, plan.answers],
        [plan.teacher, _identity(bench.bases[arm.base])],
        hashlib.sha256("\n".join(asked).encode()).hexdigest(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@cache
def _identity(model: Path) -> str:
    return store.sha256(model)


def bench(
    plan: Registration,
    trained_on: Sequence[Problem],
    *,
    studies: Sequence[str],
    limits: Limits,
    folder: Path,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> Bench:
    """The bench of the world at hand, with the start models that these studies begin with.

    A second world has no stage 02: it trains on the first problems of its fine-tuning split, as
    many as `trained_on`. Start models that are missing are pre-trained: minutes for each million
    parameters.
    """
    if grammar.world() != HOME:
        every, _ = nano_problems.world(workers)["finetune"]
        trained_on = every[: len(trained_on)]
    how = {"isolation": limits.isolation, "workers": workers, "progress": progress}
    validation, test = sets.drawn(plan, trained_on=trained_on, **how)
    here = [arm for arm in plan.arms if arm.study in studies and plan.world(arm) == grammar.world()]
    bases = {"": engines.model_folder(plan.base)}
    for name in dict.fromkeys(arm.base for arm in here if arm.base):
        corpus.prepare(folder / grammar.world(), workers=workers, progress=progress)
        own = {k: v for k, v in plan.bases[name].items() if k != "world"}
        shape = {"seed": own.pop("seed", 0), "shape": own, "threads": 1}
        place = folder / grammar.world(), name.replace(" ", "-"), folder / "bases"
        bases[name] = pretrain.train_base(*place, **shape)
    drawn = tuple(trained_on), tuple(map(tuple, validation)), tuple(test)
    return Bench(plan, *drawn, bases, limits, folder)


def anchors(bench: Bench, seed: int) -> list[Line]:
    """The rows without training: the start model, the teacher, and what several answers give.

    The student answers every test problem `answers` times as in training: `best of`: whether any
    passes; `most frequent`: whether the program that comes most often does.
    """
    plan, test = bench.plan, bench.test
    base, taught = bench.bases[""], engines.model_folder(plan.teacher)
    how = decodings(plan, seed + 1000)
    drawn = bench.sampled(base, test, *how, n=plan.answers // len(how))
    votes: dict[str, Counter] = {}
    first: dict[tuple[str, str], Response] = {}
    for answer in drawn:
        form = prompts.form_of(answer.program)
        votes.setdefault(answer.task_id, Counter())[form] += 1
        first.setdefault((answer.task_id, form), answer)
    common = [first[task, counts.most_common(1)[0][0]] for task, counts in votes.items()]
    marks = {ANCHORS[2]: _passing(test, drawn, bench), ANCHORS[3]: _passing(test, common, bench)}
    if not seed:  # a greedy answer knows no seed
        marks |= {ANCHORS[0]: solved(base, test, bench), ANCHORS[1]: solved(taught, test, bench)}
    return [_untrained(FIRST, name, seed, found) for name, found in marks.items()]


def bare(bench: Bench, base: str) -> Line:
    """A start model of study 3 as it is."""
    marks = solved(bench.bases[base], bench.test, bench)
    return _untrained(BASES, as_it_is(base), 0, marks)


def _untrained(study: str, name: str, seed: int, marks: Sequence[int]) -> Line:
    return Line(
        study=study, arm=name, seed=seed, learning_rate=0.0, prompts=0, wrong=0, tokens=0.0,
        n_validation=0, validated="", n_test=len(marks), solved=packed(marks), learnt="",
        key=f"{name}, {seed}",
    )  # fmt: skip


def carry_out(
    jobs: Sequence[tuple[Arm, int]],
    bench: Bench,
    *,
    workers: int,
    ledger: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[Line]:
    """All lines of the ledger, after the jobs that it lacks were run, `workers` at a time.

    An interrupted call loses the jobs under way.
    """
    lines = {(line.arm, line.seed, line.learning_rate): line for line in read(ledger)}

    def keep(found: Iterable[Line]) -> None:
        lines.update({(line.arm, line.seed, line.learning_rate): line for line in found})
        store.write(ledger, [lines[place] for place in sorted(lines)])

    seeds = range(ANCHOR_SEEDS if jobs and grammar.world() == HOME else 0)
    alone = [seed for seed in seeds if (ANCHORS[-1], seed, 0.0) not in lines]
    for _, found in side_by_side(partial(anchors, bench), alone, processes=workers):
        keep(found)
    alone = [name for name in bench.bases if name and (as_it_is(name), 0, 0.0) not in lines]
    for _, found in side_by_side(partial(bare, bench), alone, processes=workers):
        keep([found])
    waiting = [job for job in jobs if not _is_there(job, bench, lines)]
    first = sorted({(arm.base, seed) for arm, seed in waiting})  # the arms of a seed share them
    for _ in side_by_side(partial(_prepare, bench), first, processes=workers):
        pass
    done = len(jobs) - len(waiting)
    for _, found in side_by_side(partial(unit, bench), waiting, processes=workers):
        keep(found)
        done += 1
        if progress:
            progress(done, len(jobs))
    return list(lines.values())


def of_world(plan: Registration, lines: Sequence[Line]) -> list[Line]:
    """The lines of the world at hand, whose test problems are the same."""
    worlds = {arm.name: plan.world(arm) for arm in plan.arms}
    for name, own in plan.bases.items():
        worlds[as_it_is(name)] = own.get("world", HOME)
    return [line for line in lines if worlds.get(line.arm, HOME) == grammar.world()]


def rounded() -> Path:
    """The lines of models that were examined in bfloat16, as [amendments] tells."""
    return config.home() / "data" / "ablation_bfloat16.jsonl"


def _prepare(bench: Bench, start: tuple[str, int]) -> None:
    """What a start model answers with a seed, into the folder."""
    student(bench, *start, ALL_TESTS)


def _is_there(job: tuple[Arm, int], bench: Bench, lines: Mapping[tuple, Line]) -> bool:
    """Whether the ledger has what the registration asks for now, at every rate."""
    arm, seed = job
    places = {(arm.name, seed, rate): rate for rate in bench.plan.rates(arm)}
    return all(
        place in lines and lines[place].key == key_of(arm, seed, rate, bench)
        for place, rate in places.items()
    )


def jobs(plan: Registration, studies: Sequence[str]) -> list[tuple[Arm, int]]:
    """Every arm of these studies in the world at hand with every seed, in the order of the runs."""
    here = grammar.world()
    arms = [arm for arm in plan.arms if arm.study in studies and plan.world(arm) == here]
    return [(arm, seed) for seed in range(plan.seeds) for arm in arms if seed < arm.seeds]


def packed(marks: Sequence[int]) -> str:
    """Zeros and ones as hexadecimal digits, padded to whole ones on the right."""
    bits = "".join(map(str, [*marks, *[0] * (-len(marks) % 4)]))
    return f"{int(bits, 2):0{len(bits) // 4}x}" if bits else ""


def unpacked(digits: str, count: int) -> list[int]:
    """The inverse of `packed` for `count` problems; ValueError if the digits are too few."""
    if not 4 * len(digits) - 4 < count <= 4 * len(digits):
        raise ValueError(f"{len(digits)} digits for {count} problems")
    return [int(bit) for bit in f"{int(digits or '0', 16):0{4 * len(digits)}b}"[:count]]


def read(ledger: Path) -> list[Line]:
    """The lines of the ledger; none where there is no file yet."""
    return store.read(ledger, Line) if ledger.exists() else []


def place() -> Path:
    """The ledger: `data/ablation.jsonl` of the checkout, or below `$RRTF_HOME` where that is set.

    One that is not there yet begins as a copy of the checkout's.
    """
    path, shipped = (
        where / "data" / "ablation.jsonl" for where in (config.output_home(), config.home())
    )
    if not path.exists() and shipped.exists():
        store.write_bytes(path, shipped.read_bytes())
    return path
