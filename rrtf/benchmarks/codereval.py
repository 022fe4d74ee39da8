"""CoderEval's Python tasks: those that stand alone, judged as far as a sandbox can, others refused.

Two benchmarks share what stands here: `codereval-subset`, rows that hold their tests, and
`codereval`, the official CoderEval4Python.json. The official file holds no tests: they lie in
CoderEval's Docker image, one file per task below `repos`, or in `record_testcases_map_python.json`
as written there by its authors. A task is judged if its own reference passes here.
"""

import ast
import json
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rrtf import similarity
from rrtf.benchmarks import catalogue, tasks
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import executor
from rrtf.sandbox.executor import Limits
from rrtf.sandbox.joint import mark

ALONE = ("self_contained", "slib_runnable", "plib_runnable")  # levels that need no project
TEST_MAP, REPOS = "record_testcases_map_python.json", "repos"
_LIMITS, _WORKERS = Limits(10.0, 30.0, 512, "landlock+seccomp"), 2  # for references
_NEEDS = {
    "subprocess": ", which starts no child processes",
    "socket": ", which knows no host names at this level",
}
JOINT_ONLY = (
    "its tests need values that cannot cross to a judge; joint=True (--joint) runs them in the "
    "candidate's own process, where a program can forge the verdict"
)

Judged = tuple[list[Problem], dict[str, str]]  # problems, and why the others are refused


def subset(data: Path | None, *, joint: bool, packages: Sequence[str]) -> Judged:
    """The tasks of `codereval-subset` whose reference passes, and the reasons of the others."""
    problems = [tasks.codereval(row) for row in catalogue.raw_rows("codereval-subset", data)]
    return judged(problems, joint=joint, packages=packages)


def official(data: Path | None, *, joint: bool, packages: Sequence[str]) -> Judged:
    """The tasks of the official file that stand alone and pass, and the reasons of the others.

    FileNotFoundError if nothing beside the file holds its tests.
    """
    (path,), rows = catalogue.located("codereval", data)
    texts = _test_files(rows, path.parent)
    problems, reasons = [], {}
    for row in rows:
        try:
            problems.append(_problem(row, texts.get(row["_id"], "")))
        except ValueError as error:
            reasons[row["_id"]] = str(error)
    kept, further = judged(problems, joint=joint, packages=packages)
    reasons |= further
    return kept, {row["_id"]: reasons[row["_id"]] for row in rows if row["_id"] in reasons}


def judged(problems: Sequence[Problem], *, joint: bool, packages: Sequence[str]) -> Judged:
    """Those whose reference passes with its tests in the judge, or, if `joint`, in its process."""
    reasons: dict[str, str] = {}
    for problem in problems:
        if foreign := foreign_imports(problem.tests + problem.reference, packages):
            reasons[problem.task_id] = _missing(foreign)
    runnable = [problem for problem in problems if problem.task_id not in reasons]
    plain = _references([p for p in runnable if not _sees_packages(p)], packages)
    failed = [p for p in runnable if not _passed(plain.get(p.task_id))]
    together = _references([mark(p) for p in failed], packages)
    kept = []
    for problem in runnable:
        if _passed(plain.get(problem.task_id)):
            kept.append(problem)
        elif not _passed(together[problem.task_id]):
            reasons[problem.task_id] = _failure(problem, together[problem.task_id])
        elif joint:
            kept.append(mark(problem))
        else:
            reasons[problem.task_id] = JOINT_ONLY
    order = [problem.task_id for problem in problems]
    return kept, {task_id: reasons[task_id] for task_id in order if task_id in reasons}


def foreign_imports(source: str, packages: Collection[str] = ()) -> list[str]:
    """Packages that `source` imports, and that neither Python brings nor `packages` names."""
    names = similarity.imported(ast.parse(source))
    found = {"." if name[0] == "." else name.partition(".")[0] for name in names}
    return sorted(found - sys.stdlib_module_names - set(packages))


def _sees_packages(problem: Problem) -> bool:
    """Whether tests or prompt import a package: a judge has none."""
    return bool(foreign_imports(problem.tests + problem.prompt))


def _passed(found: Execution | None) -> bool:
    return found is not None and found.outcome is Outcome.PASS


def _missing(foreign: Sequence[str]) -> str:
    if "." in foreign:
        return "it imports modules of its own project"
    what = ", ".join(foreign)
    return (
        f"needs {what}: candidates have the standard library only, and the packages that "
        f"packages=(...) or --packages names"
    )


def _references(problems: Sequence[Problem], packages: Sequence[str]) -> dict[str, Execution]:
    answers = [Response(p.task_id, "reference", 0, "", p.prompt + p.reference) for p in problems]
    how = {"limits": _LIMITS, "workers": _WORKERS, "packages": packages}
    found = executor.execute(problems, answers, **how) if problems else []
    return {execution.task_id: execution for execution in found}


def _failure(problem: Problem, found: Execution) -> str:
    imported = similarity.imported(ast.parse(problem.prompt))
    why = next((text for module, text in _NEEDS.items() if module in imported), "")
    return (
        f"its own reference does not pass in the sandbox{why}: {found.reason}, "
        f"{found.n_passed} of {found.n_tests} assertions"
    )


def _problem(row: Mapping, text: str) -> Problem:
    """A record and the text of its test file as a problem; ValueError says why there is none."""
    need = f"level {row['level']}: needs {row['file_path']} of the project {row['project']}"
    if row["level"] not in ALONE:
        raise ValueError(need)
    if not text:
        raise ValueError(f"{need}, and there is no test file of it that stands alone")
    return tasks.codereval(_split(row, text), "codereval")


def _split(row: Mapping, text: str) -> dict:
    """The row that `tasks.codereval` takes: what is before, in and after the function."""
    lines = text.splitlines(keepends=True)
    for node in _parsed(text, "its test file").body:
        if isinstance(node, ast.FunctionDef) and node.name == row["name"]:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            parts = lines[:first], lines[first : node.end_lineno], lines[node.end_lineno :]
            prefix, reference, suffix = map("".join, parts)
            return {
                **row,
                "prefix": prefix,
                "reference": reference,
                "suffix": suffix,
                "input_raw": f'{_signature(row)}\n\t"""\n\t{row["docstring"]}\n\t"""\n\t',
            }
    raise ValueError(f"its test file defines no function {row['name']}")


def _parsed(source: str, whose: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{whose} is no Python 3.11: {error}") from None


def _signature(row: Mapping) -> str:
    """The head of the record's function, as its authors wrote it."""
    code = textwrap.dedent(row["code"])
    node = next(
        (n for n in _parsed(code, "its record").body if isinstance(n, ast.FunctionDef)), None
    )
    if node is None:
        raise ValueError("its record defines no function")
    head = code.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    while head and not head[-1].rstrip().endswith(":"):
        head.pop()  # a comment between the head and the body
    return "\n".join(head)


def _test_files(rows: Sequence[Mapping], folder: Path) -> dict[str, str]:
    """The text of every test file that stands alone, by the record's id."""
    found = {}
    if (folder / TEST_MAP).is_file():
        texts = json.loads((folder / TEST_MAP).read_text(encoding="utf-8"))
        found = {row["_id"]: texts[row["_id"]] for row in rows if row["_id"] in texts}
    elif (folder / REPOS).is_dir():
        for row in rows:
            stem = row["file_path"].removesuffix(".py").replace("/", "-")
            path = folder / REPOS / "standalone" / f"{stem}-{row['name']}.py"
            if path.is_file():
                found[row["_id"]] = path.read_text(encoding="utf-8")
    else:
        raise FileNotFoundError(
            f"codereval: CoderEval4Python.json holds no tests, and {folder} has neither "
            f"{REPOS}/standalone nor {TEST_MAP}: both are in CoderEval's Docker image, copy one "
            "there. (codereval-subset has the tests of 42 tasks in its rows.)"
        )
    return found
