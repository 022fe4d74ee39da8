"""What every stage of a profile has to do: answers, tokens, FLOPs and programs to execute.

The notebooks' own parameters say how much; lengths of prompts and answers and the yield of
evolution and ranking are facts (`rrtf.plan.models.facts`). Not counted: evolving, the audit and the
cases, which need no model and take seconds to minutes of one CPU.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rrtf import benchmarks, config, engines, loss, methods, stats, store
from rrtf.benchmarks import catalogue
from rrtf.plan.models import Device, Fact, Shape, device, facts
from rrtf.sample import Author, teachers
from rrtf.step import packing


@dataclass(frozen=True, slots=True)
class Row:
    """A group as the step computes it: the prompt once, then its K responses side by side.

    `prompt` and `response` are mean tokens, the end-of-text token included.
    """

    prompt: float
    response: float
    responses: int

    @property
    def packed(self) -> float:
        """Tokens that go through the layers: a response's last token is a target, never input."""
        return self.prompt + self.responses * (self.response - 1)

    @property
    def apart(self) -> float:
        """Tokens of the same group as K rows of prompt + response."""
        return self.responses * (self.prompt + self.response - 1)

    @property
    def pairs(self) -> float:
        """Pairs of tokens that attention compares: a prompt with itself, a response also with it.

        In blocks of queries, each of which sees no key behind the block (`rrtf.step.packing`).
        """
        own = self.response - 1
        return _seen(self.prompt, 0) + self.responses * _seen(own, self.prompt)

    @property
    def targets(self) -> float:
        """Tokens that are predicted, and so cost logits."""
        return self.responses * self.response


def _seen(length: float, before: float) -> float:
    """Keys that `length` queries see in blocks, `before` of them in front of all."""
    return length * (before + (length + min(length, packing.BLOCK)) / 2)


def forward_flops(shape: Shape, *, tokens: float, pairs: float, predicted: float) -> float:
    """FLOPs of one pass over `tokens` with `pairs` of attention, logits for `predicted` tokens."""
    attended = 4 * shape.layers * shape.attention * pairs
    return 2 * (shape.linear + shape.experts) * tokens + attended + 2 * shape.head * predicted


def group_flops(shape: Shape, row: Row) -> float:
    """FLOPs of scoring one packed group, without gradients."""
    return forward_flops(shape, tokens=row.packed, pairs=row.pairs, predicted=row.targets)


def train_flops(shape: Shape, row: Row, *, checkpointing: bool, frozen: bool) -> float:
    """FLOPs of learning from one packed group, forward and backward.

    checkpointing: the layers are computed forward once more. frozen: the weights have no gradients
    of their own (LoRA), which saves a third of the products; the adapters' are not counted.
    """
    whole = group_flops(shape, row)
    attended = forward_flops(shape, tokens=0, pairs=row.pairs, predicted=0)
    layers = forward_flops(shape, tokens=row.packed, pairs=row.pairs, predicted=0)
    products = whole - attended
    learnt = (2 if frozen else 3) * products + 3.5 * attended
    return learnt + 2 * shape.head * row.targets + (layers if checkpointing else 0)


def generate_flops(
    shape: Shape, *, prompts: float, answers: float, prompt: float, answer: float
) -> float:
    """FLOPs of `answers` answers of `answer` tokens to `prompts` prompts of `prompt` tokens.

    Every prompt is read once for all its answers; an answer's token t sees prompt + t tokens.
    """
    reading = forward_flops(shape, tokens=prompt, pairs=prompt**2, predicted=1)
    seen = answer * prompt + answer * (answer + 1) / 2
    writing = forward_flops(shape, tokens=answer, pairs=seen, predicted=answer)
    return prompts * reading + answers * writing


def gptq_flops(shape: Shape, *, tokens: float) -> float:
    """FLOPs of calibrating GPTQ on `tokens` tokens (Frantar et al., arXiv:2210.17323).

    Two forward passes, the Hessian of every layer's inputs (2 in^2 a token) and the updates of its
    columns (2 in a weight), all inputs taken as wide as the model: a lower bound.
    """
    passes = 2 * forward_flops(shape, tokens=tokens, pairs=0, predicted=0)
    inputs = shape.linear / shape.hidden
    return passes + 2 * shape.hidden * (inputs * tokens + shape.linear)


Settings = Mapping[str, Mapping[str, Any]]
GIVEN = "given on the command line"
STAGES = ("sample", "rank", "train", "evaluate", "quantize")


@dataclass(frozen=True, slots=True)
class Work:
    """One line of a plan. `kind`: generate, train or execute, which says at what rate it is done.

    `tokens` are those that go through the model, prompts included; `runs` how often it is done.
    """

    stage: str
    what: str
    kind: str
    answers: int = 0
    tokens: float = 0.0
    flops: float = 0.0
    programs: int = 0
    runs: int = 1


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of prompts and of the two sources' answers, the end-of-text token included."""

    prompt: float
    student: float
    teacher: float


def lengths(
    world: str, settings: Settings, *, prompt: float | None = None, answer: float | None = None
) -> tuple[Lengths, list[Fact]]:
    """The lengths of the problems of a `world`, and the facts they come from.

    Measured for the small world (`nano`), assumed for others (`other`); `prompt` and `answer`
    replace them, and no answer is longer than `sample.max_new_tokens` allows.
    """
    given = {"prompt": prompt, "student": answer, "teacher": answer}
    used = {part: facts()[f"{world}_{part}_tokens"] for part in given}
    for part, value in given.items():
        if value is not None:
            used[part] = replace(used[part], value=float(value), measured=False, source=GIVEN)
    most = settings["sample"]["max_new_tokens"] + 1
    answers = {part: min(used[part].value, most) for part in ("student", "teacher")}
    return Lengths(used["prompt"].value, **answers), list(used.values())


def world(problems: str) -> str:
    """Whose lengths the problems of a profile have."""
    return "nano" if problems == "nano" else "other"


def n_prompts(settings: Settings, *, given: int | None = None) -> tuple[int, Fact]:
    """How many training problems there are, and why.

    The rows of a file of problems; the paper's 68K where the file is not there; what evolution
    yields of the profile's seeds.
    """
    if given is not None:
        return given, Fact("prompts", given, "problems", False, GIVEN)
    problems, evolve = settings["evolve"]["problems"], settings["evolve"]
    if problems != "nano":
        path = next((p for p in (Path(problems), config.home() / problems) if p.exists()), None)
        if path:
            rows = sum(1 for _ in store.read_rows(path))
            return rows, Fact("prompts", rows, "problems", True, f"rows of {problems}")
        kept = tomllib.loads(config.data_text("paper.toml"))["data"]["kept_rows"]
        return kept, Fact(
            "prompts", kept, "problems", False, f"the paper's; {problems} is not here"
        )
    share = facts()["prompts_per_seed_and_round"]
    count = round(evolve["n_seeds"] * evolve["rounds"] * share.value)
    why = f"{evolve['n_seeds']} seeds x {evolve['rounds']} rounds x {share.value:.3f}"
    return count, Fact("prompts", count, "problems", False, why)


def sample(
    settings: Settings, shapes: Mapping[str, Shape], size: Lengths, prompts: int
) -> Iterator[Work]:
    """Stage 03: the student, and every teacher that runs here, at all their temperatures.

    `shapes` are by source, the student's the first.
    """
    own = settings["sample"]
    pupil = len(own["temperatures"]), own["n_samples"], size.student
    expert = len(own["teacher_temperature"]), own["teacher_samples"], size.teacher
    for source, shape in shapes.items():
        times, n, answer = pupil if source == "student" else expert
        asked = {"prompts": prompts * times, "answers": prompts * times * n}
        yield _generated("sample", source, shape, size.prompt, answer, **asked)


def local_teachers(own: Mapping[str, Any]) -> list[Author]:
    """The teachers that a server does not answer for, by the settings of `sample`."""
    if not own["teacher"]:
        return []
    student = Author(own["student"], "student", own["engine"], own["prompt_format"])
    how = own["teacher_engine"], own["teacher_prompt_format"]
    found = teachers(own["teacher"], *how, student=student)
    return [one for one in found if not engines.remote(one.engine)]


def _generated(
    stage: str,
    what: str,
    shape: Shape,
    prompt: float,
    answer: float,
    *,
    prompts: int,
    answers: int,
    runs: int = 1,
) -> Work:
    per_run = {"prompts": prompts, "answers": answers, "prompt": prompt, "answer": answer}
    return Work(
        stage,
        what,
        "generate",
        answers=runs * answers,
        tokens=runs * (prompts * prompt + answers * answer),
        flops=runs * generate_flops(shape, **per_run),
        runs=runs,
    )


def rank(settings: Settings, answers: int, prompts: int) -> Iterator[Work]:
    """Stage 04: every answer against its tests, and mutants of every reference."""
    yield Work("rank", "answers", "execute", answers=answers, programs=answers)
    mutants = prompts * settings["rank"]["n_mutants"]
    yield Work("rank", "mutants", "execute", programs=mutants)


def responses(method: str, settings: Settings) -> int:
    """Responses per prompt that `method` learns from."""
    objective = loss.OBJECTIVES[methods.METHODS[method]]
    if not objective.compares:
        return 1
    return settings["train"]["max_responses"] if objective.imitates == "best" else 2


def row(method: str, settings: Settings, size: Lengths) -> Row:
    """A mean group of `method`: the teacher's answer and the student's."""
    count = responses(method, settings)
    answer = (size.teacher + (count - 1) * size.student) / count
    return Row(prompt=size.prompt, response=answer, responses=count)


def longest(method: str, settings: Settings, size: Lengths) -> Row:
    """The longest group of `method` that is not dropped: every answer as long as it may be."""
    room = settings["train"]["max_length"] - size.prompt
    most = min(room, settings["sample"]["max_new_tokens"] + 1)
    return Row(prompt=size.prompt, response=most, responses=responses(method, settings))


def train(
    settings: Settings,
    shape: Shape,
    size: Lengths,
    prompts: int,
    *,
    checkpointing: bool,
    frozen: bool,
) -> Iterator[Work]:
    """Stage 05: every method with all its seeds; DPO scores its prompts once before."""
    own = settings["train"]
    groups = own["updates"] * own["groups_per_batch"]
    seeds = methods.seeds(own["trained"], own["n_seeds"], own["n_seeds_others"])
    for method, runs in seeds.items():
        one = row(method, settings, size)
        work = groups * train_flops(shape, one, checkpointing=checkpointing, frozen=frozen)
        tokens = groups * one.packed
        if loss.OBJECTIVES[methods.METHODS[method]].reference:
            scored = prompts * facts()["pairs_per_prompt"].value
            work += scored * group_flops(shape, one)
            tokens += scored * one.packed
        yield Work(
            "train",
            method,
            "train",
            answers=runs * groups * one.responses,
            tokens=runs * tokens,
            flops=runs * work,
            runs=runs,
        )


def n_students(settings: Settings) -> int:
    """Models that are evaluated but the teachers: the base and every trained run."""
    own = settings["train"]
    seeds = methods.seeds(own["trained"], own["n_seeds"], own["n_seeds_others"])
    return 1 + sum(seeds.values())


def n_tasks(benchmark: str, settings: Settings) -> tuple[int, Fact | None]:
    """Tasks of a benchmark of the profile, and what was assumed of them.

    One that is cut at a date counts whole where its rows are not here.
    """
    if benchmark == "test":
        return settings["evaluate"]["n_tasks"], None
    name, _, since = benchmark.partition(" since ")
    count = catalogue.entry(name).rows
    if not since:
        return count, None
    if catalogue.missing(name):
        why = f"all of them, those since {since} are fewer: its rows are not here"
        return count, Fact(name, count, "tasks", False, why)
    return len(benchmarks.load(name, since=since)), None


def evaluate(
    settings: Settings, shapes: Mapping[str, Shape], size: Lengths, public: Lengths
) -> Iterator[Work]:
    """Stage 06: every contender on every benchmark, one greedy answer and n sampled ones.

    `size` are the lengths of the held-out split, `public` those of other benchmarks.
    """
    own = settings["evaluate"]
    asked = [stats.parse_metric(text) for text in own["measures"]]
    draws = stats.draws(asked, own["n_samples"])
    students = n_students(settings)
    for benchmark in own["benchmarks"]:
        tasks, _ = n_tasks(benchmark, settings)
        answers = tasks * sum(n for n, _ in draws)
        many = {"prompts": tasks * len(draws), "answers": answers}
        long = size if benchmark == "test" else public
        name = benchmark.partition(" since ")[0]
        asked_of = [(name, shapes["student"], students, long.student)]
        taught = ((who, shape) for who, shape in shapes.items() if who != "student")
        asked_of += [(f"{name}, {who}", shape, 1, long.teacher) for who, shape in taught]
        for what, shape, runs, answer in asked_of:
            yield _generated("evaluate", what, shape, long.prompt, answer, **many, runs=runs)
        total = answers * (students + len(shapes) - 1)
        yield Work("evaluate", f"{name}, programs", "execute", programs=total)


def quantize(settings: Settings, shape: Shape, size: Lengths) -> Iterator[Work]:
    """Stage 08: every variant made, timed, and asked for a greedy answer and n sampled ones."""
    own = settings["quantize"]
    tasks, variants = own["n_tasks"], own["variants"]
    answers = tasks * (1 + own["n_samples"])
    many = {"prompts": 2 * tasks, "answers": answers, "runs": len(variants)}
    yield _generated("quantize", "answers", shape, size.prompt, size.teacher, **many)
    calibrated = sum(name.startswith("gptq") for name in variants)
    tokens = own["n_calibration"] * (size.prompt + size.teacher)
    if calibrated:
        work = calibrated * gptq_flops(shape, tokens=tokens)
        facts_of = {"tokens": calibrated * tokens, "flops": work, "runs": calibrated}
        yield Work("quantize", "GPTQ calibration", "train", **facts_of)
    yield Work("quantize", "programs", "execute", programs=answers * len(variants))


JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of work, the seconds that it takes on all devices together, and its energy."""

    work: Work
    seconds: float
    kwh: float


def works(
    settings: Settings,
    shapes: Mapping[str, Shape],
    size: Lengths,
    public: Lengths,
    prompts: int,
    **how: Any,
) -> Iterator[Work]:
    """The work of all stages, in their order; `how` are the options of `work.train`."""
    sampled = list(sample(settings, shapes, size, prompts))
    yield from sampled
    yield from rank(settings, sum(each.answers for each in sampled), prompts)
    shape = shapes["student"]
    yield from train(settings, shape, size, prompts, **how)
    yield from evaluate(settings, shapes, size, public)
    yield from quantize(settings, shape, size)


def lines(all_work: Sequence[Work], settings: Settings, on: Device, *, devices: int) -> list[Line]:
    """Every piece of work with its time; on a CPU also what stages need besides, by stage."""
    found = [_line(each, settings, on, devices) for each in all_work]
    found += _starts(all_work, settings, on, devices) if on.cpu else []
    return sorted(found, key=lambda line: STAGES.index(line.work.stage))


def _line(each: Work, settings: Settings, on: Device, devices: int) -> Line:
    """Programs run on the profile's cores, everything else on all devices.

    Quantised variants are made one after the other, on a CPU by one thread.
    """
    if each.kind == "execute":
        cores = settings["rank"]["workers"]
        seconds = each.programs / (cores * facts()["programs_per_second_many"].value)
        return _costed(each, seconds, watts=device("cpu").watts * cores)
    used = 1 if on.cpu and each.stage == "quantize" else devices
    share = on.train if each.kind == "train" else on.generate
    return _costed(each, each.flops / (used * on.flops * share), watts=on.watts * used)


def _costed(each: Work, seconds: float, *, watts: float) -> Line:
    return Line(each, seconds, seconds * watts / JOULES_PER_KWH)


def _starts(
    all_work: Sequence[Work], settings: Settings, on: Device, devices: int
) -> Iterator[Line]:
    runs = sum(each.runs for each in all_work if each.stage == "train")
    seconds = dict.fromkeys(STAGES, facts()["cpu_start_seconds"].value)
    seconds["train"] += runs * facts()["cpu_run_seconds"].value / devices
    variants = len(settings["quantize"]["variants"])
    seconds["quantize"] += variants * facts()["cpu_variant_seconds"].value
    for stage, count in seconds.items():
        yield _costed(Work(stage, "starting, loading", "start"), count, watts=on.watts)


def assumed_rates(on: Device) -> Iterator[Fact]:
    """The facts that times rest on."""
    names = ["programs_per_second_many"]
    names += [name for name in facts() if on.cpu and name.startswith("cpu_")]
    yield from (facts()[name] for name in names)
    for what in () if on.cpu else ("train", "generate"):
        unit = f"of {on.name}'s {on.flops / 1e12:g} TFLOP/s, to {what}"
        yield Fact("utilisation", getattr(on, what), unit, False, "--mfu, --mfu-generate change it")
