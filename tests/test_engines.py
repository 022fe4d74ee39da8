"""Engines: one meaning of the options, equal greedy text, exact sampling, clear errors."""

import json
import shutil
import subprocess
import sys
import warnings
from functools import partial

import pytest
import torch
from conftest import EXACT_BYTES, drawn
from transformers import AutoModelForCausalLM, AutoTokenizer

from rrtf import engines, store
from rrtf.engines import (
    batches,
    check_sampling,
    complete,
    decoding,
    first_stop,
    gptbigcode,
    stop_near_end,
)
from rrtf.engines.transformers import choose_attention
from rrtf.prompts import prompt_ids
from rrtf.records import Outcome, RankedGroup
from rrtf.step import batches as step_batches

slow = partial(pytest.param, marks=pytest.mark.slow)
PROMPTS = ["def f(x):", "x = 1\n", "Return the sum of all the items", "a"]
GREEDY = {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 24, "stops": (), "seed": 0}
SAMPLED = GREEDY | {"n": 3, "temperature": 1.0, "top_p": 0.9, "seed": 7}


@pytest.fixture(scope="module")
def opened(tiny_model):
    return {
        name: engines.open_engine(name, tiny_model, dtype="float32")
        for name in ("gptbigcode", "transformers", "ctranslate2")
    }


def test_scores_are_log_probabilities_and_equal_in_all_engines(opened):
    answers = [" return x", "y = 2", "", "bc"]
    scores = [engine.score(PROMPTS, answers) for engine in opened.values()]
    for one in zip(*scores, strict=True):
        assert [n for _, n in one] == [one[0][1]] * 3
        assert [total for total, _ in one] == pytest.approx([one[0][0]] * 3, abs=1e-3)
    assert scores[0][2] == (0.0, 0)


def test_the_same_prompt_twice_gives_independent_samples_and_bfloat16_is_part_of_the_name(opened):
    first, second = opened["gptbigcode"].generate(["a", "a"], **drawn(**SAMPLED))
    assert first != second
    assert opened["gptbigcode"].name == "gptbigcode-float32"


def test_end_of_text_ends_an_answer(tiny_model):
    engine = engines.open_engine("gptbigcode", tiny_model, dtype="float32")
    greedy = engines.Decoding(0.0, 1.0, 24, 0)
    batch = gptbigcode.Batch(engine.model, engine.encode(["a"]))
    how = {"decoding": greedy, "ends": frozenset(), "stopped": lambda row: False}
    ids, ended = decoding.run(batch, None, **how)[0]
    assert len(ids) == 24 and not ended
    engine.ends = frozenset([ids[9]])
    answer = engine.generate(["a"], **drawn(**GREEDY))[0][0]
    assert (answer.n_tokens, answer.finish_reason) == (ids.index(ids[9]), "stop")


def test_in_bfloat16_a_seed_decides_the_samples_too(tiny_model):
    engine = engines.open_engine("gptbigcode", tiny_model, dtype="bfloat16")
    assert engine.name == "gptbigcode-bfloat16"
    answers = engine.generate(PROMPTS, **drawn(**SAMPLED))
    assert answers == engine.generate(PROMPTS, **drawn(**SAMPLED))


def test_draw_follows_the_sorted_nucleus():
    torch.manual_seed(0)
    logits = torch.randn(1, 200) * 2
    probabilities = torch.softmax(logits, -1)[0]
    ranked, order = probabilities.sort(descending=True)
    for top_p in (0.95, 0.6, 0.2):
        size = int((ranked.cumsum(0) - ranked < top_p).sum())
        expected = torch.zeros(200)
        expected[order[:size]] = ranked[:size] / ranked[:size].sum()
        uniforms = torch.rand(40_000, decoding.TRIES)
        tokens = decoding.draw(logits.expand(40_000, -1), uniforms, temperature=1.0, top_p=top_p)
        seen = torch.bincount(tokens, minlength=200) / 40_000
        assert not seen[expected == 0].any()
        spread = (expected * (1 - expected) / 40_000).sqrt()
        assert ((seen - expected).abs() <= 5 * spread + 1e-9).all()


def test_the_nucleus_breaks_ties_by_index_and_impossible_tokens_are_never_drawn():
    inside = decoding.in_nucleus(torch.full((4, 4), 0.25), torch.arange(4), 0.5)
    assert inside.tolist() == [True, True, False, False]
    probabilities = torch.zeros(3, 130)
    probabilities[:, [3, 70, 128]] = torch.tensor([0.2, 0.3, 0.5])
    uniforms = torch.tensor([0.0, 0.3, 1 - 2**-24])
    assert decoding.inverse_cdf(probabilities, uniforms).tolist() == [3, 70, 128]


def test_text_ends_at_the_earliest_stop_whatever_was_generated_beyond():
    def decode(ids):
        return "".join(map(chr, ids))

    ids = [ord(c) for c in "ab\ncd\nef"]
    options = {"stops": ["\nef", "\nc"], "decode": decode, "ended": False}
    short, long = complete(ids[:4], **options), complete(ids, **options)
    assert short == long
    assert (short.text, short.n_tokens, short.finish_reason) == ("ab", 4, "stop")
    assert complete(ids[:2], **options).finish_reason == "length"
    assert first_stop("abc", ["c", "b"]) == 1 and first_stop("abc", []) == -1
    assert stop_near_end(ids[:4], ["\nc"], decode, fresh=1)
    assert not stop_near_end(ids[:3], ["\nc"], decode, fresh=8)


def test_batches_hold_every_sample_once():
    found = batches([5, 1, 3], n=4, rows=5)
    assert sorted(pair for batch in found for pair in batch) == [
        (prompt, sample) for prompt in range(3) for sample in range(4)
    ]
    assert max(map(len, found)) <= 5


@pytest.mark.parametrize(
    ("option", "value"),
    [("temperature", -0.1), ("top_p", 0.0), ("top_p", 1.1), ("n", 0), ("max_new_tokens", 0)],
)
def test_bad_sampling_values_are_named(option, value):
    options = {"n": 1, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 5, "seed": 0}
    asked = drawn(stops=(), **options | {option: value})
    with pytest.raises(ValueError, match=f"{option} = {value}"):
        check_sampling(asked["decoding"], asked["n"])


@pytest.mark.parametrize("name", ["gptbigcode", "transformers", "ctranslate2"])
def test_an_answer_ends_where_the_positions_do_and_a_prompt_without_room_has_none(opened, name):
    asked = ["a", "b" * 240, "c" * 256, "d" * 300]
    rows = opened[name].generate(asked, **drawn(**GREEDY))
    assert [(row[0].n_tokens, row[0].finish_reason) for row in rows] == [
        (24, "length"), (16, "length"), (0, engines.NO_ROOM), (0, engines.NO_ROOM),
    ]  # fmt: skip
    alone = opened[name].generate(asked[1:2], **drawn(**GREEDY | {"max_new_tokens": 16}))
    assert rows[1] == alone[0] and rows[0] == opened[name].generate(["a"], **drawn(**GREEDY))[0]


def test_a_missing_model_an_unknown_engine_and_one_that_cannot_run_the_model_are_named(
    tiny_model, tmp_path
):
    store.write_json(tmp_path / "llama" / "config.json", {"model_type": "llama"})
    (tmp_path / "llama" / "tokenizer.json").write_text("{}")
    for name, folder, kind, told in (
        ("auto", tmp_path / "nowhere", FileNotFoundError, "nowhere"),
        ("auto", tmp_path, FileNotFoundError, r"no config\.json"),
        ("auto", "nano-nothing", FileNotFoundError, "nano-nothing"),
        ("vlm", tiny_model, ValueError, r"'vlm'.*auto, transformers"),
        ("gptbigcode", tmp_path / "llama", engines.UnsupportedModel, "ctranslate2 or transformers"),
    ):
        with pytest.raises(kind, match=told):
            engines.open_engine(name, folder)


@pytest.mark.parametrize("kind", ["llama", "gpt_bigcode"])
def test_auto_computes_in_the_precision_that_the_weights_are_stored_in(
    random_model, tmp_path, monkeypatch, kind
):
    """Rounded to bfloat16, weights that a short training has changed are those of the start."""
    folder = random_model(kind)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for has in (True, False):
        monkeypatch.setattr(gptbigcode, "supports_bfloat16", lambda has=has: has)
        for stored in (torch.float32, torch.bfloat16):
            there = tmp_path / f"{stored}-{has}"
            shutil.copytree(folder, there)
            model.to(stored).save_pretrained(there)
            engine = engines.open_engine("auto", there)
            assert (engine.precision == "bfloat16") == (has and stored is torch.bfloat16)
            name = "transformers" if kind == "llama" else "gptbigcode"
            assert engine.name.startswith(name)
            assert engine.generate(["a"], **drawn(**GREEDY))[0][0].n_tokens > 0
    assert engines.open_engine("auto", there, dtype="float32").precision == "float32"


def test_importing_the_package_does_not_import_torch():
    code = "import sys, rrtf.engines; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_an_engine_may_be_dropped_while_the_librarys_thread_holds_its_callback(tiny_model):
    """CTranslate2 lets go of a callback in its own thread, which must not end the model there."""
    program = (
        "import sys\nfrom rrtf import engines\n"
        "for _ in range(20):\n"
        "    opened = engines.open_engine('ctranslate2', sys.argv[1])\n"
        "    how = engines.Decoding(0, 1, 16, 0)\n"
        "    opened.generate(['a'], n=1, decoding=how, stops=('zq',))\n"
        "    del opened\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_model)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_chat_model_is_asked_in_the_template_of_its_tokenizer(chat_model, tiny_model):
    chat = engines.chat_template(chat_model)("Add.")
    assert chat == "<|endoftext|>[user]Add.[model]"
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    for text in ("Add.", chat):  # a first token that the template has written is not put twice
        assert prompt_ids(tokenizer, text).count(0) == 1
    with pytest.raises(ValueError, match="no chat template"):
        engines.chat_template(tiny_model)
    tokenizer.chat_template = "{{ raise_exception('no system message') }}"
    tokenizer.save_pretrained(chat_model)
    with pytest.raises(ValueError, match=r"chat: its chat template refuses: .*no system message"):
        engines.chat_template(chat_model)("Add.")


@pytest.mark.parametrize("style", ["starcoder", "chat"])
def test_a_model_is_trained_on_the_very_tokens_that_it_is_sampled_with(
    chat_model, add_problem, style, monkeypatch
):
    opened = engines.open_engine("transformers", chat_model)
    text = engines.asker(chat_model, style)(add_problem)
    seen, encode = [], opened.tokenizer.encode

    def spy(*texts, **options):
        ids = encode(*texts, **options)
        seen.extend([ids] * (texts[0] == text))
        return ids

    monkeypatch.setattr(opened.tokenizer, "encode", spy)
    opened.generate([text], **drawn(**GREEDY | {"max_new_tokens": 1}))
    (sampled,) = seen
    group = RankedGroup("t", text, ("x",), ("teacher",), (Outcome.PASS,), (3.0,), 0)
    assert step_batches.encode(group, opened.tokenizer, "sft").prompt == tuple(sampled)


# Held against transformers


ROPE = {"rope_theta": 500000.0, "factor": 8.0, "original_max_position_embeddings": 512}
LLAMA3 = ROPE | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def scaled(**rope):
    return {"rope_parameters": ROPE | rope}


@pytest.mark.parametrize("spread", [pytest.param(0.05, marks=pytest.mark.slow), 0.15])
@pytest.mark.parametrize(
    ("engine", "kind", "settings"),
    [
        ("ctranslate2", "llama", {"rope_parameters": LLAMA3}),
        ("ctranslate2", "llama", scaled(rope_type="yarn")),
        ("ctranslate2", "llama", scaled(rope_type="dynamic")),
        ("ctranslate2", "llama", {"hidden_act": "gelu"}),
        ("ctranslate2", "llama", {"head_dim": 64}),
        ("ctranslate2", "mistral", {"sliding_window": 16, "num_key_value_heads": 2}),
        ("ctranslate2", "gpt2", {"scale_attn_weights": False}),
        ("ctranslate2", "gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("ctranslate2", "gpt_neox", {}),
        ("ctranslate2", "phi", {}),
        ("ctranslate2", "gpt_bigcode", {"multi_query": False}),
        ("gptbigcode", "gpt_bigcode", {"scale_attn_weights": False}),
    ],
)
def test_an_engine_that_drops_a_setting_is_refused_and_auto_goes_on_to_the_next(
    random_model, engine, kind, settings, spread
):
    folder = random_model(kind, initializer_range=spread, **settings)
    with pytest.raises(engines.UnsupportedModel, match=rf"{engine} cannot \(") as refused:
        engines.open_engine(engine, folder)
    assert "transformers" in str(refused.value) and "\n" not in str(refused.value)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        taken = engines.open_engine("auto", folder)
    tried = any(f"transformers is taken: {engine} cannot" in str(one.message) for one in noted)
    assert tried == (engine == "gptbigcode"), "auto does not try CTranslate2"
    assert taken.name.startswith("transformers-")
    assert taken.generate(["a"], **drawn(**GREEDY))[0][0].n_tokens > 0


@pytest.mark.parametrize(
    ("engine", "kind", "settings"),
    [
        ("ctranslate2", "llama", {}),
        slow("ctranslate2", "llama", scaled(rope_type="linear")),
        slow("ctranslate2", "qwen2", {"num_key_value_heads": 2}),
        ("ctranslate2", "gpt2", {}),
        ("gptbigcode", "gpt_bigcode", {}),
    ],
)
def test_an_engine_that_computes_what_transformers_does_is_taken(
    random_model, engine, kind, settings, recwarn
):
    for spread in (0.02, 0.15):
        folder = random_model(kind, initializer_range=spread, **settings)
        for name in (engine, "auto") if engine == "gptbigcode" else (engine,):
            assert engines.open_engine(name, folder).name.startswith(engine)
    assert not [one for one in recwarn if issubclass(one.category, engines.Note)]


@pytest.mark.skipif(not EXACT_BYTES, reason="products of bytes saturate here")
def test_a_type_of_fewer_bits_is_held_to_its_own_rounding(random_model):
    folder = random_model("llama", initializer_range=0.15)
    assert engines.open_engine("ctranslate2", folder, dtype="int8").precision == "int8"
    with pytest.raises(engines.UnsupportedModel, match="is rounding"):
        engines.open_engine("ctranslate2", random_model("llama", hidden_act="gelu"), dtype="int8")


def test_an_engine_of_half_precision_may_lose_what_transformers_itself_loses_there(random_model):
    """A step of training below bfloat16's own: more is lost than weights moved at random lose."""
    from rrtf.engines import holding

    folder = random_model("gpt_bigcode", initializer_range=0.15)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.to(torch.bfloat16).to(torch.float32)
    ids = torch.tensor(holding.rows(folder)[-1:])
    model(input_ids=ids, labels=ids).loss.backward()
    with torch.no_grad():
        for weights in model.parameters():
            weights -= 2.0**-10 * weights.abs() * weights.grad.sign()
    model.save_pretrained(folder)
    opened = engines.open_engine("gptbigcode", folder, dtype="bfloat16")
    texts = holding.rows(folder)
    values = [torch.cat([torch.tensor(row) for row in e.log_probs(texts)]) for e in (
        opened, engines.open_engine("transformers", folder, dtype="float32"))]  # fmt: skip
    assert (values[0] - values[1]).square().mean().sqrt() > 0.05, "rounding undoes the step"


def test_what_was_held_is_not_held_again_unless_settings_or_shapes_change(
    random_model, monkeypatch, tmp_path_factory
):
    from rrtf.engines import holding

    monkeypatch.setenv("RRTF_HOME", str(tmp_path_factory.mktemp("home")))
    looked, compare = [], holding.compare
    monkeypatch.setattr(holding, "compare", lambda *a: looked.append(1) or compare(*a))
    folder = random_model("gpt2")
    for _ in range(2):
        engines.open_engine("ctranslate2", folder)
    assert len(looked) == 1
    engines.open_engine("ctranslate2", random_model("gpt2", seed=1))
    assert len(looked) == 1, "other values of the same weights compute alike"
    engines.open_engine("ctranslate2", random_model("gpt2", num_hidden_layers=1))
    assert len(looked) == 2


@pytest.mark.parametrize("kind", ["gemma2", "codegen"])
def test_models_without_fused_attention_run_by_their_plain_one(random_model, kind):
    more = {"rotary_dim": 4} if kind == "codegen" else {"head_dim": 32}
    engine = engines.open_engine("transformers", random_model(kind, **more))
    assert engine.name == "transformers-float32-eager"
    assert choose_attention("cuda", torch.float32) == "sdpa"
    assert engine.generate(PROMPTS, **drawn(**GREEDY))[0][0].n_tokens > 0


@pytest.mark.parametrize("name", ["gptbigcode", "transformers", "ctranslate2", "auto"])
def test_weights_that_do_not_fill_the_model_or_are_none_are_named_by_every_engine(
    tiny_model, tmp_path, name
):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    with pytest.raises(ValueError, match=r"12 tensors are missing: transformer\.h\.2\.attn"):
        engines.open_engine(name, folder)
    (folder / "config.json").write_text(json.dumps(config | {"n_inner": 96}))
    with pytest.raises(ValueError, match=r"of another shape: transformer\.h\.0\.mlp"):
        engines.open_engine(name, folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: is cut short"):
        engines.open_engine(name, folder)
    weights.write_text("version 1\nthe weights lie elsewhere\nsize 123\n")
    with pytest.raises(ValueError, match=r"model\.safetensors: holds no weights \(45 bytes\)"):
        engines.open_engine(name, folder)
    index = {"weight_map": {"a": "model-1-of-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match="model-1-of-2"):
        engines.open_engine(name, folder)


# End tokens


ENDS = {
    "generation_config": ({"eos_token_id": 5}, {"eos_token_id": [0, 65]}, {0, 65}),
    "config": ({"eos_token_id": [0, 65]}, {}, {0, 65}),
    "tokenizer": ({"eos_token_id": 65}, {"eos_token_id": None}, {0, 65}),
    "none": ({"eos_token_id": None}, {}, set()),
}


@pytest.mark.parametrize("kind", ["gpt_bigcode", "llama"])
@pytest.mark.parametrize("where", list(ENDS))
def test_a_text_ends_at_the_same_tokens_in_every_engine(random_model, where, kind):
    own, generation, ends = ENDS[where]
    folder = random_model(kind, bare=where == "none", initializer_range=0.1, **own)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    names = [*["gptbigcode"] * (kind == "gpt_bigcode"), "transformers", "ctranslate2"]
    opened = [engines.open_engine(name, folder, dtype="float32") for name in names]
    assert all(engine.ends == ends for engine in opened)
    prompts = [chr(97 + k) * (k + 1) for k in range(12)]
    texts = [engine.generate(prompts, **drawn(**GREEDY)) for engine in opened]
    assert all(rows == texts[0] for rows in texts)


@pytest.mark.parametrize("name", ["gptbigcode", "transformers", "ctranslate2"])
def test_special_tokens_in_code_are_text_to_every_engine(opened, name):
    code = 'END = "<|endoftext|>"'
    ((plain, count),) = opened[name].score(["x = 1\n"], [code])
    assert count == len(code.encode())
    engine = opened[name]
    found = engine.log_probs([prompt_ids(engine.tokenizer, f"x = 1\n{code}")])[0]
    assert sum(found[-count:]) == pytest.approx(plain)
    assert 0 not in prompt_ids(engine.tokenizer, code)


def test_special_tokens_in_a_users_message_are_text_to_every_engine_and_in_training(chat_model):
    told = "Split at <|endoftext|> or <|endoftext|>."
    prompt = engines.chat_template(chat_model)(told)
    for name in ("gptbigcode", "transformers", "ctranslate2"):
        engine = engines.open_engine(name, chat_model, dtype="float32")
        asked = []
        read = engine.log_probs
        engine.log_probs = lambda rows, read=read, asked=asked: asked.extend(rows) or read(rows)
        engine.score([prompt], ["x"])
        ids = prompt_ids(engine.tokenizer, prompt)
        assert asked == [[*ids, asked[0][-1]]], name
        assert ids.count(0) == 1 and ids[0] == 0
        ((answer,),) = engine.generate([prompt], **drawn(**GREEDY))
        (tokens,) = engine.greedy([ids], GREEDY["max_new_tokens"])
        assert answer.text == engine.tokenizer.decode(tokens), name
    answers = ("a <|endoftext|>", "b")
    outcomes = (Outcome.PASS, Outcome.FAILED_TESTS)
    group = RankedGroup("t", prompt, answers, ("teacher", "student"), outcomes, (1.0, 0.0), 0)
    example = step_batches.encode(group, engine.tokenizer, "rrtf")
    assert list(example.prompt) == ids
    assert [one.count(0) for one in example.responses] == [1, 1], "the end of each alone"


@pytest.mark.parametrize("kind", ["mamba", "openai-gpt"])
def test_models_without_a_cache_that_can_be_cut_read_their_texts_anew(random_model, kind):
    folder = random_model(kind, initializer_range=0.1)
    with pytest.warns(engines.Note, match="every token reads its whole text again"):
        engine = engines.open_engine("transformers", folder)
    prompts = ["a", "def f(x):", "x = 1\\n"]
    together = engine.generate(prompts, **drawn(**GREEDY))
    assert together == [engine.generate([one], **drawn(**GREEDY))[0] for one in prompts]
    rows = [prompt_ids(engine.tokenizer, one) for one in prompts]
    whole = [[*row, *more] for row, more in zip(rows, engine.greedy(rows, 8), strict=True)]
    for row, (own, best) in zip(rows, engine.read(whole), strict=True):
        assert own[len(row) - 1 :].tolist() == best[len(row) - 1 :].tolist()
