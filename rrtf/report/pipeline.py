"""The notebooks in order: what must run, in which settings, and what came of it.

A stage is skipped while its manifest still matches its settings, inputs, outputs and source. Every
other stage is executed by papermill in a kernel of its own and rendered to HTML; a stage counts
as done only by the fresh manifest it wrote itself. Killing a run at any point costs at most the
work since the last shard, and the same command goes on from there.
"""

import fcntl
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rrtf import config, store
from rrtf.report import kernel, pages, samples
from rrtf.report.kernel import StageError

RECEIPT = "run.json"  # beside the manifest: what the runner knows and the notebook does not
NAMES_FILES = ("problems", "student", "teacher")
QUIET_SECONDS = 30.0  # without a terminal a running stage says where it is this often


@dataclass(frozen=True)
class Step:
    """One stage to look at: its notebook, its parameters and the hash of its code."""

    stage: str
    notebook: Path
    parameters: dict[str, config.Value]
    source: str

    @property
    def folder(self) -> Path:
        return config.run_dir(str(self.parameters["profile"])) / self.stage


def run(
    profile: str,
    *,
    start: str | None = None,
    only: str | None = None,
    force: bool = False,
    overrides: Mapping[str, config.Value] | None = None,
    problems: str | None = None,
    model: str | None = None,
    notebooks: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Runs what is out of date of one profile and returns the path of its `index.html`.

    `start` leaves out the stages before it, `only` names the stages to look at (`03`, `03,04`, or
    an appendix; a plain run ends with those of `config.CLOSING` and contains no other), `force`
    runs them although nothing changed.
    `problems` and `model` set `shared.problems` and `shared.student`. Everything a caller can get
    wrong is a ValueError or FileNotFoundError before anything runs; a stage that does not finish
    is a StageError.
    """
    changed = settings(overrides or {}, problems, model)
    notebooks = notebooks or config.home() / "notebooks"
    steps = [_step(profile, name, changed, notebooks) for name in selected(start, only)]
    with locked(profile):
        kernel.end_processes(_mark(profile))
        pages.write_glossary(profile)
        failed = ""
        try:
            for step in steps:
                failed = step.stage
                _bring_up_to_date(step, force=force, say=say)
            failed = ""
        finally:
            index = _summarise(profile, notebooks, failed)
    return index


def selected(start: str | None, only: str | None) -> tuple[str, ...]:
    """The stages of a run, in order; ValueError for what is none."""
    if start and only:
        raise ValueError("--from and --only exclude each other")
    if only:
        wanted = {config.stage_name(word.strip()) for word in only.split(",")}
        return tuple(s for s in (*config.STAGES, *config.APPENDICES) if s in wanted)
    first = config.stage_name(start) if start else config.STAGES[0]
    if first not in config.STAGES:
        raise ValueError(f"--from {start}: an appendix is run by --only {start}")
    return config.STAGES[config.STAGES.index(first) :] + config.CLOSING


def settings(
    overrides: Mapping[str, config.Value], problems: str | None, model: str | None
) -> dict[str, config.Value]:
    """All settings a caller changed, checked; files and folders by their absolute path."""
    values = {key: _absolute(key, value) for key, value in overrides.items()}
    if problems is not None and problems != "nano":
        problems = str(Path(problems).resolve())
    if model is not None and Path(model).exists():
        model = str(Path(model).resolve())
    values |= {"shared.problems": problems} if problems is not None else {}
    values |= {"shared.student": model} if model is not None else {}
    config.check_overrides(values)
    return values


def _absolute(key: str, value: config.Value) -> config.Value:
    """Where a parameter names files or folders of the caller, those: a notebook runs elsewhere."""
    if key.partition(".")[2] not in NAMES_FILES or value == "nano":
        return value
    if isinstance(value, list):
        return [_absolute(key, one) for one in value]
    there = isinstance(value, str) and value and Path(value).exists()
    return str(Path(value).resolve()) if there else value


def _step(profile: str, stage: str, overrides: Mapping[str, config.Value], notebooks: Path) -> Step:
    """A stage with its parameters; papermill only warns of unknown names, so they are checked."""
    parameters = config.resolve(profile, stage, overrides)
    notebook = notebooks / f"{stage}.ipynb"
    names = store.assigned(notebook)
    for problem, wrong in (
        ("lacks", [name for name in parameters if name not in names]),
        ("has unknown", [name for name in names if name not in parameters]),
    ):
        if wrong:
            raise ValueError(f"{notebook}: the parameters cell {problem} {', '.join(wrong)}")
    return Step(stage, notebook, parameters, store.digest(notebook))


def why(step: Step) -> str:
    """Why a stage must run, in a few words, or `''` if what is there still holds."""
    reason = store.stale(str(step.parameters["profile"]), step.stage, step.parameters)
    if reason:
        return reason
    receipt = _receipt(step.folder)
    if receipt.get("manifest") != store.sha256(step.folder / "manifest.json"):
        return "was run outside the pipeline"
    if receipt.get("source") != step.source:
        return "its code changed"
    if not _executed(step).exists():
        return "its report is gone"
    return ""


def _executed(step: Step) -> Path:
    profile = str(step.parameters["profile"])
    return config.report_dir(profile) / f"{step.stage}.ipynb"


def _receipt(folder: Path) -> dict:
    path = folder / RECEIPT
    try:
        return store.read_json(path) if path.exists() else {}
    except ValueError:
        return {}


def _bring_up_to_date(step: Step, *, force: bool, say: Callable[[str], None]) -> None:
    reason = why(step) or ("forced" if force else "")
    if reason:
        say(f"{step.stage:16} runs: {reason}")
        seconds = _execute(step, say)
        say(f"{step.stage:16} done in {_duration(seconds)}")
        return
    _refresh(step)
    taken = _duration(_receipt(step.folder)["seconds"])
    say(f"{step.stage:16} up to date (took {taken} when it ran)")


def _execute(step: Step, say: Callable[[str], None]) -> float:
    """Runs the notebook, demands its fresh manifest, writes its report; returns the seconds."""
    profile = str(step.parameters["profile"])
    _forget_other_code(step)
    manifest = step.folder / "manifest.json"
    manifest.unlink(missing_ok=True)
    (step.folder / ".progress").unlink(missing_ok=True)
    scratch = step.folder / "unfinished.ipynb"
    started = time.monotonic()
    with _watched(step, say) as on_cell:
        executed = kernel.execute(
            step.notebook, step.parameters, scratch=scratch, run=_mark(profile), on_cell=on_cell
        )
    if not manifest.exists():
        cell = kernel.failed_cell(executed)
        where = f" in cell `{cell}`" if cell else " without calling stage.finish"
        raise StageError(
            f"{step.notebook.name} ended early{where}: it wrote no manifest, so the stage is not "
            f"done\n  the notebook as far as it came: {scratch}"
        )
    seconds = round(time.monotonic() - started, 1)
    receipt = {"source": step.source, "manifest": store.sha256(manifest), "seconds": seconds}
    receipt |= {"commit": _commit(), "date": time.strftime("%Y-%m-%d")}
    _write(step, pages.clean(executed), receipt)
    scratch.unlink()
    scratch.with_suffix(".log").replace(step.folder / "stderr.log")
    return seconds


def _forget_other_code(step: Step) -> None:
    """Clears the stage's folder if other code began to fill it: its shards would be taken for ours.

    An interrupted run of the same code keeps everything it has.
    """
    marker = step.folder / ".source.json"
    if not marker.exists() or store.read_json(marker) != step.source:
        shutil.rmtree(step.folder, ignore_errors=True)
        store.write_json(marker, step.source)


def _refresh(step: Step) -> None:
    """Renders a report again whose page is gone, or whose prose or style changed since."""
    path = _executed(step)
    executed, receipt = store.read_json(path), _receipt(step.folder)
    present = pages.with_prose(executed, store.cells(step.notebook))
    same = present == executed and receipt.get("look") == pages.look()
    if not same or not path.with_suffix(".html").exists():
        _write(step, present, receipt)


def _write(step: Step, executed: Mapping, receipt: Mapping) -> None:
    """The page of an executed notebook, and the receipt of what it was rendered with."""
    profile = str(step.parameters["profile"])
    foot = pages.foot(profile, step.stage, receipt)
    pages.write_page(executed, step.stage, profile, foot)
    store.write_json(step.folder / RECEIPT, dict(receipt) | {"look": pages.look()})


def _commit() -> str:
    """The commit that this checkout stands at, with `+` where files but reports differ from it."""
    asked = (["rev-parse", "--short", "HEAD"], ["diff", "--quiet", "HEAD", "--", ":!reports"])
    git = ["git", "-C", str(config.home())]
    try:
        told, same = (
            subprocess.run([*git, *what], capture_output=True, text=True, check=False)
            for what in asked
        )
    except OSError:
        return "unknown"
    return told.stdout.strip() + "+" * (same.returncode == 1) or "unknown"


def _summarise(profile: str, notebooks: Path, failed: str) -> Path:
    """Writes `index.html`, `samples.html` and `summary.json` from what is finished by now."""
    there = [name for name in config.APPENDICES if store.manifest(profile, name)]
    names = list(dict.fromkeys([*config.STAGES, *config.CLOSING, *there]))
    receipts = {name: _receipt(config.run_dir(profile) / name) for name in names}
    seconds = {
        name: receipt["seconds"]
        for name, receipt in receipts.items()
        if "seconds" in receipt and store.manifest(profile, name)
    }
    paths = {name: notebooks / f"{name}.ipynb" for name in names}
    titles = {
        name: pages.title(store.cells(path)) if path.exists() else (name, "")
        for name, path in paths.items()
    }
    pages.write_summary(profile, seconds)
    samples.write_run(profile)
    commits = {name: receipt["commit"] for name, receipt in receipts.items() if "commit" in receipt}
    one = {"commit": ", ".join(dict.fromkeys(commits.values()))} if commits else {}
    dates = [receipt["date"] for receipt in receipts.values() if "date" in receipt]
    foot = pages.foot(profile, names[0], one | ({"date": max(dates)} if dates else {}))
    return pages.write_index(profile, titles, seconds, foot=foot, failed=failed)


def _mark(profile: str) -> str:
    return str(config.run_dir(profile))


@contextmanager
def locked(profile: str) -> Iterator[TextIO]:
    """Holds the profile for this process; ValueError naming the holder if there is another."""
    folder = config.run_dir(profile)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ValueError(
                f"profile {profile!r} is already being run by process {holder}; "
                "wait for it, or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file


@contextmanager
def _watched(step: Step, say: Callable[[str], None]) -> Iterator[Callable[[str, int, int], None]]:
    """Shows the running stage: a live line on a terminal, else a line twice a minute."""
    from rich.console import Console

    console, started, over = Console(), time.monotonic(), threading.Event()
    place = ["starts its kernel"]

    def on_cell(cell: str, position: int, total: int) -> None:
        place[0] = f"cell {position} of {total}, {cell}"

    def now() -> str:
        progress = store.read_progress(step.folder)
        inside = f" · {store.meter(progress)}" if progress else ""
        elapsed = _duration(time.monotonic() - started)
        return f"{step.stage:16} {elapsed} · {place[0]}{inside}"

    def follow() -> None:
        if console.is_terminal:
            with console.status(now(), spinner="dots") as status:
                while not over.wait(0.5):
                    status.update(now())
        else:
            while not over.wait(QUIET_SECONDS):
                say(now())

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield on_cell
    finally:
        over.set()
        thread.join(timeout=5)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
