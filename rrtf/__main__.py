"""The command line: `python -m rrtf VERB`.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted (the same command goes on).
"""

import signal
import sys
from typing import Annotated

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
    overrides = dict(config.parse_override(text) for text in set_ or [])
    index = pipeline.run(
        profile,
        start=start,
        only=only,
        force=force,
        overrides=overrides,
        model=model,
        problems=problems,
        say=lambda line: print(line, flush=True),
    )
    print(f"\nOpen {index}\nThe same results for programs: {index.with_name('summary.json')}")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors are lines on stderr, never tracebacks."""
    import click

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(args=arguments, standalone_mode=False)
        return 0
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _say("interrupted; resume with the same command", 130)
    except click.exceptions.ClickException as error:
        error.show()
        return error.exit_code
    except (ValueError, FileNotFoundError) as error:
        return _say(f"error: {error}", 2)
    except (pipeline.StageError, OSError) as error:
        return _say(f"failed: {error}\nWhat was finished is kept; the same command goes on.", 1)


def _say(text: str, code: int) -> int:
    print(f"\n{text}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
