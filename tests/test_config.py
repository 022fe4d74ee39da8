"""What a profile means: values, overrides and their errors, seeds that depend on keys alone."""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from rrtf import config


def test_every_profile_gives_every_stage_its_values_with_the_profile_first():
    for profile in config.profiles():
        for stage in config.STAGES:
            values = config.resolve(profile, stage)
            assert next(iter(values.items())) == ("profile", profile)
            assert len(values) > 1


def test_the_values_of_one_parameter_have_one_type_in_all_profiles():
    for stage in config.STAGES:
        kinds = {}
        for profile in config.profiles():
            for name, value in config.resolve(profile, stage).items():
                assert kinds.setdefault(name, type(value)) is type(value), f"{stage}: {name}"


def test_a_stage_is_found_by_number_word_or_name():
    assert {config.stage_name(word) for word in ("03", "sample", "03_sample")} == {"03_sample"}


def test_a_shared_override_reaches_every_stage_and_a_stage_override_only_its_own():
    changed = {"shared.seed": 7, "evolve.rounds": 9}
    assert config.resolve("nano", "evolve", changed)["seed"] == 7
    assert config.resolve("nano", "sample", changed)["seed"] == 7
    assert config.resolve("nano", "evolve", changed)["rounds"] == 9
    own = {"shared.seed": 7, "evolve.seed": 8}
    assert config.resolve("nano", "evolve", own)["seed"] == 8


def test_one_value_stands_for_a_list_of_one_texts_may_have_commas_and_floats_be_whole():
    teachers = config.resolve("nano", "sample", {"shared.teacher": "a/b, c"})["teacher"]
    assert teachers == ["a/b", "c"]
    assert config.resolve("nano", "sample", {"shared.teacher": ""})["teacher"] == []
    warm = config.resolve("nano", "sample", {"sample.temperatures": 1.0})["temperatures"]
    assert warm == [1.0]
    value = config.resolve("nano", "00", {"rrtf_by_hand.tie_break": 1})["tie_break"]
    assert value == 1.0 and type(value) is float


@pytest.mark.parametrize(
    "text, value",
    [("a.b=3", 3), ("a.b = 1e-4", 1e-4), ("a.b=true", True), ("a.b=[0.2, 1.0]", [0.2, 1.0]),
     ("a.b=bigcode/starcoder", "bigcode/starcoder"), ('a.b="3"', "3"), ("a.b=", ""),
     ("a.b=x=y", "x=y"), ("a.b=1\nvalue2 = 2", "1\nvalue2 = 2")],
)  # fmt: skip
def test_an_override_on_the_command_line_is_toml_or_else_a_word(text, value):
    assert config.parse_override(text) == ("a.b", value)


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda: config.stage_name("3"), "stage '3'"),
        (lambda: config.resolve("big", "evolve"), "'big': expected one of nano, smoke"),
        (lambda: config.resolve("nano", "evolve", {"evolve.rounds": "many"}),
         r"evolve\.rounds='many': expected int"),
        (lambda: config.resolve("nano", "evolve", {"evolve.rounds": True}), "expected int"),
        (lambda: config.check_overrides({"evolve.round": 1}),
         r"'evolve\.round'; did you mean evolve"),
        (lambda: config.check_overrides({"evolve.shared": 1}), r"'evolve\.shared'"),
        *((lambda text=text: config.parse_override(text), r"stage\.key=value")
          for text in ("a.b", "ab=3", "", "=3")),
    ],
)  # fmt: skip
def test_what_no_profile_has_is_named(work, told):
    config.check_overrides({"evolve.rounds": 1, "shared.seed": 1, "evolve.seed": 1})
    with pytest.raises(ValueError, match=told):
        work()


def test_a_notebook_that_lacks_a_parameter_is_told_which():
    values = config.resolve("nano", "evolve")
    assert config.declared("evolve", values | {"other": 1}) == values
    del values["rounds"]
    with pytest.raises(ValueError, match="lacks rounds"):
        config.declared("01_evolve", values)


def test_seeds_depend_on_their_keys_and_on_nothing_else():
    assert config.derive_seed(1, "a", 2) == config.derive_seed(1, "a", 2)
    seeds = {config.derive_seed(s, *k) for s in (1, 2) for k in (("a",), ("b",), ("a", "b"), ())}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)
    assert config.derive_seed(1, "ab", "c") != config.derive_seed(1, "a", "bc")
    assert config.derive_seed(20230727, "shard", 0) == 2560189717093856986


def test_results_go_to_the_named_home_and_notebooks_stay_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_HOME", str(tmp_path))
    assert config.run_dir("nano") == tmp_path / "data" / "runs" / "nano"
    assert config.report_dir("nano") == tmp_path / "reports" / "nano"
    monkeypatch.setenv("RRTF_HOME", "")
    assert config.output_home() == config.home()
    assert (config.home() / "rrtf" / "profiles.toml").exists()


def test_thread_counts_are_set_for_all_three_libraries(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "9")
    config.set_threads(1)
    assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == "1"


def test_a_user_without_a_home_has_a_place_for_what_can_be_computed_again(monkeypatch):
    for name in ("RRTF_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(config.Path, "home", nowhere)
    assert config.cache_dir() == Path(tempfile.gettempdir()) / f"rrtf-{os.getuid()}"


def test_an_installation_reads_the_data_it_copied_and_writes_where_it_is_called(tmp_path):
    """A package without a checkout beside it; `share/rrtf` is what pyproject.toml copies."""
    site, called = tmp_path / "lib" / "site-packages", tmp_path / "called"
    shutil.copytree(config.home() / "rrtf", site / "rrtf", ignore=shutil.ignore_patterns("__py*"))
    called.mkdir()
    program = (
        f"import sys; sys.prefix = {str(tmp_path)!r}\n"
        "from rrtf import config\nprint(config.home(), config.output_home())\n"
        "print(config.environment())"
    )

    def tell():
        where = {"cwd": called, "env": os.environ | {"PYTHONPATH": str(site)}}
        return subprocess.run([sys.executable, "-c", program], **where, capture_output=True)

    assert b"rrtf was installed without its data" in tell().stderr
    declared = tomllib.loads((config.home() / "pyproject.toml").read_text())
    for place, patterns in declared["tool"]["setuptools"]["data-files"].items():
        for file in (one for pattern in patterns for one in config.home().glob(pattern)):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / place)
    shared = tmp_path / "share" / "rrtf"
    told = f"{shared} {called}\n{ {'RRTF_HOME': str(called)} }\n"
    assert tell().stdout.decode() == told
    tracked = {f.relative_to(shared) for f in shared.rglob("*") if f.is_file()}
    listed = subprocess.run(["git", "ls-files", "data", "notebooks"], cwd=config.home(),
                            capture_output=True, text=True)  # fmt: skip
    assert listed.returncode or tracked >= set(map(Path, listed.stdout.split()))
