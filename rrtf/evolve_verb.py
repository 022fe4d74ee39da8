"""The verb `evolve` as the command line sees it; `evolve_command` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from rrtf import config
from rrtf.exits import exit_codes
from rrtf.options import ALL_CORES, Cpu, Level, Memory, Out, Rename, Strength, Workers

_STAGE = config.resolve("nano", "evolve")  # what is not given
_ASKING, _TESTS, _RUNS = "Asking the model", "Unit tests", "Execution"


def _asking(name: str | None = None, **more: object) -> object:
    return typer.Option(*([name] if name else []), rich_help_panel=_ASKING, **more)


def evolve(
    seeds: Annotated[
        str,
        typer.Argument(
            metavar="SEEDS",
            help="rows with a task's text (instruction, input, output or the like): a file "
            "(.jsonl, .json, .parquet, .gz), -, or a data set; for nano problems with their spec",
        ),
    ],
    generator: Annotated[
        str,
        typer.Option(
            metavar="nano|URL", help="nano: no model; else an OpenAI-compatible address, as .../v1"
        ),
    ] = "nano",
    model: Annotated[str, typer.Option(help="the name the endpoint knows it by")] = "",
    rounds: Annotated[
        int, typer.Option(metavar="N", min=0, help="0: only the rules over what is there")
    ] = 1,
    out: Out = None,
    dropped: Annotated[
        str | None, typer.Option(metavar="FILE", help="what was dropped, each with its reason")
    ] = None,
    rename: Rename = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="N,N,N,N,N", help="constrain, specialise, deepen, misdirect, tighten: how often"
        ),
    ] = ",".join(map(str, _STAGE["method_weights"])),
    after_failure: Annotated[
        str,
        typer.Option(
            metavar="retry|stop", help="a row whose evolution failed: into the next round, or not"
        ),
    ] = "retry",
    clean: Annotated[
        bool,
        typer.Option(
            "--clean/--no-clean", help="the rules made by hand: Python functions, no repeats"
        ),
    ] = True,
    similarity: Annotated[
        float,
        typer.Option(
            metavar="0..1", min=0.05, max=1, help="Jaccard from which two tasks are nearly one"
        ),
    ] = 0.8,
    seed: Annotated[int, typer.Option(metavar="N")] = _STAGE["seed"],
    replies: Annotated[
        Path | None,
        _asking(
            metavar="DIR",
            help="every reply is saved here at once, and none is asked for twice",
            show_default="FILE of --out with .replies",
        ),
    ] = None,
    concurrency: Annotated[int, _asking(metavar="N", min=1, help="requests under way")] = 8,
    attempts: Annotated[int, _asking(metavar="N", min=1, help="of one request")] = 6,
    timeout: Annotated[float, _asking(metavar="S", min=0.1, help="of one attempt")] = 120.0,
    rate: Annotated[
        float, _asking(metavar="N", min=0, help="requests a minute at most; 0: no limit")
    ] = 0,
    spend: Annotated[
        int, _asking(metavar="N", min=0, help="tokens at most, in and out; 0: no limit")
    ] = 0,
    api_key_env: Annotated[
        str, _asking(metavar="NAME", help="the environment variable that holds the key")
    ] = "OPENAI_API_KEY",
    temperature: Annotated[float, _asking(metavar="T", min=0)] = 1.0,
    top_p: Annotated[float, _asking(metavar="P", min=0, max=1)] = 0.95,
    max_tokens: Annotated[int, _asking(metavar="N", min=1, help="of one reply")] = 1024,
    tests: Annotated[
        bool,
        typer.Option(
            "--tests", help="ask for inputs and answers to test by", rich_help_panel=_TESTS
        ),
    ] = False,
    answers: Annotated[
        int,
        typer.Option(metavar="N", min=2, help="programs that vote", rich_help_panel=_TESTS),
    ] = 5,
    inputs: Annotated[
        int, typer.Option(metavar="N", min=3, help="asked for a task", rich_help_panel=_TESTS)
    ] = 10,
    agreement: Annotated[
        float,
        typer.Option(
            metavar="0.5..1", help="share of them that has to agree", rich_help_panel=_TESTS
        ),
    ] = 0.6,
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
    from rrtf import evolve_command

    kept = f"the same command goes on from {evolve_command.replies_folder(replies, out)}"
    with exit_codes(interrupted=f"interrupted; {kept}" if generator != "nano" else "interrupted"):
        if generator == "nano":
            evolve_command.evolve_nano(
                seeds, rounds=rounds, weights=weights, seed=seed, out=out, workers=workers
            )
        else:
            evolve_command.evolve_asking(**given)
