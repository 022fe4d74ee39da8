"""The verb `sample`: problems in, answers and a table of them out."""

from pathlib import Path

from rrtf import engines
from rrtf.cli import inputs, screen
from rrtf.cli.options import Given
from rrtf.engines import Decoding
from rrtf.evaluate import samples
from rrtf.sample import Author, survey

SHORT = {  # so that a terminal's 80 columns hold them
    "temperature": "T", "responses": "answers", "per prompt": "a task", "mean tokens": "tokens",
    "cut by length": "cut",
}  # fmt: skip


def sample(given: Given) -> None:
    """Answer problems by a model: N samples a task at every temperature.

    With --out one line per answer: task_id, source (the model's name), index, text, program,
    n_tokens, finish_reason, temperature. The same command goes on after an interruption.
    """
    inputs.need_engine("sample", given.engine)
    screen.check_out(given.out, given.tasks)
    model, longest = given.model, given.max_new_tokens or inputs.longest(given.model)
    decodings = [Decoding(t, given.top_p, longest, given.seed) for t in given.temperatures]
    for decoding in decodings:
        engines.check_sampling(decoding, given.n_samples)
    away = engines.remote(given.engine)
    if not away:
        engines.model_folder(model)
    tasks = inputs.tasks_of(given)
    source = samples.name_of(model) if Path(model).is_dir() and not away else model
    author = Author(model, source, given.engine, given.prompt_format)
    kept, cluster = _shards(given), given.cluster
    found = inputs.sampled(given, tasks, author, decodings, kept=kept, cluster=cluster)
    if not found:
        raise OSError(f"{source}: no answer to any of {len(tasks)} tasks")
    if given.out:
        screen.write(given.out, found)
    console = screen.console(given.out)
    rows = [{SHORT.get(k, k): v for k, v in row.items()} for row in survey(found)]
    console.print(screen.rows_table(rows))
    full = [response for response in found if response.n_tokens >= longest]
    if cut := sum(response.finish_reason == "length" for response in full):
        screen.say(console, f"{cut} of {len(found)} answers were cut after {longest} tokens")
    screen.say_written(console, given.out, f"{len(found)} answers to {len(tasks)} tasks")


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(_shards(given), "--out FILE")


def _shards(given: Given) -> str:
    """The folder beside the output; "": what has no output is not kept."""
    return "" if given.out in ("", "-") else f"{given.out}.shards"
