"""A cluster's workers: what goes out and comes back, which errors, who may not work."""

import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray_alone

from rrtf import cluster

ROOT = Path(__file__).resolve().parent.parent
NAME = f"{__name__}:double"
slow = partial(pytest.param, marks=pytest.mark.slow)


def version():
    return "1"


def double(message, cpus):
    if message["n"] == 3:
        raise ValueError("three: expected another number")
    if message["n"] == 4:
        raise FileNotFoundError("four is not here")
    return {"twice": 2 * message["n"], "cpus": cpus}


@pytest.fixture
def worker():
    found = cluster._Worker()
    assert cluster._value(found.begin(NAME, "1", 2)) is None
    return found


def test_a_worker_does_what_it_is_named_and_speaks_json(worker):
    answer = worker.do(json.dumps({"n": 21}))
    assert isinstance(answer, str) and cluster._value(answer) == {"twice": 42, "cpus": 2}


def test_errors_come_back_as_they_were_and_name_the_node_where_it_may_be_at_fault(worker):
    with pytest.raises(ValueError, match=r"^three: expected another number$"):
        cluster._value(worker.do('{"n": 3}'))
    with pytest.raises(FileNotFoundError, match=rf"^node {platform.node()}: four is not here$"):
        cluster._value(worker.do('{"n": 4}'))


def test_a_node_with_another_version_or_without_the_code_may_not_work():
    with pytest.raises(RuntimeError, match=r"node .*: another version of rrtf"):
        cluster._value(cluster._Worker().begin(NAME, "2", 1))
    with pytest.raises(ImportError, match=r"node .*: No module named 'rrtf.nothing'"):
        cluster._value(cluster._Worker().begin("rrtf.nothing:work", "1", 1))


def test_a_missing_ray_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'rrtf\[ray\]'"):
        cluster.spread(double, [1], message=dict, finished=print)


def place(message, cpus):
    """Where a job is done; some end in their own ways."""
    time.sleep(0.2)
    if message["ends"] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if message["ends"] == "wrongly":
        raise KeyError("unforeseen")
    return [os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "")]


CLUSTER = """
import json
import test_cluster
from rrtf import cluster as module

cluster.add_node(**node | {"num_cpus": 3, "num_gpus": 2})
module.RETRIES = 1

def spread(jobs, finished, **how):
    module.spread(test_cluster.place, jobs, message=lambda end: {"ends": end},
                  finished=finished, **how)

def told(job, **how):
    try:
        spread([job], lambda job, answer: None, **how)
    except RuntimeError as error:
        return str(error)

def interrupt(job, answer):
    raise KeyboardInterrupt

devices = []
spread([""] * 12, lambda job, answer: devices.append(answer), gpu=True)
told = [told("killed"), told("wrongly")]
try:
    spread([""] * 12, interrupt)
except KeyboardInterrupt:
    told.append("interrupted")
cluster.shutdown()
print(json.dumps([devices, told]))
"""


@pytest.mark.slow
def test_on_a_real_cluster_gpus_are_reserved_errors_are_told_and_nothing_is_left():
    devices, (killed, wrongly, interrupted) = json.loads(ray_alone.run(CLUSTER))
    assert len(devices) == 12, "every job once"
    owners = {pid: device for pid, device in devices}
    assert set(owners.values()) <= {"0", "1"}, "one GPU each, and none without"
    assert len(owners) == len(set(owners.values())), "no two share one"
    assert all(owners[pid] == device for pid, device in devices)
    assert killed == "Ray gave up: a job is lost, 2 times in a row"
    assert wrongly.startswith("unexpected error on a node") and "unforeseen" in wrongly
    assert interrupted == "interrupted"


def _noted(job: int, *, folder: Path, fail: str = "") -> int:
    """Leaves a file named by the job; module-level, because other processes import it by name."""
    if fail == "error" and job == 1:
        raise ValueError(f"job {job}: no such thing")
    if fail == "killed" and job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{job}.{os.getpid()}").touch()
    return job * job


@pytest.mark.parametrize("processes", [1, 2])
def test_jobs_side_by_side_are_done_once_and_their_values_stand_beside_their_numbers(
    tmp_path, processes
):
    work = partial(_noted, folder=tmp_path)
    found = dict(cluster.side_by_side(work, range(2, 12), processes=processes))
    assert found == {number: (number + 2) ** 2 for number in range(10)}
    who = {path.suffix for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 10 and len(who) <= processes
    assert (f".{os.getpid()}" in who) == (processes == 1)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("fail", "error", "said"),
    [("error", ValueError, "job 1: no such thing"), ("killed", OSError, "a process was killed")],
)
def test_an_error_or_a_killed_process_or_an_interruption_ends_the_others(
    tmp_path, fail, error, said
):
    work = partial(_noted, folder=tmp_path, fail=fail)
    with pytest.raises(error, match=said):
        list(cluster.side_by_side(work, range(1000), processes=2))
    running = cluster.side_by_side(partial(_noted, folder=tmp_path), range(1000), processes=2)
    next(running)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)
    assert not multiprocessing.active_children()


VERB = "import sys; from rrtf.__main__ import app; app(sys.argv[1:])"
POOL = (
    "import time; from rrtf import cluster\n"
    "list(cluster.side_by_side(time.sleep, [90] * 4, processes=2))"
)
RUNNING = {
    "evolve": (VERB, ["evolve", "{seeds}", "--rounds", "9", "--out", "{folder}/o.jsonl"]),
    "the small world": (VERB, ["audit", "{seeds}", "--benchmarks", "nano-validation"]),
    "side by side": (POOL, []),
    "quantize": (VERB, ["quantize", "--model", "nano-student", "--variant", "ctranslate2-int8",
                        "--problems", "nano-validation", "--out", "{folder}/q"]),
    "notebooks": (VERB, ["run", "--profile", "smoke", "--only", "01"]),
}  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("what", [*list(RUNNING)[:3], *map(slow, list(RUNNING)[3:])])
def test_processes_of_a_verb_end_with_it(tmp_path, what, number):
    code, arguments = RUNNING[what]
    seeds = ROOT / "tests" / "data" / "nano_seeds.jsonl"
    arguments = [word.format(seeds=seeds, folder=tmp_path) for word in arguments]
    caller = psutil.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"RRTF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while len(begun := caller.children(recursive=True)) < 2:
        assert caller.poll() is None and time.monotonic() < end, begun
        time.sleep(0.02)
    caller.send_signal(number)
    caller.wait(20)
    end = time.monotonic() + 15
    while left := [process for process in begun if _lives(process)]:
        assert time.monotonic() < end, left
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
