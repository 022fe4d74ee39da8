"""What the verb `sample` does and prints: problems in, answers and a table of them out."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rrtf import config, engines
from rrtf import sample as rrtf_sample
from rrtf.cli import evaluate, inputs, screen
from rrtf.cli.options import ALL_CORES, Asked, Data, Draw, Joint, Longest, Packages, Problems, Since
from rrtf.cli.screen import exit_codes
from rrtf.engines import Decoding
from rrtf.sample import Author, survey

STAGE = config.resolve("nano", "evaluate")  # what is not given is what `evaluate` gives
_WHERE = "Where it is sampled"

Model = Annotated[
    str,
    typer.Option(metavar="M", help="a folder, a hub name, or what a server calls its model"),
]
Number = Annotated[
    int, typer.Option("--n", metavar="N", min=1, help="answers a task, at every temperature")
]
Temperatures = Annotated[
    list[float] | None,
    typer.Option("--temperature", metavar="T", help="once or more", show_default="0, greedy"),
]
TopP = Annotated[float, typer.Option(metavar="P", help="nucleus")]
Engine = Annotated[
    str,
    typer.Option(
        metavar="NAME[@WHERE]",
        help="auto, transformers, ctranslate2, gptbigcode, vllm, openai@URL, ...",
        rich_help_panel=_WHERE,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="processes; on a GPU there is one", rich_help_panel=_WHERE
    ),
]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="local|ray",
        help="ray: every GPU, else every CPU, of the cluster that $RAY_ADDRESS names, or that "
        "this machine is part of",
        rich_help_panel=_WHERE,
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="lines for grade, rank and evaluate: a .jsonl or .parquet (.gz), or -; what is "
        "finished is kept in FILE.shards",
    ),
]


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
    """The verb `sample`; `options` are what decides how it is sampled.

    ValueError and FileNotFoundError for what a caller can get wrong, before a model is loaded;
    OSError where an engine, a server or a cluster is not to be had.
    """
    screen.check_out(out, problems)
    named = [name.strip() for name in packages.split(",") if name.strip()]
    chosen = {"data": data, "since": since, "joint": joint, "packages": named}
    tasks = inputs.load_problems(problems, **chosen)
    away = engines.remote(options["engine"])
    longest = max_new_tokens or evaluate.longest(model)
    source = inputs.name_of(model) if Path(model).is_dir() and not away else model
    author = Author(model, source, options["engine"], options["prompt_format"])
    cut = options["top_p"], longest, options["seed"]
    decodings = [Decoding(warmth, *cut) for warmth in temperature or (0.0,)]
    with _shards(out) as shards, screen.progress(f"sampling {source}") as tick:
        try:
            found = rrtf_sample.sample(
                tasks,
                author,
                decodings=decodings,
                n_samples=n,
                shards=shards,
                workers=options["workers"],
                cluster=options["cluster"],
                progress=tick,
            )
        except (ImportError, RuntimeError) as error:
            raise OSError(str(error)) from error
    if out:
        screen.write(out, found)
    console = Console(stderr=out == "-", highlight=False)
    rows = [{SHORT.get(name, name): value for name, value in row.items()} for row in survey(found)]
    console.print(screen.rows_table(rows))
    if cut := sum(response.finish_reason == "length" for response in found):
        screen.say(console, f"{cut} of {len(found)} answers were cut after {longest} tokens")
    if _is_file(out):
        screen.say(console, f"{len(found)} answers to {len(tasks)} tasks in {out}")


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


def sample(
    problems: Problems,
    model: Model,
    n: Number = 1,
    temperature: Temperatures = None,
    top_p: TopP = 1.0,
    max_new_tokens: Longest = None,
    prompt_format: Asked = "starcoder",
    seed: Draw = STAGE["seed"],
    out: Out = None,
    data: Data = None,
    since: Since = None,
    joint: Joint = False,
    packages: Packages = "",
    engine: Engine = "auto",
    workers: Workers = ALL_CORES,
    cluster: Cluster = "local",
) -> None:
    """Answer problems by a model: N samples a task at every temperature.

    With --out one line per answer: task_id, source (the model's name), index, text, program,
    n_tokens, finish_reason, temperature. The same command goes on after an interruption.
    """
    given = dict(locals())

    with exit_codes(interrupted=how_to_go_on(out)):
        sample_problems(**given)
