"""Long lists: shards that survive a killed caller, damage that is named, a cluster that shrinks."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import ray_alone
from conftest import LIMITS, execute, judge

from rrtf import execution, store
from rrtf.records import Execution, Outcome, Problem, Response
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


def test_verdicts_are_those_of_the_sandbox_in_the_order_of_the_responses(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "SHARD_SIZE", 4)
    problems, responses = world(7)
    expected = execute(problems, responses)
    assert {e.outcome for e in expected} == {*Outcome}
    seen = []
    found = judge(problems, responses, shards=tmp_path, progress=lambda *now: seen.append(now))
    assert found == expected == judge(problems, responses)
    assert seen == sorted(seen) and seen[-1] == (len(responses), len(responses))
    assert len(list(tmp_path.iterdir())) == 9  # 7 x 5 distinct programs, four to a shard


def test_finished_shards_are_not_judged_again(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "SHARD_SIZE", 8)
    problems, responses = world(4)
    first = judge(problems, responses, shards=tmp_path)
    monkeypatch.setattr(executor, "execute", None)
    assert judge(problems, responses, shards=tmp_path) == first
    again = [Response(r.task_id, "other", 9, "", r.program) for r in responses]
    seen = []
    found = judge(problems, again, shards=tmp_path, progress=lambda *now: seen.append(now))
    assert [(e.source, e.index, e.outcome) for e in found] == [
        ("other", 9, e.outcome) for e in first
    ]
    assert seen[-1] == (len(again), len(again))


def test_another_setting_test_program_or_sandbox_is_another_shard(tmp_path, monkeypatch):
    problems, responses = world(1)
    harder = [Problem("t0", "", "f", TESTS.format(0) + "\nassert f(3) == 3")]
    asked = [(problems, responses, {}), (harder, responses, {}), (problems, responses[:-1], {})]
    changes = [{"hash_seed": 1}, {"cpu_seconds": 3}, {"memory_mb": 400}]
    changes += [{"isolation": "namespaces"}] * (lanes.probe() == "namespaces")
    asked += [(problems, responses, change) for change in changes]
    found = [judge(*given, shards=tmp_path, **change) for *given, change in asked]
    assert {e.n_tests for e in found[0]} == {3} and {e.n_tests for e in found[1]} == {4}
    assert len(list(tmp_path.iterdir())) == len(asked)
    monkeypatch.setattr(execution, "version", lambda: "changed")
    judge(problems, responses, shards=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(asked) + 1


SLOW = (
    "import sys\nfrom pathlib import Path\nsys.path.insert(0, {tests!r})\n"
    "from conftest import judge\nfrom test_execution import world\nfrom rrtf import execution\n"
    "execution.SHARD_SIZE = 5\njudge(*world(40), shards=Path({folder!r}), **{options!r})\n"
)


def run_apart(folder: Path, **options: object) -> subprocess.Popen:
    code = SLOW.format(tests=str(ROOT / "tests"), folder=str(folder), options=options)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen([sys.executable, "-c", code], env=environment)


def test_a_killed_caller_loses_only_the_shards_under_way_and_changes_no_record(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(execution, "SHARD_SIZE", 5)
    caller = run_apart(tmp_path, workers=1)
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("*.jsonl"))) < 5 and time.monotonic() < end:
        time.sleep(0.002)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.jsonl")}
    assert 5 <= len(kept) < 40
    problems, responses = world(40)
    found = judge(problems, responses, shards=tmp_path)
    assert found == execute(problems, responses)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(tmp_path.glob("*.jsonl"))) == 40


def test_zygotes_are_started_once_however_many_shards_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "SHARD_SIZE", 1)
    started = []
    start = lanes.Lane.__init__
    monkeypatch.setattr(
        lanes.Lane, "__init__", lambda self, *a: started.append(1) or start(self, *a)
    )
    judge(*world(6), shards=tmp_path, workers=2)
    assert len(started) == 2 and len(list(tmp_path.iterdir())) == 30


def test_what_is_asked_wrongly_is_named():
    problems, responses = world(1)
    with pytest.raises(ValueError, match="unknown cluster 'spark': expected one of local, ray"):
        judge(problems, responses, cluster="spark")
    with pytest.raises(ValueError, match="workers 0"):
        judge(problems, responses, workers=0)
    with pytest.raises(ValueError, match="t0: a response, but no problem"):
        judge([], responses)
    with pytest.raises(ValueError, match="t0: two problems"):
        judge(problems * 2, responses)
    assert judge(problems, []) == []


# --- Ray ---------------------------------------------------------------------------------------


def test_a_node_judges_what_json_brings_it_or_says_why_it_may_not(monkeypatch):
    job = {
        "problems": [["t", "", "f", "assert f() == 1"]],
        "programs": [["t", "def f(): return 1"]],
        "limits": asdict(LIMITS),
        "hash_seed": 0,
        "packages": [],
        "versions": {},
    }
    (row,) = json.loads(json.dumps(execution.judge(json.loads(json.dumps(job)), 1)))
    passed = Execution("t", "", 0, Outcome.PASS, "", 1, 1, lanes.probe())
    assert store.from_row(row, Execution) == passed
    with pytest.raises(RuntimeError, match="other packages"):
        execution.judge(job | {"versions": {"numpy": "0.1"}}, 1)
    monkeypatch.setattr("rrtf.sandbox.lanes.probe", lambda: "process")
    with pytest.raises(RuntimeError, match="isolation"):
        execution.judge(job, 1)


def test_nodes_give_the_verdicts_of_one_process_shard_by_shard(tmp_path, monkeypatch):
    def spread(work, jobs, *, message, finished, cpus):
        for job in reversed(jobs):
            told = work(json.loads(json.dumps(message(job))), cpus)
            finished(job, json.loads(json.dumps(told)))

    monkeypatch.setattr(execution, "spread", spread)
    monkeypatch.setattr(execution, "SHARD_SIZE", 4)
    problems, responses = world(3)
    seen, how = [], {"shards": tmp_path, "progress": lambda *now: seen.append(now)}
    found = judge(problems, responses, cluster="ray", **how)
    assert found == execute(problems, responses)
    assert seen == sorted(seen) and seen[-1] == (len(responses), len(responses))
    assert len(list(tmp_path.iterdir())) == 4  # 3 x 5 distinct programs
    monkeypatch.setattr(executor, "execute", None)
    assert judge(problems, responses, **how) == found


CLUSTER = """
import json
from conftest import judge
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

execution.SHARD_SIZE = 8
found = judge(*world(40), cluster="ray", workers=1, progress=watch)
cluster.shutdown()
print(json.dumps([killed, [[e.outcome, e.reason, e.n_passed, e.isolation] for e in found]]))
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_gives_the_same_verdicts_and_leaves_nothing():
    said = ray_alone.run(CLUSTER)
    problems, responses = world(40)
    (killed,), verdicts = json.loads(said)
    assert 0 < killed < len(responses)
    expected = execute(problems, responses)
    assert verdicts == [[e.outcome, e.reason, e.n_passed, e.isolation] for e in expected]
