"""Runs on the tiny model: what they learn, leave behind, and survive."""

import json
import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import LIMITS
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rrtf import config, loss, train
from rrtf.records import Outcome, Problem, RankedGroup, TrainStep
from rrtf.step import batches, packing, scoring, sharding


def recipe(**changes) -> train.Recipe:
    """Six updates of two groups; what is not said here is that of the nano profile."""
    own = {"objective": "rrtf", "updates": 6, "groups_per_batch": 2, "learning_rate": 1e-3}
    own |= {"ft_reduction": "mean", "precision": "float32", "seed": 0, "epochs": 0.0, "threads": 1}
    return train.Recipe.of(config.resolve("nano", "train"), **own | changes)


def _groups(count: int = 5) -> list[RankedGroup]:
    return [
        RankedGroup(
            task_id=f"toy/{i}",
            prompt=f"def f{i}(a):",
            responses=(f"\n    return a + {i}", "\n    pass"),
            sources=("teacher", "student"),
            outcomes=(Outcome.PASS, Outcome.FAILED_TESTS),
            scores=(3.0, 2.0),
            sft_index=0,
        )
        for i in range(count)
    ]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _same(one: Path, other: Path) -> bool:
    a, b = _weights(one), _weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _train(model, output, objective="rrtf", told=None, validation=None, **changes):
    how = recipe(objective=objective, **changes)
    where = {"model": model, "output": output, "overwrite": True, "validation": validation}
    return train.train(_groups(), recipe=how, told=told, **where)


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "rrtf-s0"
    return folder, _train(tiny_model, folder)


def test_a_run_leaves_a_model_a_card_and_one_row_per_update(finished):
    folder, steps = finished
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.use_cache and AutoTokenizer.from_pretrained(folder).eos_token_id == 0
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1].loss < steps[0].loss
    assert all(math.isfinite(s.grad_norm) and 0 <= s.violated <= 1 for s in steps)
    assert "# rrtf-s0" in (folder / "README.md").read_text()
    assert not list(folder.glob("check*"))
    facts = json.loads((folder / "training.json").read_text())
    assert (facts["n_groups"], facts["n_trained"], facts["dropped"]) == (5, 5, {})


def test_the_first_row_is_the_loss_of_the_start_model_by_the_formula(tiny_model, finished):
    network, tokenizer = packing.load(tiny_model, dropout=0.0, threads=1)
    examples, _ = batches.prepare(_groups(), tokenizer, objective="rrtf", max_length=256)
    first = batches.in_order(examples, updates=1, groups_per_batch=2, seed=0)
    batch = batches.collate(first)
    sums, lengths = scoring.score(network, batch)
    parts = loss.rrtf(batch, sums, lengths, replace(loss.PAPER, ft_reduction="mean"))
    step = finished[1][0]
    assert step.loss == pytest.approx(parts.loss.item(), rel=1e-5)
    assert step.rank_loss == pytest.approx(float(parts.rank), rel=1e-4, abs=1e-7)
    assert step.ft_loss == pytest.approx(float(parts.ft), rel=1e-5)


def test_the_learning_rate_rises_and_falls_linearly_to_zero(tiny_model, tmp_path):
    steps = _train(tiny_model, tmp_path / "r", "sft", updates=6, warmup=0.3, learning_rate=4e-3)
    assert [s.learning_rate for s in steps] == pytest.approx([0, 2e-3, 4e-3, 3e-3, 2e-3, 1e-3])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    tiny_model, finished, tmp_path
):
    folder, steps = finished
    again = _train(tiny_model, tmp_path / "rrtf-s0")
    assert again == steps
    names = ("model.safetensors", "training.json", "README.md", "config.json")
    assert all((folder / n).read_bytes() == (tmp_path / "rrtf-s0" / n).read_bytes() for n in names)
    _train(tiny_model, tmp_path / "other", seed=1)
    assert not _same(folder, tmp_path / "other")


def test_an_interrupted_run_resumes_to_the_weights_of_an_uninterrupted_one(
    tiny_model, finished, tmp_path
):
    def interrupt(step: TrainStep, _: int) -> None:
        if step.step == 5:
            raise KeyboardInterrupt

    folder = tmp_path / "rrtf-s0"
    options = {"checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        _train(tiny_model, folder, told=interrupt, **options)
    broken = folder / "checkpoints" / "checkpoint-5"
    broken.mkdir()
    (broken / "state.json").write_text('{"upda')
    assert sharding.newest_checkpoint(folder / "checkpoints").name == "checkpoint-4"
    seen: list[int] = []
    steps = _train(tiny_model, folder, told=lambda now, _: seen.append(now.step), **options)
    assert seen == [5, 6]
    assert steps == finished[1]
    assert _same(folder, finished[0])


def test_a_finished_run_is_read_and_one_with_other_settings_done_again(tiny_model, tmp_path):
    folder = tmp_path / "run"
    first = _train(tiny_model, folder, updates=2)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert _train(tiny_model, folder, updates=2) == first
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert len(_train(tiny_model, folder, updates=3)) == 3


def test_the_held_out_groups_are_looked_at_and_the_best_model_is_kept(tiny_model, tmp_path):
    looks: list[train.Look] = []

    def watch(step, _, stop=0):
        if isinstance(step, train.Look):
            looks.append(step)
        elif step.step == stop:
            raise KeyboardInterrupt

    how = {"held_out": 2, "validate_every": 2, "learning_rate": 2e-2, "checkpoint_every": 2}
    whole = _train(tiny_model, tmp_path / "r", told=watch, **how)
    facts = json.loads((tmp_path / "r" / "training.json").read_text())
    assert [look.step for look in looks] == [0, 2, 4, 6]
    assert facts["looks"] == [asdict(look) for look in looks] and facts["n_trained"] == 3
    best = min(looks[1:], key=lambda look: look.loss)
    assert best == train.best_of(looks)
    network, tokenizer = packing.load(tmp_path / "r" / "best", dropout=0.0, threads=1)
    examples, _ = batches.prepare(_groups(), tokenizer, objective="rrtf", max_length=256)
    kept, held = batches.apart(examples, count=2, seed=0)
    assert len(kept) == 3 and {e.task_id for e in kept}.isdisjoint(e.task_id for e in held)
    batch = batches.collate(held)
    weights = replace(loss.PAPER, ft_reduction="mean")
    found = loss.rrtf(batch, *scoring.score(network, batch), weights).loss
    assert float(found) == pytest.approx(best.loss, rel=1e-5)
    with pytest.raises(KeyboardInterrupt):
        _train(tiny_model, tmp_path / "cut" / "r", told=partial(watch, stop=5), **how)
    assert _train(tiny_model, tmp_path / "cut" / "r", **how) == whole
    again = json.loads((tmp_path / "cut" / "r" / "training.json").read_text())
    assert again["looks"] == facts["looks"]
    assert _same(tmp_path / "cut" / "r" / "best", tmp_path / "r" / "best")
    with pytest.raises(ValueError, match="held_out 5: there are 5 groups, and none is left"):
        _train(tiny_model, tmp_path / "none", held_out=5)


def _validation(count: int = 3) -> train.Validation:
    """The functions that `_groups` teach, as problems."""
    tests = "def check(candidate):\n    assert candidate(1) == {}\n"
    problems = [
        Problem(f"toy/{i}", f"def f{i}(a):\n", f"f{i}", tests.format(1 + i)) for i in range(count)
    ]
    own = ("starcoder", 24, LIMITS)
    return train.Validation(tuple(problems), *own, workers=2)


@pytest.fixture(scope="module")
def watched(tiny_model, tmp_path_factory):
    """A run that learns three functions by heart, asked for them on the way; what it told."""
    folder, told = tmp_path_factory.mktemp("watched") / "r", []
    _train(tiny_model, folder, told=lambda *said: told.append(said[0]), **BY_HEART)
    return folder, told


BY_HEART = {"objective": "sft", "updates": 36, "groups_per_batch": 5, "learning_rate": 2e-2,
            "validate_every": 6, "checkpoint_every": 12, "save_dtype": "bfloat16"}  # fmt: skip


def test_problems_asked_on_the_way_change_no_row_and_the_model_that_solves_most_is_kept(
    tiny_model, watched, tmp_path
):
    plain, told = watched
    steps = [one for one in told if isinstance(one, TrainStep)]
    asked, looks = _validation(), []
    how = BY_HEART | {"validation": asked}
    seen = lambda one, _: looks.append(one) if isinstance(one, train.Look) else None  # noqa: E731
    assert _train(tiny_model, tmp_path / "r", told=seen, **how) == steps
    assert _same(plain, tmp_path / "r")
    solved = [look.pass_at_1 for look in looks]
    assert [look.step for look in looks] == [0, 6, 12, 18, 24, 30, 36]
    assert solved[0] == asked.passed(tiny_model) == 0 and solved[-1] > 0, solved
    assert solved[-1] == asked.passed(tmp_path / "r")
    assert max(solved) == asked.passed(tmp_path / "r" / "best")
    facts = json.loads((tmp_path / "r" / "training.json").read_text())
    assert facts["looks"] == [asdict(look) for look in looks]
    assert "pass@1" in (tmp_path / "r" / "README.md").read_text()
    assert not (tmp_path / "r" / "checkpoints").exists()

    def stop(one, _):
        if one.step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(tiny_model, tmp_path / "cut" / "r", told=stop, **how)
    assert _train(tiny_model, tmp_path / "cut" / "r", **how) == steps
    again = json.loads((tmp_path / "cut" / "r" / "training.json").read_text())
    assert again["looks"] == facts["looks"]
    assert _same(tmp_path / "cut" / "r" / "best", tmp_path / "r" / "best")


def test_a_gpu_without_room_for_the_answers_goes_on_training(tiny_model, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(train.engines, "open_engine", full)
    steps = _train(tiny_model, tmp_path / "r", validation=_validation(), updates=2)
    assert len(steps) == 2 and steps == _train(tiny_model, tmp_path / "plain" / "r", updates=2)
    looks = json.loads((tmp_path / "r" / "training.json").read_text())["looks"]
    assert [look["pass_at_1"] for look in looks] == [None, None]


def test_the_best_model_passes_most_then_loses_least_then_came_first():
    looks = [train.Look(0, pass_at_1=0.9), train.Look(2, 1.0, 0.0, 1.0, 0.5),
             train.Look(4, 0.8, 0.0, 0.8, 0.5), train.Look(6, 0.8, 0.0, 0.8, 0.5)]  # fmt: skip
    assert train.best_of(looks) is looks[2] and train.best_of(looks[:1]) is None


@pytest.mark.parametrize("objective", ["sft", "rrhf", "dpo"])
def test_the_other_objectives_lower_their_loss(tiny_model, tmp_path, objective):
    steps = _train(tiny_model, tmp_path / objective, objective, updates=10)
    assert steps[-1].loss < steps[0].loss
    assert math.isnan(steps[0].violated) == (objective == "sft")


def test_dpo_starts_at_the_logarithm_of_two(tiny_model, tmp_path):
    steps = _train(tiny_model, tmp_path / "dpo", "dpo", updates=1)
    assert steps[0].loss == pytest.approx(math.log(2), abs=1e-5)


def test_rrtf_with_rank_weight_zero_learns_like_sft_on_the_same_prompts(tiny_model, tmp_path):
    alone = _train(tiny_model, tmp_path / "sft", "sft")
    kept = _train(tiny_model, tmp_path / "kept", "rrtf", rank_weight=0.0)
    assert [s.loss for s in kept] == pytest.approx([s.loss for s in alone], rel=1e-3)
    assert [s.ft_loss for s in kept] == [s.loss for s in kept]
    assert any(s.rank_loss > 0 for s in kept)


def test_a_loss_that_is_not_finite_stops_the_run_by_name(tiny_model, tmp_path):
    network, tokenizer = packing.load(tiny_model, dropout=0.0, threads=1)
    with torch.no_grad():
        network.transformer.ln_f.weight.fill_(math.nan)
    network.save_pretrained(tmp_path / "broken")
    tokenizer.save_pretrained(tmp_path / "broken")
    with pytest.raises(FloatingPointError, match=r"run-x: update 1: .*nan.*toy/"):
        _train(tmp_path / "broken", tmp_path / "run-x", "sft")


def _plan() -> list[train.Run]:
    how = {"seeds": {"sft": 1, "rrtf": 2, "sft-kept": 1}, "recipe": recipe(updates=2, seed=7)}
    how |= {"learning_rates": {"sft": 1e-3, "rrtf": 1e-3, "dpo": 1e-4}, "max_responses": 4}
    return train.plan(_groups(), _groups(), **how)


def test_a_plan_gives_every_method_the_same_seeds_and_its_own_rate():
    runs = {run.name: run for run in _plan()}
    assert list(runs)[-1] == "sft-s0", "what takes longest comes first"
    assert sorted(runs) == ["rrtf-s0", "rrtf-s1", "sft-kept-s0", "sft-s0"]
    assert runs["rrtf-s0"].recipe.seed == runs["sft-s0"].recipe.seed
    assert runs["rrtf-s0"].recipe.seed != runs["rrtf-s1"].recipe.seed
    kept = runs["sft-kept-s0"].recipe
    assert (kept.objective, kept.rank_weight) == ("rrtf", 0.0)


@pytest.mark.slow
def test_runs_side_by_side_equal_runs_one_after_the_other(tiny_model, tmp_path):
    runs = _plan()
    seen: list[tuple[int, int]] = []
    side = train.train_all(
        runs,
        model=tiny_model,
        folder=tmp_path / "side",
        workers=2,
        processes_per_run=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    for run, steps in zip(runs, side, strict=True):
        alone = tmp_path / "alone" / run.name
        where = {"model": tiny_model, "output": alone, "overwrite": True}
        own = train.train(run.groups, recipe=run.recipe, **where)
        assert [s.loss for s in own] == [s.loss for s in steps]
        assert _same(tmp_path / "side" / run.folder, alone)
    assert seen[-1] == (8, 8)


def test_the_figure_of_a_short_run_still_has_a_line():
    from rrtf.figures import charts

    figure = charts.by_update({"rrtf-s0": [(1, 0.5), (2, 0.25), (3, 0.0)]}, y_label="violated")
    (line,) = figure.axes[0].get_lines()
    assert list(line.get_ydata()) == [0.5, 0.25, 0.0]
