"""The options of the verb `evolve`: types, ranges, help, and what is not given."""

from pathlib import Path
from typing import Annotated

import typer

from rrtf import config

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
