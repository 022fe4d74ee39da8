"""The verb `train`: a folder others can load, what it says, how it goes on, what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from conftest import LIMITS, rrtf
from test_train import _groups, _same, _validation, recipe
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from rrtf import __main__, engines, execution, prompts, store
from rrtf.step import batches

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tiny_model, tmp_path):
    """Calls the verb in `tmp_path` with small settings and further arguments."""
    os.makedirs(tmp_path, exist_ok=True)
    store.write(tmp_path / "groups.jsonl", _groups())

    def call(*more, groups="groups.jsonl", output="out", objective="rrtf"):
        arguments = _arguments(tiny_model, tmp_path, groups, output, objective)
        return CliRunner().invoke(__main__.app, [*arguments, *map(str, more)])

    return call


def _arguments(model, folder, groups="groups.jsonl", output="out", objective="rrtf"):
    return [
        "train", str(folder / groups), "--model", str(model), "--objective", objective,
        "--out", str(folder / output), "--groups-per-batch", "2", "--threads", "1",
        "--precision", "float32", "--save-dtype", "float32", "--checkpoint-every", "2",
    ]  # fmt: skip


def _rows(**changes):
    rows = [store.to_row(group) for group in _groups(3)]
    rows[1] |= changes
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def test_a_folder_for_transformers_and_vllm_a_table_and_logs(run, tmp_path):
    done = run("--updates", 4)
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "5 prompts 5 trained on" in words and "updates 4 of 2 prompts" in words
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert f"tokens {facts['tokens']}" in words
    first, last = facts["steps"][0]["loss"], facts["steps"][-1]["loss"]
    assert f"first loss {first:.4f} last loss {last:.4f}" in words
    assert "update 4 of 4: loss" in done.output and str(tmp_path / "out") in done.output
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("def f(a):", return_tensors="pt")["input_ids"]
    assert network.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]
    names = {path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "README.md", "training.json", "logs",
    }  # fmt: skip
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["GPTBigCodeForCausalLM"] and config["dtype"] == "float32"


def test_tensorboard_reads_the_logs(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("--updates", 3).exit_code == 0
    events = EventAccumulator(str(tmp_path / "out" / "logs"))
    events.Reload()
    steps = store.read_json(tmp_path / "out" / "training.json")["steps"]
    shown = {event.step: event.value for event in events.Scalars("loss")}
    assert shown == {step["step"]: pytest.approx(step["loss"]) for step in steps}
    assert set(events.Tags()["scalars"]) >= {"rank_loss", "ft_loss", "violated", "grad_norm"}


TRACKER = """
import json
from pathlib import Path

def init(**how):
    told(init=how)
    return Run()

def told(**what):
    with Path("told.jsonl").open("a") as file:
        file.write(json.dumps(what) + chr(10))

def log(values, step):
    told(step=step, values=values)

def finish():
    told(finished=True)

class Run:
    log, finish = staticmethod(log), staticmethod(finish)
"""


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_other_trackers_are_told_every_update_and_the_held_out_loss(
    run, tmp_path, monkeypatch, name
):
    done = run("--updates", 2, "--report-to", name)
    assert done.exit_code == 2 and f"--report-to {name}: it is not installed" in done.output
    (tmp_path / f"{name}.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    how = ("--updates", 2, "--report-to", name, "--held-out", 2, "--validate-every", 1)
    done = run(*how)
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "5 prompts -2 held_out 3 trained on" in words and "best model:" in words
    assert re.search(r"after update 2: loss \d+\.\d{4} held out", words)
    first, *logged, last = map(json.loads, Path("told.jsonl").read_text().splitlines())
    assert first["init"]["name"] == "out" and first["init"]["config"]["objective"] == "rrtf"
    assert [row["step"] for row in logged] == [0, 1, 1, 2, 2] and last == {"finished": True}
    assert set(logged[-1]["values"]) == {f"held_out/{n}" for n in ("loss", "rank_loss", "ft_loss")}
    assert logged[1]["values"]["learning_rate"] > 0 and logged[1]["values"]["clipped"] == 1
    monkeypatch.delitem(sys.modules, name)


class Hub:
    """The hub's client, which only remembers what it was asked."""

    asked: ClassVar[list] = []

    def create_repo(self, **how):
        self.asked.append(("create", how))

    def upload_folder(self, folder_path, **how):
        from huggingface_hub.utils import filter_repo_objects

        names = [str(p.relative_to(folder_path)) for p in folder_path.rglob("*") if p.is_file()]
        chosen = {n: how.pop(n) for n in ("allow_patterns", "ignore_patterns")}
        self.asked.append(("upload", how | {"files": {*filter_repo_objects(names, **chosen)}}))


def test_a_model_with_its_card_goes_to_the_hub_and_what_cannot_is_said_before_the_training(
    run, tmp_path, monkeypatch
):
    import huggingface_hub as hub

    monkeypatch.setattr(hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "asked", [])
    to = ("--updates", 2, "--held-out", 2, "--push-to-hub")
    for environment, name, told in (
        ("offline", "me/mine", "--push-to-hub me/mine: HF_HUB_OFFLINE is set"),
        ("no token", "me/mine", "--push-to-hub me/mine: no token of the hub: set HF_TOKEN"),
        ("no token", "a/b/c", "--push-to-hub a/b/c: expected OWNER/NAME"),
    ):
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", environment == "offline")
        monkeypatch.setattr(hub, "get_token", lambda: None)
        done = run(*to, name)
        assert done.exit_code == 2 and told in " ".join(done.output.split()), done.output
        assert not (tmp_path / "out").exists() and not Hub.asked
    monkeypatch.setattr(hub, "get_token", lambda: "hf_x")
    done = run(*to, "me/mine")
    assert done.exit_code == 0, done.output
    (create, made), (upload, sent) = Hub.asked
    assert (create, upload) == ("create", "upload") and made["private"] and made["exist_ok"]
    assert made["repo_id"] == sent["repo_id"] == "me/mine"
    names = {"config.json", "model.safetensors", "tokenizer.json", "README.md", "training.json"}
    assert names <= sent["files"] and "best/model.safetensors" in sent["files"]
    assert not any(name.startswith((".", "logs")) for name in sent["files"])
    for name in ("diary.md", "notes.txt", "my_tokens.json", "thesis/config.json"):
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    run(*to, "me/mine")
    assert Hub.asked[-1][1]["files"] == sent["files"], "again, and nothing that no training made"
    card = (tmp_path / "out" / "README.md").read_text()
    facts = store.read_json(tmp_path / "out" / "training.json")
    assert hub.ModelCard(card).data.tags == ["code", "rrtf"]
    assert "3 of 5 prompts with ranked responses (dropped: none), 2 more held out" in card
    digest = store.read_json(tmp_path / "out" / ".digest.json")["of"]
    assert digest["groups"] in card and "| objective | rrtf |" in card
    last = facts["looks"][-1]
    assert f"| {last['step']} | {last['loss']} |  |" in card

    def refused(self, **how):
        raise PermissionError("403: not yours")

    monkeypatch.setattr(Hub, "create_repo", refused)
    done = run(*to, "me/mine", output="other")
    assert done.exit_code == 1 and "create_repo: 403: not yours" in done.output
    assert not (tmp_path / "other").exists()


def test_problems_of_a_file_are_asked_on_the_way_and_said_and_logged(run, tmp_path, monkeypatch):
    (tmp_path / "trackio.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    store.write(tmp_path / "asked.jsonl", _validation().problems)
    how = ("--updates", 2, "--validate-every", 1, "--report-to", "trackio", "--workers", 2)
    done = run(*how, "--validate-on", "asked.jsonl")
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "after update 0: pass@1 0.0 % on validation" in words
    assert "(after update 1: pass@1 0.0 % on validation)" in words, "the earliest of equal ones"
    rows = [json.loads(line) for line in Path("told.jsonl").read_text().splitlines()]
    seen = [row["step"] for row in rows if row.get("values") == {"validation/pass_at_1": 0.0}]
    assert seen == [0, 1, 2]
    monkeypatch.delitem(sys.modules, "trackio")
    for more, told in (
        (["--validate-on", "nothing.jsonl"], "nothing.jsonl: no such file"),
        (["--validate-on", "asked.jsonl", "--prompt-format", "chat"], "no chat template"),
    ):
        done = run("--updates", 1, *more, output="o")
        assert done.exit_code == 2 and told in " ".join(done.output.split()), done.output
    assert "another validation" in run(*how).output

    def without(*_, **__):
        raise RuntimeError("no sandbox here")

    monkeypatch.setattr(execution, "execute", without)
    done = run("--updates", 1, "--validate-on", "asked.jsonl", output="o")
    assert done.exit_code == 1 and "failed: no sandbox here" in done.output
    assert not (tmp_path / "o").exists()


def test_the_command_of_a_run_makes_the_very_run(run, tiny_model, tmp_path):
    """What torchrun is given: the same recipe, problems and limits, so the same digest."""
    from rrtf import train

    asked = replace(_validation(), limits=replace(LIMITS, memory_mb=300), max_new_tokens=7)
    how = recipe(updates=1, threads=1)
    made = train.Run("r", "rrtf", 0, tuple(_groups()), how, validation=asked)
    groups, output = tmp_path / "groups.jsonl", tmp_path / "models" / "r"
    output.parent.mkdir()
    words = train.verb_of(made, str(tiny_model), output, groups)[2:]
    assert CliRunner().invoke(__main__.app, words).exit_code == 0
    digest = train.mark_of(made.groups, tiny_model, how, asked)["digest"]
    assert train.read_steps(output, digest) is not None


def test_groups_in_another_form_that_rank_writes_give_the_same_model(run, tmp_path):
    rows = [store.to_row(group) for group in _groups()]
    (tmp_path / "groups.parquet").write_bytes(store.encode(rows, ".parquet"))
    assert run("--updates", 1).exit_code == 0
    done = run("--updates", 1, groups="groups.parquet", output="other")
    assert done.exit_code == 0, done.output
    assert _same(tmp_path / "out", tmp_path / "other")


def test_a_finished_folder_is_read_and_another_run_in_it_is_refused_by_its_differences(
    run, tmp_path
):
    assert run("--updates", 2).exit_code == 0
    weights = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    again = run("--updates", 2, "--tokens-per-forward", 64)
    assert again.exit_code == 0 and "model:" in again.output
    other = run("--updates", 2, "--learning-rate", 0.5)
    assert other.exit_code == 2
    assert "holds another run: learning_rate 2e-05, now 0.5" in other.output
    assert "--overwrite" in other.output
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == weights
    store.write(tmp_path / "fewer.jsonl", _groups(3))
    assert "another groups" in run("--updates", 2, groups="fewer.jsonl").output
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert run("--updates", 3, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine", "only what a run makes goes"
    assert len(store.read_json(tmp_path / "out" / "training.json")["steps"]) == 3


def test_a_folder_that_no_training_made_is_never_touched(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    for more in ([], ["--overwrite"]):
        done = run("--updates", 1, *more)
        assert done.exit_code == 2 and "no training made it" in done.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    assert run("--updates", 1, output="file").exit_code == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": None}, "RankedGroup without scores"),
        ({"scores": [1.0]}, "toy/1: 2 responses but 1 scores"),
        ({"scores": ["high", "low"]}, "toy/1: scores: expected a list of numbers"),
        ({"sources": ["teacher"]}, "toy/1: 2 responses but 1 sources"),
        ({"responses": "pass"}, "toy/1: responses: expected a list of texts"),
        ({"sft_index": 2}, "toy/1: sft_index 2 of 2 responses"),
        ({"outcomes": ["PASS", "MAYBE"]}, "'MAYBE' is no outcome"),
    ],
)
def test_a_group_that_contradicts_itself_is_named_by_line_and_task(run, tmp_path, changes, message):
    store.write(tmp_path / "bad.jsonl", _rows(**changes))
    done = run("--updates", 1, groups="bad.jsonl")
    assert done.exit_code == 2 and not (tmp_path / "out").exists()
    assert f"bad.jsonl:2: {message}" in done.output


def test_it_is_said_how_much_of_a_training_the_rounding_of_its_weights_takes_back(run, tmp_path):
    how = ("--updates", 1, "--learning-rate", 1e-6)
    for kind, noted in (("float32", False), ("bfloat16", True)):
        done = run(*how, "--save-dtype", kind, output=kind)
        facts = json.loads((tmp_path / kind / "training.json").read_text())
        assert (facts["rounded"] > 1) == ("rounding to" in done.output) == noted
    said = " ".join(done.output.split())
    assert f"changes {facts['rounded']:.0%} as much as training did" in said


PAIR = {"prompt": "def f(x):\n", "chosen": "    return 2 * x\n", "rejected": "    return x\n"}
FOREIGN = {
    "pairs: prompt, chosen, rejected": PAIR | {"chosen_score": None},
    "responses with scores": {
        "query": PAIR["prompt"], "responses": [PAIR["chosen"], PAIR["rejected"]],
        "scores": [0.5, 0],
    },
    "prompts with one completion": {"prompt": PAIR["prompt"], "completion": PAIR["chosen"]},
}  # fmt: skip


@pytest.mark.parametrize("form", FOREIGN)
def test_rows_of_other_forms_are_trained_on_as_the_group_that_they_mean(run, tmp_path, form):
    ours = {
        "task_id": "line 1", "prompt": PAIR["prompt"], "sources": ["a", "b"], "sft_index": 0,
        "responses": [PAIR["chosen"], PAIR["rejected"]], "scores": [1.0, 0.0],
        "outcomes": ["PASS", "FAILED_TESTS"],
    }  # fmt: skip
    objective = "sft" if "completion" in FOREIGN[form] else "simpo"
    store.write(tmp_path / "ours.jsonl", [ours])
    store.write(tmp_path / "theirs.jsonl", [FOREIGN[form]])
    for name in ("ours", "theirs"):
        how = {"groups": f"{name}.jsonl", "output": name, "objective": objective}
        done = run("--updates", 2, **how)
        assert done.exit_code == 0, done.output
        assert (f"1 rows read as {form}" in done.output) == (name == "theirs")
    made = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", "theirs")]
    assert made[0] == made[1]


def test_scores_of_other_rows_decide_who_is_imitated_and_what_is_no_text_is_refused():
    train = import_module("rrtf.cli.train")
    scored = PAIR | {"chosen_score": 3.5, "rejected_score": 2}
    listed = {"prompt": "p", "responses": ["a", "b", "c"], "scores": [0, 0.5, 0.5]}
    assert train.as_group(listed, "f:1")[0]["sft_index"] == 1
    assert train.as_group(listed | {"sft_index": 2}, "f:1")[0]["sft_index"] == 2
    assert train.as_group(scored, "f:1")[0]["scores"] == [3.5, 2]
    assert train.as_group(scored | {"rejected_score": 4}, "f:1")[0]["scores"] == [1.0, 0.0]
    with pytest.raises(ValueError, match="f:7: chosen: expected a text, or messages"):
        train.as_group(PAIR | {"chosen": {"text": "x"}}, "f:7")


@pytest.mark.parametrize(
    "row",
    [
        PAIR | {"prompt": None, "question": PAIR["prompt"], "system": ""},
        {"instruction": PAIR["prompt"], "completions": [PAIR["chosen"], PAIR["rejected"]],
         "rewards": [1.0, 0.0]},
    ],
    ids=["orca's", "completions with rewards"],
)  # fmt: skip
def test_other_names_of_the_fields_mean_the_same(row):
    train = import_module("rrtf.cli.train")
    ours, theirs = (train.as_group(one, "f:1")[0] for one in (PAIR, row))
    assert all(theirs[n] == ours[n] for n in ("prompt", "responses", "scores", "sft_index"))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"question": "a", "system": "Be kind.", "chosen": "b", "rejected": "c"},
            "system: question",
        ),
        ({"instruction": "a", "input": "3", "chosen": "b", "rejected": "c"}, "input: instruction"),
        ({"prompt": "a", "completion": "b", "label": False}, "label: false: a bad answer alone"),
        (
            {"instruction": "a", "output": "b"},
            "expected groups of rank.*it has instruction, output",
        ),
    ],
)
def test_what_would_be_lost_of_a_row_is_refused_by_line(row, told):
    with pytest.raises(ValueError, match=f"f:7: {told}"):
        import_module("rrtf.cli.train").as_group(row, "f:7")


def says(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


ASKED = says("user", PAIR["prompt"])
CHOSEN, REJECTED = (says("assistant", PAIR[name]) for name in ("chosen", "rejected"))
SPOKEN = {
    "a prompt of messages": {"prompt": [ASKED], "chosen": [CHOSEN], "rejected": [REJECTED]},
    "whole conversations": {"chosen": [ASKED, CHOSEN], "rejected": [ASKED, REJECTED]},
    "and their prompt as a text": {
        "prompt": PAIR["prompt"], "chosen": [ASKED, CHOSEN], "rejected": [ASKED, REJECTED],
        "messages": [ASKED, CHOSEN], "score_chosen": 1.0, "score_rejected": 7.0,
    },
    "a text and messages for answers": PAIR | {"chosen": [CHOSEN], "rejected": [REJECTED]},
}  # fmt: skip


@pytest.mark.parametrize("form", SPOKEN)
def test_pairs_of_messages_mean_the_texts_that_the_models_template_makes(chat_model, form):
    train = import_module("rrtf.cli.train")
    template = engines.chat_template(chat_model)
    found, spoken = train.as_texts(SPOKEN[form], "f:1", template)
    group, kind = train.as_group(found, "f:1")
    assert spoken and kind == "pairs: prompt, chosen, rejected"
    assert group["prompt"] == template(PAIR["prompt"]) != PAIR["prompt"]
    assert group["responses"] == [PAIR["chosen"], PAIR["rejected"]] and group["sft_index"] == 0


def test_a_model_learns_the_same_from_messages_as_from_their_texts(chat_model, tmp_path):
    asked = engines.chat_template(chat_model)(PAIR["prompt"])
    rows = {"texts": PAIR | {"prompt": asked}, "messages": SPOKEN["whole conversations"]}
    for name, row in rows.items():
        store.write(tmp_path / f"{name}.jsonl", [row])
        words = _arguments(chat_model, tmp_path, f"{name}.jsonl", name, "simpo")
        done = CliRunner().invoke(__main__.app, [*words, "--updates", "1"])
        assert done.exit_code == 0, done.output
        assert ("rejected of messages" in done.output) == (name == "messages")
    made = [(tmp_path / name / "model.safetensors").read_bytes() for name in rows]
    assert made[0] == made[1]


def test_a_conversation_to_imitate_is_read_as_the_models_template_has_its_tokens(chat_model):
    train = import_module("rrtf.cli.train")
    head = [says("system", "Be short."), ASKED]
    row = {"messages": [*head, CHOSEN]}
    found, _ = train.as_texts(row, "f:1", engines.chat_template(chat_model))
    group, kind = train.as_group(found, "f:1")
    assert kind == "prompts with one completion" and group["responses"] == [PAIR["chosen"]]
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    ids = tokenizer.apply_chat_template(head, add_generation_prompt=True)
    assert prompts.prompt_ids(tokenizer, group["prompt"]) == ids["input_ids"]


@pytest.mark.parametrize("system", [[], [says("system", "Be short.")]])
def test_of_a_longer_conversation_the_last_answer_is_learnt_behind_the_templates_tokens(
    chat_model, tmp_path, system
):
    head = [*system, ASKED, REJECTED, says("user", "Twice that.")]
    row = {"chosen": [*head, CHOSEN], "rejected": [*head, REJECTED]}
    store.write(tmp_path / "talk.jsonl", [row])
    words = _arguments(chat_model, tmp_path, "talk.jsonl", "talked", "simpo")
    done = CliRunner().invoke(__main__.app, [*words, "--updates", "1"])
    assert done.exit_code == 0, done.output
    train, tokenizer = import_module("rrtf.cli.train"), AutoTokenizer.from_pretrained(chat_model)
    found, _ = train.as_texts(row, "f:1", engines.chat_template(chat_model))
    group = train._group(train.as_group(found, "f:1")[0], "f:1")
    (example,), _ = batches.prepare([group], tokenizer, objective="simpo", max_length=512)
    ids = tokenizer.apply_chat_template(head, add_generation_prompt=True)["input_ids"]
    assert list(example.prompt) == ids and group.responses == (PAIR["chosen"], PAIR["rejected"])
    mark = tokenizer.bos_token
    spoilt = [says("user", f"What is {mark}?"), *head[-2:]]
    with pytest.raises(ValueError, match=re.escape(f"{mark!r} in a message would be read")):
        train.as_texts({"messages": [*spoilt, CHOSEN]}, "f:1", engines.chat_template(chat_model))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [ASKED, CHOSEN, CHOSEN]}, "found user, assistant before the last answer"),
        ({"messages": [ASKED]}, "messages: expected the assistant's message as the last"),
        ({"messages": []}, "messages: expected the assistant's message as the last"),
        ({"prompt": [CHOSEN], "completion": "x"}, "questions and answers in turn"),
        ({"chosen": [ASKED, CHOSEN], "rejected": [CHOSEN, REJECTED]}, "different messages"),
        ({"completion": [CHOSEN]}, "in turn, found nothing before the last"),
        ({"messages": ["x"]}, "expected messages with role and content"),
        ({"messages": [ASKED | {"content": 3}, CHOSEN]}, "of role 'user' and no text"),
        ({"messages": [ASKED, CHOSEN | {"role": "tool"}, CHOSEN]}, "found user, tool before"),
        ({"messages": [ASKED, CHOSEN | {"role": "critic"}]}, "of role 'critic' and no text"),
    ],
)
def test_messages_that_are_no_question_with_an_answer_are_refused(row, message):
    train = import_module("rrtf.cli.train")
    with pytest.raises(ValueError, match=f"f:7: .*{message}"):
        train.as_texts(row, "f:7", str)


def test_a_model_without_a_template_is_named_where_rows_are_messages(run, tmp_path):
    store.write(tmp_path / "spoken.jsonl", [SPOKEN["whole conversations"]])
    done = run("--updates", 1, groups="spoken.jsonl", objective="simpo")
    assert done.exit_code == 2 and "has no chat template; is this a base model?" in done.output
    assert "spoken.jsonl:1: " in done.output


def test_a_group_of_one_response_is_an_error_unless_allowed_or_only_imitated(run, tmp_path):
    alone = {"responses": ["pass"], "sources": ["t"], "outcomes": ["PASS"], "scores": [1.0]}
    store.write(tmp_path / "one.jsonl", _rows(**alone))
    done = run("--updates", 1, groups="one.jsonl")
    assert done.exit_code == 2
    assert "one.jsonl:2: toy/1: one response, and rrtf compares at least two" in done.output
    allowed = run("--updates", 1, "--allow-single", groups="one.jsonl")
    words = " ".join(allowed.output.split())
    assert "3 prompts -1 one_response 2 trained on" in words
    assert run("--updates", 1, groups="one.jsonl", objective="sft", output="s").exit_code == 0


def test_what_cannot_be_asked_for_is_refused_by_name(run, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    for more, named, message in (
        (["--precision", "int4"], {}, "--precision 'int4': expected one of auto"),
        (["--optimizer", "sgd"], {}, "--optimizer 'sgd'"),
        (["--updates", 2, "--epochs", 1], {}, "expected one of them"),
        (["--set", "train.lr_sft=3"], {}, "expected train.KEY=VALUE"),
        (["--set", "rank.seed=3"], {}, "expected train.KEY=VALUE"),
        (["--set", "train.margin=wide"], {}, "expected float"),
        (["--qlora"], {}, "qlora freezes the base: give lora_rank"),
        (["--lora-rank", 2, "--lora-targets", "nothing_like_it"], {}, "nothing_like_it"),
        ([], {"objective": "magic"}, "unknown objective 'magic': expected one of sft, best"),
        ([], {"groups": "absent.jsonl"}, "absent.jsonl: no such file"),
        ([], {"groups": "empty.jsonl"}, "empty.jsonl: no groups to train on"),
    ):
        done = run(*more, **named, output="-".join(map(str, more)).replace("/", "") or "out")
        assert done.exit_code == 2 and message in done.output, (more, named, done.output)


def test_a_tokenizer_without_an_end_of_text_token_gets_the_models_or_is_refused(
    run, tmp_path, tiny_model
):
    folder, network = tmp_path / "endless", AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for name in ("eos_token", "bos_token", "pad_token"):
        setattr(tokenizer, name, None)
    for ends in ([0, 2], None):
        network.config.eos_token_id = network.generation_config.eos_token_id = ends
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        done = run("--updates", 1, "--model", folder, output=f"out-{bool(ends)}")
        if ends:
            assert done.exit_code == 0, done.output
            assert AutoTokenizer.from_pretrained(tmp_path / "out-True").eos_token_id == 0
    assert done.exit_code == 2
    assert "neither the tokenizer nor the model has an end-of-text token" in done.output


def test_a_loss_that_is_not_finite_fails_with_run_update_and_tasks(run, tmp_path, tiny_model):
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        network.transformer.ln_f.weight.fill_(torch.nan)
    network.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "broken")
    done = run("--updates", 1, "--model", tmp_path / "broken")
    assert done.exit_code == 1 and "failed: out: update 1: the loss is nan" in done.output
    assert "toy/" in done.output


def test_what_is_too_long_is_counted_before_and_after(run, tmp_path):
    store.write(tmp_path / "prompt.jsonl", _rows(prompt="x" * 300))
    done = run("--updates", 1, "--report-to", "none", groups="prompt.jsonl", output="p")
    assert "3 prompts -1 too_long 2 trained on" in " ".join(done.output.split())
    assert not (tmp_path / "p" / "logs").exists(), "without a tracker"
    rows = _rows()
    rows[1] |= {"responses": [*rows[1]["responses"], "x" * 300], "scores": [3.0, 2.0, 1.0]}
    rows[1] |= {"sources": ["t", "s", "s"], "outcomes": ["PASS", "FAILED_TESTS", "FAILED_TESTS"]}
    store.write(tmp_path / "long.jsonl", rows)
    for _ in range(2):
        done = run("--updates", 1, groups="long.jsonl")
        words = " ".join(done.stdout.split())
        assert done.exit_code == 0 and "3 prompts 3 trained on" in words, done.output
        assert "responses too long 1" in words


def test_weights_that_are_missing_or_none_are_refused_by_name(run, tmp_path, tiny_model):
    folder = shutil.copytree(tiny_model, tmp_path / "deeper")
    settings = store.read_json(folder / "config.json")
    store.write_json(folder / "config.json", settings | {"n_layer": 3})
    done = run("--updates", 1, "--model", folder)
    assert done.exit_code == 2 and "12 tensors are missing: transformer.h.2.attn" in done.output
    shutil.copy(tiny_model / "config.json", folder)
    weights = (tiny_model / "model.safetensors").read_bytes()
    for data in (b"version 1\nthe weights lie elsewhere\n" * 3, weights[:-9], b""):
        (folder / "model.safetensors").write_bytes(data)
        done = run("--updates", 1, "--model", folder, "--overwrite")
        assert done.exit_code == 2, done.output
        assert f"{folder / 'model.safetensors'}: no weights, {len(data)} bytes" in done.output


def test_epochs_are_the_default_and_the_rate_depends_on_objective_and_adapters(run, tmp_path):
    assert run().exit_code == 0
    facts = store.read_json(tmp_path / "out" / "training.json")
    assert len(facts["steps"]) == 3, "five prompts, two an update"
    assert facts["settings"]["learning_rate"] == 2e-5
    assert facts["settings"]["ft_reduction"] == "sum", "the paper's formula"
    done = run(
        "--updates", 1, "--lora-rank", 2, "--set", "train.beta=0.2", objective="dpo", output="d"
    )
    assert "adapters, not merged" in done.output
    settings = store.read_json(tmp_path / "d" / "training.json")["settings"]
    assert settings["learning_rate"] == pytest.approx(1e-5) and settings["beta"] == 0.2
    run("--updates", 1, objective="simpo", output="s")
    assert store.read_json(tmp_path / "s" / "training.json")["settings"]["learning_rate"] == 1e-6


@pytest.mark.slow
def test_interrupted_it_leaves_with_130_and_the_same_command_ends_with_the_same_weights(
    run, tiny_model, tmp_path
):
    assert run("--updates", 60, output="whole").exit_code == 0
    command = [sys.executable, "-m", "rrtf", *_arguments(tiny_model, tmp_path), "--updates", "60"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    limit = time.monotonic() + 120
    while not (tmp_path / "out" / "checkpoints" / "checkpoint-4" / "state.json").exists():
        assert began.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    began.send_signal(signal.SIGINT)
    said = began.communicate(timeout=60)[1]
    assert began.returncode == 130 and "the same command goes on from" in said
    assert not (tmp_path / "out" / "training.json").exists()
    assert run("--updates", 60).exit_code == 0
    assert _same(tmp_path / "whole", tmp_path / "out")


def test_a_weight_that_the_objective_does_not_read_is_said(tmp_path):
    weights = ("--margin", "0.5", "--beta", "0.2", "--ft-reduction", "mean")
    named = ("--model", "nano-student", "--objective", "simpo", "--out", tmp_path / "m")
    result = rrtf("train", "absent.jsonl", *named, *weights)
    assert result.exit_code == 2 and "absent.jsonl: no such file" in result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("note: ")] == [
        "note: simpo has no ft_reduction: it changes nothing"
    ]
