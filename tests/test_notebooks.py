"""The form of the notebooks: fixed cells in a fixed order, small, without outputs."""

import ast
import itertools
import re
import statistics
from pathlib import Path

import pytest

from rrtf import config, store
from rrtf.report import pages

FOLDER = config.home() / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
STAGES = [path for path in NOTEBOOKS if path.stem in (*config.STAGES, *config.APPENDICES)]
ORDER = (
    "title", "parameters", "setup", "load", "look-input", "by-hand", "act", "look-", "answer",
    "checks", "save", "next",
)  # fmt: skip
FORBIDDEN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.While, ast.Try)
PATHLIKE = re.compile(r"^[\w.-]*/[\w./-]+$|\.(jsonl?|parquet|safetensors)$")


def name(path: Path) -> str:
    return path.stem


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in store.cells(path) if cell["cell_type"] == "code"]


def kind(ident: str) -> str:
    """The entry of ORDER that a cell id belongs to."""
    return "look-" if ident.startswith("look-") and ident != "look-input" else ident


def test_there_is_a_notebook_for_every_stage_and_nothing_unexpected():
    names = {path.stem for path in NOTEBOOKS}
    assert names == {*config.STAGES, *config.APPENDICES}


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_the_cells_of_a_stage_have_their_ids_in_order(path):
    cells = store.cells(path)
    idents = [cell["id"] for cell in cells if not cell["id"].startswith("about-")]
    kinds = [kind(ident) for ident in idents]
    assert list(dict.fromkeys(kinds)) == list(ORDER)
    assert 2 <= kinds.count("look-") <= 5
    assert [k for k in kinds if k != "look-"] == [k for k in ORDER if k != "look-"]
    markdown = {cell["id"] for cell in cells if cell["cell_type"] == "markdown"}
    assert {"title", "next"} <= markdown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_text_about_a_cell_stands_right_before_it_and_ids_are_unique(path):
    idents = [cell["id"] for cell in store.cells(path)]
    assert len(set(idents)) == len(idents)
    for here, after in itertools.pairwise(idents):
        if here.startswith("about-"):
            assert after == here.removeprefix("about-")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_small_and_its_cells_are_smaller(path):
    """Lines without blanks and imports; parameters are as many as the profiles have."""
    cells = store.cells(path)
    prose = re.compile(r"\s*$|from \S+ import |import ")
    lines = [
        sum(1 for line in store.text(cell).splitlines() if not prose.match(line))
        for cell in code_cells(path)
        if cell["id"] != "parameters"
    ]
    assert len(cells) <= 25 and sum(lines) <= 90
    assert statistics.median(lines) <= 5
    for cell in code_cells(path):
        wide = [line for line in store.text(cell).splitlines() if len(line) > 88]
        assert not wide, f"{cell['id']}: {wide}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_defines_nothing_opens_nothing_and_carries_no_output(path):
    for cell in code_cells(path):
        text = store.text(cell)
        assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]
        assert not re.search(r"^\s*[%!]", text, re.MULTILINE), f"{cell['id']}: magic"
        for node in ast.walk(store.parse(text, cell["id"])):
            assert not isinstance(node, FORBIDDEN), f"{cell['id']}: {type(node).__name__}"
            opens = isinstance(node, ast.Call) and ast.unparse(node.func) == "open"
            assert not opens, f"{cell['id']}: opens a file"


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_a_stage_names_files_only_where_it_loads_and_saves(path):
    for cell in code_cells(path):
        if cell["id"] in ("load", "save", "parameters"):
            continue
        for node in ast.walk(store.parse(store.text(cell), cell["id"])):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not PATHLIKE.search(node.value), f"{cell['id']}: {node.value!r}"


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_the_parameters_are_the_nano_column_in_its_order(path):
    cell = next(cell for cell in code_cells(path) if cell["id"] == "parameters")
    assert cell["metadata"]["tags"] == ["parameters"]
    values: dict = {}
    exec(store.text(cell), {}, values)
    expected = config.resolve("nano", path.stem)
    assert values == expected and list(values) == list(expected)
    assert {n: type(v) for n, v in values.items()} == {n: type(v) for n, v in expected.items()}


def is_field(node: ast.AST) -> bool:
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_a_stage_uses_every_parameter_it_takes(path):
    cells = [store.text(cell) for cell in code_cells(path) if cell["id"] != "parameters"]
    tree = store.parse("\n".join(cells), path.name)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own = config.home() / "rrtf"  # what a stage hands over as `stage.settings` is named there
    for file in store.closure(tree, own):
        if file.relative_to(own).parts[0].removesuffix(".py") == path.stem.partition("_")[2]:
            nodes = list(ast.walk(store.parse(file.read_text(encoding="utf-8"), str(file))))
            used |= {n.value for n in nodes if isinstance(n, ast.Constant)}  # by its text
            used |= {n.target.id for n in nodes if is_field(n)}  # or as a field of its recipe
    unused = set(store.assigned(path)) - {"profile"} - used
    assert not unused, f"declared, recorded, and without effect: {', '.join(sorted(unused))}"


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_a_stage_opens_itself_checks_and_finishes(path):
    text = {cell["id"]: store.text(cell) for cell in code_cells(path)}
    word = path.stem.partition("_")[2]
    assert re.search(rf"store\.Stage\.open\(['\"]{word}['\"], globals\(\)\)", text["setup"])
    assert "assert " in text["checks"]
    assert "stage.finish(" in text["save"] and "counts=" in text["save"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_ends_with_two_things_to_try_its_module_and_where_to_go_on(path):
    last = store.text(store.cells(path)[-1])
    assert len(re.findall(r"^- ", last, re.MULTILINE)) == 2 and "**Try it.**" in last
    links = re.findall(r"\]\(([^)]+)\)", last)
    assert any(link.endswith(".ipynb") for link in links)
    own = [FOLDER / link for link in links if link.startswith("../rrtf/")]
    assert own and all(place.exists() for place in own)
    known = config.resolve("nano", path.stem)
    for name, value in re.findall(r"`(\w+) = ([^`]+)`", last):
        assert isinstance(ast.literal_eval(value), type(known[name])), f"{name} = {value}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_the_prose_of_a_notebook_has_a_question_formulas_and_links_that_lead_somewhere(path):
    heading, question = pages.title(store.cells(path))
    assert heading and len(question) > 20
    for cell in store.cells(path):
        if cell["cell_type"] == "markdown":
            text = store.text(cell)
            shown = pages.take_formulas(text, {})
            assert "\\frac" not in shown and "\\sum" not in shown, cell["id"]
            assert not re.findall(r"_\{[A-Za-z]{2,}[,}]", text), "words in subscripts are upright"
            for target in re.findall(r"\]\(([\w.]+\.ipynb)", text):
                assert (FOLDER / target).exists(), target
