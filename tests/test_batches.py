"""Shared prompts against one row per response; what is dropped and why; the order of the data."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rrtf import methods
from rrtf.records import Outcome, RankedGroup
from rrtf.step import batches, packing, scoring


def _group(task_id="toy/1", responses=("\n return a", "\n b", "\n cc"), scores=(3.5, 3.0, 0.0)):
    count = len(responses)
    return RankedGroup(
        task_id=task_id,
        prompt=f"def f{task_id}(a):",
        responses=tuple(responses),
        sources=("teacher",) + ("student",) * (count - 1),
        outcomes=tuple(Outcome(min(4, int(s) + 1)) for s in scores),
        scores=tuple(scores),
        sft_index=0,
    )


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def model(tiny_model):
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


def _scored(model, examples):
    return scoring.score(model, batches.collate(examples))


def test_a_shared_prompt_scores_like_one_row_per_response(model, tokenizer):
    groups = [_group(), _group("toy/longer", ("\n x", ""), (1.0, 0.0))]
    examples, _ = batches.prepare(groups, tokenizer, objective="rrtf", max_length=256)
    sums, lengths = _scored(model, examples)
    slow = []
    for example in examples:
        for response in example.responses:
            ids = torch.tensor([[*example.prompt, *response]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0].log_softmax(-1)
            at = range(len(example.prompt), ids.shape[1])
            slow.append(sum(float(logits[t - 1, ids[0, t]]) for t in at))
    assert torch.allclose(sums, torch.tensor(slow), atol=1e-4)
    assert lengths.tolist() == [len(r) for e in examples for r in e.responses]


def test_padding_and_neighbours_do_not_change_a_score(model, tokenizer):
    long = _group("toy/with a much longer prompt than the other one")
    examples, _ = batches.prepare([_group(), long], tokenizer, objective="rrtf", max_length=256)
    alone, together = _scored(model, examples[:1])[0], _scored(model, examples)[0]
    assert torch.allclose(alone, together[:3], atol=1e-5)


def test_a_batch_by_hand():
    batch = batches.collate([batches.Example("t", (5, 6), ((7, 0), (8, 9, 0)), (1.0, 0.0), 0)])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 2, 3]]
    assert batch["layout"] == ((2, 1, 2),)
    assert batch["read"].tolist() == [1, 2, 1, 3, 4]
    assert batch["targets"].tolist() == [7, 0, 8, 9, 0]
    assert batch["response"].tolist() == [0, 0, 1, 1, 1]


def test_two_groups_lie_in_one_sequence_and_a_mask_per_row_is_made_only_for_sdpa(model):
    two = [
        batches.Example("t", (5, 6), ((7, 0), (8, 9, 0)), (1.0, 0.0), 0),
        batches.Example("u", (4,), ((3, 0),), (1.0,), 0),
    ]
    batch = batches.collate(two)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4, 3]]
    assert (batch["layout"], batch["teacher"].tolist()) == (((2, 1, 2), (1, 1)), [0, 2])
    assert batch["read"].tolist()[-2:] == [5, 6]
    arguments, read = packing.inputs(batch, model.config)  # sdpa
    assert arguments["input_ids"].tolist() == [[5, 6, 7, 8, 9], [4, 3, 0, 0, 0]]
    assert read.tolist() == [1, 2, 1, 3, 4, 5, 6]
    assert arguments["attention_mask"][0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
    packing.use(model)
    assert packing.inputs(batch, model.config)[0]["attention_mask"].numel() == 1


def test_every_target_ends_in_the_end_of_text_token(tokenizer):
    example = batches.encode(_group(), tokenizer, "rrtf")
    assert all(response[-1] == tokenizer.eos_token_id for response in example.responses)
    assert tokenizer.decode(example.responses[0][:-1]) == "\n return a"
    assert len(batches.encode(_group(), tokenizer, "sft").responses) == 1


def test_dropped_groups_are_counted_by_reason_and_add_up(tokenizer):
    groups = [
        _group(),
        _group("toy/single", ("\n a",), (3.0,)),
        _group("toy/level", ("\n a", "\n b"), (2.0, 2.0)),
        _group("toy/long", ("\n a", "\n" + "b" * 90), (2.0, 1.0)),
    ]
    kept, dropped = batches.prepare(groups, tokenizer, objective="dpo", max_length=60)
    assert [e.task_id for e in kept] == ["toy/1"]
    assert dropped == {"equal_scores": 1, "one_response": 1, "too_long": 1}


def test_a_response_that_is_too_long_leaves_its_group_whole_and_is_counted(tokenizer):
    long = "\n" + "b" * 90
    groups = [
        _group("toy/student", ("\n a", long, "\n b"), (2.0, 1.0, 3.0)),
        _group("toy/teacher", (long, "\n a", "\n b"), (3.0, 1.0, 2.0)),
        replace(
            _group("toy/last", (long, long, "\n b", "\n a"), (0.0, 1.0, 3.0, 2.0)), sft_index=3
        ),
    ]
    kept, dropped = batches.prepare(groups, tokenizer, objective="rrtf", max_length=60)
    assert [e.task_id for e in kept] == ["toy/student", "toy/last"]
    assert dropped == {"response_too_long": 3, "too_long": 1}
    texts = [[tokenizer.decode(r[:-1]) for r in e.responses] for e in kept]
    assert texts == [["\n a", "\n b"], ["\n b", "\n a"]]
    assert [(e.scores, e.sft_index) for e in kept] == [((2.0, 3.0), 0), ((3.0, 2.0), 1)]
    assert max(len(e.prompt) + len(r) for e in kept for r in e.responses) <= 60


def test_what_is_imitated_is_the_teachers_or_the_best_response_as_the_objective_says(tokenizer):
    groups = [_group(scores=(1.0, 3.0, 3.0)), _group("toy/tie", scores=(3.0, 3.0, 0.0))]

    def imitated(objective):
        examples, _ = batches.prepare(groups, tokenizer, objective=objective, max_length=256)
        return [tokenizer.decode(e.responses[e.sft_index][:-1]) for e in examples]

    assert imitated("rrtf") == imitated("sft") == imitated("dpo-sft") == ["\n return a"] * 2
    assert imitated("rrhf") == imitated("pro") == imitated("best-of-n") == ["\n b", "\n return a"]


def test_nothing_to_train_on_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="rrtf: none of 1 groups"):
        batches.prepare(
            [_group(responses=("\n a",), scores=(1.0,))],
            tokenizer,
            objective="rrtf",
            max_length=99,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": (1.0, 2.0)}, "toy/1: 3 responses but 2 scores"),
        ({"scores": (1.0, 2.0, float("nan"))}, "toy/1: score nan"),
        ({"sft_index": 3}, "toy/1: sft_index 3 of 3 responses"),
        ({"prompt": ""}, "toy/1: empty prompt"),
    ],
)
def test_a_group_that_contradicts_itself_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        batches.check(replace(_group(), **change))


def test_the_order_fills_every_batch_and_is_shared_by_methods_on_fewer_prompts():
    examples = [batches.Example(f"t{i}", (1,), ((2, 0),), (1.0,), 0) for i in range(7)]
    order = batches.in_order(examples, updates=5, groups_per_batch=4, seed=3)
    names = [e.task_id for e in order]
    assert len(names) == 20
    assert sorted(names[:7]) == sorted(names[7:14]) == [f"t{i}" for i in range(7)]
    assert names[:7] != names[7:14]
    fewer = batches.in_order(examples[:4], updates=1, groups_per_batch=4, seed=3)
    assert [e.task_id for e in fewer] == [n for n in names[:7] if n in ("t0", "t1", "t2", "t3")]


def _stage():
    good = _group("toy/good")
    bad = replace(_group("toy/bad"), outcomes=(Outcome.FAILED_TESTS, Outcome.PASS, Outcome.PASS))
    bad = replace(bad, scores=(2.5, 3.0, 3.0))
    pair = replace(
        good, responses=good.responses[:2], sources=good.sources[:2],
        outcomes=good.outcomes[:2], scores=good.scores[:2],
    )  # fmt: skip
    return [good, bad], [pair]


@pytest.mark.parametrize(
    ("method", "tasks", "dropped"),
    [
        ("sft", ["toy/good", "toy/bad"], {}),
        ("sft-verified", ["toy/good"], {"teacher_not_passing": 1}),
        ("sft-kept", ["toy/good"], {"no_pair": 1}),
        ("rrtf", ["toy/good"], {"no_pair": 1}),
        ("dpo", ["toy/good"], {"no_pair": 1}),
        ("rrhf", ["toy/good", "toy/bad"], {}),
    ],
)
def test_each_method_learns_from_its_own_groups(method, tasks, dropped):
    groups, pairs = _stage()
    chosen, left_out = methods.training_set(method, groups, pairs, max_responses=0)
    assert [g.task_id for g in chosen] == tasks
    assert left_out == dropped
    assert len(chosen) + sum(left_out.values()) == len(groups)


def test_rrhf_imitates_the_best_response_and_prefers_the_teacher_among_equals():
    groups, pairs = _stage()
    chosen, _ = methods.training_set("rrhf", groups, pairs, max_responses=0)
    assert [g.sft_index for g in chosen] == [0, 1]
    level = replace(groups[0], scores=(3.0, 3.0, 3.0), sft_index=2)
    assert methods.training_set("rrhf", [level], [], max_responses=0)[0][0].sft_index == 2
    assert groups[1].sft_index == 0
