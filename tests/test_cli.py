"""A line of `profiles.toml` is an option: its name, default, help, and what the verb is given."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import partial

import pytest
from conftest import rrtf
from rich.console import Console

from rrtf import __main__, benchmarks, config
from rrtf.cli import options, rank, sample, screen, train
from rrtf.loss import OBJECTIVES

LINE = "n_mutants = { nano = 8, smoke = 4, all = 12 }"
NEW = """half_life = { nano = 0.5, smoke = 0.25, all = 2.0, verb = 1.5 }  # X>=0: of a verdict. Ours
kinds = { all = [1, 2] }  # N,N: of verdicts
told = { verb = false }  # say it
"""


run = partial(rrtf, columns=120)


def shown_commands() -> list[list[str]]:
    """The words behind `rrtf` of every command in a block of the documents."""
    found = []
    for page in ("README.md", "rrtf/cli/README.md", ".github/CONTRIBUTING.md"):
        text = (config.home() / page).read_text(encoding="utf-8")
        for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if call := re.match(r"(?:torchrun .*|python )?(?:-m )?rrtf (?=[a-z])", line):
                    found.append(shlex.split(line[call.end() :], comments=True))
    return found


def test_every_command_that_the_documents_show_is_one_that_the_verb_takes():
    shown = shown_commands()
    assert {words[0] for words in shown} == set(__main__.VERBS)
    for verb, *words in shown:
        options.command(verb).make_context(verb, words)


EXAMPLES = {  # what each says in the end
    "grade.sh": "every answer in answers.html",
    "own_benchmark.sh": "1 teacher +83.3",
    "rank_to_trl.sh": "2 pairs of ['task_id', 'prompt', 'chosen'",
    "train.sh": "model: trained",
    "audit.sh": "4 rows: 3 stay, 1 go (1 by execution)",
    "reward.py": "0.0 FAILED_TESTS ValueError\n0.0 FAILED_TESTS wrong_value\n1.0 PASS",
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_is_ten_lines_and_does_what_it_says(tmp_path, name):
    folder = config.home() / "notebooks" / "examples"
    assert {path.name for path in folder.glob("*.[sp][hy]")} == set(EXAMPLES)
    assert sum(map(bool, (folder / name).read_text().splitlines())) <= 13
    there, commands = tmp_path / "examples", tmp_path / "bin"
    shutil.copytree(folder, there)
    commands.mkdir()
    for command, module in (("rrtf", "-m rrtf"), ("python", "")):
        (commands / command).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (commands / command).chmod(0o755)
    shell = "python" if name.endswith(".py") else "sh -e"
    found = subprocess.run(
        f"{shell} {name}", shell=True, cwd=there, capture_output=True, text=True, timeout=300,
        env=os.environ
        | {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(config.home())},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert EXAMPLES[name] in found.stdout


def said(result) -> str:
    return " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def given(monkeypatch):
    """What a verb is given by a command line, in the place of what it does."""

    def call(verb, *words):
        found = []
        monkeypatch.setattr(verb, verb.__name__.rpartition(".")[2], found.append)
        result = run(verb.__name__.rpartition(".")[2], *words)
        assert result.exit_code == 0, result.output
        return found[0], result.stderr

    return call


@pytest.fixture
def with_lines(monkeypatch):
    """A copy of the toml in which [rank] has three lines more."""
    text = config.profiles_text()
    assert text.count(LINE) == 1
    text = text.replace(LINE, NEW + LINE)
    monkeypatch.setattr(config, "profiles_text", lambda: text)
    monkeypatch.setattr(config, "_profiles", lambda: tomllib.loads(text))


RANK = ("p.jsonl", "r.jsonl", "--teacher", "t")


@pytest.mark.usefixtures("with_lines")
def test_a_new_line_is_an_option_a_parameter_and_what_the_verb_is_given(given):
    shown = said(run("rank", "--help"))
    assert "--half-life X [x>=0] of a verdict [default: 1.5]" in shown and "Ours" not in shown
    assert "--kinds N,N of verdicts [default: 1, 2]" in shown and "--told <bool> say it" in shown
    assert config.resolve("smoke", "rank")["half_life"] == 0.25
    assert config.resolve("nano", "rank")["kinds"] == [1, 2]
    assert "told" not in config.resolve("nano", "rank"), "a line of `verb` alone is the verb's"
    found, _ = given(rank, *RANK)
    assert (found.half_life, found.kinds, found.told) == (1.5, [1, 2], False)
    found, _ = given(rank, *RANK, "--half_life", "3", "--kinds", "4,5", "--told")
    assert (found.half_life, found.kinds, found.told) == (3.0, [4, 5], True)
    found, _ = given(rank, *RANK, "--set", "rank.half_life=7", "--set", "rank.kinds=[9]")
    assert (found.half_life, found.kinds) == (7.0, [9])
    assert "Invalid value for '--half-life'" in said(run("rank", *RANK, "--half-life", "-1"))


def test_every_line_says_what_it_is_and_has_the_notebooks_default_unless_a_column_says_otherwise():
    names, stages = set(), {stage.partition("_")[2] for stage in config.STAGES}
    for verb in __main__.VERBS:
        stage, lines = (
            config.resolve("nano", verb) if verb in stages else {},
            config.lines(verb, verb=True),
        )
        for option in options.options_of(verb):
            names |= {option.name, f"{verb}.{option.name}"}
            assert option.help, (verb, option.name)
            if option.name in stage and "verb" not in lines[option.name][1]:
                assert option.value == stage[option.name], (verb, option.name)
    assert set(config.table("spelling")) | set(config.table("renamed").values()) <= names
    for panel, members in config.table("panels").items():
        assert set(members) <= names, panel


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("--num_return_sequences", "3"), "n_samples", 3),
        (("--n_samples=3",), "n_samples", 3),
        (("--n", "3"), "n_samples", 3),
        (("--output_dir", "o.jsonl"), "out", "o.jsonl"),
        (("--temperatures", "0.2,0.4", "--temperature", "1"), "temperatures", [0.2, 0.4, 1.0]),
        (("--max_tokens", "9"), "max_new_tokens", 9),
        (("--workers", "0"), "workers", options.ALL_CORES),
    ],
)
def test_underscores_and_the_names_of_the_field_are_understood(given, words, name, value):
    found, told = given(sample, "p.jsonl", "--model_name_or_path", "m", *words)
    assert getattr(found, name) == value and not told


def test_old_spellings_work_with_one_note(given):
    old = ("--level", "process", "--engine", "ray")
    found, told = given(rank, *RANK, *old)
    assert (found.isolation, found.cluster) == ("process", "ray")
    assert told.splitlines() == [
        "note: --level is --isolation now; the old name will go",
        "note: --engine is --cluster now; the old name will go",
    ]
    assert options._override("evolve.generator=nano") == ("evolve.engine", "nano")


def test_all_objectives_stand_in_the_help_of_train():
    assert set(OBJECTIVES) <= set(said(run("train", "--help")).replace(",", " ").split())


def test_help_loads_no_heavy_library_and_says_the_version():
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom rrtf import __main__\n"
        "for verb in ('', *__main__.VERBS):\n"
        "    words = [verb, '--help'] if verb else ['--help']\n"
        "    assert CliRunner().invoke(__main__.app, words).exit_code == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'pyarrow', 'datasets', 'scipy', 'ray'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert run("--version").output == f"rrtf {config.version()}\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 99), ({"cpu.max": "max 100000"}, 99), ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "1000 100000"}, 1), ({"cpu.max": "999900000 100000"}, 99),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 99),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
)  # fmt: skip
def test_a_container_has_the_cores_of_its_share(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(99)))
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert options.cores(tmp_path) == expected


@pytest.mark.parametrize(
    ("named", "beside", "expected"),
    [("", "1", 16), ("3", "1", 3), ("all", "1", 16), ("1", "4", 4), ("2", "4", 2), ("1", "1", 1)],
)
def test_threads_are_those_of_omp_num_threads_else_the_cores(monkeypatch, named, beside, expected):
    monkeypatch.setattr(train, "ALL_CORES", 16)
    monkeypatch.setenv("OMP_NUM_THREADS", named)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", beside)
    assert train._threads() == expected


@pytest.mark.parametrize("command", ["rows = screen.write('-', [{'text': 'é'}])", "print('é')"])
def test_what_a_terminal_cannot_encode_is_replaced_and_rows_stay_as_they_are(command):
    program = f"from rrtf.cli import screen\nwith screen.exit_codes():\n    {command}\n"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    shown = b"?\n" if "print" in command else '{"text": "é"}\n'.encode()
    assert (done.returncode, done.stdout) == (0, shown), done.stderr


def test_only_on_a_terminal_is_a_bar_which_takes_what_the_endpoint_tells(monkeypatch, capsys):
    with screen.spending("asking") as tell:
        assert tell is None
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with screen.spending("asking") as tell:
        tell(3, 10, 45, 105, 7.0)
        tell(10, 10, 150, 0, 0.0)
    written = capsys.readouterr().err
    assert "asking" in written and "10/10" in written and "150 tokens" in written
    shown = screen.spent(12_300, 95_000, 450.4)
    assert shown == "12,300 tokens, about 95,000 and 0:07:30 to come"


def test_a_narrow_terminal_keeps_names_and_numbers_and_breaks_sentences(capsys):
    rows = [{"variant": "ctranslate2-float32", "MB": 1.0, "status": "failed: " + "because " * 20}]
    Console(width=60).print(screen.rows_table(rows))
    written = capsys.readouterr().out
    assert "ctranslate2-float32  1.00  failed: because" in written
    assert written.count("because") == 20 and "…" not in written


@pytest.mark.parametrize(
    "words",
    [
        "audit absent.jsonl --benchmarks nano-test", "audit - --benchmarks absent.jsonl",
        "grade nano-test absent.jsonl", "rank nano-test absent.jsonl",
        "evaluate nano-test x=absent.jsonl", "evaluate nano-test --model absent",
        "sample nano-test --model absent",
        "quantize --model nano-student --problems nano-test --variant full --calibration absent",
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_before_a_benchmark_is_made(words, monkeypatch):
    monkeypatch.setattr(benchmarks, "load", None)  # whoever calls it gets another error
    result = rrtf(*words.split())
    assert result.exit_code == 2 and "absent" in result.stderr
