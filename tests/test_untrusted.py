"""What a file says is data: it is never run outside the sandbox, by no reader and by no verb.

The places of the package that run code are listed here, each with its reason: a new one needs
one. Then strings that would leave a file if anything ran them stand in every field of every kind
of file, and everything that reads such files reads them.
"""

import ast
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rrtf import config, prompts, rank, store
from rrtf.__main__ import app
from rrtf.ablation import registration
from rrtf.audit import plants, rows
from rrtf.engines import endpoint
from rrtf.evaluate import grade, samples
from rrtf.evolve import offline, rules, seeds, testing
from rrtf.nano import corpus, evolution, grammar
from rrtf.paper import printed
from rrtf.records import Execution, Instruction, Problem, RankedGroup, Response

PACKAGE = Path(__file__).resolve().parent.parent / "rrtf"
HERE = "runs what is our own: "
PARSED = "is parsed and compiled, and run by nobody in this process: "
FENCED = "runs inside the sandbox: "
OURS = "starts a program of ours, which ends with its parent: "
# Calls that run code, load values that can run code, import by a name, or start a process.
RUNNING = {
    "audit/running.py: : in a text": FENCED + "the calls of a row's program",
    "audit/running.py: _marshalled: marshal.dumps": "written, and read inside the sandbox",
    "cli/options.py: command: import_module": HERE + "one of the ten verbs",
    "cli/train.py: _tracker: import_module": HERE + "wandb or trackio",
    "cluster.py: _Team.__init__: import_module": HERE + "the module of the work that is spread",
    "cluster.py: _Worker.begin: import_module": "the cluster is trusted as a whole",
    "cluster.py: pool: ProcessPoolExecutor": OURS + "`end_with_parent`",
    "nano/problems.py: run: compile": HERE + "texts of operations.toml, never from a user's file",
    "nano/problems.py: run: exec": HERE + "texts of operations.toml, never from a user's file",
    "quantize/gptq.py: ask: subprocess.run": OURS + "the lane asks for the signal itself",
    "quantize/jobs.py: Jobs._run: subprocess.Popen": OURS + "`end_with_parent`",
    "report/pipeline.py: _commit: subprocess.run": "git, which names the checkout's commit",
    "sandbox/court.py: _Court._fork: os.fork": FENCED + "a judge",
    "sandbox/instrument.py: _as_code: marshal.dumps": "written, and read inside the sandbox",
    "sandbox/instrument.py: compile_prompt: compile": PARSED + "a prompt, for the judge",
    "sandbox/instrument.py: instrument: compile": PARSED + "tests, for the judge",
    "sandbox/instrument.py: prepare: compile": PARSED + "tests, as a syntax tree only",
    "sandbox/joint.py: : in a text": FENCED + "the runner of the mode `joint`",
    "sandbox/joint.py: _runner: compile": PARSED + "tests, as a syntax tree only",
    "sandbox/judge.py: CodeCheck.__init__: marshal.loads": FENCED + "code from its caller",
    "sandbox/judge.py: CodeCheck.assertions.run: exec": FENCED + "the tests",
    "sandbox/judge.py: CodeCheck.assertions.run: import_module": FENCED + "asyncio",
    "sandbox/judge.py: CodeCheck.assertions: import_module": FENCED + "random",
    "sandbox/judge.py: _run_prompt: exec": FENCED + "the prompt",
    "sandbox/judge.py: _standing_for: import_module": FENCED + "names that tests lack",
    "sandbox/judge.py: preside: marshal.loads": FENCED + "a job from its caller",
    "sandbox/kernel.py: _unshare_as_root: os.fork": FENCED + "a helper that enters namespaces",
    "sandbox/kernel.py: bare_fork: _python.fork": FENCED + "a worker",
    "sandbox/kernel.py: enter_namespaces: os.fork": FENCED + "the first process of a namespace",
    "sandbox/lanes.py: Job.encode: marshal.dumps": "written, and read inside the sandbox",
    "sandbox/lanes.py: Lane._launch: subprocess.Popen": OURS + "a zygote, `die_with_parent`",
    "sandbox/nursery.py: _spawn: os.fork": FENCED + "a worker",
    "sandbox/wire.py: : __import__": HERE + "datetime",
    "sandbox/wire.py: plain: marshal.dumps": "written, for a worker",
    "sandbox/wire.py: _of.build: __import__": HERE + "modules of the closed set of values",
    "sandbox/worker.py: _Connection.member: __import__": FENCED + "enum",
    "sandbox/worker.py: _Connection.receive: marshal.loads": FENCED + "a request of its judge",
    "sandbox/worker.py: _Connection.placed: __import__": FENCED + "what the prompt names",
    "sandbox/worker.py: _run_whole: __import__": FENCED + "atexit",
    "sandbox/worker.py: _run_whole: exec": FENCED + "the program, as a whole",
    "sandbox/worker.py: _resolve_name: eval": FENCED + "the name of the function",
    "sandbox/worker.py: compile_program: compile": FENCED + "the program",
    "sandbox/worker.py: serve: exec": FENCED + "the program",
    "sandbox/zygote.py: _import_packages: __import__": FENCED + "packages that were named",
    "sandbox/zygote.py: main: __import__": FENCED + "modules of the sandbox",
    "step/sharding.py: torchrun: subprocess.Popen": OURS + "torchrun, of the verb `train`",
    "strength/examine.py: : in a text": FENCED + "the calls of a mutant",
    "strength/mutants.py: _bytecode: compile": PARSED + "a mutant, to see if it is another one",
}
BUILTIN = {"exec", "eval", "compile", "__import__"}
ANYWHERE = {
    "import_module", "find_module", "load_module", "exec_module", "spec_from_file_location",
    "ProcessPoolExecutor", "Process", "Pool", "fork", "forkpty", "system", "popen", "posix_spawn",
    "Template", "Environment", "from_string", "read_pickle",
    *(f"{kind}{ends}" for kind in ("exec", "spawn") for ends in ("l", "le", "lp", "v", "ve", "vp")),
}  # fmt: skip
MODULES = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy", "code",
    "codeop", "yaml", "jinja2", "subprocess", "pty", "imp", "xmlrpc",
}  # fmt: skip
OPTIONS = {"shell": True, "trust_remote_code": True, "allow_pickle": True, "weights_only": False}
IN_A_TEXT = re.compile(r"\b(?:exec|eval|compile|__import__|marshal\.loads|pickle\.loads)\(")


def running(path: Path) -> Iterator[str]:
    """`file: function: call` of everything in a file that runs code, loads it, or starts others."""

    def visit(node: ast.AST, where: str, modules: set[str]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            inner = f"{where}.{child.name}".strip(".") if isinstance(child, kinds) else where
            name = ast.unparse(child.func) if isinstance(child, ast.Call) else ""
            first, _, last = name.rpartition(".")
            builtin = last in BUILTIN and first in ("", "builtins")
            options = [k.arg for k in getattr(child, "keywords", ()) if _wrong(k)]
            torch = name == "torch.load" and "weights_only" not in {
                k.arg for k in getattr(child, "keywords", ())
            }
            if builtin or last in ANYWHERE or first in modules or torch:
                yield f"{path.relative_to(PACKAGE)}: {where}: {name}"
            yield from (f"{path.relative_to(PACKAGE)}: {where}: {one}=" for one in options)
            text = child.value if isinstance(child, ast.Constant) else ""
            if isinstance(text, str) and IN_A_TEXT.search(text):
                yield f"{path.relative_to(PACKAGE)}: {where}: in a text"
            yield from visit(child, inner, modules)

    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.partition(".")[0] in MODULES
    }
    yield from visit(tree, "", imported)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield f"{path.relative_to(PACKAGE)}: from {node.module}"
        if isinstance(node, ast.Import):
            renamed = {a.name for a in node.names if a.asname and a.name in MODULES}
            yield from (f"{path.relative_to(PACKAGE)}: {one} renamed" for one in renamed)


def _wrong(keyword: ast.keyword) -> bool:
    """Whether an option is given that lets a library run code, or is not written out."""
    value = keyword.value
    known = isinstance(value, ast.Constant) and value.value is not OPTIONS.get(keyword.arg)
    return keyword.arg in OPTIONS and not known


def test_every_place_that_runs_code_is_known_with_its_reason():
    found = {one for path in PACKAGE.rglob("*.py") for one in running(path)}
    assert not found - RUNNING.keys(), "new: give its reason, or do without"
    assert not RUNNING.keys() - found, "gone: take it off the list"


def test_a_new_place_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    seen = [
        "exec(x)", "builtins.eval(x)", "compile(x, y, z)", "importlib.import_module(x)",
        "import pickle; pickle.loads(x)", "from pickle import loads", "import marshal as m",
        "import runpy; runpy.run_path(x)", "import code; code.interact()", "torch.load(x)",
        "torch.load(x, weights_only=False)", "import yaml; yaml.load(x)", "os.system(x)",
        "import jinja2; jinja2.Template(x)", "import subprocess; subprocess.run(x, shell=True)",
        "f(trust_remote_code=flag)", "numpy.load(x, allow_pickle=True)", "TEXT = 'exec(x)'",
        "os.execv(x, y)", "multiprocessing.Process(target=f)", "from subprocess import Popen",
    ]  # fmt: skip
    for number, line in enumerate([*seen, "re.compile(x)", "model.eval()", "tree.compile(x)"]):
        (tmp_path / f"m{number}.py").write_text(f"def f(x):\n    {line}\n")
    quiet = [line for n, line in enumerate(seen) if not list(running(tmp_path / f"m{n}.py"))]
    assert not quiet
    fine = [path.name for path in tmp_path.glob("*.py") if not list(running(path))]
    assert len(fine) == 3


@pytest.mark.parametrize("path", sorted(PACKAGE.parent.glob("notebooks/*.ipynb")), ids=str)
def test_no_notebook_runs_what_it_reads(path):
    text = "\n".join(store.text(c) for c in store.cells(path) if c["cell_type"] == "code")
    calls = [ast.unparse(n.func) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
    assert not BUILTIN & set(calls) and not MODULES & {name.partition(".")[0] for name in calls}


# Strings that leave a file where they are evaluated, run, put into source or shell, or rendered.
TOUCH = "__import__('pathlib').Path({!r}).touch()"
FORMS = (
    "{code}", "x\nimport os\n{code}\n", "0 + ({code} or 0)", "'''\n{code}\n'''", '"""\n{code}\n"""',
    "'); {code}; ('", '"); {code}; ("', "ints: keep_above(k='3 + 0 * ({code} or 0)')",
    "ints: keep_above(k=3) > sort(x='{code}')", "@{code}\ndef f(x):\n    return x",
    "lambda x=({code}): x", "{{{{ ''.__class__.__mro__[1].__subclasses__() }}}}{{{{ {code} }}}}",
    "$({shell})", "`{shell}`", "; {shell} #", "| {shell}", "\n!{shell}\n", "%({shell})s",
    "!!python/object/apply:os.system ['{shell}']", "cos\nsystem\n(S'{shell}'\ntR.",
)  # fmt: skip


def hostile(marker: Path) -> list[str]:
    code = TOUCH.format(str(marker))
    return [form.format(code=code, shell=f"touch {marker}") for form in FORMS]


PROBLEM = {
    "task_id": "nano/0", "prompt": 'def f(xs):\n    """Keep."""\n', "entry_point": "f",
    "canonical_solution": "    return sorted(xs)\n", "spec": "ints: sort", "source": "nano",
    "test": "def check(candidate):\n    assert candidate([2, 1]) == [1, 2]\n", "parent_id": "",
    "operator": "", "difficulty": "easy", "created": "2024-01-01", "depth": 0,
}  # fmt: skip
SAMPLE = {"task_id": "nano/0", "completion": "    return sorted(xs)\n", "source": "student",
          "language": "python", "finish_reason": "stop"}  # fmt: skip
VERDICT = {"outcome": "PASS", "reason": "", "n_passed": 1, "n_tests": 1, "isolation": "process"}
ROW = {"instruction": "Sort the numbers of a list.", "input": "", "task_id": "r/1",
       "output": "def f(xs):\n    return sorted(xs)\n", "seed_id": "r/1", "parent_id": "",
       "operator": "", "generator": "m",
       "prompt_version": "1", "source": "r"}  # fmt: skip
GROUP = {"task_id": "nano/0", "prompt": "def f(xs):", "responses": ["a", "b"],
         "sources": ["t", "s"], "outcomes": ["PASS", "PASS"], "scores": [2.0, 1.0],
         "sft_index": 0}  # fmt: skip
REPLY = {"key": "k", "text": "t", "finish_reason": "stop", "prompt_tokens": 1,
         "completion_tokens": 1}  # fmt: skip
SHARD = {"task_id": "nano/0", "source": "s", "index": 0, "text": "", "program": ""} | VERDICT
CALLS = {"prompt": "Add.", "starter_code": "class Solution:", "solution": "def f(): pass",
         "inputs": ["1", "2"], "outputs": ["1", "2"], "task_id": "c"}  # fmt: skip
HIDDEN = {"question_content": "Add.", "metadata": '{"func_name": "f"}', "starter_code": "",
          "public_test_cases": '[{"input": "1", "output": "1", "testtype": "functional"}]',
          "private_test_cases": "[]"}  # fmt: skip
ASSERTED = {"question": "Add.", "test_list": ["assert f(1) == 1"], "test_setup_code": ""}
KODCODE = {"question": "Add.", "test": "from solution import f\nassert f(1) == 1", "solution": ""}
KINDS = {
    "calls": CALLS, "hidden": HIDDEN, "asserted": ASSERTED, "kodcode": KODCODE,
    "problems": PROBLEM, "samples": SAMPLE, "responses": SAMPLE | VERDICT, "rows": ROW,
    "groups": GROUP, "replies": REPLY, "shards": SHARD,
}  # fmt: skip


KNOWN = [store.from_row(PROBLEM, Problem)]
ACCEPTED = {"extract": "auto", "renamed": (), "allow_unknown": True}


def each(read: Callable, kind: type = Problem) -> Callable[[Path], list]:
    """A reader of files that does `read` with every record of this kind."""
    return lambda path: [read(record) for record in store.read(path, kind)]


def seed_rows(path: Path) -> list[Instruction]:
    return seeds.read_seeds(store.rows(str(path)), source="r")[0]


def replies(path: Path) -> list[endpoint.Reply]:
    return [endpoint.from_row(row, str(path))[1] for row in endpoint.read(path)]


READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "problems": (
        lambda path: grade.load_problems(str(path)),
        *(each(partial(prompts.format_prompt, style=style)) for style in ("starcoder", "pangu")),
        each(lambda p: [prompts.read(p, p.reference, how) for how in prompts.EXTRACTIONS]),
        each(rows.from_problem),
        each(grammar.family),
        each(lambda problem: corpus.restyled([problem], "blind_spots")),
        each(lambda problem: plants.planted([problem], seed=1)),
        each(lambda problem: [
            evolution.draft(problem, method, "e/1", 1) for method in evolution.METHODS
        ]),
        lambda path: offline.depths(all=store.read(path, Problem)),
        lambda path: seed_rows(path),
    ),
    **dict.fromkeys(
        ("calls", "hidden", "asserted", "kodcode"),
        (lambda path: grade.load_problems(str(path)),),
    ),
    "samples": (lambda path: samples.read(str(path), KNOWN, **ACCEPTED),),
    "responses": (
        lambda path: samples.read(str(path), KNOWN, verdicts=True, beside="", **ACCEPTED),
    ),
    "rows": (
        lambda path: rows.read(str(path), ()),
        lambda path: rules.sieve(seed_rows(path), threshold=rules.NEAR),
        lambda path: [rules.rewritten(row.instruction) for row in seed_rows(path)],
        lambda path: [seeds.as_problem(row) for row in seed_rows(path)],
    ),
    "groups": (
        lambda path: rank.pairs(
            store.read(path, RankedGroup), pairing="all", seed=1, teacher_filter="none"
        ),
    ),
    "replies": (
        lambda path: [rules.failed_answer(reply, "task") for reply in replies(path)],
        lambda path: [rules.rewritten(reply.text) for reply in replies(path)],
        lambda path: [testing.parse_inputs(reply.text, (1, 1)) for reply in replies(path)],
    ),
    "shards": (each(str, Execution), each(str, Response)),
}  # fmt: skip


def rows_with(kind: str, text: str) -> Iterator[tuple[str, dict]]:
    """(field, row) for every text of a row of this kind, with `text` in its place."""
    for name, value in KINDS[kind].items():
        if isinstance(value, str):
            yield name, KINDS[kind] | {name: text}
        if isinstance(value, list) and isinstance(value[0], str):
            yield name, KINDS[kind] | {name: [text, *value[1:]]}
    yield "a name", KINDS[kind] | {text: text}


@pytest.mark.parametrize("kind", KINDS)
def test_reading_a_file_runs_nothing_of_it(tmp_path, kind):
    marker, path = tmp_path / "marker", tmp_path / "rows.jsonl"
    store.write(path, [KINDS[kind]])
    assert all(read(path) is not None for read in READERS[kind])
    for text in hostile(marker):
        for field, row in rows_with(kind, text):
            store.write(path, [row])
            for read in READERS[kind]:
                with suppress(ValueError):
                    read(path)
            assert not marker.exists(), (field, text)


def test_reading_tables_of_settings_runs_nothing_of_them(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "settings.toml"
    tables = [place().read_text(encoding="utf-8") for place in (registration.place, printed.place)]
    for text in hostile(marker):
        for table in tables:
            lines = re.split(r'(?<== )"[^"\\\n]*"$', table, flags=re.MULTILINE)
            path.write_text(json.dumps(text).join(lines), encoding="utf-8")
            for read in (registration.read, printed.figures):
                with suppress(ValueError, KeyError, TypeError):
                    read(path)
        for setting in (f"evolve.engine={text}", f"evolve.engine={json.dumps(text)}"):
            with suppress(ValueError):
                config.resolve("nano", "evolve", dict([config.parse_override(setting)]))
        assert not marker.exists(), text


VERBS = {
    "problems": (["grade", "{path}", "{samples}"], ["evolve", "{path}"],
                 ["rank", "{path}", "{samples}", "--teacher", "t"]),
    "samples": (["grade", "{problems}", "{path}"], ["evaluate", "{problems}", "m={path}"],
                ["audit", "{path}", "--benchmarks", "nano-validation"]),
    "responses": (["rank", "{problems}", "{path}", "--teacher", "student"],),
    "rows": (["audit", "{path}", "--benchmarks", "nano-validation"], ["evolve", "{path}"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", VERBS)
def test_a_verb_that_is_given_a_file_runs_nothing_of_it_outside_the_sandbox(tmp_path, kind):
    marker, path = tmp_path / "marker", tmp_path / "rows.jsonl"
    names = {"path": path, "samples": tmp_path / "s.jsonl", "problems": tmp_path / "p.jsonl"}
    store.write(names["samples"], [SAMPLE, SAMPLE | {"source": "t"}])
    store.write(names["problems"], [PROBLEM])
    texts = hostile(marker)
    for number, (name, _) in enumerate(rows_with(kind, "")):
        text = texts[number % len(texts)] if name != "spec" else texts[7]
        row = next(row for field, row in rows_with(kind, text) if field == name)
        store.write(path, [row])
        for verb in VERBS[kind]:
            done = CliRunner().invoke(app, [word.format(**names) for word in verb])
            assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
            assert not marker.exists(), (name, text, verb)


def test_a_folder_of_a_data_set_brings_no_code(tmp_path):
    marker, folder = tmp_path / "marker", tmp_path / "set"
    store.write(folder / "rows.jsonl", [ROW])
    code = f"{TOUCH.format(str(marker))}\n"
    for name in ("set.py", "rows.py", "__init__.py", "dataset_builder.py"):
        (folder / name).write_text(code)
    (folder / "rows.pkl").write_bytes(hostile(marker)[-1].encode())
    with suppress(OSError):
        assert [row for _, row in store.rows(str(folder))] == [ROW]
    assert not marker.exists()


ESCAPES = (
    "{{ cycler.__init__.__globals__.os.system(%r) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__()[0].__init__.__globals__ }}{{ %r }}",
    "{%% for c in messages.__class__.__base__.__subclasses__() %%}{{ c(%r, shell=True) }}"
    "{%% endfor %%}",
)


@pytest.mark.parametrize("template", ["", *ESCAPES])
def test_a_model_and_its_template_bring_no_code(tiny_model, tmp_path, template):
    marker, folder = tmp_path / "marker", tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    for name in ("modeling_own.py", "configuration_own.py", "tokenization_own.py"):
        (folder / name).write_text(TOUCH.format(str(marker)))
    own = {"AutoConfig": "configuration_own.C", "AutoModelForCausalLM": "modeling_own.M"}
    changes = {
        "config.json": {"auto_map": own},
        "tokenizer_config.json": {
            "auto_map": {"AutoTokenizer": ["tokenization_own.T", None]},
            "chat_template": template % f"touch {marker}" if template else "{{ messages }}",
        },
    }
    for name, change in changes.items():
        store.write_json(folder / name, store.read_json(folder / name) | change)
    store.write(tmp_path / "p.jsonl", [PROBLEM])
    words = [
        "sample", f"{tmp_path}/p.jsonl", "--model", str(folder), "--out", f"{tmp_path}/o.jsonl",
    ]  # fmt: skip
    words += ["--prompt-format", "chat", "--engine", "transformers", "--max-new-tokens", "2"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code == 0) == (not template), done.output
    assert not marker.exists()
