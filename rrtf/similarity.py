"""When are two texts, or two programs, the same? Normal forms, n-grams, MinHash, parts of programs.

Used where rows are made (evolution) and where they are checked (audit). Everything here is a pure
function of text; what two programs *do* is compared in `rrtf.audit`.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import re
import textwrap
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Shingles = frozenset[str]

# Signs and comparisons carry meaning ("at least -3", "x > 2"); all other punctuation does not.
_WORD = re.compile(r"[+-]?\d+(?:\.\d+)?|\w+|!=|[<>=*/%+]+")
_DOCTEST = re.compile(r"^[ \t]*>>>.*\n(?:(?![ \t]*>>>)[ \t]*\S.*(?:\n|\Z))*", re.MULTILINE)
_EXAMPLE = re.compile(r"^.*\b\w+\(.*\) *(?:==+>?|=>|->|➞) *\S.*$", re.MULTILINE)
_CODE_TOKEN = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Lower-case words, numbers with their sign, and comparison or arithmetic signs, in order.

    Examples are left out (`>>>` lines with their output, lines like `f([1]) == 2`): a task keeps
    its meaning when its examples change. Letters are folded by Unicode NFKC.
    """
    folded = unicodedata.normalize("NFKC", text.replace("\r\n", "\n")).casefold()
    return _WORD.findall(_EXAMPLE.sub("", _DOCTEST.sub("", folded + "\n")))


def normalise(text: str) -> str:
    """The words of `text` joined by single spaces: case, layout and punctuation are gone."""
    return " ".join(words(text))


def ngrams(items: Sequence[str], n: int) -> frozenset[tuple[str, ...]]:
    """All runs of `n` >= 1 neighbouring items; empty where there are fewer than `n`."""
    if n < 1:
        raise ValueError(f"n-grams need n >= 1, found {n}")
    return frozenset(tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def shingles(items: Sequence[str], n: int) -> Shingles:
    """The n-grams as strings; a text shorter than `n` is one shingle, so that it can be found."""
    size = min(n, len(items))
    return frozenset(" ".join(gram) for gram in ngrams(items, size)) if items else frozenset()


def jaccard(left: Collection[str], right: Collection[str]) -> float:
    """|A and B| / |A or B| of two sets, in [0, 1]; two empty sets resemble nothing: 0."""
    left, right = frozenset(left), frozenset(right)
    union = len(left | right)
    return len(left & right) / union if union else 0.0


def shared_runs(left: Sequence[str], right: Sequence[str], n: int) -> list[tuple[int, int, int]]:
    """Runs of at least `n` equal items, longest first: (start in left, start in right, length).

    Runs do not overlap and come in the same order on both sides (Ratcliff and Obershelp).
    """
    blocks = difflib.SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    runs = [(b.a, b.b, b.size) for b in blocks if b.size >= n]
    return sorted(runs, key=lambda run: (-run[2], run[0]))


def marked(left: str, right: str, n: int = 2) -> tuple[list[tuple[str, bool]], ...]:
    """Both texts cut into (piece, is shared) where runs of at least `n` equal words are shared.

    Joining the pieces gives back each text exactly.
    """
    tokens = [list(re.finditer(r"\w+|[^\w\s]", text)) for text in (left, right)]
    items = [[token.group().casefold() for token in side] for side in tokens]
    runs = shared_runs(*items, n)
    sides = []
    for text, side, which in zip((left, right), tokens, (0, 1), strict=True):
        spans = sorted((run[which], run[which] + run[2]) for run in runs)
        ends = [(side[a].start(), side[b - 1].end()) for a, b in spans]
        sides.append(_pieces(text, ends))
    return tuple(sides)


def _pieces(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[str, bool]]:
    pieces, at = [], 0
    for start, end in spans:
        pieces += [(text[at:start], False), (text[start:end], True)]
        at = end
    return [piece for piece in [*pieces, (text[at:], False)] if piece[0]]


def near_duplicates(
    left: Sequence[Shingles],
    right: Sequence[Shingles],
    *,
    threshold: float,
    permutations: int,
    seed: int,
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, Jaccard) of `left[i]` and `right[j]` with exact Jaccard >= `threshold`.

    MinHash with locality-sensitive hashing (Broder 1997) proposes the pairs, so one near the
    threshold can be missed; the similarity of what is proposed is then counted exactly. The
    result depends on `seed`, not on the order of the sets. Sorted by (i, j).
    """
    import numpy as np

    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"the MinHash threshold must lie in (0, 1], found {threshold}")
    draw = np.random.RandomState(seed)
    factors = draw.randint(0, 1 << 31, permutations, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    shifts = draw.randint(0, 1 << 32, permutations, dtype=np.uint32)
    bands = _bands(threshold, permutations)
    keys = partial(_keys, factors=factors, shifts=shifts, bands=bands)
    tables = [defaultdict(list) for _ in range(bands[0])]
    theirs = list(map(keys, right))
    for j, own in enumerate(theirs):
        for table, key in zip(tables, own, strict=False):
            table[key].append(j)
    pairs = []
    for i, own in enumerate(theirs if left is right else map(keys, left)):
        near = zip(tables, own, strict=False)
        found = sorted({j for table, key in near for j in table.get(key, ())})
        pairs += [(i, j, jaccard(left[i], right[j])) for j in found]
    return [pair for pair in pairs if pair[2] >= threshold]


@lru_cache
def _bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands b, rows r of each) with the least chance to propose the unlike and miss the like.

    A pair of Jaccard s is proposed with the chance 1 - (1 - s^r)^b; both errors are its areas on
    the wrong side of `threshold`. The rule of Gauss and Legendre is exact for polynomials of b r.
    """
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(permutations // 2 + 1)
    low, high = threshold * (1 + nodes) / 2, 1 - (1 - threshold) * (1 + nodes) / 2

    def error(shape: tuple[int, int]) -> float:
        b, r = shape
        unlike, like = (1 - (1 - s**r) ** b for s in (low, high))
        return float(weights @ (threshold * unlike + (1 - threshold) * (1 - like)))

    shapes = ((b, r) for b in range(1, permutations + 1) for r in range(1, permutations // b + 1))
    return min(shapes, key=error)


def _keys(
    shingle_set: Shingles, *, factors: np.ndarray, shifts: np.ndarray, bands: tuple[int, int]
) -> list[bytes]:
    """Of each band the least hashes of the set; none of an empty one. Equal keys propose a pair."""
    import numpy as np

    if not shingle_set:
        return []
    heads = b"".join(hashlib.sha1(one.encode()).digest()[:4] for one in shingle_set)
    x = np.frombuffer(heads, "<u4")  # (S,) and mixed, so that a x + b below behaves like chance
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x = x ^ (x >> np.uint32(16))
    least = (x[:, None] * factors + shifts).min(axis=0)  # (P,)
    b, r = bands
    return [least[at * r : (at + 1) * r].tobytes() for at in range(b)]


def parsed(source: str) -> ast.Module:
    """The syntax tree of `source`, empty where it is no Python; nothing is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # no Python, or nested too deep
        return ast.Module(body=[], type_ignores=[])


def imported(tree: ast.AST) -> list[str]:
    """The names of what a program imports, dotted; `.` at the front of what is its project's."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append("." * node.level + (node.module or ""))
    return names


def needed(
    names: Collection[str],
    body: Sequence[ast.stmt],
    *,
    defines: Callable[[ast.stmt], Collection[str]],
    reads: Callable[[ast.stmt], Collection[str]],
) -> list[ast.stmt]:
    """The statements of `body` that define one of `names`, or what those read; in their order."""
    wanted, found = set(names), set()
    told = [defines(statement) for statement in body]
    while more := {at for at, one in enumerate(told) if at not in found and wanted & set(one)}:
        found |= more
        wanted = {name for at in more for name in reads(body[at])}
    return [body[at] for at in sorted(found)]


def names(*nodes: ast.AST) -> set[str]:
    """The names that stand anywhere in `nodes`, attributes left out."""
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}


def canonical_functions(source: str) -> dict[str, str]:
    """Each top-level function or method of `source` without what its author chose freely.

    Docstrings, comments, annotations and layout are removed; the function's own name, its
    parameters and its local variables are renamed in order of appearance, scope by scope.
    Builtins, attributes, helpers defined elsewhere and constants stay. Functions without a body
    (`pass`, `...`, `raise NotImplementedError`) are left out: they say nothing. Of several with one
    name the last has it, the others have it with a number. Source that does not parse has none: {}.
    """
    found = {}
    try:
        for node in _functions(parsed(textwrap.dedent(source))):
            name = node.name
            canonical = _Canonical().visit(node)
            if not _is_stub(canonical.body):
                if name in found:
                    found[f"{name}, before {len(found)}"] = found[name]
                found[name] = ast.unparse(ast.fix_missing_locations(canonical))
    except (ValueError, RecursionError, MemoryError):  # an integer too long, or nested too deep
        return {}
    return found


def tokens(text: str) -> list[str]:
    """Words and single signs of any text, in lower case: it without its layout."""
    return _CODE_TOKEN.findall(text.casefold())


def nodes(source: str) -> int:
    """Nodes of the syntax tree of Python source, as `ast.walk` counts them: its size."""
    return sum(1 for _ in ast.walk(ast.parse(source)))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        for member in members:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                yield member


def _is_stub(body: Sequence[ast.stmt]) -> bool:
    return all(isinstance(s, ast.Pass | ast.Raise) for s in body)


_SCOPES = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip


_NAMED = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
    ast.ExceptHandler, ast.MatchAs, ast.MatchStar,
)  # fmt: skip


def _bound_names(nodes: Sequence[ast.AST]) -> list[str]:
    """Names that `nodes` bind in their own scope, without entering the scopes inside."""
    names, declared, queue = [], set(), list(nodes)
    while queue:
        node = queue.pop(0)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.append(node.id)
        elif isinstance(node, _NAMED) and node.name:
            names.append(node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            declared |= set(node.names)
        if not isinstance(node, _SCOPES):
            queue += list(ast.iter_child_nodes(node))
    return [name for name in names if name not in declared]


class _Canonical(ast.NodeTransformer):
    """Renames bound names to v0, v1, ... and drops docstrings and annotations."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, str]] = [{}]
        self.count = 0

    @contextmanager
    def scope(self, names: Sequence[str]) -> Iterator[None]:
        self.scopes.append(dict.fromkeys(names, ""))
        yield
        self.scopes.pop()

    def renamed(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                if not scope[name]:
                    scope[name] = f"v{self.count}"
                    self.count += 1
                return scope[name]
        return name

    def visit_body(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        """The statements without bare constants (docstrings, `...`), never empty."""
        visited = [self.visit(s) for s in body if not _is_constant(s)]
        return [s for s in visited if s is not None] or [ast.Pass()]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if len(self.scopes) == 1:
            self.scopes[0][node.name] = ""
        node.name, node.returns, node.type_comment = self.renamed(node.name), None, None
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.args.defaults = [self.visit(d) for d in node.args.defaults]
        node.args.kw_defaults = [d and self.visit(d) for d in node.args.kw_defaults]
        with self.scope([*_parameters(node.args), *_bound_names(node.body)]):
            self.rename_parameters(node.args)
            node.body = self.visit_body(node.body)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> ast.Lambda:
        node.args.defaults = [self.visit(d) for d in node.args.defaults]
        with self.scope(_parameters(node.args)):
            self.rename_parameters(node.args)
            node.body = self.visit(node.body)
        return node

    def visit_comprehension_scope(self, node: ast.expr) -> ast.expr:
        node.generators[0].iter = self.visit(node.generators[0].iter)  # read in the outer scope
        with self.scope(_bound_names([g.target for g in node.generators])):
            for at, generator in enumerate(node.generators):
                generator.iter = self.visit(generator.iter) if at else generator.iter
                generator.target = self.visit(generator.target)
                generator.ifs = [self.visit(test) for test in generator.ifs]
            for name in ("key", "value", "elt"):
                if hasattr(node, name):
                    setattr(node, name, self.visit(getattr(node, name)))
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_comprehension_scope
    visit_GeneratorExp = visit_comprehension_scope

    def rename_parameters(self, arguments: ast.arguments) -> None:
        for argument in _arguments(arguments):
            argument.arg, argument.annotation = self.renamed(argument.arg), None

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.renamed(node.id)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        node.name = node.name and self.renamed(node.name)
        return self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> ast.MatchAs:
        node.name = node.name and self.renamed(node.name)
        return self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign | None:
        if node.value is None:
            return None
        return self.visit(ast.Assign(targets=[node.target], value=node.value))


def _is_constant(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    several = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return several + [a for a in (arguments.vararg, arguments.kwarg) if a]


def _parameters(arguments: ast.arguments) -> list[str]:
    return [argument.arg for argument in _arguments(arguments)]
