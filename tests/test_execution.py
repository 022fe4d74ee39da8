"""Long lists: shards that survive a killed caller, damage that is named, a cluster that shrinks."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray_alone

from rrtf import execution
from rrtf.records import Outcome, Problem, Response
from rrtf.sandbox import executor, lanes

ROOT = Path(__file__).resolve().parent.parent
TESTS = "assert f(0) == {0}\nassert f(1) == {0} + 1\nassert f(2) == {0} + 2"
PROGRAMS = (
    "def f(x): return x + {0}",
    "def f(x): return {0}",
    "def f(x): return x.no",
    "def f(x) return",
    "import os\ndef f(x): os._exit(0)",
)


@pytest.fixture(scope="module", autouse=True)
def _kernel_enforced():
    if lanes.LEVELS.index(lanes.probe()) > 1:
        pytest.skip("this host allows neither namespaces nor Landlock")


def world(n_tasks: int, seed: int = 0) -> tuple[list[Problem], list[Response]]:
    """Tasks and for each some right, wrong and breaking answers, one twice, all shuffled."""
    problems = [Problem(f"t{i}", "", "f", TESTS.format(i)) for i in range(n_tasks)]
    responses = [
        Response(f"t{i}", source, index, "", program.format(i))
        for i in range(n_tasks)
        for source, programs in (("student", PROGRAMS), ("teacher", PROGRAMS[:1]))
        for index, program in enumerate(programs)
    ]
    random.Random(seed).shuffle(responses)
    return problems, responses


def test_verdicts_are_those_of_the_sandbox_in_the_order_of_the_responses(tmp_path):
    problems, responses = world(7)
    expected = executor.execute(problems, responses)
    assert {e.outcome for e in expected} == {*Outcome}
    seen = []
    found = execution.execute(
        problems, responses, shards=tmp_path, shard_size=4, progress=lambda *now: seen.append(now)
    )
    assert found == expected == execution.execute(problems, responses)
    assert seen == sorted(seen) and seen[-1] == (len(responses), len(responses))
    assert len(list(tmp_path.iterdir())) == 9  # 7 x 5 distinct programs, four to a shard


def test_finished_shards_are_not_judged_again(tmp_path, monkeypatch):
    problems, responses = world(4)
    first = execution.execute(problems, responses, shards=tmp_path, shard_size=8)
    monkeypatch.setattr(executor, "execute", None)
    assert execution.execute(problems, responses, shards=tmp_path, shard_size=8) == first
    again = [Response(r.task_id, "other", 9, "", r.program) for r in responses]
    seen = []
    found = execution.execute(
        problems, again, shards=tmp_path, shard_size=8, progress=lambda *now: seen.append(now)
    )
    assert [(e.source, e.index, e.outcome) for e in found] == [
        ("other", 9, e.outcome) for e in first
    ]
    assert seen[-1] == (len(again), len(again))


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"cpu_seconds": 3}, {"memory_mb": 400}, {"level": "namespaces"}]
)
def test_another_setting_is_another_shard(tmp_path, change):
    if change.get("level", "") == "namespaces" != lanes.probe():
        pytest.skip("this host does not allow namespaces")
    problems, responses = world(1)
    execution.execute(problems, responses, shards=tmp_path)
    execution.execute(problems, responses, shards=tmp_path, **change)
    assert len(list(tmp_path.iterdir())) == 2


def test_other_tests_another_program_or_another_sandbox_is_another_shard(tmp_path, monkeypatch):
    problems, responses = world(1)
    execution.execute(problems, responses, shards=tmp_path)
    harder = [Problem("t0", "", "f", TESTS.format(0) + "\nassert f(3) == 3")]
    assert {e.n_tests for e in execution.execute(harder, responses, shards=tmp_path)} == {4}
    execution.execute(problems, responses[:-1], shards=tmp_path)
    monkeypatch.setattr(execution, "version", lambda: "changed")
    execution.execute(problems, responses, shards=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "exchanged", "garbage"])
def test_a_damaged_shard_is_named_and_never_trusted(tmp_path, damage):
    problems, responses = world(2)
    execution.execute(problems, responses, shards=tmp_path, shard_size=5)
    path, other = sorted(tmp_path.iterdir())
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    wrong = {
        "flipped": text.replace("FAILED_TESTS", "PASS", 1),
        "truncated": "".join(lines[:-1]),
        "emptied": "",
        "exchanged": other.read_text(),
        "garbage": text[: len(text) // 2],
    }
    path.write_text(wrong[damage])
    with pytest.raises(ValueError, match=path.name):
        execution.execute(problems, responses, shards=tmp_path, shard_size=5)
    path.unlink()
    execution.execute(problems, responses, shards=tmp_path, shard_size=5)
    assert path.read_text() == text


SLOW = (
    "import sys\nfrom pathlib import Path\nsys.path.insert(0, {tests!r})\n"
    "from test_execution import world\nfrom rrtf import execution\n"
    "execution.execute(*world(40), shards=Path({folder!r}), shard_size=5, **{options!r})\n"
)


def run_apart(folder: Path, **options: object) -> subprocess.Popen:
    code = SLOW.format(tests=str(ROOT / "tests"), folder=str(folder), options=options)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen([sys.executable, "-c", code], env=environment)


def test_a_killed_caller_loses_only_the_shards_under_way_and_changes_no_record(tmp_path):
    caller = run_apart(tmp_path, workers=1)
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("*.jsonl"))) < 5 and time.monotonic() < end:
        time.sleep(0.002)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.jsonl")}
    assert 5 <= len(kept) < 40
    problems, responses = world(40)
    found = execution.execute(problems, responses, shards=tmp_path, shard_size=5)
    assert found == executor.execute(problems, responses)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(tmp_path.glob("*.jsonl"))) == 40


def test_zygotes_are_started_once_however_many_shards_there_are(tmp_path, monkeypatch):

    started = []
    start = lanes.Lane.__init__
    monkeypatch.setattr(
        lanes.Lane, "__init__", lambda self, *a: started.append(1) or start(self, *a)
    )
    execution.execute(*world(6), shards=tmp_path, shard_size=1, workers=2)
    assert len(started) == 2 and len(list(tmp_path.iterdir())) == 30


def test_what_is_asked_wrongly_is_named():
    problems, responses = world(1)
    with pytest.raises(ValueError, match="unknown engine 'spark': expected one of local, ray"):
        execution.execute(problems, responses, engine="spark")
    with pytest.raises(ValueError, match="shard_size 0"):
        execution.execute(problems, responses, shard_size=0)
    with pytest.raises(ValueError, match="t0: a response, but no problem"):
        execution.execute([], responses)
    with pytest.raises(ValueError, match="t0: two problems"):
        execution.execute(problems * 2, responses)
    with pytest.raises(ValueError, match="t0: the tests assert nothing"):
        execution.execute([Problem("t0", "", "f", "f(1)")], responses)
    assert execution.execute(problems, []) == []


def test_a_missing_ray_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'rrtf\[ray\]'"):
        execution.execute(*world(1), engine="ray")


# --- Ray ---------------------------------------------------------------------------------------


def test_a_node_judges_what_json_brings_it_or_says_why_it_may_not(monkeypatch):
    job = {
        "problems": [["t", "", "f", "assert f() == 1"]],
        "programs": [["t", "def f(): return 1"]],
        "limits": {"level": "landlock+seccomp", "packages": []},
        "packages": {},
    }
    found = json.loads(json.dumps(execution.judge(json.loads(json.dumps(job)), 1)))
    assert found == [["t", Outcome.PASS, "", 1, 1, lanes.probe()]]
    with pytest.raises(RuntimeError, match="other packages"):
        execution.judge(job | {"packages": {"numpy": "0.1"}}, 1)
    monkeypatch.setattr("rrtf.sandbox.lanes.probe", lambda: "process")
    with pytest.raises(RuntimeError, match="isolation"):
        execution.judge(job, 1)


CLUSTER = """
import json
from test_execution import world
from test_isolation import descendants
from rrtf import execution

lost = cluster.add_node(**node).all_processes["raylet"][0].process.pid
killed = []

def watch(done, total):
    names = [open(f"/proc/{n}/cmdline").read() for n in descendants(lost)]
    if not killed and any("rrtf.sandbox.zygote" in name for name in names):  # it is judging
        killed.append(done)
        os.kill(lost, 9)

found = execution.execute(*world(40), engine="ray", workers=1, shard_size=8, progress=watch)
cluster.shutdown()
print(json.dumps([killed, [[e.outcome, e.reason, e.n_passed, e.isolation] for e in found]]))
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_gives_the_same_verdicts_and_leaves_nothing():
    said = ray_alone.run(CLUSTER)
    problems, responses = world(40)
    (killed,), verdicts = json.loads(said)
    assert 0 < killed < len(responses)
    expected = executor.execute(problems, responses)
    assert verdicts == [[e.outcome, e.reason, e.n_passed, e.isolation] for e in expected]
