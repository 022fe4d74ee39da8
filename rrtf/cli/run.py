"""The verb `run`: what a profile needs, its notebooks, and where their reports are."""

import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rrtf import config, engines, prompts, store
from rrtf.benchmarks import catalogue, tasks
from rrtf.cli import screen
from rrtf.cli.options import ALL_CORES, Given
from rrtf.engines import endpoint
from rrtf.evolve import offline
from rrtf.plan import models
from rrtf.report import pipeline
from rrtf.sample import Author, teachers

if TYPE_CHECKING:  # what plans loads torch
    from rrtf.plan.planning import Plan

DAY = 24 * 3600.0  # what this machine's cores do in one needs no GPU
Settings = Mapping[str, Mapping[str, config.Value]]


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a run needs, and what there is of it; `there` is None where that is no ruling.

    What is not there is missing: the run would end without it.
    """

    what: str
    needed: str
    found: str
    there: bool | None


def run(given: Given) -> None:
    """Run the notebooks of a profile in order and render their reports.

    What is missing is said before anything is spent, and then nothing is run. --check only looks.
    """
    if not given.check:
        config.need("run", "papermill", "nbconvert", "ipykernel", "matplotlib", "torch")
    model, problems = given.model or None, given.problems or None
    start, only = given.start or None, given.only or None
    overrides = pipeline.settings(given.set, problems, model)
    told = ""
    if problems not in (None, "nano"):  # a wrong argument, not a thing that is missing
        told = _rows(config.resolve(given.profile, "evolve", overrides))
    found = list(needs(given.profile, pipeline.selected(start, only), overrides, told))
    missing = [one for one in found if one.there is False]
    if given.check or missing:
        words = {True: "ok", False: "MISSING", None: ""}
        shown = found if given.check else missing
        rows = [[one.what, one.needed, one.found, words[one.there]] for one in shown]
        table = screen.table(["what", "needed", "found", ""], rows, left=range(4))
        screen.console().print(table)
    if missing:
        raise OSError(f"{len(missing)} of {len(found)} things are missing; nothing was run")
    if given.check:
        return
    say = partial(print, flush=True)
    how = {"start": start, "only": only, "model": model, "problems": problems, "say": say}
    index = pipeline.run(given.profile, force=given.force, overrides=given.set, **how)
    print(f"\nOpen {index}\nThe same results for programs: {index.with_name('summary.json')}")


def needs(
    profile: str,
    stages: Sequence[str],
    overrides: Mapping[str, config.Value],
    told: str = "",
) -> Iterator[Need]:
    """What these stages of a profile need, looked for on this machine alone, within seconds.

    `told` is what the file of training problems holds, where it was read already.

    ValueError for what no run can have: an unknown benchmark, or a number of engines that is not
    that of the teachers.
    """
    words = [stage.partition("_")[2] for stage in stages]
    of = {word: config.resolve(profile, word, overrides) for word in CHECKED}
    there = CHECKED & set(words)
    if "evolve" in there:
        yield from _problems(of["evolve"], told)
    authors = _authors(of) if there & {"sample", "evaluate"} else []
    if "sample" in there and not of["sample"]["teacher"]:
        remedy = "--set shared.teacher=FOLDER-OR-NAME (and shared.teacher_engine=openai@URL)"
        yield Need("teacher", "at least one", f"none is named: {remedy}", False)
    here = {one.model for one in authors if not engines.remote(one.engine)}
    if there & {"sample", "train", "evaluate"}:
        here.add(str(of["train"]["student"]))
    folders = {name: folder_of(name) for name in sorted(here)}
    for name, (_, found) in folders.items():
        yield Need("model", name, found or "all its files", not found)
    yield from _formats(authors, {name: folder for name, (folder, _) in folders.items()})
    spelled = [one.engine for one in authors]
    if "evolve" in there and of["evolve"]["engine"] != "nano":
        spelled.append(f"openai@{of['evolve']['engine']}")
        named = str(of["evolve"]["model"])
        yield Need("model that evolves", "a name", named or "none: evolve.model", bool(named))
    for name in dict.fromkeys(spelled):
        yield _engine(name)
    if there & {"audit", "rank", "evaluate"}:
        for name in of["evaluate"]["benchmarks"]:
            yield from _benchmark(str(name).partition(" since ")[0], "evaluate" in there)
    if "train" in there:
        yield from _machine(profile, of, overrides, known=not any(f for _, f in folders.values()))


CHECKED = {"evolve", "audit", "sample", "rank", "train", "evaluate", "quantize"}


def _problems(own: Mapping[str, config.Value], told: str) -> Iterator[Need]:
    """The file of training problems, if there is one."""
    if own["problems"] != "nano":
        try:
            yield Need("problems", str(own["problems"]), told or _rows(own), True)
        except (ValueError, OSError) as error:
            yield Need("problems", str(own["problems"]), str(error), False)


def _rows(own: Mapping[str, config.Value]) -> str:
    """What the file of training problems holds; what a model evolves may be seeds of any form."""
    path = config.home() / str(own["problems"])
    if own["engine"] == "nano":
        rows = tasks.problems_of(store.read_rows(path), file=str(path))
        offline.split_problems(rows, own["seed"])
        return "; ".join([f"{len(rows)} problems", *tasks.forms(rows)])
    if next(store.read_rows(path), None) is None:
        raise ValueError(f"{path}: no rows in it")
    return "seeds"


def _authors(of: Settings) -> list[Author]:
    """Who is sampled: the student, the teachers, and whoever 06 asks in another format."""
    own = of["sample"]
    pupil = Author(own["student"], "student", own["engine"], own["prompt_format"])
    told = own["teacher_engine"], own["teacher_prompt_format"]
    found = [pupil, *(teachers(own["teacher"], *told, student=pupil) if own["teacher"] else ())]
    formats = [str(text).partition("=")[2] for text in of["evaluate"]["own_formats"]]
    return found + [replace(pupil, prompt_format=one) for one in formats]


def folder_of(name: str) -> tuple[Path | None, str]:
    """(the folder of a model on this machine, what of it is missing): no hub is asked."""
    try:
        resolved = engines.resolve_model(name)
    except (ValueError, FileNotFoundError) as error:
        return None, str(error)
    folder, get = Path(resolved), ""
    if not folder.is_dir():
        if str(resolved).count("/") != 1 or str(resolved).startswith((".", "/", "~")):
            return None, f"{resolved}: no such folder"
        from huggingface_hub import snapshot_download

        get = f": hf download {resolved}"
        try:
            folder = Path(snapshot_download(str(resolved), local_files_only=True))
        except (OSError, ValueError):
            return None, f"not in the cache of the hub{get}"
    weights = list(folder.glob("*.safetensors"))
    lacking = ["config.json"] * (not (folder / "config.json").is_file())
    lacking += ["*.safetensors"] * (not weights)
    for index in folder.glob("*.safetensors.index.json"):
        parts = set(store.read_json(index)["weight_map"].values())
        lacking += sorted(parts - {path.name for path in weights})
    lacking += [f"{p.name} (a pointer of git-lfs)" for p in weights if p.stat().st_size < POINTER]
    kinds = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")
    lacking += ["a tokenizer"] * (not any(any(folder.glob(kind)) for kind in kinds))
    return folder, f"without {', '.join(lacking)}{get}" if lacking else ""


POINTER = 200  # bytes: what stands for weights that were not fetched is smaller, any weights larger


def _formats(authors: Sequence[Author], folders: Mapping[str, Path | None]) -> Iterator[Need]:
    """Every prompt format that is asked in, and the chat templates that go with one."""
    for name in dict.fromkeys(one.prompt_format for one in authors):
        if name not in prompts.FORMATS:
            known = ", ".join(prompts.FORMATS)
            yield Need("prompt format", name or '""', f"unknown: expected {known}", False)
    chats = [one for one in authors if one.prompt_format == "chat"]
    for model in dict.fromkeys(c.model for c in chats if not engines.remote(c.engine)):
        folder = folders[model]
        if folder is None:
            continue  # it is missing already
        settings = folder / "tokenizer_config.json"
        own = store.read_json(settings).get("chat_template") if settings.is_file() else None
        files = [*folder.glob("chat_template.*"), *folder.glob("additional_chat_templates/*")]
        found = bool(own or files)
        yield Need("chat template", model, "there" if found else "none: a base model?", found)


def _engine(spelled: str) -> Need:
    """Whether what samples can be had; a server on this machine has to answer, others may later."""
    kind, _, where = spelled.partition("@")
    try:
        if kind not in engines.ENGINES:
            raise ValueError(f"unknown: expected one of {', '.join(engines.ENGINES)}")
        if kind in engines.LOCAL and where:
            raise ValueError(f"{kind} runs here, at no address")
        if kind in engines.LOCAL:
            return Need("engine", spelled, "runs here", True)
        if kind == "vllm" and not where:
            raise ValueError(engines.SERVE)
        if kind == "replay":
            there = Path(where).is_dir()
            return Need("engine", spelled, "there" if there else "no such folder", there)
        endpoint.check_address(where)
        name = endpoint.VLLM_KEY if kind == "vllm" else "OPENAI_API_KEY"
        told = f"${name} is {'set' if os.environ.get(name) else 'not set'}"
        parts = urlsplit(where)
        if endpoint.is_loopback(parts.hostname):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname, port), timeout=1).close()
            return Need("engine", spelled, f"a server answers; {told}", True)
        needs_key = parts.scheme == "https" and kind == "openai"
        there = bool(os.environ.get(name)) or not needs_key
        return Need("engine", spelled, f"{told}; the address is not tried", there)
    except (ValueError, OSError) as error:
        return Need("engine", spelled, str(error), False)


def _benchmark(name: str, evaluated: bool) -> Iterator[Need]:
    if name != "test":
        looked = catalogue.missing(name)
        found = f"not here. Looked at: {looked}" if looked else "its rows"
        yield Need("benchmark", name, found, not looked if evaluated or not looked else None)


def _machine(
    profile: str, of: Settings, overrides: Mapping[str, config.Value], *, known: bool
) -> Iterator[Need]:
    """GPUs, memory, disk and hours, by `plan`; the small world fits wherever it is run."""
    names = [str(of["train"]["student"]), *map(str, of["sample"]["teacher"])]
    planned = models.device(models.device_of(profile))
    if planned.cpu and all(name.startswith("nano-") for name in names):
        yield Need("time", "", "minutes: rrtf plan says how many", None)
        return
    if not known and not all(name in models.table() for name in names):
        yield Need("machine", "", "known when the models are here", None)
        return
    import torch

    from rrtf.plan import planning

    count = torch.cuda.device_count()
    own = here(planned, count)
    wanted = planning.plan(profile, on=planned, overrides=overrides)
    asked = planning.Asked(gpus=None if count else ALL_CORES)
    found = planning.plan(profile, on=own, overrides=overrides, asked=asked)
    hours = sum(line.seconds for line in found.lines)
    needed = f"{wanted.devices} x {planned.name} of {planned.memory / 1e9:g} GB"
    if count:
        told = f"{count} x {own.name} of {own.memory / 1e9:.0f} GB, of which {found.devices}"
        yield Need("GPUs", needed, f"{told} are needed", found.fits and found.devices <= count)
    elif not planned.cpu:
        told = f"none, and {ALL_CORES} cores would take {duration(hours)}"
        yield Need("GPUs", needed, told, found.fits and hours <= DAY)
    together, several = of["train"]["processes_per_run"], found.devices if count else 1
    if 0 < together < several and not planned.cpu:
        remedy = f"{together}; --set train.processes_per_run=0: torchrun over all of this machine"
        yield Need("training", f"{several} GPUs together", remedy, False)
    yield from _room(found, of, own.memory, cores=not count)
    told = f"{duration(sum(line.seconds for line in wanted.lines))} on {needed}"
    yield Need("time", "", f"{told}, by plan", None)


def here(planned: models.Device, count: int) -> models.Device:
    """This machine's GPU by its figures, where they are not known by those of `planned`; or CPU."""
    import psutil
    import torch

    if not count:
        memory = psutil.virtual_memory().available
        limit = Path("/sys/fs/cgroup/memory.max")
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            memory = min(memory, int(text))
        return models.device("cpu", memory=memory / 1e9)
    found = torch.cuda.get_device_properties(0)
    like = "".join(found.name.lower().split())
    name = next((one for one in models.devices() if one in like), planned.name)
    return models.device(name, memory=found.total_memory / 1e9)


def _room(found: "Plan", of: Settings, memory: float, *, cores: bool) -> Iterator[Need]:
    """Memory of the training step and room for the models on the disk."""
    from rrtf.plan import planning

    need = next(one for one in found.needs if one.way == found.way)
    bytes_of = (need.alone if cores or not need.sharded else need.sharded).total
    where = "memory of a step" if cores else "memory of a GPU"
    yield Need(where, f"{bytes_of / 1e9:.1f} GB", f"{memory / 1e9:.0f} GB", bytes_of <= memory)
    place = next(p for p in (config.output_home(), *config.output_home().parents) if p.exists())
    needed, free = planning.disk(found, of), shutil.disk_usage(place).free
    yield Need("disk", f"{needed / 1e9:.0f} GB", f"{free / 1e9:.0f} GB in {place}", needed <= free)


def duration(seconds: float) -> str:
    """`40 min`, `1.5 h`, `12 d`."""
    sizes = ((DAY, "d"), (3600, "h"), (60, "min"))
    size, unit = next((one for one in sizes if seconds >= 2 * one[0]), sizes[-1])
    return f"{seconds / size:,.{0 if seconds >= 10 * size else 1}f} {unit}"


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return "resume with the same command"
