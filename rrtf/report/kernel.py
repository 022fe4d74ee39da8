"""One notebook, executed in a kernel of its own that leaves nothing behind.

papermill runs the cells; around it this module fixes the interpreter and the environment, turns
a failure into a few lines that name notebook, cell and error, and ends every process the kernel
started, also those that an earlier run left when it was killed.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rrtf import config, store

MARKER = store.RUN_MARKER

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # more threads than cores are ten times slower; stages raise it
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products on a GPU
    "TQDM_DISABLE": "1",  # progress is shown by the runner, not as red blocks in the report
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "JUPYTER_PLATFORM_DIRS": "1",  # silences a notice of jupyter_core
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # silences a notice of the debugger
}

LOUD = ("torchao", "torch.utils._pytree")  # say at import what concerns nobody here
QUIET = f"import logging; [logging.getLogger(one).setLevel('ERROR') for one in {LOUD}]"

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"File (\S+?):(\d+), in (\w+)")


class StageError(RuntimeError):
    """A stage did not finish; the message names notebook, cell and cause in a few lines."""


def execute(
    notebook: Path,
    parameters: Mapping[str, config.Value],
    *,
    scratch: Path,
    run: str,
    on_cell: Callable[[str, int, int], None],
) -> dict:
    """Executes `notebook` and returns it as JSON, as papermill leaves it.

    `scratch` is where the notebook is kept while it runs (and stays after a failure); `run` marks
    the processes; `on_cell(cell id, position, number of cells)` is called before each cell.
    Raises StageError.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    total = len(nbformat.read(notebook, as_version=4).cells) + 1
    seen = ["start"]

    def starts(cell: Mapping, cell_index: int) -> None:
        seen.append(cell.get("id", "?"))
        on_cell(seen[-1], cell_index + 1, total)

    scratch.parent.mkdir(parents=True, exist_ok=True)
    _quiet()
    log = scratch.with_suffix(".log")
    with log.open("w", encoding="utf-8") as stderr, _kernel(run, scratch.parent, stderr) as manager:
        try:
            papermill.execute_notebook(
                notebook, scratch, dict(parameters),
                progress_bar=False, km=manager, kernel_name="python3",
                stderr_file=stderr, on_cell_start=starts,
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            raise StageError(_explain(notebook, error, scratch)) from None
        except DeadKernelError:
            raise StageError(
                f"{notebook.name}: the kernel died in cell `{seen[-1]}` "
                "(killed from outside, out of memory, or a hard exit)"
            ) from None
        except (RuntimeError, OSError) as error:
            if len(seen) > 1:
                raise
            raise StageError(_unstarted(notebook, error, log)) from None
    return store.read_json(scratch)


def install(prefix: str = sys.prefix) -> Path:
    """The kernel `rrtf` for JupyterLab, below `prefix`: this interpreter in a run's environment.

    Its first cell stays free of notices that libraries give while they are imported.
    """
    from ipykernel import kernelspec

    quiet = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # of tqdm, without ipywidgets
    names = {"kernel_name": "rrtf", "display_name": "rrtf"}
    folder = kernelspec.install(**names, prefix=prefix, env=ENVIRONMENT | quiet)
    place = Path(folder) / "kernel.json"
    spec = store.read_json(place)
    spec["argv"].append(f"--IPKernelApp.exec_lines={QUIET}")
    store.write_json(place, spec)
    return place


def _unstarted(notebook: Path, error: Exception, log: Path) -> str:
    """What the kernel said last, which tells more than that it died."""
    told = [one for one in log.read_text(encoding="utf-8").splitlines() if one.strip()]
    last = _COLOUR.sub("", told[-1]).strip()[:300] if told else str(error)
    return f"{notebook.name}: its kernel did not start: {last}\n  all that it wrote: {log}"


def _quiet() -> None:
    """papermill and its parts log to the console what the runner shows better."""
    import logging
    import warnings

    for name in ("papermill", "traitlets", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(papermill|nbclient|jupyter_client|zmq|nbformat).*")


@contextmanager
def _kernel(run: str, folder: Path, log: TextIO) -> Iterator[object]:
    """A running kernel of this very interpreter, in `folder`, ended with all its children.

    Libraries that write into the working directory then write beside the stage's own files.
    """
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]

    class ThisInterpreter(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisInterpreter())
    paths = [str(config.home()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | ENVIRONMENT | config.environment() | {MARKER: run}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        run_sync(manager.start_kernel)(cwd=str(folder), env=environment, stdout=log, stderr=log)
        yield manager
    finally:
        end_processes(run)
        run_sync(manager.shutdown_kernel)(now=True)


def end_processes(run: str) -> int:
    """Ends every process marked as part of `run`, whoever its parent is now; returns how many."""
    import psutil

    victims = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARKER) == run:
                process.kill()
                victims.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    psutil.wait_procs(victims, timeout=5)
    return len(victims)


def failed_cell(notebook: dict) -> str:
    """The id of the first cell whose output is an error, SystemExit included, or `''`."""
    for cell in notebook["cells"]:
        if any(output["output_type"] == "error" for output in cell.get("outputs", [])):
            return cell.get("id", "?")
    return ""


def _explain(notebook: Path, error: Exception, scratch: Path) -> str:
    """Notebook, cell, error and the innermost place in the package, in at most five lines."""
    trace = _COLOUR.sub("", "\n".join(error.traceback))
    package = Path(__file__).resolve().parent.parent
    frames = [
        f"{Path(path).name}:{line} in {function}"
        for path, line, function in _FRAME.findall(trace)
        if Path(path).expanduser().is_relative_to(package)
    ]
    message = "\n".join(_COLOUR.sub("", error.evalue).strip().splitlines()[:3])
    where = f"\n  at {frames[-1]}" if frames else ""
    cell = failed_cell(store.read_json(scratch)) if scratch.exists() else "?"
    return (
        f"{notebook.name}, cell `{cell}`: {error.ename}: {message[:600]}{where}"
        f"\n  the notebook as far as it came: {scratch}"
    )
