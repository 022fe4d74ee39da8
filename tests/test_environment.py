"""One environment in four files: pyproject.toml, requirements.lock, environment.yml, Makefile."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OF_CUDA = ("nvidia-", "cuda-", "triton")  # come with torch's CUDA build, pinned by torch itself
IMPORT_NAMES = {"yaml": "pyyaml", "IPython": "ipykernel"}  # import name -> package, where unequal


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    """`name==version` lines as a mapping; anything else is an error."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([\w.-]+)==([\w.]+)", line.strip())
        assert match, f"not an exact pin: {line!r}"
        found[plain(match[1])] = match[2]
    return found


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return pins([line for line in lines if line.strip() and not line.startswith("#")])


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_lock_holds_exact_versions_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert locked()["torch"] == "2.13.0"
    assert "+cpu" not in text and "://" not in text and " @ " not in text


def test_every_dependency_of_the_project_is_pinned_in_the_lock_to_the_same_version():
    wanted = pins(project()["dependencies"] + project()["optional-dependencies"]["dev"])
    assert {name: locked().get(name) for name in wanted} == wanted


def test_conda_users_get_the_same_versions():
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "environment.yml").read_text()
    parsed = yaml.safe_load(text)
    assert parsed["name"] == "rrtf" and parsed["channels"][0] == "conda-forge"
    conda = [entry for entry in parsed["dependencies"] if isinstance(entry, str)]
    assert all(re.fullmatch(r"[a-z0-9-]+(=[\d.]+)?", entry) for entry in conda)
    (nested,) = (entry for entry in parsed["dependencies"] if isinstance(entry, dict))
    extras = project()["optional-dependencies"]
    assert pins(nested["pip"]) == pins(project()["dependencies"] + extras["dev"])
    for name in ("gpu", "vllm"):
        (line,) = re.findall(rf"^#\s+{name}:\s+(.*)$", text, re.MULTILINE)
        assert set(re.findall(r"[\w-]+==[\w.]+", line)) == set(extras[name])


def test_the_lock_is_closed_under_requirement():
    requirements = pytest.importorskip("packaging.requirements")
    missing = set()
    for name in locked():
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # another interpreter at hand: nothing to compare with
        for line in lines:
            needed = requirements.Requirement(line)
            wanted = needed.marker is None or needed.marker.evaluate({"extra": ""})
            if wanted and not plain(needed.name).startswith(OF_CUDA):
                missing |= {plain(needed.name)} - set(locked())
    assert not missing - {"pip"}


def imported() -> set[str]:
    """Top-level names that the package, its tests and its notebooks import."""
    import json

    code = [path.read_text() for f in ("rrtf", "tests") for path in (ROOT / f).rglob("*.py")]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: set[str] = set()
    for text in code:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names


def test_everything_imported_is_declared():
    own = {"rrtf", "conftest", "tests"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}
    extras = project()["optional-dependencies"]
    lines = project()["dependencies"] + [line for name in extras for line in extras[name]]
    declared = set(pins(lines)) | {"packaging"}
    foreign = imported() - set(sys.stdlib_module_names) - own
    undeclared = {n for n in foreign if plain(IMPORT_NAMES.get(n, n)) not in declared}
    assert not undeclared


@pytest.mark.parametrize(
    "target, says", [("reports", "-m rrtf run --profile nano"), ("test", "-m pytest")]
)
def test_the_two_commands_run_in_their_environment_or_in_the_one_at_hand(target, says):
    own = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f".venv/bin/python {says}" in own.stdout
    for variable in ("SYSTEM=1", "VENV="):
        at_hand = subprocess.run(
            ["make", "-n", target, variable], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert says in at_hand.stdout and ".venv" not in at_hand.stdout
        assert "pip install" not in at_hand.stdout


def test_continuous_integration_calls_the_readmes_test_command():
    text = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in text and "\nmake test\n" in text and "--profile smoke" in text
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
