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
from pathlib import Path

import pytest
from scripted_endpoint import ScriptedEndpoint
from test_pipeline import wait_for

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


def learn(model, rows: list[list[int]], *, updates: int) -> None:
    """A little: some of what it then writes is Python, and some of that is right."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    seen = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
    labels = ids.masked_fill(seen == 0, -100)
    for _ in range(updates):
        model(ids, attention_mask=seen, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def chat_model(folder: Path) -> Path:
    """A Qwen2 with a tokenizer and a chat template of its own."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    asked = [prompts.FORMATS["chat"](task) for task in PROBLEMS]
    told = [answer(task) for task in PROBLEMS]
    fast = tokenizer(folder, asked + told, eos_token=END)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
            eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id, bos_token_id=None,
            tie_word_embeddings=True,
        )
    )  # fmt: skip
    put = engines.chat_template(folder) if hasattr(engines, "chat_template") else None
    rows = [
        fast(put(request) + reply + END, add_special_tokens=False)["input_ids"]
        for request, reply in zip(asked, told, strict=True)
    ]
    learn(model, rows, updates=int(os.environ.get("PROOF_UPDATES", 120)))
    model.save_pretrained(folder)
    return folder
