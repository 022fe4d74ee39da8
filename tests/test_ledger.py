"""The ablation's ledger: no change of ours may orphan a line that took hours to earn."""

import hashlib
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from rrtf import config, store, train
from rrtf.ablation import registration, results, runs
from rrtf.records import Outcome, Problem, RankedGroup

FROZEN = (Path(__file__).parent / "data" / "ledger_keys.txt").read_text().split()
LEDGER = config.home() / "data" / "ablation.jsonl"


def cells(name: str, *wanted: str, **changed) -> dict:
    """The names that these cells of a notebook leave behind; `changed` parameters among them."""
    names: dict = {"display": lambda *_: None}
    texts = {
        cell["id"]: store.text(cell)
        for cell in store.cells(config.home() / "notebooks" / f"{name}.ipynb")
    }
    with redirect_stdout(io.StringIO()):
        exec(texts["parameters"], names)
        names |= changed
        for ident in wanted:
            exec(texts[ident], names)
    return names


def test_the_ledger_has_the_keys_it_had():
    found = [json.loads(line)["key"] for line in LEDGER.read_text().splitlines()]
    assert len(FROZEN) == len(set(FROZEN)) == 291
    assert found == FROZEN


def trial() -> runs.Trial:
    """One trial made by hand: two groups, and every option that decides."""
    groups = (
        RankedGroup(
            "toy/1", "def f(a):", ("\n    return a", "\n    retürn"), ("teacher", "student"),
            (Outcome.PASS, Outcome.COMPILE_ERROR), (3.5, 0.0), 0,
        ),
        RankedGroup(
            "toy/2", "def g():", ("\n    return 1",), ("teacher",), (Outcome.FAILED_TESTS,),
            (2.0,), 0,
        ),
    )  # fmt: skip
    options = {
        "seed": 7, "objective": "rrtf", "updates": 150, "groups_per_batch": 8, "warmup": 0.05,
        "learning_rate": 1e-05, "ft_reduction": "sum", "ft_weight": 1.0, "rank_weight": 1.0,
        "normalise": True, "margin": 0.0, "beta": 0.1, "pairs_of": "teacher", "max_length": 512,
        "dropout": 0.0, "weight_decay": 0.0, "clip": 1.0, "precision": "auto", "lora_rank": 0,
    }  # fmt: skip
    arm = registration.read().arms["rrtf"]
    how = train.Recipe.of(config.resolve("nano", "train"), epochs=0.0, threads=1, **options)
    return runs.Trial(arm, runs.HELD_OUT, train.Run("held-out-rrtf", "rrtf", 0, groups, how), 9)


def test_the_key_of_one_trial_is_the_documented_formula():
    asked = [Problem("toy/9", "def h():", "h", ""), Problem("toy/8", "def h():", "h", "")]
    groups = (
        '{"task_id": "toy/1", "prompt": "def f(a):", '
        '"responses": ["\\n    return a", "\\n    retürn"], "sources": ["teacher", "student"], '
        '"outcomes": ["PASS", "COMPILE_ERROR"], "scores": [3.5, 0.0], "sft_index": 0}\n'
        '{"task_id": "toy/2", "prompt": "def g():", "responses": ["\\n    return 1"], '
        '"sources": ["teacher"], "outcomes": ["FAILED_TESTS"], "scores": [2.0], "sft_index": 0}\n'
    )
    trained, tasks = (
        hashlib.sha256(text.encode()).hexdigest() for text in (groups, "toy/9\ntoy/8")
    )
    text = (
        f'["the base", "{trained}", '
        '{"objective": "rrtf", "updates": 150, "groups_per_batch": 8, "learning_rate": 1e-05, '
        '"seed": 7, "warmup": 0.05, "ft_reduction": "sum", "ft_weight": 1.0, "rank_weight": 1.0, '
        '"normalise": true, "margin": 0.0, "beta": 0.1, "pairs_of": "teacher", "max_length": 512, '
        '"dropout": 0.0, "weight_decay": 0.0, "clip": 1.0, "precision": "auto"}, '
        '["train", 1, "held-out"], '
        f'"{tasks}"]'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert runs.key_of(trial(), "the base", asked) == expected == "2f4412c53f4521fd"


@pytest.mark.slow
def test_every_key_is_found_again_from_the_seeds_on(tmp_path, monkeypatch):
    """The notebooks' own cells, from the grammar to the keys; only the runs come from the ledger.

    A different key would be a missing line: `run_missing` is off, so nothing is trained.
    """
    monkeypatch.setenv("RRTF_HOME", str(tmp_path))
    cells("01_evolve", "setup", "load", "act", "save")
    audited = cells("02_audit", "setup", "load", "look-input", "by-hand", "act")
    kept = [p for p in audited["train"] if p.task_id not in audited["result"].dropped]
    audited["stage"].save("train.jsonl", kept)
    found = cells("appendix_ablation", "setup", "load", "by-hand", "act", run_missing=False)
    assert sorted(line.key for line in found["lines"]) == sorted(FROZEN)
    assert results.missing(found["plan"], found["lines"]) == {}
