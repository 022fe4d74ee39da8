"""The command line: `python -m rrtf VERB`, where it is installed `rrtf VERB`.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted (the same command goes on).
"""

from typing import Annotated

import typer

from rrtf import config
from rrtf.cli import options

VERBS = (
    "run", "plan", "evolve", "audit", "sample", "grade", "rank", "train", "evaluate", "quantize",
)  # fmt: skip


class Verbs(typer.core.TyperGroup):
    """The file of a verb is loaded when it is asked for, all of them for the list."""

    def list_commands(self, ctx: typer.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: typer.Context, name: str):
        return options.command(name) if name in VERBS else None


app = typer.Typer(name="rrtf", cls=Verbs, no_args_is_help=True, pretty_exceptions_enable=False)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"rrtf {config.version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="print it"),
    ] = False,
) -> None:
    """Ranking feedback for code models: RRTF (arXiv:2307.14936) from seeds to report."""


if __name__ == "__main__":
    app()
