"""The shape of the package: imports go down, torch stays where it belongs, modules stay small."""

import ast
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rrtf"

HEAVY = {
    "torch", "transformers", "datasets", "scipy", "statsmodels", "matplotlib", "ctranslate2",
    "gptqmodel", "peft", "accelerate", "papermill", "nbconvert", "pandas", "pyarrow", "ray",
}  # fmt: skip
FORBIDDEN = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "base", "core"}

FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def owner(path: Path) -> str:
    """`rrtf/engines/answers.py` -> `engines`; `rrtf/rank.py` -> `rank`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import, line {node.lineno}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def functions(path: Path) -> list[ast.FunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


def tracked() -> list[Path]:
    """Files of the repository that git knows and that are text."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    binary = {".safetensors", ".gz", ".parquet", ".png"}
    return [path for path in paths if path.is_file() and path.suffix not in binary]


def test_half_of_the_functions_have_at_most_fourteen_lines():
    lengths = sorted(f.end_lineno - f.lineno + 1 for path in FILES for f in functions(path))
    assert lengths[len(lengths) // 2] <= 14


def test_every_module_and_every_public_function_and_class_says_what_it_is():
    silent = []
    for path in FILES:
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree(path)):
            silent.append(str(path.relative_to(ROOT)))
        for node in tree(path).body:
            named = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"
            if named and not ast.get_docstring(node) and not plain(node):
                silent.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not silent


def plain(node: ast.AST) -> bool:
    """A function whose name and signature say it all: one returned expression."""
    return (
        isinstance(node, ast.FunctionDef)
        and len(node.body) == 1
        and isinstance(node.body[0], ast.Return)
    )


def test_public_functions_are_typed():
    untyped = []
    for path in FILES:
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if not node.returns or any(not argument.annotation for argument in every):
                    untyped.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not untyped


def test_names_say_what_a_thing_does():
    for path in FILES:
        assert path.stem not in FORBIDDEN, path
        for function in functions(path):
            assert not re.match(r"_?(process|handle)_", function.name), f"{path}: {function.name}"


def test_nothing_is_pickled():
    for path in FILES:
        names = {name.partition(".")[0] for name in imports(path)}
        assert not names & {"pickle", "cloudpickle", "dill", "joblib"}, path


def test_the_project_knows_no_machine():
    machine = re.compile(r"/(?:work|root|home|Users)/[A-Za-z_.]")
    found = []
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        if path == Path(__file__):
            continue
        hits = machine.findall(text)
        if len(platform.node()) > 6 and platform.node() in text:
            hits.append(platform.node())
        found += [f"{path.relative_to(ROOT)}: {hit}" for hit in sorted(set(hits))]
    assert not found


def test_every_function_defined_for_the_package_has_one_home():
    homes: dict[str, set[str]] = {}
    for path in FILES:
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef) and len(ast.unparse(node)) > 400:
                code = node.body[1:] if ast.get_docstring(node) else node.body
                body = ast.dump(ast.Module(body=code, type_ignores=[]))
                homes.setdefault(body, set()).add(f"{path.stem}.{node.name}")
    assert not [names for names in homes.values() if len(names) > 1]
