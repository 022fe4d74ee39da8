"""Rows of the field's benchmarks as problems in HumanEval form.

A problem's `prompt` is what a model continues, prompt + reference is a program, and `tests` is
Python source that stands alone: written to JSON lines, any harness of HumanEval's kind runs it.
"""

import ast
import builtins
import hashlib
import re
import textwrap
from collections.abc import Mapping
from dataclasses import replace

from rrtf import store
from rrtf.records import Problem

# The standard-library part of what DeepSeek's harness puts in front of every program.
LEETCODE_IMPORTS = """import collections
import copy
import datetime
import functools
import hashlib
import heapq
import itertools
import math
import re
import statistics
import string
import sys
from collections import *
from typing import *

"""


def problem(row: Mapping, where: str) -> Problem:
    """A row of somebody's tasks; one without a `task_id` is called by its hash.

    ValueError names `where` it stands.
    """
    found = store.from_row({"task_id": "", **row}, Problem, where)
    if not found.tests.strip():
        raise ValueError(f"{where}: no test")
    text = "\0".join((found.prompt, found.entry_point, found.tests))
    return replace(found, task_id=found.task_id or hashlib.sha256(text.encode()).hexdigest()[:16])


def humaneval(row: Mapping) -> Problem:
    """A row of HumanEval, as it is."""
    return Problem(
        row["task_id"], row["prompt"], row["entry_point"], row["test"],
        row["canonical_solution"], "humaneval",
    )  # fmt: skip


def mbpp(row: Mapping) -> Problem:
    """A row of MBPP: its text and first assertion are the prompt, its three assertions the tests.

    The further `challenge_test_list` of 11 rows is not part of the customary tests.
    """
    setup = _unix(row["test_setup_code"])
    return _mbpp(row, row["text"], setup.splitlines(), "mbpp")


def mbpp_sanitized(row: Mapping) -> Problem:
    """A row of the sanitized MBPP, with the imports of its tests."""
    return _mbpp(row, row["prompt"], row["test_imports"], "mbpp-sanitized")


def _mbpp(row: Mapping, text: str, setup: list[str], source: str) -> Problem:
    task_id, code = f"Mbpp/{row['task_id']}", _unix(row["code"])
    tests = [_unix(test) for test in row["test_list"]]
    return Problem(
        task_id,
        docstring(f"{text}\n{tests[0]}"),
        _tested_function(code, tests, task_id),
        "\n".join([*setup, *tests]) + "\n",
        code + "\n",
        source,
    )


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


def _tested_function(code: str, tests: list[str], task_id: str) -> str:
    """The function that `code` defines and every one of `tests` calls, the outermost of them."""
    defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    called = [
        [
            node.func.id
            for node in ast.walk(ast.parse(test))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        for test in tests
    ]
    common = [name for name in called[0] if name in defined and all(name in c for c in called)]
    if not common:
        raise ValueError(f"{task_id}: no function of the reference is called in all its tests")
    return common[0]


def docstring(text: str) -> str:
    """`text` as a statement of its own that any program may follow."""
    safe = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""\n{safe.strip()}\n"""\n'


def leetcode_dataset(row: Mapping, source: str) -> Problem:
    """A row of LeetCodeDataset: imports and node classes, then the question and its first lines.

    The reference is a whole class; responses too are to give it whole.
    """
    meta = row["meta"]
    question = f"{meta['question_title'].strip()}\n\nStarter code:\n{meta['lang_code'].strip()}"
    return Problem(
        row["task_id"],
        row["prompt"].rstrip("\n") + "\n\n\n" + docstring(question),
        row["entry_point"],
        row["test"],
        row["completion"],
        source,
    )


def leetcode(row: Mapping) -> Problem:
    """A row of DeepSeek's LeetCode contests; there are no references.

    Its bare assertions on one `Solution()` become a `check` of its method; the imports that its
    harness adds become part of the prompt.
    """
    methods = set(re.findall(r"my_solution\.(\w+)\(", row["test"]))
    body = row["test"].replace("my_solution = Solution()\n", "")
    if len(methods) != 1 or "Solution()" in body:
        raise ValueError(f"{row['task_id']}: expected assertions on one method of my_solution")
    (method,) = methods
    body = body.replace(f"my_solution.{method}(", "candidate(").strip("\n")
    return Problem(
        row["task_id"],
        LEETCODE_IMPORTS + row["prompt"],
        f"Solution().{method}",
        "def check(candidate):\n" + textwrap.indent(body, "    ") + "\n",
        source="leetcode",
    )


def codereval(row: Mapping, source: str = "codereval-subset") -> Problem:
    """A row of CoderEval's standalone subset: its test function becomes `check`.

    Where the signature is annotated with names that its file has lost, annotations stay unread.
    """
    imports = row["prefix"].strip("\n")
    prompt = f"{imports}\n\n\n{row['input_raw'].rstrip()}\n".lstrip("\n")
    if _unknown_annotations(prompt):
        prompt = f"from __future__ import annotations\n\n{prompt}"
    head = rf"^def test_+{row['name']}\(\):"
    tests = row["suffix"].partition("\nif __name__")[0]
    body, found = re.subn(head, "def check(candidate):", tests, flags=re.MULTILINE)
    if found != 1:
        raise ValueError(f"{row['_id']}: expected one function test_{row['name']}")
    return Problem(
        row["_id"],
        prompt,
        row["name"],
        f"{imports}\n\n\n{body.strip()}\n".lstrip("\n"),
        "\n\n" + row["reference"],
        source,
    )


def _unknown_annotations(source: str) -> set[str]:
    """Names in the annotations of a function head that nothing in `source` imports."""
    used, imported = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.FunctionDef):
            shown = node.annotation if isinstance(node, ast.arg) else node.returns
            used |= {n.id for n in ast.walk(shown) if isinstance(n, ast.Name)} if shown else set()
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return used - imported - set(dir(builtins))
