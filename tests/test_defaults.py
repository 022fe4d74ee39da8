"""One place decides an option: no function behind a stage has a default for it."""

import ast
import tomllib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "rrtf"
SECTIONS = {
    name: table
    for name, table in tomllib.loads((PACKAGE / "profiles.toml").read_text()).items()
    if isinstance(table, dict)
}
# The stage that a room stands behind; a room that is not here serves several.
STAGE_OF = {
    "evolve": "evolve", "audit": "audit", "sample": "sample", "engines": "sample",
    "prompts": "sample", "rank": "rank", "execution": "rank", "sandbox": "rank",
    "strength": "rank", "train": "train", "methods": "train", "loss": "train", "step": "train",
    "evaluate": "evaluate", "benchmarks": "evaluate", "cases": "cases", "quantize": "quantize",
    "paper": "paper_audit", "ablation": "ablation", "nano": "nano_models",
}  # fmt: skip
# Honest ones, each with the reason why the profile does not decide it.
EXCEPTIONS = {
    "engines.endpoint.Ask: seed": "a request as HTTP has it; `make_asks` fills all of it",
    "engines.endpoint.Ask: top_p": "the same",
    "records.Response: temperature": "a record of what came, not an option",
    "records.TaskScore: seed": "the same",
    "records.TaskScore: temperature": "the same",
    "step.packing.shared_prompt_attention: dropout": "transformers calls it, with or without one",
}
WAITING: set[str] = set()  # rooms whose defaults still have to go: may only shrink, to nothing


def decided(section: str) -> set[str]:
    """The options of a section that a profile has a value for; a verb alone may have others."""
    table = SECTIONS[section]
    lines = {name: line for name, line in table.items() if isinstance(line, dict)}
    lines |= {name: SECTIONS["shared"][name] for name in table.get("shared", [])}
    return {name for name, line in lines.items() if set(line) - {"verb"}}


def defaults(node: ast.AST) -> list[str]:
    """Parameters of a function, or fields of a class, with a default; None decides nothing."""
    if isinstance(node, ast.ClassDef):
        fields = [line for line in node.body if isinstance(line, ast.AnnAssign) and line.value]
        bare = ("None", "field(kw_only=True)")
        return [line.target.id for line in fields if ast.unparse(line.value) not in bare]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    given = node.args
    placed = [*given.posonlyargs, *given.args]
    named = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    late = placed[len(placed) - len(given.defaults) :]
    values = [*zip(late, given.defaults, strict=True), *named]
    return [one.arg for one, value in values if value and ast.unparse(value) != "None"]


def found() -> dict[str, str]:
    """`room.module.function: option` -> its room, for every default of a stage's option."""
    every = set().union(*map(decided, SECTIONS))
    places = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        room = module.partition(".")[0]
        options = decided(STAGE_OF[room]) if room in STAGE_OF else every
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in defaults(node):
                if name in options:
                    places[f"{module.removesuffix('.__init__')}.{node.name}: {name}"] = room
    return places


def test_no_function_has_a_default_for_an_option_that_a_profile_decides():
    places = found()
    late = sorted(p for p, room in places.items() if p not in EXCEPTIONS and room not in WAITING)
    assert not late
    assert set(EXCEPTIONS) <= set(places), "an exception that is none any more"
    assert set(places.values()) >= WAITING, "a room that has nothing to wait for"
