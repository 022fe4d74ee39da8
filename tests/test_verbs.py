"""What every verb says and writes, byte for byte: `python -m rrtf VERB` before and after a change.

`REGOLDEN=1 pytest tests/test_verbs.py` writes tests/golden anew; read the diff before it is
committed. Nothing of the package is imported here, so that nothing in it is bound to its place.
"""

import hashlib
import io
import json
import os
import platform
import re
import runpy
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden"
STUDENT = ROOT / "data" / "nano" / "models" / "student"
SEEDS = Path(__file__).parent / "data" / "nano_seeds.jsonl"
VERBS = (
    "run", "evolve", "audit", "sample", "grade", "rank", "train", "evaluate", "quantize", "plan",
)  # fmt: skip
WIDTH = "100"
LONGEST = 9000  # characters of a file that are kept as they are; of a longer one its hash

ADD = {
    "task_id": "toy/add",
    "prompt": 'def add(a, b):\n    """Return the sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"
    "    assert candidate(2, 2) == 4\n    assert candidate(-1, 1) == 0\n",
}
NEG = {
    "task_id": "toy/neg",
    "prompt": 'def neg(a):\n    """Negate."""\n',
    "entry_point": "neg",
    "canonical_solution": "    return -a\n",
    "test": "def check(candidate):\n    assert candidate(1) == -1\n    assert candidate(0) == 0\n",
}
LAST = {
    "task_id": "toy/last",
    "prompt": 'def last(words):\n    """Return the last word, or None."""\n',
    "entry_point": "last",
    "canonical_solution": "    return words[-1] if words else None\n",
    "test": "def check(candidate):\n    assert candidate(['a', 'b']) == 'b'\n"
    "    assert candidate([]) is None\n",
}
# task, then the completions of the teacher and of two students
ANSWERS = {
    "toy/add": ["    return a + b\n", "    return a * b\n", "    return (a + b\n"],
    "toy/neg": ["    return 0 - a\n", "    return a\n", "    return -a\n"],
    "toy/last": ["    return words[-1]\n", "    return words[0]\n", "    return None\n"],
}
SOURCES = ("teacher", "student", "student")
LEAKY = [
    {"instruction": "Name a colour.", "input": "", "output": "blue"},
    {"instruction": "Write this function.", "input": "", "output": "LEAK"},
    {"instruction": "Write a poem about the sea.", "input": "short", "output": "Waves."},
]
ROWS = [
    {"instruction": text, "input": "", "output": "def total(numbers):\n    return sum(numbers)\n"}
    for text in (
        "Return the sum of a list of whole numbers.",
        "Add up the prices of everything in a shopping basket.",
        "Compute what one team scored from its points per game.",
    )
]


@dataclass(frozen=True)
class Done:
    """How a verb ended, what it wrote to standard output and to standard error."""

    code: int
    out: str
    err: str


def rrtf(*arguments: object, stdin: str = "") -> Done:
    """`python -m rrtf` with these arguments, inside this process: starting one takes seconds."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    before = sys.argv, sys.stdin, signal.getsignal(signal.SIGTERM)
    sys.argv = ["rrtf", *map(str, arguments)]
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            runpy.run_module("rrtf", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv, sys.stdin = before[:2]
        signal.signal(signal.SIGTERM, before[2])
    return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """What the verbs cache, shared by the tests of this file and kept from everything else."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def place(tmp_path, cache, monkeypatch) -> Path:
    """The folder the verbs run in, with the small files that they are given."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("COLUMNS", WIDTH), ("RRTF_HOME", str(cache)), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    for name in ("RRTF_DATA", "FORCE_COLOR", "PY_COLORS", "TERMINAL_WIDTH", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    lines("problems.jsonl", [ADD, NEG, LAST])
    answers = [
        {"task_id": task, "source": source, "completion": text}
        for task, texts in ANSWERS.items()
        for source, text in zip(SOURCES, texts, strict=True)
    ]
    lines("responses.jsonl", answers)
    plain = [{k: row[k] for k in ("task_id", "completion")} for row in answers]
    lines("samples.jsonl", plain)
    lines("first.jsonl", plain[::3])
    lines("second.jsonl", plain[2::3])
    lines("rows.jsonl", ROWS)
    (tmp_path / "seeds.jsonl").write_bytes(SEEDS.read_bytes())
    (tmp_path / "student").symlink_to(STUDENT)
    return tmp_path


def lines(name: str, rows: list) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# What differs between equal runs


def settled(text: str, place: Path) -> str:
    """`text` without times, paths, ports, colours, and how many cores there are."""
    home = os.environ["RRTF_HOME"]
    for old, new in ((str(place), "HERE"), (home, "HOME"), (str(ROOT), "ROOT")):
        text = text.replace(old, new)
    for pattern, new in (
        (r"\x1b\[[0-9;]*m|\r", ""),
        (r"(?m) +$", ""),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"\bin \d+\.\d s\b", "in N s"),
        (r"(?m)^(seconds +)[\d.]+$", r"\1N"),
        (r"\d:\d\d:\d\d left", "N left"),
        (r"(done in|took) [\d min]+ s", r"\1 N s"),
        (r'("(?:seconds|device)": )("[^"\n]*"|[\d.]+)', r"\1N"),
        (r'("(?:source|manifest|look)": )"[0-9a-f]{32,64}"', r"\1N"),
        (r'("(?:commit|date)": )"[^"\n]*"', r"\1N"),
        (r'("versions": )\{[^}]*\}', r"\1N"),
        (r'("nll": \d+\.\d{4})\d+', r"\1"),
        (r"-?\d+\.\d{10,}", lambda found: f"{float(found[0]):.9f}"),  # as far as libm agrees
        (r"(?ms)^variant +ms/token.*?\n\n.*?\n(?=\d+ variants)", "TIMES\n"),
        (r"\b(landlock\+seccomp|namespaces)(?=[;\",\n])", "ISOLATION"),
        (r'("(?:verdicts|every_eval_ever).jsonl": )"[0-9a-f]{64}"', r"\1N"),  # name the isolation
        (r'("(?:transformers_version|rrtf|version)": )"[^"]*"', r"\1N"),
        (r"((?:[Ll]oss|update|last) +)(\d+\.\d\d)\d\d", r"\1\2"),
        (r"(?m)^\S+ +[\d min]+ s · cell.*\n", ""),  # of a stage that takes long here
    ):
        text = re.sub(pattern, new, text)
    return text


def written(before: set[Path], place: Path) -> str:
    """The files that a verb made, but for what it keeps to go on from and for logs."""
    kept = re.compile(r"(^|/)(\.|logs/|timing\.json$|stderr\.log$)|(shards|replies)/")
    told = []
    for path in sorted(set(files(place)) - before):
        name = path.relative_to(place).as_posix()
        if not kept.search(name):
            told.append(f"--- {name}: {content(path, place)}")
    return "".join(told)


def files(place: Path) -> list[Path]:
    return [p for p in place.rglob("*") if p.is_file() and not p.is_relative_to(place / "student")]


def content(path: Path, place: Path) -> str:
    """The text of a file, the hash of a long one; of weights only that they are there."""
    if path.suffix in (".safetensors", ".bin"):
        return "weights\n"
    text = path.read_text(encoding="utf-8")
    if path.name == "training.json":
        facts = json.loads(text) | {"steps": "see train_steps.json"}
        text = json.dumps(facts, indent=1) + "\n"
    text = settled(text, place)
    if len(text) > LONGEST:
        return f"sha256 {hashlib.sha256(text.encode()).hexdigest()}\n"
    return f"\n{text}" + "\n" * (not text.endswith("\n"))


def check(name: str, text: str) -> None:
    """`text` is what tests/golden/NAME holds, or becomes it."""
    path = GOLDEN / name
    if os.environ.get("REGOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path}: REGOLDEN=1 takes the new text"


def golden(name: str, place: Path, *commands: str, stdin: str = "") -> None:
    """Runs the commands one after the other and compares all that came of them."""
    told, before = "", set(files(place))
    for command in commands:
        done = rrtf(*command.split(), stdin=stdin)
        told += f"$ rrtf {settled(command, place)}\nexit {done.code}\n"
        told += f"--- stdout\n{settled(done.out, place)}--- stderr\n{settled(done.err, place)}"
    check(f"{name}.txt", told + written(before, place))


# Help


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_what_it_was(verb, place):
    done = rrtf(*([verb] if verb else []), "--help")
    assert (done.code, done.err) == (0, "")
    check(f"help/{verb or 'rrtf'}.txt", settled(done.out, place))


# What comes out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plan", "--set train.precision=float32 --set quantize.n_tasks=100 --out plan.json"),
        ("plan-device", "--profile paper --device a100 --gpus 8 --mfu 0.4 --prompts 1000"),
        ("plan-json", "--profile smoke --set train.precision=bfloat16 --out -"),
    ],
)
def test_plan(name, options, place):
    golden(name, place, f"plan {options}")


def test_grade(place):
    """All outcomes by reason, verdicts by line, and lines of another form from a pipe."""
    command = "grade problems.jsonl samples.jsonl --k 1,2,3 --out verdicts.jsonl --workers 1"
    golden("grade", place, command, "grade problems.jsonl samples.jsonl --workers 1 --flaky")
    piped = '{"task_id": "toy/add", "code": "def add(a, b):\\n    return b + a"}\n'
    how = "--rename code=solution --allow-missing --out - --workers 1"
    golden("grade-piped", place, f"grade problems.jsonl - {how}", stdin=piped)


def test_rank(place):
    """Groups, pairs for other libraries, and verdicts that `grade` wrote, under other rules."""
    start = "rank problems.jsonl responses.jsonl --teacher teacher --workers 1"
    more = "--trust-verdicts --verdicts verdicts.jsonl --pairing all --filter must_pass --seed 3"
    golden(
        "rank",
        place,
        f"{start} --out groups.jsonl",
        f"{start} --pairs --out pairs.jsonl --filter none --prompt-format wizardcoder",
        "grade problems.jsonl responses.jsonl --out verdicts.jsonl --workers 1",
        f"{start} --out all.jsonl {more} --set rank.tie_break=0.25 --min-strength 0.1",
    )


def test_evaluate(place):
    """A board of two files of samples, kept in a folder; then of a model as well."""
    files = "a=first.jsonl b=second.jsonl"
    golden(
        "evaluate",
        place,
        f"evaluate problems.jsonl {files} --workers 1 --margin 0.1 --k 1 --out board",
    )
    model = "--model m=student --max-new-tokens 24 --engine transformers"
    golden("evaluate-model", place, f"evaluate problems.jsonl a=first.jsonl {model} --workers 1")


def test_sample(place):
    """The student's answers, greedy and drawn, as `grade` reads them."""
    start = "sample seeds.jsonl --model student --workers 1 --max-new-tokens 48"
    drawn = "--n 2 --temperature 0.7 --temperature 1.2 --top-p 0.9 --seed 5 --engine transformers"
    golden(
        "sample",
        place,
        f"{start} --out greedy.jsonl --engine transformers",
        f"{start} {drawn} --out drawn.jsonl",
    )


def test_train(place):
    """From ranked groups to a folder of a model; the rows of its updates are compared apart."""
    ranked = "rank problems.jsonl responses.jsonl --teacher teacher --workers 1 --filter none"
    assert rrtf(*f"{ranked} --out groups.jsonl".split()).code == 0
    how = "--precision float32 --save-dtype float32 --threads 1 --groups-per-batch 2"
    start = f"train groups.jsonl --model student --objective rrtf {how}"
    golden(
        "train",
        place,
        f"{start} --updates 2 --out out",
        f"{start} --updates 2 --out out",
        f"{start} --updates 2 --out out --seed 1 --overwrite --checkpoint-every 1",
        f"{start.replace('rrtf', 'dpo')} --epochs 1 --out dpo --set train.beta=0.2",
    )


def test_evolve_without_a_model(place):
    golden(
        "evolve",
        place,
        "evolve seeds.jsonl --rounds 2 --out evolved.jsonl --workers 1",
        "evolve seeds.jsonl --weights 0,0,1,0,0 --seed 3 --workers 1",
    )


class Teacher(BaseHTTPRequestHandler):
    """An endpoint whose replies are written down, one for each kind of request."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][-1]["content"]
        code = "def total(numbers):\n    return sum(n for n in numbers if n >= 0 or n % 2 == 0)\n"
        reply = f"Here it is:\n\n```python\n{code}```\n"
        if "<<<" in asked:
            task = re.search(r"<<<\n(.*)\n>>>", asked, re.DOTALL)[1]
            reply = f"{task} Numbers that are negative and odd must be left out of the result."
        elif "different inputs" in asked:
            reply = "[[1, 2, 3]]\n[[]]\n[[-1, -2, 5]]\n[[7]]\n[[0, 0, -3]]\n"
        choice = {"index": 0, "message": {"role": "assistant", "content": reply}}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        found = {"choices": [choice | {"finish_reason": "stop"}], "usage": usage}
        data = json.dumps(found | {"id": "1", "object": "chat.completion"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing on standard error."""


@pytest.fixture
def teacher():
    """The address of an endpoint with the scripted replies."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Teacher) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_evolve_by_a_model(place, teacher):
    """Rows, then problems with tests, through the real client."""
    start = f"evolve rows.jsonl --engine {teacher} --model m --workers 1"
    golden(
        "evolve-asked",
        place,
        f"{start} --rounds 2 --out rows-out.jsonl --dropped dropped.jsonl",
        f"{start} --rounds 1 --tests --out tested.jsonl --concurrency 2",
    )


@pytest.mark.slow
def test_audit(place):
    """A benchmark's task among the rows: found, removed, certified, shown; then also by running."""
    assert rrtf("audit", "rows.jsonl", "--benchmarks", "nano-validation").code == 0
    (tasks,) = Path(os.environ["RRTF_HOME"]).rglob("nano-validation-*.jsonl")
    task = json.loads(tasks.read_text().splitlines()[0])
    leak = task["prompt"] + task["canonical_solution"]
    lines("leaky.jsonl", [row | {"output": row["output"].replace("LEAK", leak)} for row in LEAKY])
    start = "audit leaky.jsonl --benchmarks nano-validation"
    golden(
        "audit",
        place,
        f"{start} --out found.jsonl --clean clean.jsonl --certificate paper.json --report p.html",
        f"{start} --fields instruction,output --execute --workers 1",
    )


@pytest.mark.slow
def test_quantize(place):
    """Folders of variants, and what they weigh."""
    start = "quantize --model student --workers 1 --out variants"
    golden("quantize", place, f"{start} --variant full --variant ctranslate2-int8")


@pytest.mark.slow
def test_quantize_measured(place):
    """The same with rates, tests and times; the times are whatever they are.

    In float32: what int8 answers depends on whether the processor adds products of bytes exactly.
    """
    how = "--problems seeds.jsonl --n 2 --max-new-tokens 64 --workers 1 --out measured"
    what = f"quantize --model student --variant ctranslate2-float32 {how}"
    golden("quantize-measured", place, what)


@pytest.mark.slow
def test_run(place):
    """One stage, which is then up to date."""
    command = "run --profile smoke --only 01 --set evolve.workers=1"
    golden("run", place, command, command)
    home = Path(os.environ["RRTF_HOME"])
    check("run-files.txt", written(set(), home / "data" / "runs" / "smoke" / "01_evolve"))


# What is refused

WRONG = (
    ("", 2, "COMMAND [ARGS]"),
    ("nothing", 2, "No such command 'nothing'"),
    ("run --profile none", 2, "unknown profile 'none': expected one of nano, smoke"),
    ("run --only 99", 2, "unknown stage '99': expected one of 00_rrtf_by_hand"),
    ("run --from 03 --only 03", 2, "--from and --only"),
    ("run --from ablation", 2, "--from ablation: an appendix is run by --only ablation"),
    ("run --set train.update=3", 2, "'train.update'; did you mean train.updates"),
    ("run --set train.updates=many", 2, "train.updates='many': expected int"),
    ("run --set updates", 2, "--set 'updates': expected stage.key=value"),
    ("run --problems absent.jsonl", 2, "absent.jsonl: no such file"),
    ("run --problems empty.jsonl", 2, "empty.jsonl: no problems"),
    ("evolve absent.jsonl", 2, "absent.jsonl"),
    ("evolve problems.jsonl", 2, "problems.jsonl: only nano problems (with a spec)"),
    ("evolve rows.jsonl", 2, "rows.jsonl: only nano problems (with a spec)", "--engine URL"),
    ("evolve seeds.jsonl --weights 1,2", 2, "--weights '1,2': expected 5 numbers"),
    ("evolve seeds.jsonl --weights 0,0,0,0,0", 2, "--weights '0,0,0,0,0': all are 0"),
    ("evolve seeds.jsonl --out seeds.jsonl", 2, "--out seeds.jsonl: is one of the inputs"),
    ("evolve seeds.jsonl --rounds -1", 2, "Invalid value for '--rounds'"),
    ("evolve rows.jsonl URL", 2, "unexpected extra argument"),
    ("evolve odd.jsonl --engine URL --model m", 2, "odd.jsonl:2: not a JSON line"),
    ("evolve code.jsonl --engine URL --model m", 2, "code.jsonl:1: no field with a task's"),
    ("evolve rows.jsonl --engine URL --model m --out x.txt", 2, "--out x.txt", ".jsonl"),
    ("evolve rows.jsonl --engine URL --model m --rename a=b", 2, "--rename", "instruction"),
    ("evolve rows.jsonl --engine URL --model m --rename a", 2, "--rename", "THEIRS=OURS"),
    ("evolve rows.jsonl --engine URL --model m --out o.jsonl --dropped o.jsonl", 2, "is --out too"),
    ("evolve rows.jsonl --engine URL --model m --after-failure no", 2, "--after-failure 'no'"),
    ("evolve rows.jsonl --engine URL --model m --tests --agreement 0.5", 2, "--agreement 0.5"),
    ("evolve rows.jsonl --engine URL --model m --attempts 1", 1, "127.0.0.1", "goes on"),
    ("audit rows.jsonl --benchmarks humanevil", 2, "unknown benchmark 'humanevil'"),
    ("audit rows.jsonl --benchmarks ,", 2, "--benchmarks ','", "expected names"),
    ("audit rows.jsonl --benchmarks leetcode", 2, "leetcode"),
    ("audit rows.jsonl --benchmarks nano-validation --fields title", 2, "rows.jsonl", "'title'"),
    ("audit rows.jsonl --out here.txt", 2, "--out here.txt: expected a name that ends in .jsonl"),
    ("audit rows.jsonl --clean rows.jsonl", 2, "--clean rows.jsonl: is one of the inputs"),
    ("audit rows.jsonl --report rows.jsonl", 2, "--report rows.jsonl: is one of the inputs"),
    ("audit empty.jsonl --benchmarks nano-validation", 2, "empty.jsonl: no rows in it"),
    ("audit list.jsonl --benchmarks nano-validation", 2, "list.jsonl:1: expected a JSON object"),
    ("sample problems.jsonl", 2, "Missing option '--model'"),
    ("sample problems.jsonl --model none/at/all", 2, "none/at/all: no such model folder"),
    ("sample problems.jsonl --model nano-none", 2, "the shipped model 'nano-none'"),
    ("sample absent.jsonl --model student", 2, "absent.jsonl: no such file"),
    ("sample problems.jsonl --model student --temperature -1", 2, "temperature = -1.0"),
    ("sample problems.jsonl --model student --n 2", 2, "greedy answers are all the same"),
    ("sample problems.jsonl --model student --top-p 0", 2, "top_p = 0.0"),
    ("sample problems.jsonl --model student --engine warp", 2, "unknown engine 'warp'"),
    ("sample problems.jsonl --model student --cluster slurm", 2, "--cluster 'slurm'", "ray"),
    ("sample problems.jsonl --model student --prompt-format prose", 2, "format 'prose'", "chat"),
    ("sample problems.jsonl --model student --prompt-format chat", 2, "no chat template"),
    ("sample problems.jsonl --model student --since 2022-07-01", 2, "--since 2022-07-01"),
    ("sample problems.jsonl --model student --out problems.jsonl", 2, "is one of the inputs"),
    ("grade problems.jsonl absent.jsonl", 2, "absent.jsonl: no such file"),
    ("grade absent.jsonl samples.jsonl", 2, "absent.jsonl: no such file"),
    ("grade - -", 2, "only one of the two can be standard input"),
    ("grade problems.jsonl first.jsonl --k 0", 2, "--k '0'"),
    ("grade problems.jsonl first.jsonl --k 5", 2, "--k 5", "toy/add"),
    ("grade problems.jsonl first.jsonl --extract magic", 2, "--extract 'magic'", "fenced"),
    ("grade problems.jsonl first.jsonl --rename code", 2, "--rename 'code'", "THEIRS=OURS"),
    ("grade problems.jsonl first.jsonl --isolation none-such", 2, "'none-such'", "process"),
    ("grade problems.jsonl first.jsonl --cluster warp", 2, "--cluster 'warp'", "local"),
    ("grade problems.jsonl first.jsonl --workers -1", 2, "Invalid value for '--workers'"),
    ("grade problems.jsonl first.jsonl --by size", 2, "--by 'size'", "difficulty"),
    ("grade problems.jsonl first.jsonl --out first.jsonl", 2, "first.jsonl: is one of the inputs"),
    ("grade problems.jsonl first.jsonl --out no.txt", 2, "--out no.txt: expected a name"),
    ("grade problems.jsonl broken.jsonl", 2, "broken.jsonl:2: not a JSON line"),
    ("grade problems.jsonl stranger.jsonl", 2, "stranger.jsonl:4", "'toy/other'"),
    ("grade problems.jsonl twice.jsonl", 2, "twice.jsonl:2", "sample 0 of toy/add", "jsonl:1 too"),
    ("grade problems.jsonl mixed.jsonl", 2, "mixed.jsonl:2: no index", "mixed.jsonl:1"),
    ("grade problems.jsonl one.jsonl", 2, "one.jsonl", "toy/neg", "--allow-missing"),
    ("grade problems.jsonl code.jsonl", 2, "code.jsonl:1: no task_id (it has code)"),
    ("grade humanevil first.jsonl", 2, "humanevil: no such file", "humaneval"),
    ("grade kept first.jsonl", 2, "kept: a folder", "humaneval"),
    ("grade problems.jsonl empty.jsonl", 2, "empty.jsonl: no samples"),
    ("grade problems.jsonl kept", 2, "kept: a folder; expected TASK/0.py"),
    ("grade problems.jsonl first.jsonl --by level", 2, "--by level", "problems.jsonl"),
    ("grade problems.jsonl first.jsonl --since 2022-07-01", 2, "--since 2022-07-01", "problems"),
    ("grade problems.jsonl first.jsonl --out folder.jsonl", 2, "folder.jsonl: is a folder"),
    ("grade problems.jsonl first.jsonl --out code.jsonl/v.jsonl", 2, "cannot be written to"),
    ("grade problems.jsonl first.jsonl --cpu-seconds inf", 2, "'--cpu-seconds'"),
    ("grade problems.jsonl solved.jsonl --extract fenced", 2, "solved.jsonl:1", "fenced"),
    ("rank problems.jsonl responses.jsonl --teacher teacher --set rank.tie_break=5", 2, "5.0"),
    ("rank problems.jsonl responses.jsonl", 2, "a source 'teacher', not named as --teacher"),
    ("rank problems.jsonl responses.jsonl --teacher nobody", 2, "'nobody'", "student", "teacher"),
    ("rank problems.jsonl samples.jsonl --teacher teacher", 2, "samples.jsonl:1", "source"),
    ("rank problems.jsonl responses.jsonl --teacher teacher --pairing two", 2, "pairing 'two'"),
    ("rank problems.jsonl responses.jsonl --teacher teacher --filter some", 2, "filter 'some'"),
    ("rank problems.jsonl responses.jsonl --teacher teacher --min-strength 2", 2, "min-strength"),
    ("rank problems.jsonl responses.jsonl --teacher teacher --set rank.no=1", 2, "'rank.no'"),
    ("rank problems.jsonl responses.jsonl --teacher t --verdicts first.jsonl", 2, "--trust-"),
    ("rank problems.jsonl responses.jsonl --teacher teacher --prompt-format prose", 2, "'prose'"),
    ("train absent.jsonl TRAIN", 2, "absent.jsonl: no such file"),
    ("train empty.jsonl TRAIN", 2, "empty.jsonl: no groups to train on"),
    ("train unscored.jsonl TRAIN", 2, "unscored.jsonl:2: RankedGroup without scores"),
    ("train uneven.jsonl TRAIN", 2, "uneven.jsonl:2: toy/neg: 2 responses but 1 scores"),
    ("train alone.jsonl TRAIN", 2, "alone.jsonl:2: toy/neg: one response", "--allow-single"),
    ("train groups.jsonl TRAIN --objective magic", 2, "'magic': expected one of OBJECTIVES"),
    ("train groups.jsonl TRAIN --precision int4", 2, "--precision 'int4'", "bfloat16"),
    ("train groups.jsonl TRAIN --optimizer sgd", 2, "--optimizer 'sgd'", "adafactor"),
    ("train groups.jsonl TRAIN --updates 2 --epochs 1", 2, "updates", "epochs"),
    ("train groups.jsonl TRAIN --set train.lr_sft=2", 2, "'train.lr_sft'", "train.KEY"),
    ("train groups.jsonl TRAIN --set train.margin=wide", 2, "train.margin='wide'", "float"),
    ("train groups.jsonl TRAIN --set train.pairs_of=none", 2, "--pairs-of 'none'", "teacher"),
    ("train groups.jsonl TRAIN --qlora", 2, "qlora", "lora_rank"),
    ("train groups.jsonl TRAIN --updates 1 --model none/at/all", 2, "none/at/all"),
    ("train groups.jsonl TRAIN --updates 1 --out kept", 2, "kept", "no training made it"),
    ("evaluate problems.jsonl", 2, "nothing to evaluate", "--model"),
    ("evaluate problems.jsonl a=absent.jsonl", 2, "absent.jsonl"),
    ("evaluate problems.jsonl a=first.jsonl a=second.jsonl", 2, "'a'", "first.jsonl", "second"),
    ("evaluate problems.jsonl a=first.jsonl --extract b=raw", 2, "--extract b=raw: no entry 'b'"),
    ("evaluate problems.jsonl a=first.jsonl --margin 2", 2, "Invalid value for '--margin'"),
    ("evaluate problems.jsonl a=first.jsonl --k 3", 2, "--k 3: no entry"),
    ("evaluate problems.jsonl a=one.jsonl", 2, "one.jsonl", "toy/neg", "--allow-missing"),
    ("evaluate problems.jsonl a=first.jsonl --out first.jsonl", 2, "first.jsonl: is a file"),
    ("evaluate problems.jsonl a=first.jsonl --flagged absent.jsonl", 2, "absent.jsonl"),
    ("evaluate problems.jsonl --model m=none/at/all", 2, "none/at/all"),
    ("evaluate problems.jsonl =x", 2, "'=x': expected NAME=FILE"),
    ("evaluate problems.jsonl - b=-", 2, "standard input"),
    ("evaluate problems.jsonl a=first.jsonl --extract best", 2, "--extract 'best'", "auto"),
    ("evaluate problems.jsonl a=first.jsonl --extract raw --extract auto", 2, "raw and auto"),
    ("evaluate problems.jsonl a=first.jsonl --rename b:x=y", 2, "--rename b:x=y", "entry 'b'"),
    ("evaluate problems.jsonl a=first.jsonl --temperature a=hot", 2, "--temperature hot"),
    ("quantize --model student", 2, "Missing option '--variant'"),
    ("quantize --model student --variant int3", 2, "unknown variant 'int3'", "ctranslate2-int8"),
    ("quantize --model student --variant full --variant full", 2, "'full'", "twice"),
    ("quantize --model student --variant gptq-int4", 2, "gptq-int4 needs --calibration FILE"),
    ("quantize --model none/at/all --variant full", 2, "none/at/all"),
    ("quantize --model student --variant full --problems absent.jsonl", 2, "absent.jsonl"),
    ("quantize --model student --variant full --out first.jsonl", 2, "first.jsonl: is a file"),
    ("quantize --model student --variant gptq-int8 --calibration code.jsonl", 2, "code.jsonl:1"),
    ("quantize --model student --variant gptq-int8 --calibration empty.jsonl", 2, "empty.jsonl"),
    ("plan --profile none", 2, "unknown profile 'none'"),
    ("plan --model none/at/all", 2, "none/at/all"),
    ("plan --device abacus", 2, "device 'abacus'", "a100"),
    ("plan --out plan.txt", 2, "--out plan.txt", ".json"),
    ("plan --set train.none=1", 2, "'train.none'"),
    ("plan --gpus -1", 2, "Invalid value for '--gpus'"),
    ("plan --set train.updates=many", 2, "train.updates='many'"),
    ("plan --set updates", 2, "'updates'", "stage.key=value"),
    ("plan --set shared.teacher=nano-other", 2, "'nano-other'"),
)  # fmt: skip
OBJECTIVES = (
    "sft", "best-of-n", "rrtf", "rrhf", "rrhf-as-shipped", "dpo", "dpo-sft", "simpo", "simpo-sft",
    "cpo-hinge",
    "pro",
)  # fmt: skip


@pytest.fixture
def mistakes(place) -> None:
    """Beside the good files those that something is wrong with."""
    Path("empty.jsonl").write_text("")
    Path("broken.jsonl").write_text('{"task_id": "toy/add", "completion": "x"}\n{"task_id"\n')
    Path("odd.jsonl").write_text('{"instruction": "Add."}\n{"instruction"\n')
    lines("list.jsonl", [[1, 2]])
    lines("code.jsonl", [{"code": "x = 1"}])
    answers = [{"task_id": row["task_id"], "completion": "    pass\n"} for row in (ADD, NEG, LAST)]
    lines("one.jsonl", answers[:1])
    lines("stranger.jsonl", [*answers, {"task_id": "toy/other", "completion": "    pass\n"}])
    lines("mixed.jsonl", [answers[0] | {"index": 0}, answers[1]])
    lines("twice.jsonl", [answers[0] | {"index": 0}] * 2)
    good = ranked("toy/add", "def add(a, b):", "    return a + b", "    return a * b")
    bad = ranked("toy/neg", "def neg(a):", "    return -a", "    return a")
    lines("groups.jsonl", [good, bad])
    lines("unscored.jsonl", [good, {k: v for k, v in bad.items() if k != "scores"}])
    lines("uneven.jsonl", [good, bad | {"scores": [1.0]}])
    lines("alone.jsonl", [good, {k: v[:1] if isinstance(v, list) else v for k, v in bad.items()}])
    lines("solved.jsonl", [{"task_id": "toy/add", "solution": "x"}])
    Path("folder.jsonl").mkdir()
    Path("kept").mkdir()
    Path("kept/thesis.tex").write_text("years")


def ranked(task: str, prompt: str, *answers: str) -> dict:
    """A ranked group: the first answer is the teacher's and passes, the others fail in turn."""
    outcomes = ["PASS", "FAILED_TESTS", "RUNTIME_ERROR", "COMPILE_ERROR"][: len(answers)]
    return {
        "task_id": task, "prompt": prompt, "responses": [f"\n{text}" for text in answers],
        "sources": ["teacher", *["student"] * (len(answers) - 1)], "outcomes": outcomes,
        "scores": [3.5, 2.0, 1.0, 0.0][: len(answers)], "sft_index": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("command", "code", "words"), [(c, n, w) for c, n, *w in WRONG])
@pytest.mark.usefixtures("mistakes")
def test_what_a_caller_gets_wrong_is_named(command, code, words):
    """The exit code and the words that name file, record or option; not the whole sentence."""
    parts = {"URL": ["http://127.0.0.1:9/v1"]}
    parts["TRAIN"] = ["--model", "student", "--out", "out"]
    if "--objective" not in command:
        parts["TRAIN"] += ["--objective", "rrtf"]
    given = [word for part in command.split() for word in parts.get(part, [part])]
    done = rrtf(*given)
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", done.out + done.err).split())
    expected = [word.replace("OBJECTIVES", ", ".join(OBJECTIVES)) for word in words]
    assert (done.code, [word for word in expected if word not in said]) == (code, []), said
    assert "Traceback" not in said


# The rows of a training

RUNS = {objective: f"--objective {objective}" for objective in OBJECTIVES} | {
    "rrtf, a mean over tokens": "--objective rrtf --set train.ft_reduction=mean",
    "rrtf, all pairs with a margin":
        "--objective rrtf --set train.pairs_of=all --set train.margin=0.1",
    "rrtf, weights": "--objective rrtf --set train.ft_weight=0.5 --set train.rank_weight=4.0",
    "rrtf, dropout": "--objective rrtf --set train.dropout=0.1 --set train.weight_decay=0.1",
    "rrtf, a few tokens at a time": "--objective rrtf --tokens-per-forward 60 --checkpointing",
    "rrhf, token sums": "--objective rrhf --set train.normalise=false",
    "simpo, beta": "--objective simpo --set train.beta=2.0 --optimizer adafactor",
}  # fmt: skip
ROWS_OF = GOLDEN / "train_steps.json"


def groups() -> list[dict]:
    """A dozen ranked groups: pairs, several students, ties, a teacher that is not the best."""
    told = [
        ("add", "a, b", "a + b", "a - b"),
        ("double", "a", "2 * a", "a + a + 1", "a *"),
        ("first", "words", "words[0]", "words[-1]", "word[0]", "words[0"),
        ("total", "numbers", "sum(numbers)", "len(numbers)"),
        ("longest", "words", "max(words, key=len)", "max(words)", "max(word)"),
        ("negate", "a", "-a", "a", "-b", "(-a"),
        ("even", "n", "n % 2 == 0", "n % 2 == 1"),
        ("ends", "text", "text[0] + text[-1]", "text[0]", "txt[0]"),
        ("square", "x", "x * x", "x ** 3", "y * y", "x *"),
        ("count", "text", "text.count('a')", "text.count('b')"),
        ("turned", "text", "text[::-1]", "text[1:]", "txt[::-1]"),
        ("nothing", "x", "None", "x"),
    ]
    found = [
        ranked(f"toy/{name}", f"def {name}({names}):", *(f"    return {text}" for text in texts))
        for name, names, *texts in told
    ]
    found[2] |= {"scores": [3.5, 2.0, 2.0, 0.0]}  # two of equal score
    found[5] |= {"scores": [2.5, 2.0, 2.0, 2.0], "outcomes": ["FAILED_TESTS"] * 4}
    found[8] |= {"scores": [1.5, 3.0, 3.0, 0.0]}  # students that are better than the teacher
    found[8] |= {"outcomes": ["RUNTIME_ERROR", "PASS", "PASS", "COMPILE_ERROR"]}
    found[9] |= {"scores": [2.0, 2.0]}  # nothing to tell apart
    return found


def processor() -> str:
    """What decides the last bits of a sum of floats."""
    import torch

    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = re.findall(r"(?m)^model name\s*: (.*)$", told) or [platform.processor()]
    return f"{names[0]}, {torch.backends.cpu.get_cpu_capability()}"


def test_every_objective_takes_the_steps_it_took(place):
    """Bit for bit on the processor that the rows were made on, to 1e-5 on any other."""
    lines("groups.jsonl", groups())
    how = "--precision float32 --save-dtype float32 --threads 1 --groups-per-batch 4"
    how += " --schedule linear0"
    start = f"train groups.jsonl --model student --updates 4 --learning-rate 3e-5 --seed 3 {how}"
    found = {}
    for number, (name, options) in enumerate(RUNS.items()):
        done = rrtf(*f"{start} {options} --out {number}".split())
        assert done.code == 0, (name, done.err)
        steps = json.loads(Path(f"{number}/training.json").read_text())["steps"]
        found[name] = [{k: v for k, v in step.items() if k != "run"} for step in steps]
    if os.environ.get("REGOLDEN"):
        made = {"processor": processor(), "rows": found}
        ROWS_OF.write_text(json.dumps(made, indent=1) + "\n")
    known = json.loads(ROWS_OF.read_text())
    if known["processor"] == processor():
        assert found == known["rows"]
    assert found.keys() == known["rows"].keys()
    for name, steps in known["rows"].items():
        for old, new in zip(steps, found[name], strict=True):
            silent = {key for key, value in old.items() if value is None}
            assert silent == {key for key, value in new.items() if value is None}, name
            for key in old.keys() - silent:
                assert new[key] == pytest.approx(old[key], rel=1e-5), (name, new["step"], key)


def test_the_command_itself_says_the_same_as_within_this_process(place):
    """One verb as a process of its own, so that the short cut taken above is known to be one."""
    command = ["grade", "problems.jsonl", "first.jsonl", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "rrtf", *command], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    here = rrtf(*command)
    assert done.returncode == here.code == 0
    assert settled(done.stdout, place) == settled(here.out, place)
    assert settled(done.stderr, place) == settled(here.err, place)
