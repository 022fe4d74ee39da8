"""The loop: gradients of parts of a batch, optimisers, checkpointing, other architectures."""

import json
import math
import shutil
import signal
from functools import partial

import pytest
import torch
from test_train import _groups, _train, recipe

from rrtf import store, train
from rrtf.records import Outcome, RankedGroup
from rrtf.step import batches, networks, sharding

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


def test_a_run_in_parts_has_the_rows_of_a_run_at_once(tiny_model, tmp_path):
    runs = [
        _train(tiny_model, tmp_path / str(budget), groups_per_batch=3, tokens_per_forward=budget)
        for budget in (0, 90)
    ]
    for whole, parts in zip(*runs, strict=True):
        for field in ("loss", "rank_loss", "ft_loss", "violated", "grad_norm"):
            expected = pytest.approx(getattr(whole, field), rel=1e-4, abs=1e-6)
            assert getattr(parts, field) == expected, field


def test_a_forward_pass_holds_at_most_its_tokens_or_one_group_that_is_larger():
    sizes = [30, 50, 20, 200, 10, 10]
    assert sharding.passes(sizes, processes=1, budget=0) == [[[0, 1, 2, 3, 4, 5]]]
    assert sharding.passes(sizes, processes=1, budget=100) == [[[0, 1, 2], [3], [4, 5]]]


def test_every_process_takes_part_in_equally_many_passes_and_every_group_is_in_one():
    for sizes, processes, budget in (([5] * 7, 3, 10), ([9, 1, 9, 1], 2, 9), ([4], 2, 0)):
        plan = sharding.passes(sizes, processes=processes, budget=budget)
        assert len(plan) == processes and len({len(own) for own in plan}) == 1
        places = [place for own in plan for some in own for place in some]
        assert sorted(places) == list(range(len(sizes)))


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

    def fail(step, _):
        if step.step == 4:
            raise MemoryError

    with pytest.raises(MemoryError):
        _train(tiny_model, tmp_path / "r", told=fail, checkpoint_every=50)
    seen: list[int] = []
    _train(
        tiny_model, tmp_path / "r", told=lambda now, _: seen.append(now.step), checkpoint_every=50
    )
    assert seen == [5, 6]


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
    from transformers import AutoModelForCausalLM

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

    def interrupt(step, _):
        if step.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "cut" / "r", told=interrupt)
    seen: list[int] = []
    assert made(tmp_path / "cut" / "r", told=lambda now, _: seen.append(now.step)) == whole
    assert seen == [3, 4, 5, 6]


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

    def interrupt(step, _):
        if step.step == 3:
            raise KeyboardInterrupt

    how = {"objective": "dpo", "tokens_per_forward": 90, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        _train(tiny_model, tmp_path / "cut" / "r", told=interrupt, **how)
    assert 30 < max(sizes) <= 90
    kept = tmp_path / "cut" / "r" / "checkpoints" / "reference.json"
    assert [len(sums) for sums in json.loads(kept.read_text())] == [2] * 5
    whole = _train(tiny_model, tmp_path / "r", **how)
    shutil.copytree(tmp_path / "cut", tmp_path / "other")
    assert _train(tiny_model, tmp_path / "cut" / "r", **how) == whole
    store.write_json(tmp_path / "other" / kept.relative_to(tmp_path / "cut"), [[0.0, 9.0]] * 5)
    other = _train(tiny_model, tmp_path / "other" / "r", **how)
    assert other[:2] == whole[:2] and other[2].loss != whole[2].loss, "they are read"
