"""What the verb `sample` does and prints: problems in, answers and a table of them out."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from rrtf import arguments, contest, engines, terminal
from rrtf.sample import sample_temperatures, survey

SHORT = {  # so that a terminal's 80 columns hold them
    "temperature": "T", "responses": "answers", "per prompt": "a task", "mean tokens": "tokens",
    "cut by length": "cut",
}  # fmt: skip


def how_to_go_on(out: str | None) -> str:
    """What an interrupted call says of what it saved."""
    if _is_file(out):
        return f"interrupted; the same command goes on from {out}.shards"
    return "interrupted; nothing is kept (with --out FILE the same command would go on)"


def sample_problems(
    problems: str,
    model: str,
    *,
    n: int,
    temperature: Sequence[float] | None,
    max_new_tokens: int | None,
    out: str | None,
    data: Path | None,
    since: str | None,
    joint: bool,
    packages: str,
    **options,
) -> None:
    """The verb `sample`; `options` are those of `sample.sample_temperatures`.

    ValueError and FileNotFoundError for what a caller can get wrong, before a model is loaded;
    OSError where an engine, a server or a cluster is not to be had.
    """
    terminal.check_out(out, problems)
    named = [name.strip() for name in packages.split(",") if name.strip()]
    chosen = {"data": data, "since": since, "joint": joint, "packages": named}
    tasks = arguments.load_problems(problems, **chosen)
    away = engines.remote(options["engine"])
    longest = max_new_tokens or contest.longest(model)
    source = arguments.name_of(model) if Path(model).is_dir() and not away else model
    options |= {"source": source, "n_samples": n, "temperatures": temperature or (0.0,)}
    with _shards(out) as shards, terminal.progress(f"sampling {source}") as tick:
        try:
            found = sample_temperatures(
                tasks, model=model, max_new_tokens=longest, shards=shards, progress=tick, **options
            )
        except (ImportError, RuntimeError) as error:
            raise OSError(str(error)) from error
    if out:
        terminal.write(out, found)
    console = Console(stderr=out == "-", highlight=False)
    rows = [{SHORT.get(name, name): value for name, value in row.items()} for row in survey(found)]
    console.print(terminal.rows_table(rows))
    if cut := sum(response.finish_reason == "length" for response in found):
        terminal.say(console, f"{cut} of {len(found)} answers were cut after {longest} tokens")
    if _is_file(out):
        terminal.say(console, f"{len(found)} answers to {len(tasks)} tasks in {out}")


def _is_file(out: str | None) -> bool:
    return out is not None and out != "-"


@contextmanager
def _shards(out: str | None) -> Iterator[Path]:
    """Beside the output; what has none is not kept."""
    if _is_file(out):
        yield Path(f"{out}.shards")
        return
    with tempfile.TemporaryDirectory(prefix="rrtf-") as scratch:
        yield Path(scratch)
