"""One environment in four files: pyproject.toml, requirements.lock, environment.yml, Makefile."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LANE = ROOT / "rrtf/quantize/auto_gptq_lane.py"  # is run by a Python of its own
OF_CUDA = ("nvidia-", "cuda-", "triton")  # come with torch's CUDA build, pinned by torch itself
# Import name -> package, where unequal
IMPORT_NAMES = {"yaml": "pyyaml", "IPython": "ipykernel", "markdown_it": "markdown-it-py",
                "websocket": "websocket-client"}  # fmt: skip


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


def locked(name: str = "requirements.lock") -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
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

    files = [path for f in ("rrtf", "tests") for path in (ROOT / f).rglob("*.py") if path != LANE]
    code = [path.read_text() for path in files]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return set().union(*(imports(text) for text in code))


def imports(text: str) -> set[str]:
    names: set[str] = set()
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


def test_the_program_of_the_auto_gptq_lane_needs_only_what_its_lock_holds():
    foreign = imports(LANE.read_text()) - set(sys.stdlib_module_names)
    lock = locked("requirements-auto-gptq.lock")
    assert foreign and {plain(name) for name in foreign} <= set(lock)
    text = (ROOT / "requirements-auto-gptq.lock").read_text()
    assert "+cpu" not in text and "://" not in text and " @ " not in text


@pytest.mark.parametrize(
    "target, says",
    [
        ("reports", "-m rrtf run --profile nano"),
        ("test", '-m pytest -n 2 --dist loadfile -m "not slow"'),
        ("test-all", "-m pytest -n 2 --dist loadfile  "),
        ("lab", "-m jupyterlab --notebook-dir=notebooks"),
    ],
)
def test_the_main_commands_run_in_their_environment_or_in_the_one_at_hand(target, says):
    def shown(*variables):
        command = ["make", "-n", target, "TESTS=2", *variables]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert f".venv/bin/python {says}" in shown()
    for variable in ("SYSTEM=1", "VENV="):
        at_hand = shown(variable)
        assert says in at_hand and ".venv" not in at_hand and "pip install" not in at_hand


def test_continuous_integration_runs_all_the_tests_and_the_smoke_profile():
    text = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in text and "\nmake test-all\n" in text and "--profile smoke" in text
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.slow
def test_every_part_of_the_gpu_measurement_runs_in_small_on_a_cpu(tmp_path):
    script = ROOT / "tests" / "benchmarks" / "bench_gpu.py"
    parts = "step,attention,sampling,table4"
    command = [sys.executable, script, "--reduced", "--out", tmp_path, "--parts", parts]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    (result,) = tmp_path.glob("*.json")
    found = json.loads(result.read_text())["parts"]
    assert {name: part["how"] for name, part in found.items()} == dict.fromkeys(
        parts.split(","), "done"
    )
    ours, literal = found["step"]["rows"][:2]
    assert ours["first loss"] == pytest.approx(literal["first loss"], abs=0.01)
    assert result.with_suffix(".html").read_text().count("<table>") == 4
