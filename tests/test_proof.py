"""All notebooks from an empty folder, as a user with a GPU and a model of their own runs them.

The numbers are small, the models made here; everything else is as in `gpu24` and `paper`. Each
run is killed once and goes on by the same command.
"""

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import EXACT_BYTES, wait_until
from scripted_endpoint import ScriptedEndpoint

from rrtf import config, engines, prompts, store
from rrtf.records import Problem

pytestmark = pytest.mark.slow

END = "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORMS = {
    "add": ("Return x plus {k}.", "x + {k}"),
    "take": ("Return x minus {k}.", "x - {k}"),
    "times": ("Return x times {k}.", "x * {k}"),
    "most": ("Return the larger of x and {k}.", "max(x, {k})"),
    "least": ("Return the smaller of x and {k}.", "min(x, {k})"),
}


def problem(form: str, k: int) -> Problem:
    told, value = (text.format(k=k) for text in FORMS[form])
    name = f"{form}_{k}"
    cases = "".join(
        f"    assert candidate({x}) == {eval(value, {'x': x})}\n" for x in (-7, 0, 3, 25)
    )
    return Problem(
        task_id=f"own/{name}",
        prompt=f'def {name}(x):\n    """{told}\n    """\n',
        entry_point=name,
        tests=f"def check(candidate):\n{cases}",
        reference=f"    return {value}\n",
        source="own",
    )


PROBLEMS = [problem(form, k) for form in FORMS for k in range(2, 8)]


def answer(task: Problem) -> str:
    """What a teacher writes: the whole program in a block."""
    return f"Here it is:\n\n```python\n{task.prompt}{task.reference}```"


def taught(request: str, seed: int) -> str:
    """The teacher behind the server: right but for one form of problem, which it does not know."""
    name = re.search(r"def (\w+)\(x\)", request)[1]
    task = next(task for task in PROBLEMS if task.entry_point == name)
    return "I cannot do this." if name.startswith("least") else answer(task)


def tokenizer(folder: Path, texts: list[str], **special: str):
    """A byte-level BPE of these texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|endoftext|>", "<|im_start|>", END]
    learn = trainers.BpeTrainer(
        vocab_size=384, initial_alphabet=alphabet, special_tokens=words, show_progress=False
    )
    made.train_from_iterator(texts, learn)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token=words[0], **special)
    fast.save_pretrained(folder)
    return fast


def learn(model, texts: list[tuple[str, str]], fast, *, updates: int) -> None:
    """A little: some of what it then writes is Python, and some of that is right."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    put = partial(fast, add_special_tokens=False)
    rows = [(put(asked)["input_ids"], put(told)["input_ids"]) for asked, told in texts]
    for update in range(updates):
        total = 0.0
        for asked, told in rows[update % 3 :: 3]:
            ids = torch.tensor([asked + told])
            total = (
                total + model(ids, labels=ids.index_fill(1, torch.arange(len(asked)), -100)).loss
            )
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def chat_model(folder: Path, *, updates: int) -> Path:
    """A Qwen2 with a tokenizer and a chat template of its own."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    requests = [prompts.FORMATS["chat"](task) for task in PROBLEMS]
    fast = tokenizer(folder, requests + [answer(task) for task in PROBLEMS], eos_token=END)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(fast), hidden_size=128, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
            eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id, bos_token_id=None,
            tie_word_embeddings=True,
        )
    )  # fmt: skip
    model.config.save_pretrained(folder)
    ask = engines.asker(folder, "chat")
    learn(model, [(ask(task), answer(task) + END) for task in PROBLEMS], fast, updates=updates)
    model.save_pretrained(folder)
    return folder


SMALL = {
    "shared.max_new_tokens": 64, "shared.workers": 2, "audit.random_probes": 4,
    "sample.temperatures": [0.8], "sample.n_samples": 2, "rank.n_mutants": 2, "train.n_seeds": 1,
    "train.updates": 3, "train.n_watched": 4, "train.groups_per_batch": 4,
    "train.checkpoint_every": 1, "evaluate.n_samples": 2,
    "evaluate.measures": ["pass@1 greedy", "pass@1 T=0.8"], "shared.benchmarks": ["test"],
    "quantize.variants": ["full", "ctranslate2-int8", "gptq-int4"], "quantize.n_samples": 2,
    "quantize.n_calibration": 8, "quantize.repetitions": 2, "quantize.batch_sizes": [1],
}  # fmt: skip


def run(home: Path, profile: str, model: Path, values: dict) -> subprocess.Popen:
    """`rrtf run` on the own problems in a group of processes of its own."""
    problems = home.parent / "own.jsonl"
    store.write(problems, PROBLEMS)
    words = ["--profile", profile, "--model", str(model), "--problems", str(problems)]
    words += [f"--set={name}={json.dumps(value)}" for name, value in (SMALL | values).items()]
    with (home.parent / "said.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "rrtf", "run", *words],
            stdout=said, stderr=said, cwd=config.home(), start_new_session=True,
            env=os.environ | {"RRTF_HOME": str(home)},
        )  # fmt: skip


def killed_and_gone_on(home: Path, *arguments) -> str:
    """What the second call says, of the same command as the first, killed in the midst of 05."""
    profile, said = arguments[0], home.parent / "said.txt"
    models = home / "data" / "runs" / profile / "05_train" / "models"
    process = run(home, *arguments)
    finished = partial(lambda: [*models.glob("*/training.json")])
    assert wait_until(lambda: finished() or process.poll() is not None, 300), said.read_text()
    assert process.poll() is None, said.read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in finished()}
    told = len(said.read_text())
    again = run(home, *arguments)
    assert again.wait(600) == 0, said.read_text()
    assert before == {path: path.stat().st_mtime_ns for path in before}, "trained once"
    return said.read_text()[told:]


def check(home: Path, profile: str, said: str) -> dict:
    """The summary, after a look at what every run must leave."""
    stages = config.STAGES + config.CLOSING
    assert said.count("up to date") == config.STAGES.index("05_train"), said
    reports = home / "reports" / profile
    index = (reports / "index.html").read_text()
    assert index.count('<td class="n">') == len(stages), "all ran"
    return store.read_json(reports / "summary.json")


def base_model(folder: Path) -> Path:
    """A GPTBigCode that continues code, taught what follows the prompts of the paper's form."""
    import torch
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    ask = prompts.FORMATS["pangu"]
    end = "<|endoftext|>"
    fast = tokenizer(folder, [ask(task) + task.reference for task in PROBLEMS], eos_token=end)
    torch.manual_seed(0)
    model = GPTBigCodeForCausalLM(
        GPTBigCodeConfig(
            vocab_size=len(fast), n_positions=512, n_embd=128, n_layer=2, n_head=4, n_inner=128,
            multi_query=True, bos_token_id=0, eos_token_id=0, pad_token_id=0,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip
    told = [(ask(task).rstrip(), f"\n{task.reference}{end}") for task in PROBLEMS]
    learn(model, told, fast, updates=60)
    model.save_pretrained(folder)
    return folder


def test_all_notebooks_run_as_gpu24_with_a_chat_model_and_a_teacher_behind_a_server(tmp_path):
    home = tmp_path / "home"
    model = chat_model(tmp_path / "qwen2", updates=60)
    with ScriptedEndpoint(words=taught) as server:
        values = {
            "shared.teacher": ["scripted"],
            "shared.teacher_engine": [f"openai@{server.url}"],
            "shared.prompt_format": "chat",
        }
        said = killed_and_gone_on(home, "gpu24", model, values)
    assert set(server.asked.values()) == {1}, "nothing was paid for twice"
    summary = check(home, "gpu24", said)
    rates = {row["model"]: row["value"] for row in summary["results"] if "T=0.8" in row["metric"]}
    assert rates.keys() == {"base", "teacher", *config.resolve("gpu24", "train")["trained"]}
    assert 0.5 < rates["teacher"] < 1.0, "right for most"
    found = {row["variant"]: row["status"] for row in summary["quantization"]}
    if not EXACT_BYTES and "is rounding" in found["ctranslate2-int8"]:
        found["ctranslate2-int8"] = "ok"  # refused, as it should be where products saturate
    assert found.keys() == {"full", "ctranslate2-int8", "gptq-int4"}
    assert all(one == "ok" or "Python" in one for one in found.values()), f"or too weak: {found}"


@pytest.mark.skipif(not os.environ.get("RRTF_PROOF"), reason="some four minutes: RRTF_PROOF=1")
def test_all_notebooks_run_as_paper_where_two_processes_train_each_model_together(tmp_path):
    home = tmp_path / "home"
    model = base_model(tmp_path / "bigcode")
    with ScriptedEndpoint(words=taught) as server:
        values = {
            "shared.teacher": ["scripted"], "shared.teacher_engine": [f"openai@{server.url}"],
            "shared.teacher_prompt_format": ["chat"], "sample.cluster": "local",
            "train.processes_per_run": 2, "train.trained": ["rrtf", "sft"],
        }  # fmt: skip
        said = killed_and_gone_on(home, "paper", model, values)
    assert set(server.asked.values()) == {1}, "nothing was paid for twice"
    summary = check(home, "paper", said)
    assert {row["model"] for row in summary["results"]} == {"base", "teacher", "rrtf", "sft"}
    logs = [*(home / "data/runs/paper/05_train/models").glob("*.log")]
    assert len(logs) == 2, "both by torchrun"
    book = (home / "reports/paper/05_train.ipynb").read_text()
    assert "|grad L_rank|" not in book, "no model is opened beside the training"
