"""Jobs shared by this process and helpers: all done once, none waited for, none left behind."""

import functools
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from rrtf import sample


def ready(seconds=0.0, willing=True):
    time.sleep(seconds)
    return willing


def note(job, *, folder, caller, slowly=0.05, fail=None):
    """Leaves a file named by the job and who did it; the caller is slow, so that others come in."""
    if os.getpid() == caller:
        time.sleep(slowly)
    elif fail == "error":
        raise ValueError(f"job {job}: no such thing")
    elif fail == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{job}.{os.getpid()}").touch()


def run(folder: Path, n: int, *, helpers: int, progress=lambda done: None, begin=ready, **how):
    work = functools.partial(note, folder=folder, caller=os.getpid(), **how)
    sample.work_off(work, range(n), helpers=helpers, ready=begin, progress=progress)
    return sorted((int(path.stem), int(path.suffix[1:])) for path in folder.iterdir())


def test_every_job_is_done_once_here_or_by_a_helper(tmp_path):
    told = []
    done = run(tmp_path, 300, helpers=2, slowly=0.1, progress=told.append)
    assert [job for job, _ in done] == list(range(300))
    assert os.getpid() in {who for _, who in done} and len({who for _, who in done}) > 1
    assert told == sorted(told) and told[-1] == 300
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("begin", [(60.0, True), (0.0, False)])
def test_a_helper_that_is_not_ready_or_not_willing_is_not_waited_for(tmp_path, begin):
    done = run(tmp_path, 3, helpers=1, begin=functools.partial(ready, *begin))
    assert done == [(job, os.getpid()) for job in range(3)]
    assert not multiprocessing.active_children()


def test_an_error_of_a_helper_is_raised_here_and_a_killed_one_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"job \d+: no such thing"):
        run(tmp_path, 10**6, helpers=1, fail="error")
    with pytest.raises(OSError, match="a helping process was killed"):
        run(tmp_path, 10**6, helpers=1, fail="killed")
    assert not multiprocessing.active_children()


def test_an_interruption_ends_the_helpers(tmp_path):
    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 9, helpers=2, begin=functools.partial(ready, 60.0), progress=interrupt)
    assert not multiprocessing.active_children()


def test_nothing_to_do_is_done():
    sample.work_off(print, [], helpers=0, ready=ready, progress=print)
