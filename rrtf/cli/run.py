"""The verb `run`: the notebooks of a profile, and where their reports are."""

from rrtf.cli.options import Given
from rrtf.report import pipeline


def run(given: Given) -> None:
    """Run the notebooks of a profile in order and render their reports."""
    index = pipeline.run(
        given.profile,
        start=given.start or None,
        only=given.only or None,
        force=given.force,
        overrides=given.set,
        model=given.model or None,
        problems=given.problems or None,
        say=lambda line: print(line, flush=True),
    )
    print(f"\nOpen {index}\nThe same results for programs: {index.with_name('summary.json')}")


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return "resume with the same command"
