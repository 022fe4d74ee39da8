"""Which code a notebook's result depends on, as one hash.

A stage is run again when its code changed, and only then: the hash covers the notebook's code
cells and every `rrtf` module they reach, imports inside functions included. Comments, layout and
docstrings do not count, nor where code stands: a module that moves or gets another name does not
change the hash, as long as the code that uses it calls it what it did before.
"""

import ast
import hashlib
import json
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def cells(notebook: Path) -> list[dict]:
    """The cells of a notebook file; ValueError naming the file where it is not one."""
    if not notebook.exists():
        raise FileNotFoundError(f"{notebook}: no such notebook")
    try:
        return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook}: not a notebook ({error!r})") from error


def text(cell: dict) -> str:
    """A cell's source as one string, however the file stores it."""
    return "".join(cell["source"])


def parse(code: str, where: str) -> ast.Module:
    """The syntax tree of `code`; a syntax error is a ValueError that says `where`."""
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise ValueError(f"{where}: line {error.lineno} is not Python ({error.msg})") from error


def assigned(notebook: Path) -> list[str]:
    """The names that the cell tagged `parameters` sets, in order."""
    for cell in cells(notebook):
        if "parameters" in cell["metadata"].get("tags", []):
            tree = parse(text(cell), f"{notebook}, parameters cell")
            targets = [
                t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets
            ]
            return [target.id for target in targets if isinstance(target, ast.Name)]
    raise ValueError(f"{notebook}: no cell is tagged `parameters`")


def imported(tree: ast.Module, package: Path = PACKAGE) -> set[str]:
    """Dotted names below `package` that a module imports anywhere, like `engines.replay`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name.partition(".")[2] for name in names if name.startswith(f"{package.name}.")}
    return {name for name in inside if any(_files(name, package))}


def _files(name: str, package: Path) -> Iterator[Path]:
    """The files of a module; of a sub-package all, because it picks its parts at run time."""
    path = package.joinpath(*name.split("."))
    if path.is_dir():
        yield from sorted(path.rglob("*.py"))
    elif path.with_suffix(".py").exists():
        yield path.with_suffix(".py")


def closure(tree: ast.Module, package: Path = PACKAGE) -> tuple[Path, ...]:
    """Every file of `package` that the module reaches through imports, sorted."""
    found: set[Path] = set()
    waiting = [tree]
    while waiting:
        for name in imported(waiting.pop(), package):
            for path in _files(name, package):
                if path not in found:
                    found.add(path)
                    waiting.append(parse(path.read_text(encoding="utf-8"), str(path)))
    return tuple(sorted(found))


class _Essence(ast.NodeTransformer):
    """Leaves out what says nothing of what code does: prose, and where its own parts are found.

    An import from `package` goes, because what it reaches is hashed itself; one from elsewhere
    stays, because what it reaches is not.
    """

    def __init__(self, package: str):
        self.package = package

    def visit_Import(self, node: ast.Import) -> ast.Import | None:
        names = [a for a in node.names if a.name.partition(".")[0] != self.package]
        return ast.Import(names) if names else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        own = node.level or (node.module or "").partition(".")[0] == self.package
        return None if own else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        prose = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if prose else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        face = [t.id for t in node.targets if isinstance(t, ast.Name)] == ["__all__"]
        return None if face else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None


def essence(code: str, where: str, package: Path = PACKAGE) -> str:
    """What `code` does, as one line; `''` of a file with nothing but prose and own imports."""
    tree = _Essence(package.name).visit(parse(code, where))
    return ast.dump(tree) if tree.body else ""


def digest(notebook: Path, package: Path = PACKAGE) -> str:
    """The hash of a notebook's code cells and of the modules they reach."""
    total = hashlib.sha256()
    trees = []
    for cell in cells(notebook):
        if cell["cell_type"] == "code":
            where = f"{notebook}, cell {cell.get('id', '?')}"
            does = essence(text(cell), where, package)
            total.update(f"{cell.get('id', '')}\n{does}\n".encode())
            trees += parse(text(cell), where).body
    total.update(code(ast.Module(body=trees, type_ignores=[]), package).encode())
    return total.hexdigest()


def code(tree: ast.Module, package: Path = PACKAGE) -> str:
    """The hash of every module of `package` that `tree` reaches, wherever in it they stand."""
    reached = closure(tree, package)
    found = [essence(path.read_text(encoding="utf-8"), str(path), package) for path in reached]
    return hashlib.sha256("\n".join(sorted(filter(None, found))).encode()).hexdigest()


@cache
def version(module: str) -> str:
    """The hash of a module (`rrtf.sandbox`), of all it reaches, and of Python's version."""
    reached = code(ast.parse(f"import {module}"))
    return hashlib.sha256(f"{platform.python_version()}\n{reached}".encode()).hexdigest()
