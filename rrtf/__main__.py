"""The command line: `python -m rrtf VERB`.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted (the same command goes on).
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from rrtf import config, pipeline

app = typer.Typer(
    name="rrtf",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Ranking feedback for code models: RRTF (arXiv:2307.14936) from seeds to report.",
)


@app.callback()
def rrtf() -> None:
    """Keeps `run` a verb of its own while it is the only one."""


@app.command()
def run(
    profile: Annotated[str, typer.Option(help="which column of profiles.toml")] = "nano",
    start: Annotated[str | None, typer.Option("--from", help="leave out the stages before")] = None,
    only: Annotated[str | None, typer.Option(help="only these stages: 03 or 03,04")] = None,
    force: Annotated[bool, typer.Option("--force", help="run also what is up to date")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="one parameter")
    ] = None,
    model: Annotated[str | None, typer.Option(help="the student: a folder or a hub name")] = None,
    problems: Annotated[str | None, typer.Option(help="a file in HumanEval form")] = None,
) -> None:
    """Run the notebooks of a profile in order and render their reports."""
    with exit_codes():
        index = pipeline.run(
            profile,
            start=start,
            only=only,
            force=force,
            overrides=dict(config.parse_override(text) for text in set_ or []),
            model=model,
            problems=problems,
            say=lambda line: print(line, flush=True),
        )
    print(f"\nOpen {index}\nThe same results for programs: {index.with_name('summary.json')}")


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turns what a verb raises into lines on stderr and the exit code that goes with them."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        _leave("interrupted; resume with the same command", 130)
    except (ValueError, FileNotFoundError) as error:
        _leave(f"error: {error}", 2)
    except (pipeline.StageError, OSError) as error:
        _leave(f"failed: {error}\nWhat was finished is kept; the same command goes on.", 1)


def _leave(text: str, code: int) -> NoReturn:
    print(f"\n{text}", file=sys.stderr, flush=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
