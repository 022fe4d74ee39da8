"""The command line: `python -m rrtf VERB`.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted (the same command goes on).
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from rrtf import config
from rrtf.cli import audit, evolve, quantize, sample
from rrtf.cli import plan as cli_plan
from rrtf.cli import train as tuned
from rrtf.cli.options import (
    ALL_CORES,
    Asked,
    By,
    Cpu,
    Data,
    Draw,
    Engine,
    Entries,
    Extract,
    Extracts,
    Filter,
    Flagged,
    Folder,
    Format,
    Generator,
    Joint,
    Ks,
    Level,
    Longest,
    Margin,
    Memory,
    Missing,
    Models,
    Number,
    Out,
    Packages,
    Pairing,
    Problems,
    Rename,
    Renames,
    Responses,
    Seed,
    Set,
    Shards,
    Since,
    Strength,
    Teacher,
    TopP,
    Unknown,
    Verdicts,
    Wall,
    Warmth,
    Workers,
)
from rrtf.cli.screen import exit_codes, how_to_go_on
from rrtf.report import pipeline

_EVALUATE = config.resolve("nano", "evaluate")  # what is not given

app = typer.Typer(
    name="rrtf",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Ranking feedback for code models: RRTF (arXiv:2307.14936) from seeds to report.",
)


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


app.command()(evolve.evolve)
app.command()(audit.audit)
app.command()(sample.sample)
app.command()(quantize.quantize)


@app.command()
def grade(
    problems: Problems,
    samples: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLES",
            help="lines of task_id with completion (after the prompt) or solution, or -",
        ),
    ],
    extract: Extract = "auto",
    k: Ks = None,
    out: Out = None,
    data: Data = None,
    since: Since = None,
    by: By = None,
    allow_missing: Missing = False,
    allow_unknown: Unknown = False,
    rename: Rename = None,
    flaky: Annotated[
        bool,
        typer.Option("--flaky", help="judge all five times more and mark verdicts that change"),
    ] = False,
    level: Level = "landlock+seccomp",
    workers: Workers = ALL_CORES,
    cpu_seconds: Cpu = None,
    wall_seconds: Wall = None,
    memory_mb: Memory = 512,
    engine: Engine = "local",
    shards: Shards = None,
    joint: Joint = False,
    packages: Packages = "",
) -> None:
    """Run samples against the tests of their problems: outcomes by reason, and pass@k.

    With --out one line per sample: task_id, passed, outcome, reason, n_passed, n_tests, isolation.
    """
    from rrtf.cli.grade import grade_samples

    with exit_codes(interrupted=how_to_go_on(shards)):
        grade_samples(
            problems,
            samples,
            extract=extract,
            ks=k,
            out=out,
            data=data,
            allow_missing=allow_missing,
            allow_unknown=allow_unknown,
            renamed=rename,
            flaky=flaky,
            by=by,
            since=since,
            joint=joint,
            packages=[name.strip() for name in packages.split(",") if name.strip()],
            **_execution(level, workers, cpu_seconds, wall_seconds, memory_mb, engine, shards),
        )


@app.command()
def rank(
    problems: Problems,
    responses: Responses,
    teacher: Teacher,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="write TRL's prompt, chosen, rejected")
    ] = False,
    pairing: Pairing = None,
    filter_: Filter = None,
    min_strength: Strength = None,
    verdicts: Verdicts = None,
    prompt_format: Format = None,
    seed: Seed = None,
    set_: Set = None,
    out: Out = None,
    extract: Extract = "auto",
    data: Data = None,
    allow_unknown: Unknown = False,
    rename: Rename = None,
    level: Level = "landlock+seccomp",
    workers: Workers = ALL_CORES,
    cpu_seconds: Cpu = None,
    wall_seconds: Wall = None,
    memory_mb: Memory = 512,
    engine: Engine = "local",
    shards: Shards = None,
) -> None:
    """Rank the responses to each problem by their situation, the teacher's first, and pair them.

    Lines that carry a verdict (outcome, reason, n_passed, n_tests, isolation) keep it, the others
    are graded. Writes ranked groups, ready for training.
    """
    from rrtf.cli.grade import rank_responses, rank_settings

    given = {"pairing": pairing, "teacher_filter": filter_, "seed": seed}
    given |= {"min_strength": min_strength}
    with exit_codes(interrupted=how_to_go_on(shards)):
        rank_responses(
            problems,
            responses,
            teacher=teacher,
            as_pairs=pairs,
            out=out,
            data=data,
            extract=extract,
            allow_unknown=allow_unknown,
            renamed=rename,
            prompt_format=prompt_format,
            verdicts=verdicts,
            settings=rank_settings(set_, given),
            **_execution(level, workers, cpu_seconds, wall_seconds, memory_mb, engine, shards),
        )


@app.command()
def evaluate(
    problems: Problems,
    entries: Entries = None,
    model: Models = None,
    out: Folder = None,
    extract: Extracts = None,
    rename: Renames = None,
    k: Ks = None,
    margin: Margin = _EVALUATE["margin"],
    data: Data = None,
    allow_missing: Missing = False,
    allow_unknown: Unknown = False,
    flagged: Flagged = None,
    n: Number = 1,
    temperature: Warmth = None,
    top_p: TopP = 1.0,
    prompt_format: Asked = "starcoder",
    max_new_tokens: Longest = None,
    generator: Generator = "auto",
    seed: Draw = _EVALUATE["seed"],
    level: Level = "landlock+seccomp",
    workers: Workers = ALL_CORES,
    cpu_seconds: Cpu = None,
    wall_seconds: Wall = None,
    memory_mb: Memory = 512,
    engine: Engine = "local",
) -> None:
    """Put any number of sample files and models on one board: pass@k, intervals, paired tests.

    With --out DIR samples, verdicts, scores and board are kept, and the same command goes on.
    """
    from rrtf.cli.evaluate import entrants
    from rrtf.cli.grade import evaluate_entries

    named = {"extract": extract or (), "renamed": rename or (), "temperature": temperature or ()}
    sampling = {"n_samples": n, "top_p": top_p, "prompt_format": prompt_format, "seed": seed}
    sampling |= {"max_new_tokens": max_new_tokens, "engine": generator, "workers": workers}
    with exit_codes(interrupted=how_to_go_on(out, "--out")):
        evaluate_entries(
            problems,
            entrants(entries or (), model or (), **named),
            out=out,
            ks=k,
            margin=margin,
            data=data,
            allow_missing=allow_missing,
            allow_unknown=allow_unknown,
            flagged=flagged,
            sampling=sampling,
            **_execution(level, workers, cpu_seconds, wall_seconds, memory_mb, engine, None),
        )


@app.command()
def train(
    groups: tuned.Groups,
    model: tuned.Start,
    objective: tuned.Objective,
    output: tuned.Output,
    updates: tuned.Updates = None,
    epochs: tuned.Epochs = None,
    groups_per_batch: tuned.PerUpdate = tuned.DEFAULTS["groups_per_batch"],
    learning_rate: tuned.Rate = None,
    max_length: tuned.Length = tuned.DEFAULTS["max_length"],
    allow_single: tuned.Single = False,
    seed: tuned.TrainSeed = 0,
    set_: tuned.SetTrain = None,
    overwrite: tuned.Overwrite = False,
    precision: tuned.Precision = tuned.DEFAULTS["precision"],
    optimizer: tuned.Optimizer = tuned.DEFAULTS["optimizer"],
    tokens_per_forward: tuned.Tokens = tuned.DEFAULTS["tokens_per_forward"],
    checkpointing: tuned.Checkpointing = False,
    checkpoint_every: tuned.Every = tuned.DEFAULTS["checkpoint_every"],
    save_dtype: tuned.Saved = tuned.DEFAULTS["save_dtype"],
    threads: tuned.Threads = None,
    lora_rank: tuned.Rank = tuned.DEFAULTS["lora_rank"],
    lora_alpha: tuned.Alpha = tuned.DEFAULTS["lora_alpha"],
    lora_dropout: tuned.LoraDropout = tuned.DEFAULTS["lora_dropout"],
    lora_targets: tuned.Targets = tuned.DEFAULTS["lora_targets"],
    qlora: tuned.QLora = False,
) -> None:
    """Train a model on ranked groups: a folder that transformers and vLLM load.

    The same command goes on after an interruption. N processes of one machine, each
    with its GPU where there are any, split the model and every update among them:

    torchrun --nproc-per-node N -m rrtf train ...

    On M machines run on each of them, with --output on a file system that all see:

    torchrun --nnodes M --nproc-per-node N --rdzv-backend c10d
    --rdzv-endpoint HOST:29500 -m rrtf train ...
    """
    given = dict(locals())

    names = ("groups", "model", "objective", "output", "allow_single", "overwrite", "learning_rate")
    chosen = {name: given.pop(name) for name in names}
    texts = given.pop("set_")
    with exit_codes(interrupted=f"interrupted; the same command goes on from {output}"):
        tuned.train_groups(**chosen, settings=tuned.settings(texts, given))


@app.command()
def plan(
    profile: Annotated[str, typer.Option(help="which column of profiles.toml")] = "nano",
    model: Annotated[
        str | None, typer.Option(help="the student: a hub name, a folder or a config.json")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="one parameter")
    ] = None,
    out: cli_plan.Out = None,
    device: cli_plan.Device = None,
    gpus: cli_plan.Gpus = None,
    gpu_memory: cli_plan.GpuMemory = None,
    tflops: cli_plan.Flops = None,
    watts: cli_plan.Watts = None,
    mfu: cli_plan.Mfu = None,
    mfu_generate: cli_plan.MfuGenerate = None,
    groups_at_a_time: cli_plan.Groups = None,
    prompts: cli_plan.Prompts = None,
    prompt_tokens: cli_plan.PromptTokens = None,
    answer_tokens: cli_plan.AnswerTokens = None,
) -> None:
    """Say what a profile takes before it is run: memory, GPUs, tokens, FLOPs, hours, energy.

    Needs a model's configuration only, no weights; nothing is run.
    """

    figures = {"memory": gpu_memory, "flops": tflops, "watts": watts}
    figures |= {"train": mfu, "generate": mfu_generate}
    work = {"gpus": gpus, "groups_at_a_time": groups_at_a_time, "prompts": prompts}
    work |= {"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}
    with exit_codes():
        cli_plan.run(
            profile, model=model, changes=set_ or (), out=out, on=device, **figures, **work
        )


def _execution(
    level: str,
    workers: int,
    cpu_seconds: float | None,
    wall_seconds: float | None,
    memory_mb: int,
    engine: str,
    shards: Path | None,
) -> dict[str, Any]:
    """The options of `execution.execute`."""
    return locals()


if __name__ == "__main__":
    app()
