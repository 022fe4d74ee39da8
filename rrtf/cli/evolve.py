"""The verb `evolve`: rows in, harder rows or problems with tests out, and tables of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from rrtf import config, store
from rrtf.cli import inputs, screen
from rrtf.cli.options import Given
from rrtf.engines import Decoding, endpoint
from rrtf.engines.endpoint import Ask, Reply
from rrtf.evaluate import grade, samples
from rrtf.evolve import asking, offline, rules, stage, testing
from rrtf.evolve.asking import Asker
from rrtf.evolve.seeds import read_seeds
from rrtf.records import Instruction, Problem
from rrtf.sandbox import executor
from rrtf.strength import examine

N_MUTANTS = 20  # of a reference, where the strength of tests is measured
Dropped = tuple[Instruction, str]


def evolve(given: Given) -> None:
    """Make harder tasks of tasks (Evol-Instruct): by a model at any endpoint, or without one.

    Writes the seeds and what became of them that pass all rules, each with its family: seed_id,
    parent_id, operator, depth, generator, prompt_version. With --tests they are problems in
    HumanEval form. The same command goes on from the saved replies.
    """
    for place, option in ((given.out, "--out"), (given.dropped, "--dropped")):
        screen.check_out(place, given.seeds, option=option)
    if given.out and given.out == given.dropped:
        raise ValueError(f"--dropped {given.dropped}: is --out too")
    if not 0.5 < given.test_agreement <= 1:
        raise ValueError(
            f"--agreement {given.test_agreement}: expected a share above 0.5, so that no two "
            "outputs can both have it, up to 1"
        )
    weights = methods(given.method_weights)
    if given.engine == stage.OFFLINE:
        _transformed(given, weights)
    else:
        _asked(given, weights)


def saved(given: Given) -> str:
    """What an interrupted call says."""
    if given.engine == stage.OFFLINE:
        return "nothing was written"
    return screen.goes_on_from(str(_replies(given)))


def _replies(given: Given) -> Path:
    """Where replies are saved: as given, beside the output, or in the user's cache."""
    if given.out in ("", "-"):
        return Path(given.replies or config.cache_dir() / "replies")
    return Path(given.replies or f"{given.out}.replies")


def methods(numbers: Sequence[int]) -> dict[str, int]:
    """How often each method is drawn; ValueError for too few numbers, or none above 0."""
    names, text = asking.methods(), ",".join(map(str, numbers))
    if len(numbers) != len(names) or min(numbers) < 0:
        raise ValueError(f"--weights {text!r}: expected {len(names)} numbers, as in 3,3,3,1,1")
    if not sum(numbers):
        raise ValueError(f"--weights {text!r}: all are 0")
    return dict(zip(names, numbers, strict=True))


def _transformed(given: Given, weights: dict[str, int]) -> None:
    """Without a model: the specifications of nano problems are transformed."""
    rows = [*store.rows(given.seeds)]
    if not all(isinstance(row, Mapping) and row.get("spec") for _, row in rows):
        raise ValueError(
            f"{given.seeds}: only nano problems (with a spec) evolve without a model; --engine URL "
            "asks one for any rows"
        )
    problems = [store.from_row(row, Problem, at) for at, row in rows]
    how = {"rounds": given.rounds, "seed": given.seed, "isolation": given.isolation}
    how |= {"weights": weights, "workers": given.workers}
    try:
        with screen.progress("evolving") as tick:
            evolved, lost = offline.evolve_problems(problems, progress=tick, **how)
    except RuntimeError as error:  # no sandbox to be had here
        raise OSError(str(error)) from error
    if given.out:
        screen.write(given.out, [*problems, *evolved])
    console = screen.console(given.out)
    console.print(screen.rows_table(offline.by_method(evolved)))
    total = len(evolved) + sum(lost.values())
    console.print(screen.ledger("attempts", total, lost, "evolved", len(evolved)))
    what = f"{len(problems) + len(evolved)} problems, the seeds among them,"
    screen.say_written(console, given.out, what)


def _asked(given: Given, weights: dict[str, int]) -> None:
    """By a model: every row is rewritten and answered, sieved, and tested where that is asked."""
    inputs.need_engine("evolve", "openai")
    rows, names = read_seeds(
        store.rows(given.seeds),
        source=samples.name_of(given.seeds),
        renamed=samples.renames(given.rename),
    )
    screen.tell(f"{len(rows)} rows; " + ", ".join(f"{o}: {t}" for o, t in names.items()))
    decoding = Decoding(given.temperature, given.top_p, given.max_new_tokens, given.seed)
    ask = _asker(given)
    evolved, gone = stage.evolve_rows(
        rows,
        ask=ask,
        generator=given.model,
        rounds=given.rounds,
        weights=weights,
        decoding=decoding,
        after_failure=given.after_failure,
    )
    console = screen.console(given.out, given.dropped)
    if total := len(evolved) + len(gone):
        console.print(screen.rows_table(offline.by_method(evolved)))
        reasons = rules.reason_counts(gone)
        console.print("", screen.ledger("attempts", total, reasons, "evolved", len(evolved)), "")
    whys = Counter(why.partition(f"{rules.NO_REPLY}: ")[2] for _, why in gone)
    del whys[""]
    lost = bool(total) and whys.total() == total
    kept: Sequence = [*rows, *evolved]
    if given.clean:
        everything = len(kept)
        kept, refused = rules.sieve(kept, threshold=given.similarity)
        reasons = rules.reason_counts(refused)
        console.print(screen.ledger("rows", everything, reasons, "kept", len(kept)))
        gone = [*gone, *refused]
    if given.tests:
        kept, untested = _with_tests(given, console, kept, ask, decoding)
        gone = [*gone, *untested]
    if given.out:
        screen.write(given.out, kept)
    if given.dropped:
        screen.write(given.dropped, [store.to_row(row) | {"reason": why} for row, why in gone])
    what = "problems" if given.tests else "rows"
    screen.say_written(console, given.out, f"{len(kept)} {what}")
    screen.say_written(console, given.dropped, f"{len(gone)} dropped rows")
    for why, count in whys.most_common():
        told = f"{count} requests have no reply; the same command asks them again: {why}"
        screen.say(console, told)
    if lost:
        raise OSError(f"{given.engine}: no reply to any of {total} requests")


def _asker(given: Given) -> Asker:
    """`endpoint.ask` for one model, saying how far it is."""

    def ask(asks: Sequence[Ask]) -> list[Reply]:
        with screen.spending(f"asking {given.model}") as tell:
            return endpoint.ask(
                asks,
                endpoint=endpoint.Endpoint(given.engine, given.model, given.api_key_env),
                replies=_replies(given),
                concurrency=given.concurrency,
                attempts=given.attempts,
                timeout=given.timeout,
                requests_per_minute=given.rate,
                max_spend_tokens=given.spend,
                progress=tell,
            )

    return ask


def _with_tests(
    given: Given, console: Console, rows: Sequence[Instruction], ask: Asker, decoding: Decoding
) -> tuple[list[dict], list[Dropped]]:
    """(rows that are problems with valid tests, the others with their reasons); prints both."""
    limits = inputs.limits(given)
    try:
        found = testing.add_tests(
            rows,
            ask=ask,
            call=partial(executor.call, limits=limits, workers=given.workers),
            answers=given.test_answers,
            inputs=given.test_inputs,
            least_share=given.test_agreement,
            decoding=decoding,
        )
    except RuntimeError as error:  # no sandbox to be had here
        raise OSError(str(error)) from error
    offered = dict(found.inputs)
    kept = offered.pop("kept", 0)
    console.print("", screen.ledger("inputs", kept + sum(offered.values()), offered, "kept", kept))
    weak = _weak(given, console, [problem for _, problem in found.rows])
    gone = list(found.dropped) + [(r, weak[p.task_id]) for r, p in found.rows if p.task_id in weak]
    both = [store.to_row(r) | store.to_row(p) for r, p in found.rows if p.task_id not in weak]
    lost = rules.reason_counts(gone)
    console.print("", screen.ledger("rows", len(rows), lost, "problems with tests", len(both)))
    if found.n_trials and found.n_alike == found.n_trials:
        screen.tell(
            "note: all answers to each task are one text, so they agree on nothing: does this "
            "endpoint draw its answers (--temperature)?"
        )
    return both, gone


def _weak(given: Given, console: Console, problems: Sequence[Problem]) -> dict[str, str]:
    """Why a problem's reference does not pass, or its tests are too weak; prints how strong."""
    least = given.min_strength
    execute = partial(grade.execute, workers=given.workers, cluster="local")
    how = {"n_mutants": N_MUTANTS, "seed": given.seed, "limits": inputs.limits(given)}
    with screen.progress("checking tests") as tick:
        broken, measured = examine.examine(problems, execute=execute, progress=tick, **how)
    whole, _ = examine.drop_broken(problems, broken)
    strong, _ = examine.drop_weak(whole, measured, min_strength=least)
    told = f"tests: they kill less than {least:g} of the mutants"
    weak = {p.task_id: told for p in problems if p not in strong}
    weak |= {name: f"tests: the reference fails: {why}" for name, why in broken.items()}
    values = sorted(examine.shares(measured)["without those like the reference"])
    if values:
        killed = sum(one.n_killed for one in measured)
        mutants = sum(one.n_mutants - one.n_alike for one in measured)
        kills = f"tests of {len(values)} problems kill {killed} of {mutants} mutants that differ"
        median = f"of the median problem {100 * values[len(values) // 2]:.0f} %"
        screen.say(console, f"{kills} from their reference; {median}")
    return weak
