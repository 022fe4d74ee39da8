"""What the verb `evolve` does and prints: rows in, harder rows, problems and tables out."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rrtf import config, store
from rrtf.cli import inputs, screen
from rrtf.cli.options import ALL_CORES, Cpu, Level, Memory, Out, Rename, Strength, Workers
from rrtf.cli.screen import exit_codes
from rrtf.engines import Decoding, endpoint
from rrtf.engines.endpoint import Ask, Reply
from rrtf.evaluate import grade
from rrtf.evolve import asking, growing, offline, rules, testing
from rrtf.evolve.growing import Asker
from rrtf.evolve.seeds import read_seeds
from rrtf.records import Instruction, Problem
from rrtf.sandbox import executor
from rrtf.strength import examine

STAGE = config.resolve("nano", "evolve")  # what is not given
WEIGHTS = ",".join(map(str, STAGE["method_weights"]))
_ASKING, _TESTS = "Asking the model", "Unit tests"


def _asking(name: str | None = None, **more: object) -> object:
    return typer.Option(*([name] if name else []), rich_help_panel=_ASKING, **more)


Seeds = Annotated[
    str,
    typer.Argument(
        metavar="SEEDS",
        help="rows with a task's text (instruction, input, output or the like): a file "
        "(.jsonl, .json, .parquet, .gz), -, or a data set; for nano problems with their spec",
    ),
]
Teller = Annotated[
    str,
    typer.Option(
        metavar="nano|URL", help="nano: no model; else an OpenAI-compatible address, as .../v1"
    ),
]
Model = Annotated[str, typer.Option(help="the name the endpoint knows it by")]
Rounds = Annotated[
    int, typer.Option(metavar="N", min=0, help="0: only the rules over what is there")
]
DroppedTo = Annotated[
    str | None, typer.Option(metavar="FILE", help="what was dropped, each with its reason")
]
Weights = Annotated[
    str,
    typer.Option(
        metavar="N,N,N,N,N", help="constrain, specialise, deepen, misdirect, tighten: how often"
    ),
]
AfterFailure = Annotated[
    str,
    typer.Option(
        metavar="retry|stop", help="a row whose evolution failed: into the next round, or not"
    ),
]
Clean = Annotated[
    bool,
    typer.Option("--clean/--no-clean", help="the rules made by hand: Python functions, no repeats"),
]
Similarity = Annotated[
    float,
    typer.Option(
        metavar="0..1", min=0.05, max=1, help="Jaccard from which two tasks are nearly one"
    ),
]
EvolveSeed = Annotated[int, typer.Option(metavar="N")]
Replies = Annotated[
    Path | None,
    _asking(
        metavar="DIR",
        help="every reply is saved here at once, and none is asked for twice",
        show_default="FILE of --out with .replies",
    ),
]
Concurrency = Annotated[int, _asking(metavar="N", min=1, help="requests under way")]
Attempts = Annotated[int, _asking(metavar="N", min=1, help="of one request")]
Timeout = Annotated[float, _asking(metavar="S", min=0.1, help="of one attempt")]
Rate = Annotated[float, _asking(metavar="N", min=0, help="requests a minute at most; 0: no limit")]
Spend = Annotated[int, _asking(metavar="N", min=0, help="tokens at most, in and out; 0: no limit")]
KeyName = Annotated[
    str, _asking(metavar="NAME", help="the environment variable that holds the key")
]
Temperature = Annotated[float, _asking(metavar="T", min=0)]
Nucleus = Annotated[float, _asking(metavar="P", min=0, max=1)]
MaxTokens = Annotated[int, _asking(metavar="N", min=1, help="of one reply")]
Tests = Annotated[
    bool,
    typer.Option("--tests", help="ask for inputs and answers to test by", rich_help_panel=_TESTS),
]
Answers = Annotated[
    int,
    typer.Option(metavar="N", min=2, help="programs that vote", rich_help_panel=_TESTS),
]
Inputs = Annotated[
    int, typer.Option(metavar="N", min=3, help="asked for a task", rich_help_panel=_TESTS)
]
Agreement = Annotated[
    float,
    typer.Option(metavar="0.5..1", help="share of them that has to agree", rich_help_panel=_TESTS),
]


N_MUTANTS = 20  # of a reference, where the strength of tests is measured
Dropped = tuple[Instruction, str]


def replies_folder(replies: Path | None, out: str | None) -> Path:
    """Where replies are saved: as given, beside the output, or in the user's cache."""
    if replies:
        return replies
    if out and out != "-":
        return Path(f"{out}.replies")
    return config.cache_dir() / "replies"


def parse_weights(text: str) -> dict[str, int]:
    """`'3,3,3,1,1'` -> how often each method is drawn; ValueError for anything else."""
    parts = text.split(",")
    names = asking.methods()
    if len(parts) != len(names) or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--weights {text!r}: expected {len(names)} numbers, as in 3,3,3,1,1")
    weights = dict(zip(names, map(int, parts), strict=True))
    if not sum(weights.values()):
        raise ValueError(f"--weights {text!r}: all are 0")
    return weights


# --- without a model ---------------------------------------------------------------------------


def evolve_nano(
    seeds: str, *, rounds: int, weights: str, seed: int, out: str | None, workers: int
) -> None:
    """The verb with the generator `nano`: transforms the specifications of nano problems.

    ValueError for problems without a specification, and for rows that are no problems.
    """
    screen.check_out(out, seeds)
    how = {"weights": parse_weights(weights), "seed": seed, "workers": workers}
    rows = store.rows(seeds)
    problems = [store.from_row(row, Problem, where) for where, row in rows]
    if any(not problem.spec for problem in problems):
        raise ValueError(
            f"{seeds}: only nano problems (with a spec) evolve without a model; --generator URL "
            "asks one for any rows"
        )
    with screen.progress("evolving") as tick:
        evolved, dropped = offline.evolve_problems(problems, rounds=rounds, progress=tick, **how)
    if out:
        screen.write(out, [*problems, *evolved])
    console = Console(stderr=out == "-", highlight=False)
    console.print(_method_table(evolved))
    attempts = len(evolved) + sum(dropped.values())
    console.print(screen.ledger("attempts", attempts, dropped, "evolved", len(evolved)))
    _say_written(console, out, len(problems) + len(evolved), "problems, the seeds among them,")


# --- through an endpoint -----------------------------------------------------------------------


def evolve_asking(
    seeds: str,
    *,
    generator: str,
    model: str,
    rounds: int,
    out: str | None = None,
    dropped: str | None = None,
    rename: Sequence[str] | None = None,
    weights: str,
    after_failure: str,
    clean: bool,
    similarity: float,
    seed: int,
    tests: bool,
    min_strength: float | None,
    **options: Any,
) -> None:
    """The verb with an address as generator; `options` are those of asking, tests and execution.

    ValueError and FileNotFoundError before anything is asked for what a caller can get wrong;
    errors of the endpoint as `endpoint.ask`, with every reply that came saved.
    """
    how = {"weights": parse_weights(weights), "rounds": rounds, "after_failure": after_failure}
    _check(seeds, out, dropped, options["agreement"])
    rows, names = read_seeds(
        store.rows(seeds),
        source=inputs.name_of(seeds),
        renamed=inputs.renames(rename or ()),
    )
    inputs.tell(f"{len(rows)} rows; " + ", ".join(f"{o}: {t}" for o, t in names.items()))
    decoding = Decoding(options["temperature"], options["top_p"], options["max_tokens"], seed)
    ask = _asker(generator, model, replies_folder(options["replies"], out), options)
    evolved, failed = growing.evolve_rows(rows, ask=ask, generator=model, decoding=decoding, **how)
    console = Console(stderr="-" in (out, dropped), highlight=False)
    _print_rounds(console, evolved, failed)
    everything, gone = [*rows, *evolved], list(failed)
    kept, refused = rules.sieve(everything, threshold=similarity) if clean else (everything, [])
    if clean:
        reasons = rules.reason_counts(refused)
        console.print(screen.ledger("rows", len(everything), reasons, "kept", len(kept)))
    gone += refused
    written: list[Any] = kept
    if tests:
        written, untested = _with_tests(
            console, kept, ask, decoding, {**options, "min_strength": min_strength, "seed": seed}
        )
        gone += untested
    if out:
        screen.write(out, written)
    if dropped:
        screen.write(dropped, [store.to_row(row) | {"reason": why} for row, why in gone])
    _say_written(console, out, len(written), "problems" if tests else "rows")
    _say_written(console, dropped, len(gone), "dropped rows")
    silent = sum(reason.endswith("no reply") for _, reason in failed)
    if silent:
        screen.say(console, f"{silent} requests have no reply; the same command asks them again")


def _check(seeds: str, out: str | None, dropped: str | None, agreement: float) -> None:
    for place in (out, dropped):
        screen.check_out(place, seeds)
    if out and out == dropped:
        raise ValueError(f"--dropped {dropped}: is --out too")
    if not 0.5 < agreement <= 1:
        raise ValueError(
            f"--agreement {agreement}: expected a share above 0.5, so that no two outputs can "
            "both have it, up to 1"
        )


def _asker(address: str, model: str, folder: Path, options: Mapping[str, Any]) -> Asker:
    """`endpoint.ask` for one model, saying how far it is."""
    bound = partial(
        endpoint.ask,
        endpoint=endpoint.Endpoint(address, model, options["api_key_env"]),
        replies=folder,
        concurrency=options["concurrency"],
        attempts=options["attempts"],
        timeout=options["timeout"],
        requests_per_minute=options["rate"],
        max_spend_tokens=options["spend"],
    )

    def ask(asks: Sequence[Ask]) -> list[Reply]:
        with screen.spending(f"asking {model}") as tell:
            return bound(asks, progress=tell)

    return ask


def _with_tests(
    console: Console,
    rows: Sequence[Instruction],
    ask: Asker,
    decoding: Decoding,
    options: Mapping[str, Any],
) -> tuple[list[dict], list[Dropped]]:
    """(rows that are problems with valid tests, the others with their reasons); prints both."""
    use = {name: options[name] for name in ("cpu_seconds", "memory_mb")}
    limits = grade.limits("", wall_seconds=6.0, isolation=options["level"], **use)
    runs = {"limits": limits, "workers": options["workers"]}
    try:
        found = testing.add_tests(
            rows,
            ask=ask,
            call=partial(executor.call, **runs),
            answers=options["answers"],
            inputs=options["inputs"],
            least_share=options["agreement"],
            decoding=decoding,
        )
    except RuntimeError as error:  # no sandbox to be had here
        raise OSError(str(error)) from error
    offered = dict(found.inputs)
    kept = offered.pop("kept", 0)
    console.print("", screen.ledger("inputs", kept + sum(offered.values()), offered, "kept", kept))
    problems, weak = _valid(console, [p for _, p in found.rows], options, runs)
    names = {problem.task_id for problem in problems}
    gone = list(found.dropped) + [(r, weak[p.task_id]) for r, p in found.rows if p.task_id in weak]
    lost = rules.reason_counts(gone)
    console.print("", screen.ledger("rows", len(rows), lost, "problems with tests", len(names)))
    if found.n_trials and found.n_alike == found.n_trials:
        inputs.tell(
            "note: all answers to each task are one text, so they agree on nothing: does this "
            "endpoint draw its answers (--temperature)?"
        )
    both = [store.to_row(r) | store.to_row(p) for r, p in found.rows if p.task_id in names]
    return both, gone


def _valid(
    console: Console,
    problems: Sequence[Problem],
    options: Mapping[str, Any],
    runs: Mapping[str, Any],
) -> tuple[list[Problem], dict[str, str]]:
    """(problems whose reference passes and whose tests are strong enough, why the others are not).

    Prints how strong the tests are.
    """
    least = options["min_strength"] or 0.0
    with screen.progress("checking tests") as tick:
        broken, measured = examine.examine(
            problems,
            n_mutants=N_MUTANTS,
            seed=options["seed"],
            limits=runs["limits"],
            execute=partial(grade.execute, workers=runs["workers"], cluster="local"),
            progress=tick,
        )
    kept, _ = examine.drop_broken(problems, broken)
    strong, _ = examine.drop_weak(kept, measured, min_strength=least)
    names = {problem.task_id for problem in strong}
    told = f"tests: they kill less than {least:g} of the mutants"
    reasons = {p.task_id: told for p in problems if p.task_id not in names}
    reasons |= {name: f"tests: the reference fails: {why}" for name, why in broken.items()}
    values = sorted(examine.shares(measured)["without those like the reference"])
    if values:
        middle = values[len(values) // 2]
        killed = sum(one.n_killed for one in measured)
        mutants = sum(one.n_mutants - one.n_alike for one in measured)
        screen.say(
            console,
            f"tests of {len(values)} problems kill {killed} of {mutants} mutants that differ "
            f"from their reference; of the median problem {100 * middle:.0f} %",
        )
    return strong, reasons


# --- what is printed ---------------------------------------------------------------------------


def _print_rounds(
    console: Console, evolved: Sequence[Instruction], failed: Sequence[Dropped]
) -> None:
    if not evolved and not failed:
        return
    console.print(_method_table(evolved))
    reasons = rules.reason_counts(failed)
    total = len(evolved) + len(failed)
    console.print("", screen.ledger("attempts", total, reasons, "evolved", len(evolved)), "")


def _method_table(evolved: Sequence[Instruction] | Sequence[Problem]) -> Table:
    """Evolved rows by method and generation."""
    rows = offline.by_method(evolved)
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table


def _say_written(console: Console, out: str | None, count: int, what: str) -> None:
    if out and out != "-":
        screen.say(console, f"{count} {what} in {out}")


def evolve(
    seeds: Seeds,
    generator: Teller = "nano",
    model: Model = "",
    rounds: Rounds = 1,
    out: Out = None,
    dropped: DroppedTo = None,
    rename: Rename = None,
    weights: Weights = WEIGHTS,
    after_failure: AfterFailure = "retry",
    clean: Clean = True,
    similarity: Similarity = 0.8,
    seed: EvolveSeed = STAGE["seed"],
    replies: Replies = None,
    concurrency: Concurrency = 8,
    attempts: Attempts = 6,
    timeout: Timeout = 120.0,
    rate: Rate = 0,
    spend: Spend = 0,
    api_key_env: KeyName = "OPENAI_API_KEY",
    temperature: Temperature = 1.0,
    top_p: Nucleus = 0.95,
    max_tokens: MaxTokens = 1024,
    tests: Tests = False,
    answers: Answers = 5,
    inputs: Inputs = 10,
    agreement: Agreement = 0.6,
    min_strength: Strength = None,
    level: Level = "landlock+seccomp",
    workers: Workers = ALL_CORES,
    cpu_seconds: Cpu = None,
    memory_mb: Memory = 512,
) -> None:
    """Make harder tasks of tasks (Evol-Instruct): by a model at any endpoint, or without one.

    Writes the seeds and what became of them that pass all rules, each with its family: seed_id,
    parent_id, operator, depth, generator, prompt_version. With --tests they are problems in
    HumanEval form. The same command goes on from the saved replies.
    """
    given = dict(locals())

    kept = f"the same command goes on from {replies_folder(replies, out)}"
    with exit_codes(interrupted=f"interrupted; {kept}" if generator != "nano" else "interrupted"):
        if generator == "nano":
            evolve_nano(seeds, rounds=rounds, weights=weights, seed=seed, out=out, workers=workers)
        else:
            evolve_asking(**given)
