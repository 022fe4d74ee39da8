"""Runs on the tiny model: what they learn from, learn, leave behind, and survive."""

import json
import math
import shutil
import signal
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import LIMITS
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rrtf import config, loss, methods, store, train
from rrtf.loss import PAPER
from rrtf.records import Outcome, Problem, RankedGroup, TrainStep
from rrtf.step import batches, explain, networks, packing, scoring, sharding


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


def stopping(at: int, error: type[BaseException] = KeyboardInterrupt):
    """A watcher that ends the training after this update."""

    def told(step, _):
        if step.step == at:
            raise error

    return told


def _resumed(made, folder, **more) -> tuple[list[int], list[TrainStep]]:
    """The updates that a second call makes, and its rows."""
    seen: list[int] = []
    steps = made(folder, told=lambda now, _: seen.append(now.step), **more)
    return seen, steps


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
    folder, made = tmp_path / "rrtf-s0", partial(_train, tiny_model, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        made(folder, told=stopping(5))
    broken = folder / "checkpoints" / "checkpoint-5"
    broken.mkdir()
    (broken / "state.json").write_text('{"upda')
    assert sharding.newest_checkpoint(folder / "checkpoints").name == "checkpoint-4"
    assert _resumed(made, folder) == ([5, 6], finished[1])
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

    def watch(step, _):
        if isinstance(step, train.Look):
            looks.append(step)

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
        _train(tiny_model, tmp_path / "cut" / "r", told=stopping(5), **how)
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


@pytest.mark.slow
def test_problems_asked_on_the_way_change_no_row_and_the_model_that_solves_most_is_kept(
    tiny_model, watched, tmp_path
):
    plain, told = watched
    steps = [one for one in told if isinstance(one, TrainStep)]
    asked, looks = _validation(), []
    how = BY_HEART | {"validation": asked}
    seen = lambda one, _: looks.append(one) if isinstance(one, train.Look) else None  # noqa: E731
    assert repr(_train(tiny_model, tmp_path / "r", told=seen, **how)) == repr(steps)  # with nan
    assert _same(plain, tmp_path / "r")
    solved = [look.pass_at_1 for look in looks]
    assert [look.step for look in looks] == [0, 6, 12, 18, 24, 30, 36]
    assert solved[0] == asked.passed(tiny_model) == 0 < max(solved), solved
    assert solved[-1] == asked.passed(tmp_path / "r")
    assert max(solved) == asked.passed(tmp_path / "r" / "best")
    facts = json.loads((tmp_path / "r" / "training.json").read_text())
    assert facts["looks"] == [asdict(look) for look in looks]
    assert "pass@1" in (tmp_path / "r" / "README.md").read_text()
    assert not (tmp_path / "r" / "checkpoints").exists()

    with pytest.raises(KeyboardInterrupt):
        _train(tiny_model, tmp_path / "cut" / "r", told=stopping(15), **how)
    assert repr(_train(tiny_model, tmp_path / "cut" / "r", **how)) == repr(steps)
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
    assert objective != "dpo" or steps[0].loss == pytest.approx(math.log(2), abs=1e-5)


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
    runs, seen = _plan(), []
    how = {"model": tiny_model, "folder": tmp_path / "side", "workers": 2, "processes_per_run": 1}
    side = train.train_all(runs, **how, progress=lambda *counts: seen.append(counts))
    for run, steps in zip(runs, side, strict=True):
        alone = tmp_path / "alone" / run.name
        where = {"model": tiny_model, "output": alone, "overwrite": True}
        own = train.train(run.groups, recipe=run.recipe, **where)
        assert [s.loss for s in own] == [s.loss for s in steps]
        assert _same(tmp_path / "side" / run.folder, alone)
    assert seen[-1] == (8, 8)


UNEQUAL = [
    RankedGroup(
        task_id=f"unequal/{i}",
        prompt=f"def f{i}(a):" + "\n    # why" * i,
        responses=tuple(f"\n    return a + {k}" * (1 + k * i) for k in range(2 + i % 2)),
        sources=("teacher", "student", "student")[: 2 + i % 2],
        outcomes=(Outcome.PASS, Outcome.FAILED_TESTS, Outcome.FAILED_TESTS)[: 2 + i % 2],
        scores=(3.0, 2.0, 2.0)[: 2 + i % 2],
        sft_index=0,
    )
    for i in range(5)
]


def _update(model, objective, reduction, budget):
    """(the parts of one update over all of UNEQUAL, the gradients, groups of every pass)."""
    how = recipe(objective=objective, ft_reduction=reduction, tokens_per_forward=budget)
    scorer, tokenizer = train.load(model, how)
    examples, _ = batches.prepare(UNEQUAL, tokenizer, objective=objective, max_length=256)
    calls = []
    scorer.register_forward_pre_hook(lambda _, args: calls.append(len(args[0]["task_ids"])))
    parts = train.accumulate(scorer, examples, how, run="r", update=1)
    return parts, {name: p.grad for name, p in scorer.named_parameters()}, calls


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("objective", ["rrtf", "rrhf", "simpo"])
def test_unequal_parts_of_a_batch_give_its_loss_its_parts_and_its_gradient(
    tiny_model, objective, reduction
):
    whole, gradient, once = _update(tiny_model, objective, reduction, 0)
    parts, summed, calls = _update(tiny_model, objective, reduction, 250)
    assert once == [5] and len(set(calls)) > 1 and sum(calls) == 5, calls
    assert parts == pytest.approx(whole, rel=1e-6)
    largest = max(float(g.abs().max()) for g in gradient.values())
    for name, expected in gradient.items():
        assert torch.allclose(summed[name], expected, atol=1e-6 * largest), name


def test_a_forward_pass_holds_its_tokens_and_every_process_takes_part_in_equally_many():
    sizes = [30, 50, 20, 200, 10, 10]
    assert sharding.passes(sizes, processes=1, budget=0) == [[[0, 1, 2, 3, 4, 5]]]
    assert sharding.passes(sizes, processes=1, budget=100) == [[[0, 1, 2], [3], [4, 5]]]
    for sizes, processes, budget in (([5] * 7, 3, 10), ([9, 1, 9, 1], 2, 9), ([4], 2, 0)):
        plan = sharding.passes(sizes, processes=processes, budget=budget)
        assert len(plan) == processes and len({len(own) for own in plan}) == 1
        places = [place for own in plan for some in own for place in some]
        assert sorted(places) == list(range(len(sizes))), "every group is in one"


def test_the_learning_rate_of_a_schedule_is_that_of_transformers():
    from transformers import get_linear_schedule_with_warmup as linear

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = linear(optimizer, 3, 10)
    for update in range(1, 11):
        assert train.schedule(update, 10, 3, train.FROM_ZERO) == pytest.approx(
            steps.get_last_lr()[0]
        )
        optimizer.step()
        steps.step()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_leaves_a_checkpoint_after_the_update(
    tiny_model, tmp_path, number
):
    seen: list[int] = []

    def ask(step, _):
        seen.append(step.step)
        if step.step == 2:
            signal.raise_signal(number)

    made = partial(_train, tiny_model, checkpoint_every=50)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "cut" / "r", told=ask)
    assert seen == [1, 2, 3] and signal.getsignal(number) is before
    assert made(tmp_path / "cut" / "r", told=ask) == made(tmp_path / "r")
    assert seen == [1, 2, 3, 4, 5, 6]


def test_of_a_run_that_is_killed_minutes_are_lost(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SECONDS", 0.0)
    made = partial(_train, tiny_model, checkpoint_every=50)
    with pytest.raises(MemoryError):
        made(tmp_path / "r", told=stopping(4, MemoryError))
    assert _resumed(made, tmp_path / "r")[0] == [5, 6]


def test_no_update_has_rate_zero_and_the_peak_is_reached():
    shares = {name: [train.schedule(k, 8, 2, name) for k in range(1, 9)]
              for name in train.SCHEDULES}  # fmt: skip
    assert shares["constant"] == [0.5, *[1.0] * 7]
    assert shares["linear"] == pytest.approx([0.5, 1, *(k / 6 for k in range(6, 0, -1))])
    falls = [(1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert shares["cosine"] == pytest.approx([0.5, 1, *falls])
    assert all(train.schedule(1, 1, warm, name) == 1
               for warm in (0, 1) for name in train.SCHEDULES[:3])  # fmt: skip
    with pytest.raises(ValueError, match="unknown schedule 'steps': expected one of constant"):
        train.check(recipe(schedule="steps"))


def test_vectors_do_not_decay_and_matrices_do(tiny_model):
    scorer, _ = train.load(tiny_model, recipe())
    matrices, vectors = networks.make_optimizer(scorer, "adamw", weight_decay=0.1).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in matrices["params"]} == {2} and {p.ndim for p in vectors["params"]} == {
        1
    }
    with pytest.raises(ValueError, match="unknown optimizer 'sgd': expected one of adamw"):
        networks.make_optimizer(scorer, "sgd", weight_decay=0.0)


def test_a_clip_of_zero_measures_gradients_and_leaves_them(tiny_model):
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.grad = torch.full((1, 1), 3.0)
    assert networks.clip_gradients(layer, 0.0) == 3.0 == layer.weight.grad.item()
    assert networks.clip_gradients(layer, 1.0) == 3.0
    assert layer.weight.grad.item() == pytest.approx(1.0)


ARCHITECTURES = ("gpt_bigcode", "llama", "qwen2", "starcoder2")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_activation_checkpointing_changes_no_loss(model_of, tmp_path, architecture):
    made = partial(_train, model_of(architecture), updates=3)
    plain = made(tmp_path / "plain")
    again = made(tmp_path / "again", checkpointing=True)
    assert [s.loss for s in again] == pytest.approx([s.loss for s in plain], rel=1e-6)
    assert [s.grad_norm for s in again] == pytest.approx([s.grad_norm for s in plain], rel=1e-5)
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert network.config.use_cache and not network.is_gradient_checkpointing


def test_checkpointing_does_compute_the_layers_twice(tiny_model):
    scorer, tokenizer = train.load(tiny_model, recipe(checkpointing=True))
    examples, _ = batches.prepare(_groups(), tokenizer, objective="rrtf", max_length=256)
    calls = []
    scorer.network.transformer.h[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    sums, _ = scorer.train()(batches.collate(examples))
    sums.sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize("options", [{"optimizer": "adafactor"}, {"precision": "bfloat16"}])
def test_adafactor_and_bfloat16_lower_the_loss_and_resume_to_the_same_rows(
    tiny_model, tmp_path, options
):
    made = partial(_train, tiny_model, checkpoint_every=2, **options)
    whole = made(tmp_path / "r")
    assert whole[-1].loss < whole[0].loss and all(math.isfinite(s.grad_norm) for s in whole)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "cut" / "r", told=stopping(3))
    assert _resumed(made, tmp_path / "cut" / "r") == ([3, 4, 5, 6], whole)


def test_epochs_are_passes_over_the_prompts_that_can_be_trained_on(tiny_model, tmp_path):
    steps = _train(tiny_model, tmp_path / "e", "sft", updates=0, epochs=2.0)
    assert len(steps) == 5, "two passes over five prompts, two at a time"
    with pytest.raises(ValueError, match="updates 3 and epochs 2: expected one of them"):
        train.check(recipe(updates=3, epochs=2.0))


def test_the_reference_pass_keeps_the_budget_and_its_sums_are_kept_for_a_resume(
    tiny_model, tmp_path, monkeypatch
):
    sizes, collate = [], batches.collate

    def counted(examples, **options):
        sizes.append(sum(example.n_tokens for example in examples))
        return collate(examples, **options)

    monkeypatch.setattr(batches, "collate", counted)

    how = {"objective": "dpo", "tokens_per_forward": 90, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        _train(tiny_model, tmp_path / "cut" / "r", told=stopping(3), **how)
    assert 30 < max(sizes) <= 90
    kept = tmp_path / "cut" / "r" / "checkpoints" / "reference.json"
    assert [len(sums) for sums in json.loads(kept.read_text())] == [2] * 5
    whole = _train(tiny_model, tmp_path / "r", **how)
    shutil.copytree(tmp_path / "cut", tmp_path / "other")
    assert _train(tiny_model, tmp_path / "cut" / "r", **how) == whole
    store.write_json(tmp_path / "other" / kept.relative_to(tmp_path / "cut"), [[0.0, 9.0]] * 5)
    other = _train(tiny_model, tmp_path / "other" / "r", **how)
    assert other[:2] == whole[:2] and other[2].loss != whole[2].loss, "they are read"


def test_a_large_group_is_cut_to_its_target_and_others_drawn_by_key():
    outcomes = (Outcome.FAILED_TESTS, *[Outcome.RUNTIME_ERROR] * 7, Outcome.PASS)
    large = RankedGroup(
        "t/0", "p", tuple("abcdefghi"), ("teacher", *["student"] * 8), outcomes,
        tuple(float(o) for o in outcomes), 0,
    )  # fmt: skip
    chosen, _ = methods.training_set("rrhf", [large], [], max_responses=4)
    again, _ = methods.training_set("rrhf", [large], [], max_responses=4)
    whole, _ = methods.training_set("rrhf", [large], [], max_responses=0)
    assert chosen == again and len(chosen[0].responses) == 4
    assert chosen[0].responses[chosen[0].sft_index] == "i", "the best response stays the target"
    assert len(whole[0].responses) == 9


def test_the_verified_variant_learns_from_pairs_whose_teacher_passes_at_its_own_rate():
    def pair(name: str, *outcomes: Outcome) -> RankedGroup:
        scores = tuple(float(outcome) for outcome in outcomes)
        return RankedGroup(name, "p", ("a", "b"), ("teacher", "student"), outcomes, scores, 0)

    right = pair("t/right", Outcome.PASS, Outcome.FAILED_TESTS)
    wrong = pair("t/wrong", Outcome.FAILED_TESTS, Outcome.RUNTIME_ERROR)
    both = [right, wrong], [right, wrong]
    chosen, dropped = methods.training_set("rrtf-verified", *both, max_responses=0)
    assert [group.task_id for group in chosen] == ["t/right"]
    assert dropped == {"teacher_not_passing": 1}
    how = {"seeds": {"rrtf": 1, "rrtf-verified": 1}, "recipe": recipe(), "max_responses": 0}
    rates = {"rrtf": 1e-5, "rrtf-verified": 1e-4}
    runs = train.plan(*both, learning_rates=rates, **how)
    assert {run.method: run.recipe.learning_rate for run in runs} == rates
    assert {run.recipe.objective for run in runs} == {"rrtf"}


GROUP = RankedGroup(
    task_id="toy/add",
    prompt="def add(a, b):",
    responses=("\n    return a + b", "\n    return", "\n    return a - b\n    pass"),
    sources=("teacher", "student", "student"),
    outcomes=(Outcome.PASS, Outcome.RUNTIME_ERROR, Outcome.FAILED_TESTS),
    scores=(3.5, 1.0, 2.0),
    sft_index=0,
)


def test_the_rows_of_a_group_add_up_to_the_loss_of_the_library(tiny_model):
    rows = explain.response_rows([GROUP], model=tiny_model)
    assert [row["|y|"] for row in rows] == [len(text) + 1 for text in GROUP.responses]
    rank = sum(row["L_rank"] for row in explain.hinge_rows(rows, margin=0.0))
    ours = explain.library_loss([GROUP], model=tiny_model, weights=PAPER)
    assert ours["L_rank"] == pytest.approx(rank, rel=1e-5)
    assert ours["L_ft"] == pytest.approx(-rows[0]["sum log P"], rel=1e-5)
    assert ours["L"] == pytest.approx(rank - rows[0]["sum log P"], rel=1e-5)


def test_the_tokens_of_a_response_add_up_to_its_row(tiny_model):
    rows = explain.response_rows([GROUP], model=tiny_model)
    tokens = explain.token_rows(GROUP, 2, model=tiny_model)
    assert sum(token["log P"] for token in tokens) == pytest.approx(rows[2]["sum log P"], rel=1e-5)
    assert tokens[-1]["token"] == "'<|endoftext|>'"
    assert len(explain.token_rows(GROUP, 2, model=tiny_model, limit=4)) == 4


def test_the_rows_of_a_group_hold_its_losses_and_every_token_by_model(tiny_model):
    (before, after) = explain.likelihood_rows(
        [GROUP], {"before": tiny_model, "after": tiny_model}, weights=PAPER
    )
    assert after == before | {"model": "after"}
    ours = explain.library_loss([GROUP], model=tiny_model, weights=PAPER)
    assert before["L_rank"] == pytest.approx(ours["L_rank"], abs=1e-3)
    assert before["L_ft"] == pytest.approx(ours["L_ft"], abs=1e-3)
    assert ["".join(tokens) for tokens in before["tokens"]] == [
        f"{text}<|endoftext|>" for text in GROUP.responses
    ]
    assert sum(before["log_probs"][0]) == pytest.approx(-ours["L_ft"], abs=1e-2)


def test_a_pair_in_the_right_order_is_silent_and_a_wrong_one_weighted_by_its_scores():
    rows = [
        {"task": "t", "source": "teacher", "outcome": "PASS", "r": 3.5, "p": -1.0},
        {"task": "t", "source": "student", "outcome": "PASS", "r": 3.0, "p": -2.0},
        {"task": "t", "source": "student", "outcome": "FAILED_TESTS", "r": 2.0, "p": -0.5},
        {"task": "u", "source": "student", "outcome": "PASS", "r": 3.0, "p": 0.0},
    ]
    found = explain.hinge_rows(rows, margin=0.0)
    assert [row["L_rank"] for row in found] == [0.0, 0.75]
    assert [row["order"] for row in found] == ["right", "wrong"]


def test_the_summed_gradient_of_imitation_outweighs_the_mean(tiny_model):
    (row,) = explain.gradient_rows([GROUP], {"base": tiny_model})
    assert row["|grad L_ft|, sum"] > 5 * row["|grad L_ft|, mean"] > 0
    assert row["share of L_rank beside the sum"] <= row["beside the mean"]


def test_without_a_tie_break_an_equal_student_has_no_weight():
    scores = dict(zip(Outcome, (0.0, 1.0, 2.0, 3.0), strict=True))
    rows = explain.tie_rows(scores, [0.0, 0.5])
    assert [row["weight, tie-break 0"] for row in rows] == [3.0, 2.0, 1.0, 0.0]
    assert [row["weight, tie-break 0.5"] for row in rows] == [3.5, 2.5, 1.5, 0.5]
