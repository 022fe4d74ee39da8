"""What is installed: ranges and extras in pyproject.toml, the pins in requirements.lock.

environment.yml repeats the pins of what is named there, the Makefile installs the lock.
"""

import ast
import html
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest

from rrtf import config

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


APART = ("peers", "embeddings", "gpu", "vllm")  # extras that come later or lie elsewhere: pins


def ranged() -> dict[str, str]:
    """package -> its range, of the bare package and every extra that `make` installs."""
    extras = project()["optional-dependencies"]
    names = [name for name in extras if name not in APART]
    lines = project()["dependencies"] + [line for name in names for line in extras[name]]
    found: dict[str, str] = {}
    for line in lines:
        if not line.startswith("rrtf["):
            name, range_ = re.fullmatch(r"([\w-]+)(.*)", line).groups()
            assert found.setdefault(plain(name), range_) == range_, f"two ranges of {name}"
    return found


def brings(extra: str) -> set[str]:
    """The packages of an extra, with those of the extras that it names."""
    found = set()
    for line in project()["optional-dependencies"][extra]:
        inner = re.fullmatch(r"rrtf\[([\w,]+)\]", line)
        parts = map(brings, inner[1].split(",")) if inner else ()
        found |= set().union(*parts) if inner else {plain(re.match(r"[\w-]+", line)[0])}
    return found


def test_the_lock_holds_exact_versions_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert locked()["torch"] == "2.13.0"
    assert "+cpu" not in text and "://" not in text and " @ " not in text


def test_every_pin_of_the_lock_lies_in_the_range_of_the_package():
    specifiers = pytest.importorskip("packaging.specifiers")
    for name, range_ in ranged().items():
        assert ">=" in range_ and "==" not in range_, f"{name}{range_}: expected a range"
        assert locked()[name] in specifiers.SpecifierSet(range_), f"{name}{range_}"


def test_the_bare_package_needs_nothing_heavy_and_extras_bring_what_errors_say_they_do():
    assert {plain(re.match(r"[\w-]+", line)[0]) for line in project()["dependencies"]} == {
        "numpy", "typer", "rich", "markdown-it-py"}  # fmt: skip
    for extra, libraries in config.EXTRAS.items():
        assert {plain(name) for name in libraries} <= brings(extra), extra
    whole = brings("train") | brings("sample") | brings("quantize") | brings("data")
    assert whole <= brings("notebooks") < brings("all") < brings("dev")
    told = {"rrtf[train]": ("train", "torch"), "rrtf[data]": ("grade", "pyarrow")}
    for extra, (what, library) in told.items():
        with (
            pytest.raises(
                OSError, match=rf"^{what} needs {library}: pip install '{re.escape(extra)}'$"
            ),
            config.extras_named(what),
        ):
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
    with pytest.raises(ModuleNotFoundError), config.extras_named("grade"):
        raise ModuleNotFoundError("No module named 'nobody'", name="nobody")


def test_the_declared_pythons_are_311_to_313():
    told = project()["classifiers"]
    versions = [line.rpartition(" ")[2] for line in told if "Python :: 3." in line]
    assert versions == ["3.11", "3.12", "3.13"] and project()["requires-python"] == ">=3.11"


def test_conda_users_get_the_same_versions():
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "environment.yml").read_text()
    parsed = yaml.safe_load(text)
    assert parsed["name"] == "rrtf" and parsed["channels"][0] == "conda-forge"
    conda = [entry for entry in parsed["dependencies"] if isinstance(entry, str)]
    assert all(re.fullmatch(r"[a-z0-9-]+(=[\d.]+)?", entry) for entry in conda)
    (nested,) = (entry for entry in parsed["dependencies"] if isinstance(entry, dict))
    extras = project()["optional-dependencies"]
    assert pins(nested["pip"]) == {name: locked()[name] for name in ranged()}
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


OF_BENCHES = {"bayes_evals", "inspect_ai", "lm_eval", "pandas"}  # in environments of their own


def test_everything_imported_is_declared():
    own = {"rrtf", "conftest", "tests"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}
    extras = project()["optional-dependencies"]
    declared = {*ranged(), "packaging", *pins([line for name in APART for line in extras[name]])}
    foreign = imported() - set(sys.stdlib_module_names) - own - OF_BENCHES
    undeclared = {n for n in foreign if plain(IMPORT_NAMES.get(n, n)) not in declared}
    assert not undeclared


def test_the_program_of_the_auto_gptq_lane_needs_only_what_its_lock_holds():
    foreign = imports(LANE.read_text()) - set(sys.stdlib_module_names)
    lock = locked("requirements-auto-gptq.lock")
    assert foreign and {plain(name) for name in foreign} <= set(lock)
    text = (ROOT / "requirements-auto-gptq.lock").read_text()
    assert "+cpu" not in text and "://" not in text and " @ " not in text


def closed(names: set[str]) -> set[str]:
    """The packages and all that they need here, by the metadata of what is installed."""
    requirements = pytest.importorskip("packaging.requirements")
    found, waiting = set(), [*names]
    while waiting:
        name = plain(waiting.pop())
        if name not in found:
            found.add(name)
            needed = map(requirements.Requirement, metadata.requires(name) or [])
            waiting += [r.name for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The Python of an empty environment that holds the wheel of this tree and the bare needs."""
    pytest.importorskip("pip")
    tree, place = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("bare")
    for name in ("rrtf", "data", "notebooks"):
        ignored = shutil.ignore_patterns("runs", "__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tree, tree])
    run([sys.executable, "-m", "venv", "--without-pip", place])
    (wheel,), python = tree.glob("*.whl"), place / "bin" / "python"
    run([*pip, "--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel])
    (site,) = place.glob("lib/python*/site-packages")
    for name in closed({re.match(r"[\w-]+", line)[0] for line in project()["dependencies"]}):
        of = metadata.distribution(name)
        for top in {file.parts[0] for file in of.files} - {"..", "__pycache__"}:
            (site / top).symlink_to(Path(of.locate_file(top)).resolve())
    return python, site


def asked(bare, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """`python -m rrtf WORDS` of the empty environment, in another folder than this tree."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [bare[0], "-m", "rrtf", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def lines(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path.name


@pytest.mark.slow
def test_a_wheel_alone_grades_ranks_audits_evaluates_and_rewards_files_without_torch(
    bare, tmp_path
):
    task = {
        "task_id": "my/add", "prompt": 'def add(a, b):\n    """Return the sum."""\n',
        "entry_point": "add", "canonical_solution": "    return a + b\n",
        "test": "def check(f):\n    assert f(1, 2) == 3\n    assert f(2, 2) == 4\n",
    }  # fmt: skip
    answer = partial(dict, task_id="my/add")
    problems = lines(tmp_path / "problems.jsonl", [task])
    right = lines(tmp_path / "right.jsonl", [answer(completion="    return a + b\n")])
    wrong = lines(tmp_path / "wrong.jsonl", [answer(completion="    return a * b\n")])
    rows = lines(tmp_path / "rows.jsonl", [{"instruction": "Add.", "output": task["prompt"]}])
    verbs = {
        "g.html": ["grade", problems, right, "--report", "g.html"],
        "pairs.jsonl": ["rank", problems, f"t={right}", f"s={wrong}", "--teacher", "t", "--pairs",
                        "--out", "pairs.jsonl"],
        "board": ["evaluate", problems, f"a={right}", f"b={wrong}", "--out", "board"],
        "a.html": ["audit", rows, "--benchmarks", "nano-validation", "--execute", "--report",
                   "a.html"],
    }  # fmt: skip
    for made, words in verbs.items():
        done = asked(bare, tmp_path, *words)
        assert not done.returncode, done.stderr
        assert (tmp_path / made).exists(), made
    program = (
        "import importlib.util, sys\n"
        "from rrtf import engines\nfrom rrtf.reward import Rewards\n"
        "assert not importlib.util.find_spec('torch')\n"
        "assert (engines.model_folder('nano-student') / 'model.safetensors').is_file()\n"
        f"answer = {task['canonical_solution']!r}\n"
        f"with Rewards(workers=1) as rewards:\n    found = rewards([{task!r}], [answer])\n"
        "assert found[0].score == 1, found\n"
        "print(sorted({'torch', 'scipy', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    )  # fmt: skip
    done = subprocess.run([bare[0], "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
def test_notebook_00_begins_by_itself_in_another_folder_where_a_wheel_is_installed(bare, tmp_path):
    cells = json.loads((ROOT / "notebooks" / "00_rrtf_by_hand.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"][:3]
    code += ["print(stage.folder, base, store.__file__, sep='\\n')"]
    everything = {"PYTHONPATH": sysconfig.get_path("purelib"), "HOME": str(tmp_path)}
    command = [bare[0], "-c", "\n".join(code)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | everything, capture_output=True)
    folder, model, module = map(Path, done.stdout.decode().splitlines())
    assert folder.is_relative_to(tmp_path), done.stderr.decode()
    assert model.is_relative_to(bare[1].parents[2] / "share" / "rrtf")
    assert module.is_relative_to(bare[1])


@pytest.mark.slow
def test_the_bare_package_is_small_knows_all_verbs_and_names_the_extra_that_one_lacks(
    bare, tmp_path
):
    held = (
        Path(at) / name for at, _, names in os.walk(bare[1], followlinks=True) for name in names
    )
    assert sum(path.stat().st_size for path in held) < 150e6
    for verb in ("plan", "evolve", "audit", "sample", "grade", "rank", "train", "quantize"):
        assert not asked(bare, tmp_path, verb, "--help").returncode, verb
    lacking = {
        (
            "train",
            "g.jsonl",
            "--model",
            "nano-student",
            "--objective",
            "rrtf",
            "--out",
            "o",
        ): "train",
        ("sample", "nano-validation", "--model", "nano-student"): "sample",
        ("evaluate", "nano-validation", "--model", "nano-student"): "sample",
        ("quantize", "--model", "nano-student", "--variant", "gptq-int4"): "quantize",
        ("run", "--profile", "smoke"): "notebooks",
    }
    for words, extra in lacking.items():
        told = asked(bare, tmp_path, *words)
        line = rf"\nfailed: {words[0]} needs \w+: pip install 'rrtf\[{extra}\]'\n"
        assert told.returncode == 1 and re.fullmatch(line, told.stderr), told.stderr
    checked = asked(bare, tmp_path, "run", "--profile", "smoke", "--check")
    assert not checked.returncode and "nano-student" in checked.stdout, checked.stderr
    assert not list(tmp_path.iterdir()), "nothing was begun"


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


def test_the_committed_report_is_of_one_commit_and_the_documents_say_what_it_says():
    """The sentence of every page stands in the index; the table of rates is that of the run."""
    folder = ROOT / "reports" / "nano"
    pages = [
        path for path in sorted(folder.glob("*_*.html")) if path.with_suffix(".ipynb").exists()
    ]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    index = html.unescape((folder / "index.html").read_text(encoding="utf-8"))
    foots = {re.search(r"commit (\w+)", text)[1] for text in [*texts, index]}
    assert len(pages) == 13 and len(foots) == 1, foots
    for page, text in zip(pages, texts, strict=True):
        (answer,) = re.findall(r'<p class="rrtf-answer">(.*?)</p>', text, re.DOTALL)
        assert html.unescape(answer) in index, page
    rates = {}
    for row in json.loads((folder / "summary.json").read_text())["results"]:
        if row["seed"] is None or (row["model"], row["metric"]) not in rates:
            spread = (f"{100 * row[name]:.1f}" for name in ("value", "low", "high"))
            rates[row["model"], row["metric"]] = "{} [{}, {}]".format(*spread)
    table = (ROOT / "reports" / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    (head, _, *lines) = [[cell.strip() for cell in line.strip("|").split("|")]
                         for line in table.splitlines() if line.startswith("|")]  # fmt: skip
    told = {(re.findall(r"[\w-]+", line[0])[0], metric): cell for line in lines
            for metric, cell in zip(head[2:], line[2:], strict=True)}  # fmt: skip
    assert len(told) == 24 and told == {key: rates[key] for key in told}


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
