"""Plans against reality: parameters built, bytes and FLOPs measured, tables and errors read."""

import json
import tomllib
from copy import deepcopy
from functools import partial
from math import prod
from pathlib import Path

import pytest
import torch
from conftest import rrtf
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, GPTBigCodeConfig, LlamaConfig

from rrtf import config, store
from rrtf.plan import memory, models, work
from rrtf.plan.planning import settings_of
from rrtf.step import batches, packing, scoring

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {"checkpointing": False, "frozen": False}
QUIET = {"bos_token_id": 0, "eos_token_id": 0}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
SMALL = QUIET | {"vocab_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
CONFIGS = {
    "gpt_bigcode": GPTBigCodeConfig(**SMALL, **NO_DROPOUT, hidden_size=128, n_positions=256),
    "llama": LlamaConfig(**SMALL, hidden_size=128, intermediate_size=344, num_key_value_heads=2),
}
MIDDLE = GPTBigCodeConfig(
    **QUIET, **NO_DROPOUT, vocab_size=2048, n_positions=512, n_embd=512, n_layer=6, n_head=8
)  # 20 million parameters


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


run = partial(rrtf, "plan")


def planned(*arguments: str) -> dict:
    """What the verb writes for programs."""
    found = run(*arguments, "--out", "-")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


TABLE = tomllib.loads(config.data_text("models.toml"))


@pytest.mark.parametrize("entry", TABLE)
def test_every_model_of_the_table_has_its_published_number_of_parameters(entry):
    fields = TABLE[entry]
    shape = models.shape(models.build(models.find(fields["names"][0]).settings))
    if entry != "starcoderbase-3b":  # nobody printed that of this one
        assert shape.parameters == fields["parameters"]
    assert shape.vocabulary == fields["vocab_size"]


def test_the_shape_of_a_multi_query_model_by_hand():
    """Width 128, 3 layers: c_attn 128 x (128 + 2 x 32), c_proj 128 x 128, mlp 2 x 128 x 512."""
    shape = models.shape(models.build(CONFIGS["gpt_bigcode"]))
    assert shape.linear == 3 * (128 * 192 + 128 * 128 + 2 * 128 * 512)
    assert (shape.head, shape.attention, shape.key_value) == (512 * 128, 128, 32)


def test_a_folder_and_its_config_json_are_the_same_model(tmp_path):
    CONFIGS["llama"].save_pretrained(tmp_path)
    by_folder, by_file = (models.find(tmp_path / end) for end in ("", "config.json"))
    shapes = [models.shape(models.build(known.settings)) for known in (by_folder, by_file)]
    assert shapes[0] == shapes[1] and by_folder.origin == "config.json"


def test_a_name_of_the_hub_is_read_with_transformers_and_without_network_what_is_enough_is_said(
    monkeypatch,
):
    def unreachable(name: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda name: CONFIGS["llama"])
    known = models.find("someone/else")
    assert (known.origin, known.settings) == ("the hub", CONFIGS["llama"])
    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(FileNotFoundError, match=r"someone/else: .*no network.*--model FILE"):
        models.find("someone/else")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "config.json: not JSON"),
        ("[]", "config.json: expected an object"),
        ("{}", "config.json: model_type None"),
        ('{"model_type": "bert-of-tomorrow"}', "config.json: .*'bert-of-tomorrow'"),
        ('{"model_type": "t5"}', "t5: no causal language model"),
    ],
)
def test_a_config_json_that_is_none_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        models.build(models.find(path).settings)


def bytes_of(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def one_update(model, optimizer) -> None:
    ids = torch.randint(1, 512, (2, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()


def states(optimizer) -> int:
    """Bytes of an optimiser's states; a count of steps may be a number instead of a tensor."""
    values = [v for state in optimizer.state.values() for v in state.values()]
    return bytes_of(v for v in values if isinstance(v, torch.Tensor)) + 4 * sum(
        isinstance(v, float | int) for v in values
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_gradients_and_adamw_of_a_real_step_are_what_was_planned_to_the_byte(kind):
    model = AutoModelForCausalLM.from_config(CONFIGS[kind])
    optimizer = torch.optim.AdamW(model.parameters())
    one_update(model, optimizer)
    found = memory.stored(models.build(CONFIGS[kind]), "full")
    assert found["weights"] == bytes_of([*model.parameters(), *model.buffers()])
    assert found["gradients"] == bytes_of(p.grad for p in model.parameters())
    assert found["optimizer"] == states(optimizer)


def test_adafactor_of_a_real_step_keeps_what_was_planned_but_for_its_counters():
    from transformers.optimization import Adafactor

    model = AutoModelForCausalLM.from_config(CONFIGS["llama"])
    optimizer = Adafactor(model.parameters(), lr=1e-3, relative_step=False, scale_parameter=False)
    one_update(model, optimizer)
    found = memory.stored(models.build(CONFIGS["llama"]), "adafactor")
    sums = [v for s in optimizer.state.values() for k, v in s.items() if k.startswith("exp_avg")]
    n_parameters = len(list(model.parameters()))
    assert found["optimizer"] == bytes_of(sums) + 4 * n_parameters


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_adapters_are_those_that_peft_puts_on_all_linear_layers(kind):
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_config(deepcopy(CONFIGS[kind]), dtype=torch.bfloat16)
    buffers = bytes_of(model.buffers())
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, settings)
    learned = [p for p in adapted.parameters() if p.requires_grad]
    frozen = [p for p in adapted.parameters() if not p.requires_grad]
    found = memory.stored(models.build(CONFIGS[kind]), "lora", rank=4)
    elements = sum(p.numel() for p in learned)
    assert found["gradients"] == 4 * elements
    assert found["optimizer"] == 4 * (2 * elements + len(learned))
    assert found["weights"] == bytes_of(frozen) + buffers + 4 * elements


def test_qlora_holds_a_linear_weight_in_half_a_byte_and_an_eighth_of_a_bit():
    model = models.build(CONFIGS["llama"])
    linear = models.shape(model).linear
    lora, qlora = (memory.stored(model, name)["weights"] for name in ("lora", "qlora"))
    assert lora - qlora == pytest.approx(linear * (2 - (4 + 8 / 64 + 32 / (64 * 256)) / 8))


def example(prompt: int, responses: int, length: int) -> batches.Example:
    ids = tuple(range(1, prompt + 1))
    texts = tuple(tuple(range(1, length + 1)) for _ in range(responses))
    return batches.Example("t", ids, texts, tuple(map(float, range(responses))), 0)


def measured_step(settings, step: memory.Step, *, checkpointing: bool) -> dict[str, float]:
    """Bytes by kind at the peak of a second step on this CPU, by torch's own memory tracker."""
    from torch.distributed._tools.mem_tracker import MemTracker

    model = AutoModelForCausalLM.from_config(settings).train()
    packing.use(model)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    one = example(step.prompt, step.responses, step.response)
    batch = batches.collate([one] * step.rows)

    def compute() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=step.bfloat16):
            found = scoring.score(model, batch)[0].sum()
        found.backward()

    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        compute()
        optimizer.step()
        tracker.reset_mod_stats()
        compute()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return {str(kind).rpartition(".")[2]: value for kind, value in peak.items()}


@pytest.mark.parametrize(
    ("settings", "bfloat16", "checkpointing"),
    [
        *((CONFIGS["llama"], half, again) for half in (False, True) for again in (False, True)),
        (MIDDLE, False, False),
        pytest.param(MIDDLE, True, True, marks=pytest.mark.slow),  # a minute where it is emulated
    ],
)
def test_the_peak_of_a_real_step_is_planned_within_ten_percent(settings, bfloat16, checkpointing):
    """What comes on top of weights, gradients and states is planned within a factor of 1.35."""
    step = memory.Step(2, 60, 40, 3, bfloat16=bfloat16, dropout=0.0)
    model = models.build(settings)
    found = memory.parts(model, step, memory.Way("full", checkpointing, 16))
    peak = measured_step(settings, step, checkpointing=checkpointing)
    assert found.weights == peak["PARAM"] + peak["BUFFER"]
    of_head = found.gradients - peak["GRAD"]  # the tracker takes the untied head's for temporary
    tied = settings.tie_word_embeddings
    assert of_head == (0 if tied else 4 * model.get_output_embeddings().weight.numel())
    assert found.optimizer == peak["OPT"]
    assert found.total == pytest.approx(peak["Total"], rel=0.1)
    on_top = peak["ACT"] + peak["TEMP"] - of_head
    assert 1 / 1.35 < (found.working + found.activations + found.logits) / on_top < 1.35


def test_activations_grow_with_the_groups_and_not_with_the_vocabulary():
    wide = LlamaConfig(**{**SMALL, "vocab_size": 4096}, hidden_size=128, intermediate_size=344)
    narrow = LlamaConfig(**SMALL, hidden_size=128, intermediate_size=344)
    one, two = memory.Step(1, 40, 30, 2, dropout=0.0), memory.Step(2, 40, 30, 2, dropout=0.0)
    assert memory.saved(narrow, two).block == pytest.approx(2 * memory.saved(narrow, one).block)
    assert memory.saved(wide, one) == memory.saved(narrow, one)


def test_a_model_that_no_pass_can_be_made_of_is_planned_by_a_formula_and_says_so(monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no kernel for shapes alone")

    step = memory.Step(2, 40, 30, 2, dropout=0.0)
    assert memory.saved(CONFIGS["llama"], step).counted
    monkeypatch.setattr(memory, "_run", broken)
    odd = LlamaConfig(**SMALL, hidden_size=64, intermediate_size=128)
    found = memory.saved(odd, step)
    assert found.block == 34 * 2 * step.length * 64 and not found.counted


def test_logits_cost_a_tile_however_many_tokens_and_words_there_are():
    few, many = memory.Step(1, 10, 20, 2, dropout=0.0), memory.Step(8, 100, 200, 4, dropout=0.0)
    assert memory.logits(few, 1000) == 40 * 1000 * 10
    assert memory.logits(many, 49152) == memory.logits(many, 200_000)


def test_a_shard_has_its_rows_and_a_gpu_more_never_needs_more():
    model = models.build(CONFIGS["llama"])
    step = memory.Step(1, 32, 17, 2, dropout=0.0)
    held = memory.stored(model, "full", shards=8)["gradients"]
    assert held == sum(4 * -(-p.shape[0] // 8) * prod(p.shape[1:]) for p in model.parameters())
    totals = [
        memory.parts(model, step, memory.Way("full", True, 16), n).total for n in (2, 4, 8, 16)
    ]
    assert totals == sorted(totals, reverse=True)


def test_the_fewest_gpus_are_found_or_none_where_activations_alone_do_not_fit():
    def need(count: int) -> memory.Parts:
        return memory.Parts(60 / count, 0, 0, 5, 10, 5)

    assert memory.devices(need, room=80)[0] == 1
    assert memory.devices(need, room=40)[0] == 3
    assert memory.devices(need, room=40, most=1) is None
    assert memory.devices(need, room=19) is None


def counted(kind: str, attention: str):
    """A model whose attention is plain matrix products: torch's fused CPU kernel is not counted."""
    model = AutoModelForCausalLM.from_config(CONFIGS[kind])
    model.set_attn_implementation(attention)
    return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_training_flops_are_those_that_torch_counts_in_a_real_step(kind):
    model = counted(kind, packing.choose(CONFIGS[kind])).train()
    batch = batches.collate([example(40, 3, 24)])
    shape, row = models.shape(model), work.Row(prompt=40, response=24, responses=3)
    with FlopCounterMode(display=False) as forward:
        sums, _ = scoring.score(model, batch)
    assert work.group_flops(shape, row) == pytest.approx(forward.get_total_flops(), rel=0.02)
    with FlopCounterMode(display=False) as backward:
        sums.sum().backward()
    total = forward.get_total_flops() + backward.get_total_flops()
    assert work.train_flops(shape, row, **PLAIN) == pytest.approx(total, rel=0.03)


@pytest.mark.parametrize("kind", CONFIGS)
def test_generation_flops_are_those_that_torch_counts_with_a_cache(kind):
    """A prompt of 20 read at once and 30 tokens written one by one."""
    model = counted(kind, "eager").eval()
    cache, ids = None, torch.randint(1, 512, (1, 20))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for _ in range(31):
            out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, ids = out.past_key_values, out.logits.argmax(-1)
    found = work.generate_flops(models.shape(model), prompts=1, answers=1, prompt=20, answer=30)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "olmoe"])
def test_a_mixture_costs_the_experts_that_a_token_goes_through(kind):
    """4 experts of 3 x 32 x 48 weights in each of 2 layers, of which a token takes 2."""
    more = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
    settings = AutoConfig.for_model(
        kind, vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16, **more,
    )  # fmt: skip
    shape = models.shape(models.build(settings))
    assert shape.experts == 2 * 2 * 3 * 32 * 48
    flops = work.forward_flops(shape, tokens=7, pairs=0, predicted=0)
    assert flops == 2 * 7 * (shape.linear + shape.experts)


def test_six_n_d_for_long_enough_rows_by_hand():
    """10 linear weights, 6 a token; 2 of the head, 8 a prediction, made twice; no attention."""
    shape = models.Shape(12, 10, 2, layers=0, hidden=1, attention=0, key_value=0, vocabulary=2,
                         positions=0)  # fmt: skip
    row = work.Row(prompt=0, response=101, responses=1)
    assert work.train_flops(shape, row, **PLAIN) == 6 * 10 * 100 + 8 * 2 * 101
    again = work.train_flops(shape, row, **PLAIN | {"checkpointing": True}) - work.train_flops(
        shape, row, **PLAIN
    )
    assert again == 2 * 10 * 100
    assert (
        work.train_flops(shape, row, checkpointing=False, frozen=True) == 4 * 10 * 100 + 6 * 2 * 101
    )


def test_a_group_shares_its_prompt():
    """Prompt 100, 4 responses of 51: 300 tokens instead of 600."""
    row = work.Row(prompt=100, response=51, responses=4)
    assert (row.packed, row.apart, row.targets) == (300, 600, 204)


def test_every_profile_has_a_device_whose_figures_can_be_replaced():
    assert {profile: models.device_of(profile) for profile in config.profiles()}
    found = models.device("h100", memory=40, train=0.5, watts=None)
    assert (found.memory, found.train, found.watts) == (40e9, 0.5, 700.0)


def test_the_nano_profile_is_planned_with_the_answers_and_runs_that_it_has():
    """643 problems x 8 and x 1; 75 updates of 8 groups; 16 models x 600 tasks x 11 answers."""
    found = {(row["stage"], row["what"]): row for row in planned("--profile", "nano")["stages"]}
    assert found["sample", "student"]["answers"] == 643 * 8
    assert found["sample", "teacher"]["answers"] == 643
    assert found["train", "rrtf"]["answers"] == 3 * 75 * 8 * 2
    assert found["train", "rrhf"]["answers"] == 75 * 8 * 4
    assert found["evaluate", "test, programs"]["programs"] == 105_600


def test_every_teacher_that_runs_here_is_counted_as_what_it_is():
    several = ["nano-teacher-blind-spots", "bigcode/starcoder", "nano-student"]
    where = ["transformers", "transformers", "openai@http://localhost:1/v1"]
    overrides = {"shared.teacher": several, "shared.teacher_engine": where}
    words = [f"--set={name}={json.dumps(value)}" for name, value in overrides.items()]
    found = planned("--profile", "nano", *words)
    assert found["teacher"]["name"] == "nano-teacher-blind-spots, bigcode/starcoder"
    rows = {(row["stage"], row["what"]): row for row in found["stages"]}
    alone = {(row["stage"], row["what"]): row for row in planned("--profile", "nano")["stages"]}
    for key in (("sample", "teacher"), ("evaluate", "test, teacher")):
        assert rows[key] == alone[key]
        second = rows[key[0], f"{key[1]}-2"]
        assert second["answers"] == alone[key]["answers"]
        assert second["flops"] > 1000 * alone[key]["flops"], "15 billion weights"
    assert rows["evaluate", "test, programs"]["programs"] == 17 * 600 * 11


def test_the_paper_profile_has_its_68_000_prompts_792_updates_of_512_and_200_samples():
    found = planned("--profile", "paper")
    stages = {(row["stage"], row["what"]): row for row in found["stages"]}
    assert found["facts"][0]["value"] == 68_000
    assert stages["train", "rrtf"]["answers"] == 792 * 512 * 2
    per_model = 164 * (1 + 200 + 200)  # greedy, T = 0.2, T = 1.2
    assert (
        stages["evaluate", "humaneval"]["answers"]
        == stages["evaluate", "humaneval"]["runs"] * per_model
    )
    assert found["shape"]["parameters"] == 15_517_456_384
    held = found["units"]
    assert held["blocks"] * held["largest_block"] + held["root"] == 15_517_456_384
    assert "does NOT fit" in run("--profile", "paper", "--gpus", "1").stdout


def test_time_and_energy_are_flops_over_what_the_gpus_reach():
    one = planned("--profile", "gpu80", "--gpus", "4", "--mfu", "0.5", "--watts", "1000")
    line, programs = (
        next(row for row in one["stages"] if row["what"] == what) for what in ("rrtf", "mutants")
    )
    rate = models.facts()["programs_per_second_many"].value
    workers = config.resolve("gpu80", "rank")["workers"]
    assert programs["seconds"] == pytest.approx(programs["programs"] / (workers * rate))
    assert line["seconds"] == pytest.approx(line["flops"] / (4 * 989.4e12 * 0.5))
    assert line["kwh"] == pytest.approx(line["seconds"] * 4 * 1000 / 3.6e6)
    two = planned("--profile", "gpu80", "--gpus", "8", "--mfu", "0.5", "--watts", "1000")
    other = next(row for row in two["stages"] if row["what"] == "rrtf")
    assert line["seconds"] == pytest.approx(2 * other["seconds"])


def test_lengths_prompts_and_memory_follow_what_is_asked():
    base = planned("--profile", "gpu80")
    asked = "--prompts 100 --prompt-tokens 10 --answer-tokens 20 --gpu-memory 40"
    more = planned("--profile", "gpu80", *asked.split(), "--groups-at-a-time", "2")
    student = next(row for row in more["stages"] if row["what"] == "student")
    assert student["answers"] == 100 * 16 and student["tokens"] == 100 * 4 * 10 + 1600 * 20
    assert more["step"]["rows"] == 2 != base["step"]["rows"]
    assert more["devices"] >= base["devices"] and more["device"]["memory"] == 40e9


def test_a_profile_without_a_file_of_problems_counts_those_of_a_file_that_is_there(tmp_path):
    rows = [{"task_id": f"t/{k}", "prompt": "p", "entry_point": "f", "test": ""} for k in range(3)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = settings_of("nano", {"shared.problems": str(path)})
    count, fact = work.n_prompts(settings)
    assert count == 3 and fact.measured


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_printed_fits_the_terminal_and_cuts_nothing(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for profile in ("nano", "paper"):
        found = run("--profile", profile)
        assert found.exit_code == 0, found.output
        assert max(map(len, found.stdout.splitlines())) <= width
        assert "…" not in found.stdout
        for word in ("Memory of a training step", "qlora", "evaluate", "What this rests on"):
            assert word in found.stdout


def test_a_finished_run_of_the_same_settings_is_shown_beside_its_prediction(tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_HOME", str(tmp_path))
    settings = config.resolve("nano", "rank")
    folder = config.run_dir("nano") / "04_rank"
    store.write_json(folder / "manifest.json", {"settings": settings, "seconds": 40.0})
    assert planned("--profile", "nano")["measured"] == {"rank": 40.0}
    assert "planned / measured" in run("--profile", "nano").stdout
    other = planned("--profile", "nano", "--set", "rank.n_mutants=9")
    assert other["measured"] == {}


def test_quantising_is_done_by_one_core_and_everything_else_by_all():
    settings = settings_of("nano", {})
    on = models.measured_on_cpu(models.device("cpu"))
    done = work.Work("quantize", "answers", "generate", flops=on.flops * on.generate)
    also = work.Work("sample", "student", "generate", flops=on.flops * on.generate)
    lines = {line.work: line.seconds for line in work.lines([done, also], settings, on, devices=2)}
    assert lines[done] == pytest.approx(1.0) and lines[also] == pytest.approx(0.5)
