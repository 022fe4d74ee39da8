"""The verb `train`: groups in, a model's folder and a table out."""

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rrtf import config, engines, prompts, store
from rrtf.cli import inputs, screen
from rrtf.cli.options import ALL_CORES, Given, options_of
from rrtf.records import RankedGroup, Response, TrainStep

if TYPE_CHECKING:  # what trains loads torch
    from rrtf.train import Look, Recipe, Validation

RATES = config.resolve("gpu80", "train")  # of models of any size, `lr_...`
WITH_ADAPTERS = 10.0  # times the learning rate: B of an adapter starts at zero
MADE = (  # of a run, what is uploaded; a folder may hold more, which is nobody's business
    "README.md", "training.json", "config.json", "generation_config.json", "chat_template.jinja",
    "model.safetensors", "model-*.safetensors", "model.safetensors.index.json", "adapter_*",
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "spiece.model", "sentencepiece*",
)  # fmt: skip
NOTED = 0.1  # of what training changed, from which on it is said that rounding takes it back
LOGGED = ("loss", "rank_loss", "ft_loss", "violated", "learning_rate", "grad_norm")


def train(given: Given) -> None:
    """Train a model on ranked groups: a folder that transformers and vLLM load.

    The same command goes on after an interruption. N processes of one machine, each
    with its GPU where there are any, split the model and every update among them:

    torchrun --nproc-per-node N -m rrtf train ...

    On M machines run on each of them, with --out on a file system that all see:

    torchrun --nnodes M --nproc-per-node N --rdzv-backend c10d
    --rdzv-endpoint HOST:29500 -m rrtf train ...
    """
    config.need("train", "torch", "transformers")
    from rrtf import train as training
    from rrtf.step import sharding

    recipe, out = recipe_of(given), Path(given.out)
    for name in idle_weights(given):
        screen.tell(f"note: {given.objective} has no {name}: it changes nothing")
    training.check(recipe)
    if given.report_to != "none" and not find_spec(given.report_to):
        name = given.report_to
        raise ValueError(f"--report-to {name}: it is not installed: pip install {name}")
    found, single = load(given)
    folder = engines.model_folder(given.model)
    how = {"model": folder, "output": out, "recipe": recipe, "overwrite": given.overwrite}
    how |= {"validation": validation_of(given)}
    hub = _hub(given.push_to_hub) if given.push_to_hub else None
    shown = out, given.report_to, given.clip
    with sharding.joined(), _told(*shown, quiet=sharding.rank() > 0) as told:
        training.train(found, told=told, **how)
        first = sharding.rank() == 0
    if first:
        _closing(out, single)
    if first and hub:
        hub(out)
        screen.tell(f"uploaded: https://huggingface.co/{given.push_to_hub}")


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(given.out)


def recipe_of(given: Given) -> "Recipe":
    """The options, with what 0 stands for: the rate of an objective, one epoch, all cores."""
    from rrtf import loss
    from rrtf.train import Recipe

    rate = RATES[f"lr_{loss.objective(given.objective).rate}"]
    rate *= WITH_ADAPTERS if given.lora_rank else 1.0
    return Recipe.of(
        vars(given),
        learning_rate=given.learning_rate or rate,
        epochs=given.epochs or float(not given.updates),
        threads=given.threads or _threads(),
    )


def idle_weights(given: Given) -> list[str]:
    """The weights that were changed although the objective does not read them."""
    from rrtf import loss

    idle = {one.name for one in fields(loss.Weights)} - {*loss.objective(given.objective).reads}
    usual = {one.name: one.value for one in options_of("train") if one.name in idle}
    return [name for name, value in usual.items() if getattr(given, name) != value]


def _hub(repository: str) -> Callable[[Path], None]:
    """What uploads a finished folder to a repository of the hub, which is made now, private.

    ValueError or OSError with the reason, before anything is trained.
    """
    from huggingface_hub import HfApi, constants, get_token, utils

    what = f"--push-to-hub {repository}"
    try:
        utils.validate_repo_id(repository)
    except ValueError as error:
        raise ValueError(f"{what}: expected OWNER/NAME: {engines.line(error)}") from None
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"{what}: HF_HUB_OFFLINE is set, so nothing can be uploaded")
    if not get_token():
        raise ValueError(f"{what}: no token of the hub: set HF_TOKEN, or call `hf auth login`")

    def asked(call: str, **how: Any) -> None:
        try:
            getattr(HfApi(), call)(repo_id=repository, **how)
        except Exception as error:  # the hub's client raises a dozen unrelated classes
            raise OSError(f"{what}: {call}: {engines.line(error)}") from error

    if os.environ.get("RANK", "0") == "0":
        asked("create_repo", private=True, exist_ok=True)
    return lambda out: asked(
        "upload_folder",
        folder_path=out,
        allow_patterns=[f"{place}{name}" for place in ("", "best/", "adapter/") for name in MADE],
        ignore_patterns=[".*", "logs/*", "checkpoints/*"],
        commit_message=f"{out.name}, trained by rrtf {config.version()}",
    )


def validation_of(given: Given) -> "Validation | None":
    """The problems of --validate-on, and how they are put to the model.

    OSError where there is no sandbox to judge in.
    """
    from rrtf.train import Validation

    if not given.validate_on:
        return None
    asked = engines.asker(given.model, given.prompt_format)
    tasks = inputs.load_problems(given.validate_on, data=screen.folder(given.data))
    first = Response(tasks[0].task_id, "nobody", 0, "", asked(tasks[0]))
    inputs.judge(given, given.validate_on)(tasks[:1], [first])
    return Validation(
        tuple(tasks),
        prompt_format=given.prompt_format,
        max_new_tokens=given.max_new_tokens or inputs.longest(given.model),
        limits=inputs.limits(given, given.validate_on),
        workers=given.workers,
    )


def _threads() -> int:
    """Those that OMP_NUM_THREADS names, else the cores, shared among the processes of torchrun.

    torchrun sets it to 1 where there are several and nobody has; that is not taken.
    """
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdecimal() and int(named) > (beside > 1):
        return int(named)
    return max(1, ALL_CORES // beside)


def load(given: Given) -> tuple[list[RankedGroup], int]:
    """(the groups of a file, how many of one response were left out).

    Rows are those of `rank`, or of other forms (`as_group`), which a line says. ValueError that
    names file, line and task for a group that cannot be trained on.
    """
    from rrtf import loss

    compares, found, single = loss.objective(given.objective).compares, [], 0
    template = cache(lambda: engines.chat_template(engines.model_folder(given.model)))
    forms: Counter[str] = Counter()
    for number, row in store.read_rows(Path(given.groups)):
        where = f"{given.groups}:{number}"
        if isinstance(row, Mapping):
            row, spoken = as_texts(row, where, lambda messages: template()(messages))
            row, form = as_group(row, where)
            form += " of messages" * spoken
        else:
            form = ""
        forms[form] += 1
        group = _group(row, where)
        if len(group.responses) > 1 or not compares:
            found.append(group)
        elif given.allow_single:
            single += 1
        else:
            raise ValueError(
                f"{where}: {group.task_id}: one response, and {given.objective} compares at least "
                "two; --allow-single leaves such groups out, --objective sft only imitates"
            )
    if not found:
        raise ValueError(f"{given.groups}: no groups to train on")
    for form in filter(None, forms):
        screen.tell(f"note: {forms[form]:,} rows read as {form}")
    return found, single


SPOKEN = ("prompt", "chosen", "rejected", "completion", "messages")


def as_texts(
    row: Mapping[str, Any], where: str, template: Callable[[list], str]
) -> tuple[dict[str, Any], bool]:
    """(the row with texts in place of messages, whether it had any).

    TRL's forms: a `prompt` of messages with answers of one, or answers that are whole conversations
    (`messages` is one to imitate). The prompt becomes what `template` makes of the messages before
    the last answer, which is what is learnt. ValueError for what is no conversation in turns.
    """
    lists = {name: row[name] for name in SPOKEN if isinstance(row.get(name), list)}
    if not lists:
        return dict(row), False
    try:
        said = {name: prompts.turns(told) or [("", "")] for name, told in lists.items()}
        heads, held = [said.pop("prompt")] if "prompt" in said else [], {}
        for name, (*head, (role, text)) in said.items():
            if role != "assistant":
                raise ValueError(f"{name}: expected the assistant's message as the last")
            heads += [head] * bool(head)
            held["completion" if name == "messages" else name] = text
        heads = heads or [[("user", row["prompt"])] if row.get("prompt") else []]
        if any(head != heads[0] for head in heads):
            raise ValueError("its answers follow different messages")
        roles = [role for role, _ in heads[0]]
        talk = roles[roles[:1] == ["system"] :]
        if len(talk) % 2 == 0 or talk != [("user", "assistant")[k % 2] for k in range(len(talk))]:
            raise ValueError(
                f"expected questions and answers in turn, found {', '.join(roles) or 'nothing'} "
                "before the last answer"
            )
        asked = [{"role": role, "content": text} for role, text in heads[0]]
        return row | held | {"prompt": template(asked)}, True
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


FORMS = (
    "groups of rank; prompt, chosen, rejected; prompt, responses (or completions) and scores (or "
    "rewards); prompt, completion; texts, or messages"
)


def as_group(row: Mapping[str, Any], where: str) -> tuple[dict[str, Any], str]:
    """(the fields of a ranked group, what the row was read as; "" for one of `rank`).

    TRL's `prompt, chosen, rejected` (the order counts where both scores do not say the same);
    `prompt` with `responses` and `scores`, of which the best is imitated unless `sft_index` names
    another; `prompt, completion`, for imitation. RRHF's `query` and other names of what asks are
    read as `prompt`. ValueError for what is none of these (`FORMS`), and for what would be lost: a
    `system` beside the prompt, Alpaca's `input`, an answer that is told bad and alone.
    """
    held = {name: value for name, value in row.items() if value is not None}
    for theirs, ours in (("completions", "responses"), ("rewards", "scores")):
        if theirs in held and ours not in held:
            held[ours] = held.pop(theirs)
    asking = next((n for n in ("prompt", *prompts.QUESTIONS) if n in held), "prompt")
    for name in (asking, "chosen", "rejected", "completion"):
        if not isinstance(held.get(name, ""), str):
            raise ValueError(f"{where}: {name}: expected a text, or messages")
    form = "" if "responses" not in held or "outcomes" in held else "responses with scores"
    if "responses" not in held and {"chosen", "rejected"} <= held.keys():
        form, told = "pairs: prompt, chosen, rejected", (1.0, 0.0)
        own = [held.get(f"{n}_score", held.get(f"score_{n}")) for n in ("chosen", "rejected")]
        if all(isinstance(score, int | float) for score in own) and own[0] > own[1]:
            told = own
        held |= {"responses": [held["chosen"], held["rejected"]], "scores": [*told]}
    elif "responses" not in held and "completion" in held:
        form = "prompts with one completion"
        held |= {"responses": [held["completion"]], "scores": [0.0]}
        if held.get("label") is False:
            raise ValueError(f"{where}: label: false: a bad answer alone would be imitated")
    if not form and "outcomes" not in held:
        raise ValueError(f"{where}: expected {FORMS}; it has {', '.join(map(str, row))}")
    if not form:
        return held, form
    for name in ("system", *["input"] * (asking == "instruction")):
        if str(held.get(name, "")).strip():
            raise ValueError(f"{where}: {name}: {asking} does not hold it; make them one prompt")
    scores = held.get("scores")
    numbers = isinstance(scores, list) and all(isinstance(one, int | float) for one in scores)
    best = scores.index(max(scores)) if numbers and scores else 0
    named = {"task_id": f"line {where.rpartition(':')[2]}", "prompt": held.get(asking)}
    named |= {"sft_index": best}
    return named | {"sources": [], "outcomes": []} | held, form


def _group(row: Any, where: str) -> RankedGroup:
    from rrtf.step import batches

    group = store.from_row(row, RankedGroup, where)
    kinds = {
        "responses": (tuple, str), "sources": (tuple, str), "outcomes": (tuple, int),
        "scores": (tuple, (int, float)),
    }  # fmt: skip
    for name, (whole, item) in kinds.items():
        value = getattr(group, name)
        if not isinstance(value, whole) or not all(isinstance(v, item) for v in value):
            what = "numbers" if name == "scores" else "texts, not messages"
            raise ValueError(f"{where}: {group.task_id}: {name}: expected a list of {what}")
    try:
        batches.check(group)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return group


@contextmanager
def _told(
    out: Path, report_to: str, clip: float, *, quiet: bool
) -> Iterator["Callable[[TrainStep | Look, int], None] | None"]:
    """While the block runs: a call per update, and look, that shows and logs it."""
    if quiet:
        yield None
        return
    from rrtf.train import Look

    logs: list[Log] = []  # opened at the first update: TensorBoard takes seconds to import
    with screen.progress("training") as tick:
        show = _liner()

        def told(step: TrainStep | Look, updates: int) -> None:
            held = isinstance(step, Look)
            if held:
                screen.tell(f"after update {step.step}: {_seen(step)}")
            elif tick:
                tick(step.step, updates, f"loss {step.loss:.4f}")
            else:
                show(step, updates)
            if not logs and report_to != "none":
                logs.append(LOGS[report_to](out, step.step))
            values = {("held_out/" if held else "") + n: getattr(step, n, None) for n in LOGGED}
            if held:
                values["validation/pass_at_1"] = step.pass_at_1
            elif clip:
                values["clipped"] = float(step.grad_norm > clip)
            known = {n: v for n, v in values.items() if v is not None and not math.isnan(v)}
            for log in logs:
                log.add(known, step.step)

        try:
            yield told
        finally:
            for log in logs:
                log.close()


def _seen(look: "Look") -> str:
    """What a look found, in words."""
    told = [] if look.loss is None else [f"loss {look.loss:.4f} held out"]
    if look.pass_at_1 is not None:
        told.append(f"pass@1 {100 * look.pass_at_1:.1f} % on validation")
    return ", ".join(told) or "no room for an answer"


class Log(NamedTuple):
    """Where updates are logged: `add` takes values by name and an update's number."""

    add: Callable[[dict[str, float], int], None]
    close: Callable[[], None]


def _tensorboard(out: Path, step: int) -> Log:
    """Scalars in `out / logs`; what an interrupted run left there from `step` on is hidden."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / "logs"), purge_step=step)

    def add(values: dict[str, float], at: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, at)

    return Log(add, writer.close)


def _tracker(library: str, out: Path, step: int) -> Log:
    """A run of the project `rrtf` under the folder's name, gone on with by the same command.

    wandb knows it by an id; trackio, which keeps its runs on this machine, by its name.
    """
    tracker = import_module(library)

    from rrtf.train import MARKER

    made = store.read_json(out / MARKER)
    known = {"id": made["digest"][:16], "dir": str(out)} if library == "wandb" else {}
    known |= {"resume": "allow", "config": made["of"]}
    run = tracker.init(project="rrtf", name=out.name, **known)
    return Log(lambda values, at: run.log(values, step=at), run.finish)


LOGS = {"tensorboard": _tensorboard} | {
    name: partial(_tracker, name) for name in ("wandb", "trackio")
}


def _liner() -> Callable[[TrainStep, int], None]:
    """Ten lines on standard error in all, for logs of jobs."""
    began: list[tuple[float, int]] = []

    def show(step: TrainStep, updates: int) -> None:
        if not began:
            began.append((time.monotonic(), step.step))
        if step.step % max(1, updates // 10) and step.step != updates:
            return
        done = step.step - began[0][1]
        left = (time.monotonic() - began[0][0]) / done * (updates - step.step) if done else math.nan
        rest = "" if math.isnan(left) else f", {timedelta(seconds=round(left))} left"
        screen.tell(f"update {step.step} of {updates}: loss {step.loss:.4f}{rest}")

    return show


def _closing(out: Path, single: int) -> None:
    """Prompts in and out, and what the run was."""
    from rrtf.train import Look, best_of

    facts, seconds = store.read_json(out / "training.json"), store.read_json(out / ".seconds.json")
    lost = {**facts["dropped"], "one_response": facts["dropped"].get("one_response", 0) + single}
    long = lost.pop("response_too_long", 0)  # of groups that are trained on
    if held := facts["settings"]["held_out"]:
        lost["held_out"] = held
    console, total = screen.console(), facts["n_groups"] + single
    console.print(screen.ledger("prompts", total, lost, "trained on", facts["n_trained"]), "")
    steps, clip = facts["steps"], facts["settings"]["clip"]
    clipped = sum(step["grad_norm"] > clip > 0 for step in steps)
    rows = [
        ("updates", f"{len(steps)} of {facts['settings']['groups_per_batch']} prompts"),
        ("of them clipped", f"{clipped}, their gradient's norm was over {clip:g}"),
        ("tokens", f"{facts['tokens']}"),
        ("first loss", f"{steps[0]['loss']:.4f}"),
        ("last loss", f"{steps[-1]['loss']:.4f}"),
        ("seconds", f"{seconds}"),
    ]
    rows += [("responses too long", f"{long}")] if long else []
    if (lost := facts["rounded"]) > NOTED:
        told = f"changes {lost:.0%} as much as training did; --save-dtype float32 keeps it"
        rows.append((f"rounding to {facts['settings']['save_dtype']}", told))
    console.print(screen.table(["", ""], rows, left=(0, 1)))
    screen.say(console, f"model: {out}")
    if looks := [Look(**look) for look in facts.get("looks", [])]:
        best = best_of(looks)
        screen.say(console, f"best model: {out / 'best'} (after update {best.step}: {_seen(best)})")
    if (out / "adapter").is_dir():
        screen.say(console, f"adapters, not merged: {out / 'adapter'}")
