"""The runner on tiny notebooks, one per behaviour; at the end the whole smoke profile, twice."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import wait_until

from rrtf import config, store
from rrtf.benchmarks import catalogue
from rrtf.cli import run as verb
from rrtf.evolve import stage as evolve
from rrtf.report import kernel, pages, pipeline

FIRST, SECOND = "00_rrtf_by_hand", "01_evolve"
SETUP = "from rrtf import store\n\nstage = store.Stage.open({stage!r}, globals())"
SAVE = "stage.save('rows.jsonl', [{'n': 1}])\nstage.finish(counts={'rows': 1}, figures={'n': 0.25})"


def markdown(ident: str, text: str) -> dict:
    return {"cell_type": "markdown", "id": ident, "metadata": {}, "source": text}


def code(ident: str, text: str, tags: tuple[str, ...] = ()) -> dict:
    cell = {"cell_type": "code", "id": ident, "metadata": {"tags": list(tags)} if tags else {}}
    return cell | {"source": text, "outputs": [], "execution_count": None}


def write_notebook(folder: Path, stage: str, act: str, *, save: str = SAVE, **changes) -> Path:
    """A notebook of the stage's form: parameters as they must be, one `act`, one `save`."""
    values = config.resolve("nano", stage) | changes
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    cells = [
        markdown("title", f"# Tiny {stage}\n\nDoes it run? A `question`.\n\nMore."),
        code("parameters", lines, ("parameters",)),
        code("setup", SETUP.format(stage=stage)),
        code("act", act),
        code("save", save),
        markdown("next", "Is $p_i = x_1 * x_2 * x_3$; [a](01_evolve.ipynb), [b](../rrtf/loss.py)."),
    ]
    path = folder / f"{stage}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(
        json.dumps({"cells": cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 5})
    )
    return path


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with `notebooks/`, where data and reports of the test land too."""
    monkeypatch.setenv("RRTF_HOME", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def go(place: Path, only: str = "00", **options) -> list[str]:
    """Runs the smoke profile on the tiny notebooks and returns the lines it said."""
    lines: list[str] = []
    pipeline.run("smoke", only=only, notebooks=place / "notebooks", say=lines.append, **options)
    return lines


def command(place: Path, *arguments: str, largest_file: int | None = None) -> subprocess.Popen:
    """The command line in a process of its own, on the tiny notebooks.

    `largest_file`: bytes a file may grow to, which stands for a disk that is full.
    """

    def before_start():
        # a test run in the background may have been started with ctrl-C ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    program = (
        "import sys; from pathlib import Path; from rrtf import __main__ as m; "
        "from rrtf.report import pipeline; "
        f"run = pipeline.run; books = Path({str(place / 'notebooks')!r}); "
        "pipeline.run = lambda *a, **k: run(*a, **k, notebooks=books); "
        "m.app()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before_start,
    )  # fmt: skip


# --- what runs and what is skipped -------------------------------------------------------------


def test_a_stage_runs_once_and_is_skipped_while_nothing_changes(place):
    write_notebook(place / "notebooks", FIRST, "{'a', 'b', 'c'}")
    assert "runs: not run yet" in go(place)[0]
    assert store.manifest("smoke", FIRST)["settings"]["profile"] == "smoke"
    path = config.report_dir("smoke") / f"{FIRST}.ipynb"
    before = path.read_bytes()
    go(place, force=True)
    assert path.read_bytes() == before, "two runs from scratch write the same report"
    assert "up to date" in go(place)[0]


def test_a_stage_runs_again_after_each_change_that_matters_and_says_which(place):
    notebook = write_notebook(place / "notebooks", FIRST, "1 + 1")
    go(place)
    assert "settings changed: tie_break" in go(place, overrides={"rrtf_by_hand.tie_break": 0.25})[0]
    assert "settings changed: tie_break" in go(place)[0]
    rows = config.run_dir("smoke") / FIRST / "rows.jsonl"
    rows.write_text("")
    assert "output rows.jsonl is gone or changed" in go(place)[0]
    notebook.write_text(notebook.read_text().replace("1 + 1", "2 + 2"))
    assert "its code changed" in go(place)[0]
    (config.report_dir("smoke") / f"{FIRST}.ipynb").unlink()
    assert "its report is gone" in go(place)[0]
    manifest = config.run_dir("smoke") / FIRST / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert "run outside the pipeline" in go(place)[0]
    assert "forced" in go(place, force=True)[0]


def test_shards_of_other_code_are_never_taken_for_ours(place):
    shard = config.run_dir("smoke") / FIRST / "shards" / "a.jsonl"
    note = "p = stage.folder / 'shards' / 'a.jsonl'; seen = p.exists(); store.write(p, [])"
    notebook = write_notebook(place / "notebooks", FIRST, f"{note}; assert not seen")
    go(place)
    notebook.write_text(notebook.read_text().replace("assert not seen", "assert not seen, 1"))
    assert "its code changed" in go(place)[0], "the folder was cleared first"
    assert shard.exists()
    notebook.write_text(notebook.read_text().replace("assert not seen, 1", "kept = seen"))
    go(place)
    with pytest.raises(kernel.StageError):
        notebook.write_text(notebook.read_text().replace("kept = seen", "assert seen"))
        go(place)
    go(place)  # the same code again: what the interrupted run left is used


def test_a_stage_runs_again_when_what_it_reads_changed(place):
    write_notebook(place / "notebooks", FIRST, "1 + 1")
    write_notebook(place / "notebooks", SECOND, "stage.input('rrtf_by_hand/rows.jsonl').name")
    go(place, "00,01")
    assert [line.split(maxsplit=1)[1][:10] for line in go(place, "00,01")] == ["up to date"] * 2
    changed = SAVE.replace("{'n': 1}", "{'n': 2}")
    write_notebook(place / "notebooks", FIRST, "1 + 1", save=changed)
    lines = go(place, "00,01")
    assert "its code changed" in lines[0]
    assert f"input {FIRST}/rows.jsonl changed" in lines[2]


def test_changed_prose_and_comments_change_the_page_without_running_the_stage(place):
    notebook = write_notebook(place / "notebooks", FIRST, "1 + 1")
    go(place)
    text = notebook.read_text()
    notebook.write_text(
        text.replace("Does it run?", "Does it fly?").replace("1 + 1", "1 + 1  # so")
    )
    assert "up to date" in go(place)[0]
    page = (config.report_dir("smoke") / f"{FIRST}.html").read_text()
    assert "Does it fly?" in page and "# so" in page and ">2<" in page.replace("\n", "")


def test_what_a_run_takes_is_every_stage_and_the_closing_appendices_or_what_is_named(place):
    assert pipeline.selected(None, None) == config.STAGES + config.CLOSING
    assert pipeline.selected("07", None) == config.STAGES[7:] + config.CLOSING
    assert pipeline.selected(None, "07,paper_audit") == (config.STAGES[7], *config.CLOSING)
    for how, kind, told in (
        ({"start": "08"}, FileNotFoundError, "08_quantize"),
        ({"start": "leaderboard"}, ValueError, "--only leaderboard"),
        ({"start": "08", "only": "01"}, ValueError, "exclude each other"),
    ):
        with pytest.raises(kind, match=told):
            pipeline.run("smoke", **how, notebooks=place / "notebooks")


# --- what comes out ----------------------------------------------------------------------------


def test_the_page_reads_offline_and_says_nothing_of_the_machine(place):
    act = (
        "import sys\nfrom rrtf import config\nprint(config.output_home() / 'data')\n"
        "print('noi' + 'se', file=sys.stderr)"
    )
    write_notebook(place / "notebooks", FIRST, act)
    go(place)
    folder = config.report_dir("smoke")
    page, executed = ((folder / f"{FIRST}{kind}").read_text() for kind in (".html", ".ipynb"))
    assert "http://" not in page.replace("http://www.w3.org/1998/Math/MathML", "")
    assert "https://" not in page and "src=" not in page and page.count("<script") == 1
    assert "<math" in page and "<mi>p</mi>" in page and "$" not in page.split("<main>")[1]
    assert 'href="../../rrtf/loss.py"' in page
    assert 'href="01_evolve.html"' in page and "<title>Tiny 00_rrtf_by_hand · rrtf" in page
    assert "noise" not in page + executed and str(place) not in page + executed
    assert "papermill" not in executed


def test_the_index_and_the_summary_gather_what_the_stages_found(place):
    save = SAVE.replace("rows.jsonl", "results.json")
    write_notebook(place / "notebooks", FIRST, "1 + 1")
    write_notebook(place / "notebooks", "06_evaluate", "1", save=save)
    go(place, "00,06")
    index = (config.report_dir("smoke") / "index.html").read_text()
    assert f'<a href="{FIRST}.html">' in index and "Does it run?</span>" in index
    assert "<b>0.25</b> n" in index and index.count("not run</td>") == 7 + len(config.CLOSING)
    summary = store.read_json(config.report_dir("smoke") / "summary.json")
    assert summary["profile"] == "smoke" and list(summary["seconds"]) == [FIRST, "06_evaluate"]
    assert summary["results"] == [{"n": 1}] and summary["quantization"] == []


ANSWER = (
    "from IPython.display import HTML, Image\n"
    "display(HTML('<p class=\"rrtf-answer\">RRTF &amp; more: +7.8</p>'))\n"
    "Image(data=b'\\x89PNG\\r\\n\\x1a\\nxx', format='png')"
)


def test_a_page_and_the_index_begin_with_the_answer_that_the_notebook_comes_to_last(place):
    path = write_notebook(place / "notebooks", "06_evaluate", "(1, 2)")
    whole = json.loads(path.read_text())
    whole["cells"].insert(4, code("answer", ANSWER))
    path.write_text(json.dumps(whole))
    go(place, "06")
    folder = config.report_dir("smoke")
    executed, told = store.read_json(folder / "06_evaluate.ipynb"), "RRTF &amp; more: +7.8"
    idents = [cell["id"] for cell in executed["cells"]]
    assert idents.index("act") < idents.index("answer") < idents.index("save"), "story order"
    page = (folder / "06_evaluate.html").read_text().split("<main>")[1]
    assert page.index("<h1") < page.index(told) < page.index("Does it run")
    assert page.index("(1, 2)") < page.index("</details>", page.index("cell-id=act")), "folded"
    index = (folder / "index.html").read_text().split("<main>")[1]
    assert index.count(told) == 3 and "data:image/png;base64," in index, "headline, alt, its line"


def test_the_foot_names_commit_date_and_machine_and_every_page_has_its_neighbours(place):
    for stage in (FIRST, "appendix_leaderboard"):
        write_notebook(place / "notebooks", stage, "1")
    go(place)
    go(place, "leaderboard")
    folder = config.report_dir("smoke")
    receipt = store.read_json(config.run_dir("smoke") / FIRST / pipeline.RECEIPT)
    for name in (FIRST, "index"):
        foot = (folder / f"{name}.html").read_text().split("<footer>")[1]
        assert f"commit {receipt['commit']} · date {receipt['date']} · cpu" in foot
    last = (folder / "appendix_leaderboard.html").read_text()
    assert 'href="appendix_paper_audit.html" rel="prev"' in last and "index.html" in last


def test_a_term_of_ours_leads_to_its_place_in_the_glossary_where_a_page_first_uses_it(place):
    linked: set[str] = set()
    text = "# A leak\n`leak`, [a leak](x.html), $leak$; a leak, two leaks, leaked; Holm"
    shown = pages.link_terms(text, linked)
    assert shown.startswith("# A leak\n`leak`, [a leak](x.html), $leak$; a [leak](glossary.html#")
    assert shown.endswith("two leaks, leaked; [Holm](glossary.html#Holm)") and len(linked) == 2
    text = pages.write_glossary("smoke").read_text()
    assert all(f'id="{anchor}"' in text for anchor in pages.terms().values())
    assert "glossary.html#" not in text, "it does not link itself"


def test_an_appendix_is_listed_after_the_stages_and_a_closing_one_is_summarised(place):
    save = SAVE.replace("rows.jsonl", "beside.json")
    for name, own in (("paper_audit", save), ("leaderboard", SAVE)):
        write_notebook(place / "notebooks", f"appendix_{name}", "1 + 1", save=own)
        assert "done" in go(place, name)[1]
        index = (config.report_dir("smoke") / "index.html").read_text()
        assert index.index("08_quantize") < index.index(f'href="appendix_{name}.html"')
    assert re.search(r"took \d+\.\d minutes", index)
    summary = store.read_json(config.report_dir("smoke") / "summary.json")
    assert summary["paper_beside"] == [{"n": 1}]


def test_the_kernel_is_the_runners_interpreter_with_fixed_threads_and_hashes(place):
    act = (
        "import os, sys\n"
        "rows = [{'python': sys.executable, 'threads': os.environ['OMP_NUM_THREADS'],"
        " 'hashes': os.environ['PYTHONHASHSEED']}]"
    )
    write_notebook(place / "notebooks", FIRST, act, save=SAVE.replace("[{'n': 1}]", "rows"))
    go(place)
    row = json.loads((config.run_dir("smoke") / FIRST / "rows.jsonl").read_text())
    assert row == {"python": sys.executable, "threads": "1", "hashes": "0"}


@pytest.mark.slow
def test_the_kernel_of_jupyterlab_is_this_interpreter_and_says_nothing_while_it_imports(tmp_path):
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    place = kernel.install(str(tmp_path))
    assert store.read_json(place)["argv"][0] == sys.executable
    specs = KernelSpecManager(kernel_dirs=[str(place.parent.parent)])
    manager = KernelManager(kernel_name="rrtf", kernel_spec_manager=specs)
    manager.start_kernel()
    client, said = manager.blocking_client(), []
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        cell = "import gptqmodel\nfrom rrtf import engines\nprint(1 + 1, 'OMP' in str(dir()))"
        client.execute_interactive(
            cell, timeout=120, output_hook=lambda m: said.append(str(m["content"]))
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert not [text for text in said if "stderr" in text or "error" in text.lower()], said


# --- what goes wrong ---------------------------------------------------------------------------


def test_a_relative_place_is_that_of_the_caller_in_the_kernel_too(place, monkeypatch):
    write_notebook(place / "notebooks", FIRST, "1 + 1")
    monkeypatch.chdir(place)
    monkeypatch.setenv("RRTF_HOME", "out")
    go(place)
    assert (place / "out" / "data" / "runs" / "smoke" / FIRST / "rows.jsonl").exists()


def test_a_kernel_that_does_not_start_is_told_with_its_last_line(place, monkeypatch):
    write_notebook(place / "notebooks", FIRST, "1 + 1")
    monkeypatch.setenv("IPYTHONDIR", "/proc/nowhere")
    with pytest.raises(kernel.StageError, match=r"its kernel did not start: .*/proc/nowhere"):
        go(place)


def test_a_failing_cell_is_reported_by_notebook_cell_and_error_in_a_few_lines(place):
    write_notebook(place / "notebooks", FIRST, "from rrtf import config\nconfig.stage_name('x')")
    with pytest.raises(kernel.StageError) as caught:
        go(place)
    text = str(caught.value)
    assert f"{FIRST}.ipynb, cell `act`: ValueError: unknown stage 'x'" in text
    assert "config.py:" in text and "in stage_name" in text and len(text.splitlines()) <= 4
    assert store.manifest("smoke", FIRST) is None
    assert ">failed<" in (config.report_dir("smoke") / "index.html").read_text()


@pytest.mark.parametrize(
    "act, says",
    [
        ("import sys\nsys.exit()", "ended early in cell `act`"),
        ("exit()", ""),
        ("import os\nos._exit(0)", "the kernel died in cell `act`"),
        ("del stage.finish", "AttributeError"),
    ],
)
def test_a_notebook_that_ends_early_is_an_error_that_names_it(place, act, says):
    write_notebook(place / "notebooks", FIRST, act, save="1")
    with pytest.raises(kernel.StageError, match=FIRST) as caught:
        go(place)
    assert says in str(caught.value)


def test_a_notebook_that_never_saves_does_not_count_even_where_an_old_manifest_lies(place):
    write_notebook(place / "notebooks", FIRST, "1 + 1")
    go(place)
    write_notebook(place / "notebooks", FIRST, "1 + 1", save="stage.name")
    with pytest.raises(kernel.StageError, match=r"without calling stage\.finish"):
        go(place)
    assert store.manifest("smoke", FIRST) is None


def test_parameters_that_the_notebook_lacks_or_invents_are_named_before_anything_runs(place):
    notebook = write_notebook(place / "notebooks", FIRST, "1 + 1", tie_brake=1)
    with pytest.raises(ValueError, match="has unknown tie_brake"):
        go(place)
    notebook.write_text(notebook.read_text().replace("tie_break", "other"))
    with pytest.raises(ValueError, match="lacks tie_break"):
        go(place)


def test_a_full_disk_is_an_error_that_names_the_file_and_nothing_half_written_remains(place):
    save = SAVE.replace("[{'n': 1}]", "[{'text': 'x' * 1000}] * 20000")
    write_notebook(place / "notebooks", FIRST, "1 + 1", save=save)
    process = command(place, "run", "--profile", "smoke", "--only", "00", largest_file=4 << 20)
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 1, stderr
    assert "cell `save`: OSError" in stderr and "rows.jsonl: File too large" in stderr
    folder = config.run_dir("smoke") / FIRST
    assert not list(folder.glob("*rows*")) and not list(folder.glob(".rows*"))
    assert not (folder / "manifest.json").exists()


# --- interruptions -----------------------------------------------------------------------------

SLOW = (
    "import os, subprocess, sys, time\nfrom pathlib import Path\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    " start_new_session=True)\n"
    "Path({pids!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
    "time.sleep(0 if Path({done!r}).exists() else 600)"
)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def slow_run(place: Path) -> tuple[subprocess.Popen, list[int]]:
    """A run in the middle of a stage whose kernel has a child, and the pids of both."""
    pids, done = place / "pids", place / "done"
    act = SLOW.format(pids=str(pids), done=str(done))
    write_notebook(place / "notebooks", FIRST, act)
    process = command(place, "run", "--profile", "smoke", "--only", "00")
    assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, 120)
    return process, [int(pid) for pid in pids.read_text().split()]


def test_ctrl_c_ends_the_kernel_and_its_children_and_the_same_command_goes_on(place):
    process, pids = slow_run(place)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 130 and "resume with the same command" in stderr
    assert "Traceback" not in stderr
    assert not any(map(alive, pids))
    (place / "done").touch()
    assert "done" in go(place)[1]


def test_after_kill_9_the_next_run_ends_what_was_left_and_goes_on(place):
    process, pids = slow_run(place)
    process.kill()
    process.communicate(timeout=180)
    assert alive(pids[1])
    (place / "done").touch()
    assert "done" in go(place)[1]
    assert not alive(pids[1])


def test_a_second_run_of_the_same_profile_is_refused_and_the_first_is_named(place):
    process, _ = slow_run(place)
    try:
        with pytest.raises(ValueError, match=f"already being run by process {process.pid}"):
            go(place)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=180)


# --- source, formulas, progress ----------------------------------------------------------------


@pytest.fixture
def sources(tmp_path):
    """Writes modules of a package and an `act` cell; returns the notebook's hash."""
    package = tmp_path / "rrtf"

    def write(act="from rrtf import near", **modules: str) -> str:
        for path in package.rglob("*.py"):
            path.unlink()
        for name, text in {**NEAR_AND_FAR, **modules}.items():
            path = package.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        notebook = write_notebook(tmp_path, FIRST, act, save="near.f()")
        return store.digest(notebook, package)

    return write


NEAR_AND_FAR = {
    "near": "def f():\n    from rrtf import far\n\n    return far.value\n",
    "far": "from math import tau\n\nvalue = 1\n\n\ndef g():\n    return tau\n",
    "apart": "x = 1\n",
}


def test_the_source_hash_sees_lazy_and_indirect_imports_but_no_comments(sources):
    before = sources()
    told = "# why\nfrom math import tau\nvalue = (1)\ndef g(): return tau  # so\n"
    assert sources(apart="x = 2\n", far=told) == before
    for old, new in (("value = 1", "value = 2"), ("return tau", "return -tau")):
        assert sources(far=NEAR_AND_FAR["far"].replace(old, new)) != before
    assert sources(near=NEAR_AND_FAR["near"].replace("value", "value + 0")) != before


def test_prose_does_not_change_the_source_hash(sources):
    classes = "class A:\n    pass\n\n\nclass B:\n    x = 1\n\n    def m(self):\n        pass\n"
    before = sources(far=NEAR_AND_FAR["far"] + classes)
    told = classes.replace("    pass\n\n\n", '    """The first."""\n\n\n')
    told = told.replace("x = 1\n", 'x = 1\n    """What x is."""\n').replace("pass", '"""No."""')
    told = NEAR_AND_FAR["far"].replace("    return", '    """Twice pi."""\n    return') + told
    assert sources(far=f'"""Far away."""\n\n{told}') == before
    assert sources(far=NEAR_AND_FAR["far"] + classes.replace("x = 1", "x = '1'")) != before


def test_a_module_may_move_and_change_its_name_without_changing_the_source_hash(sources):
    before = sources()
    moved = {"far": "", "room____init__": '"""A room."""\n', "room__away": NEAR_AND_FAR["far"]}
    near = NEAR_AND_FAR["near"].replace("from rrtf import far", "from rrtf.room import away as far")
    assert sources(near=near, **moved) == before
    face = "from rrtf.room import away\n\n__all__ = ['away']\n"
    assert sources(near=near, **moved | {"room____init__": face}) == before
    near = near.replace("def f", "import rrtf.room.away\n\n\ndef f")
    assert sources("import rrtf.near\nfrom rrtf import near", near=near, **moved) == before
    assert sources("from rrtf import near as far") == before, "a cell's own imports"
    assert sources("from rrtf import near\nimport math") != before, "math is not hashed itself"


def test_formulas_become_mathml_and_code_and_prices_stay():
    formulas: dict[str, str] = {}
    text = "It is $a_1\n* b$, `$x$`, costs 5$ or $6; \n\n$$\nL = \\frac{1}{n}\n$$\n```\n$y$\n```"
    shown = pages.take_formulas(text, formulas)
    assert len(formulas) == 2 and "`$x$`" in shown and "5$ or $6" in shown and "$y$" in shown
    assert all(value.startswith("<math") for value in formulas.values())


def test_a_running_stage_tells_how_far_it_is(place):
    stage = store.Stage.open(FIRST, config.resolve("smoke", FIRST))
    stage.progress("programs")(3, 10)
    told = store.read_progress(stage.folder)
    assert (told["what"], told["done"], told["total"]) == ("programs", 3, 10)
    assert "programs:  30%" in store.meter(told) and "3/10 [00:" in store.meter(told)
    stage.finish(counts={})
    assert store.read_progress(stage.folder) is None


def test_processes_of_another_run_are_left_alone():
    environment = os.environ | {kernel.MARKER: "another"}
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, env=environment)
    assert kernel.end_processes("this one") == 0 and other.poll() is None
    assert kernel.end_processes("another") == 1 and not alive(other.pid)


# --- everything --------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_smoke_runs_side_by_side_give_identical_records_and_a_third_has_nothing_to_do(
    tmp_path, monkeypatch
):
    command = [sys.executable, "-m", "rrtf", "run", "--profile", "smoke"]
    homes = [tmp_path / "first", tmp_path / "second"]
    # the second makes no variants: that they are the same every time, test_quantize compares sooner
    fewer = [[], ["--set", 'quantize.variants=["full"]']]
    here = {"cwd": config.home(), "stdout": subprocess.DEVNULL}
    runs = [
        subprocess.Popen(command + less, env=os.environ | {"RRTF_HOME": str(home)}, **here)
        for home, less in zip(homes, fewer, strict=True)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    again = subprocess.run(
        command, env=os.environ | {"RRTF_HOME": str(homes[0])}, capture_output=True, text=True,
        cwd=config.home(),
    )  # fmt: skip
    assert not again.returncode and again.stdout.count("up to date") == len(config.STAGES) + len(
        config.CLOSING
    )
    found = []
    for home in homes:
        monkeypatch.setenv("RRTF_HOME", str(home))
        stages = config.STAGES + config.CLOSING
        index = (config.report_dir("smoke") / "index.html").read_text()
        assert index.count('<td class="n">') == len(stages), "all ran"
        manifests = {stage: store.manifest("smoke", stage) for stage in stages}
        del manifests["08_quantize"], manifests["appendix_paper_audit"]  # which reads 08
        found.append({s: (m["counts"], m["inputs"], m["outputs"]) for s, m in manifests.items()})
    assert found[0] == found[1]


# --- what is missing is said before anything is spent --------------------------------------------


def missing(profile: str, stages=config.STAGES, **overrides) -> dict[str, str]:
    """What -> why, of all that is missing."""
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    found = verb.needs(profile, stages, changed)
    return {f"{one.what} {one.needed}": one.found for one in found if one.there is False}


def nowhere(*_, **__):
    raise OSError("not in the cache")


def test_the_small_world_needs_nothing_that_is_not_here_and_loads_no_torch():
    program = (
        "import sys; from rrtf import config; from rrtf.cli import run\n"
        "for name in ('nano', 'smoke'):\n"
        "    assert all(n.there is not False for n in run.needs(name, config.STAGES, {}))\n"
        "assert 'torch' not in sys.modules"
    )
    assert not subprocess.run([sys.executable, "-c", program], cwd=config.home()).returncode


def test_all_that_a_profile_lacks_is_named_at_once_with_what_helps(monkeypatch):
    monkeypatch.setenv("RRTF_DATA", "/nowhere")
    monkeypatch.setattr(catalogue, "_in_hub", lambda *_: ())
    monkeypatch.setattr("huggingface_hub.snapshot_download", nowhere)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    found = missing("paper", shared__student="bigcode/starcoder")
    assert "no such file" in found["problems data/code_alpaca_evolved.jsonl"]
    assert "--set shared.teacher=" in found["teacher at least one"]
    assert "hf download bigcode/starcoder" in found["model bigcode/starcoder"]
    assert "/nowhere" in found["benchmark humaneval"]
    assert "none, and" in found["GPUs 6 x h100 of 80 GB"]
    assert {"memory of a step 297.7 GB", "disk 846 GB"} <= found.keys()
    early = missing("paper", config.STAGES[:3])
    assert set(early) == {"problems data/code_alpaca_evolved.jsonl"}, "others only report"


def test_problems_in_any_form_that_is_graded_begin_the_story_and_a_wrong_line_does_not(tmp_path):
    row = {
        "text": "Double it.",
        "code": "def f(x): return 2 * x",
        "test_list": ["assert f(1) == 2"],
    }
    path = tmp_path / "mine.jsonl"
    rows = [{"id": n, **row} for n in range(60)]
    store.write_bytes(path, "".join(json.dumps(one) + "\n" for one in rows).encode())
    (need,) = verb.needs("smoke", ["01_evolve"], {"shared.problems": str(path)})
    assert need.there and need.found == "60 problems; 60 tasks read as assertions"
    stage = SimpleNamespace(
        settings={"engine": "nano", "problems": str(path), "seed": 1}, data=Path
    )
    world = evolve.open_world(stage, n_seeds=1, workers=1)
    assert sum(len(world[name]) for name in ("train", "validation", "test")) == 60
    assert all("Double it." in problem.prompt for problem in world["test"])
    few = json.dumps(rows[0]).encode() + b"\n"
    for wrong, why in ((b'{"id": 1}\n', f"{path}:1"), (few, "1 problems are too few")):
        store.write_bytes(path, wrong)
        (told,) = missing("smoke", ["01_evolve"], shared__problems=str(path)).values()
        assert why in told


def test_gpus_are_held_against_the_plan(monkeypatch):
    card = SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=80 * 2**30)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    small = {"shared__student": "nano-student", "shared__teacher": ["nano-teacher-slips"]}
    few = {"train__updates": 4, "evaluate__benchmarks": ["test"]}
    assert not missing("gpu24", **small, **few)
    assert "1 x h100 of 86 GB, of which" in missing("paper")["GPUs 6 x h100 of 80 GB"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    assert not any(name.startswith(("GPUs", "training")) for name in missing("paper"))
    alone = missing("paper", train__processes_per_run=1)
    assert "torchrun" in next(told for name, told in alone.items() if name.startswith("training"))


@pytest.mark.parametrize(
    ("spelled", "there", "said"),
    [
        ("auto", True, "runs here"),
        ("warp", False, "unknown: expected one of auto"),
        ("ctranslate2@http://x", False, "runs here, at no address"),
        ("vllm", False, "`vllm serve MODEL --port 8000`"),
        ("openai@ftp://x", False, "expected an address like"),
        ("openai@http://127.0.0.1:9/v1", False, "refused"),
        ("openai@https://api.example.com/v1", False, "$OPENAI_API_KEY is not set"),
        ("vllm@http://gpu7:8000/v1", True, "$VLLM_API_KEY is not set; the address is not tried"),
        ("replay@/nowhere", False, "no such folder"),
    ],
)
def test_an_engine_is_looked_for_where_it_is_said_to_be(monkeypatch, spelled, there, said):
    for name in ("OPENAI_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    found = verb._engine(spelled)
    assert found.there is there and said in found.found


def test_a_model_without_all_its_files_is_missing_by_their_names(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert verb.folder_of(str(tmp_path))[1] == "without *.safetensors, a tokenizer"
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "a.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    parts = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    store.write_json(tmp_path / "model.safetensors.index.json", parts)
    told = verb.folder_of(str(tmp_path))[1]
    assert told == "without b.safetensors, a.safetensors (a pointer of git-lfs)"
    assert verb.folder_of("nano-nobody")[1].endswith("'nano-nobody' is not there")
    assert verb.folder_of("some/where/else")[1] == "some/where/else: no such folder"


def test_teachers_and_contenders_that_chat_need_a_template_and_servers_bring_theirs():
    chat = {"shared__teacher": ["nano-teacher-slips", "gpt"],
            "shared__teacher_engine": ["", "openai@http://far:1/v1"],
            "shared__teacher_prompt_format": "chat"}  # fmt: skip
    told = "none: a base model?"
    assert missing("nano", **chat) == {"chat template nano-teacher-slips": told}
    own = missing("nano", evaluate__own_formats=["base=chat"])
    assert own == {"chat template nano-student": told}


def test_a_run_refuses_with_what_the_check_says_and_spends_nothing(place):
    for more in ([], ["--check"]):
        process = command(place, "run", "--profile", "smoke", "--set", "shared.teacher=", *more)
        stdout, stderr = process.communicate(timeout=180)
        assert process.returncode == 1 and "Traceback" not in stderr
        assert "none is named" in stdout and "1 of" in stderr and "nothing was run" in stderr
    assert not (place / "data").exists()


def test_what_the_caller_names_is_shared_and_files_absolutely_because_a_notebook_runs_elsewhere(
    tmp_path, monkeypatch, add_problem
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    values = pipeline.settings({"shared.teacher": ["mine", "nano-student"]}, None, None)
    assert values == {"shared.teacher": [str(tmp_path / "mine"), "nano-student"]}
    store.write(tmp_path / "mine.jsonl", [add_problem])
    values = pipeline.settings({}, "mine.jsonl", "some/model")
    path = str(tmp_path / "mine.jsonl")
    assert values == {"shared.problems": path, "shared.student": "some/model"}
