"""Shared fixtures: one hand-written problem, one tiny random model with a byte-level tokenizer."""

import os
import platform
import shutil
import signal
import time

# A shell starts background commands with SIGINT ignored, and every child inherits that: tests that
# interrupt a program would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from dataclasses import fields, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rrtf import __main__, execution
from rrtf.audit import detectors
from rrtf.engines import Decoding
from rrtf.records import Problem
from rrtf.sandbox import executor

LIMITS = executor.Limits(2.0, 6.0, 512, "landlock+seccomp")
# oneDNN: without VNNI sums of two products of bytes saturate at 16 bits, so int8 loses more there.
CPU_FLAGS = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
EXACT_BYTES = platform.machine() != "x86_64" or bool(CPU_FLAGS & {"avx512_vnni", "avx_vnni"})
AUDIT = detectors.Settings(
    substring_words=10,
    ngram_sizes=(5, 8, 13),
    ngram_share=0.7,
    minhash_threshold=0.7,
    minhash_permutations=128,
    shingle=3,
    embedding_threshold=0.8,
    remove_on=detectors.EQUALITIES,
    seed=1,
)
DECODING = Decoding(temperature=1.0, top_p=0.95, max_new_tokens=12, seed=5)


def rrtf(*words: object, stdin: str | bytes | None = None, columns: int = 0):
    """The command line within this process: `exit_code`, `stdout`, `stderr`."""
    before = signal.getsignal(signal.SIGTERM)
    wide = {"COLUMNS": str(columns)} if columns else None
    try:
        return CliRunner().invoke(__main__.app, [*map(str, words)], input=stdin, env=wide)
    finally:
        signal.signal(signal.SIGTERM, before)


def within(options: dict) -> dict:
    """Options of the sandbox, in which limits that differ from LIMITS stand by their names."""
    names = [field.name for field in fields(LIMITS)]
    own = {name: options[name] for name in names if name in options}
    rest = {name: value for name, value in options.items() if name not in own}
    return {"workers": 2, "limits": replace(LIMITS, **own)} | rest


def drawn(n: int, stops, **decoding) -> dict:
    """The options of `Generator.generate`, given flat."""
    return {"n": n, "stops": stops, "decoding": Decoding(**decoding)}


def execute(problems, responses, **options):
    """`executor.execute` within LIMITS."""
    return executor.execute(problems, responses, **within(options))


def call(programs, inputs, **options):
    """`executor.call` within LIMITS."""
    return executor.call(programs, inputs, **within(options))


def judge(problems, responses, **options):
    """`execution.execute` on this machine, within LIMITS."""
    return execution.execute(problems, responses, **{"cluster": "local"} | within(options))


def wait_until(condition, seconds: float = 60.0) -> bool:
    """Whether `condition()` became true in time."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(found)


@pytest.fixture
def add_problem() -> Problem:
    return Problem(
        task_id="toy/add",
        prompt='def add(a, b):\n    """Return the sum.\n    >>> add(1, 2)\n    3\n    """\n',
        entry_point="add",
        tests=(
            "def check(candidate):\n    assert candidate(1, 2) == 3\n"
            "    assert candidate(0, 0) == 0\n    assert candidate(-1, 1) == 0\n"
        ),
        reference="    return a + b\n",
        source="toy",
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The folder of a random GPTBigCode (2 layers, width 32) with a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "model"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|endoftext|>": 0} | {c: i for i, c in enumerate(alphabet, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **end).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPTBigCodeConfig(
        vocab_size=len(vocab), n_positions=256, n_embd=32, n_layer=2, n_head=2, multi_query=True,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    GPTBigCodeForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_of(tiny_model, tmp_path_factory):
    """architecture -> the folder of a tiny random model, the tiny one's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def make(name: str):
        if name == "gpt_bigcode":
            return tiny_model
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            name, vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            max_position_embeddings=256, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def random_model(tiny_model, tmp_path):
    """(architecture, settings) -> the folder of a tiny random model, the tiny one's tokenizer.

    `bare`: one that names no special tokens.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    sizes = {"vocab_size": 257, "hidden_size": 64, "intermediate_size": 96, "bos_token_id": 0,
             "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": 0,
             "max_position_embeddings": 4096, "initializer_range": 0.1}  # fmt: skip

    def make(kind: str, *, seed: int = 0, bare: bool = False, **settings):
        folder = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | settings))
        with torch.no_grad():
            for weights in model.parameters():
                if weights.dim() == 1:
                    weights.add_(torch.randn_like(weights) * 0.1)
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        if bare:
            tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = None
        tokenizer.save_pretrained(folder)
        return folder

    return make


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[model]{% endif %}"
)


@pytest.fixture
def chat_model(tiny_model, tmp_path):
    """The tiny model with a chat template, and a tokenizer that begins every text with a token."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    folder = tmp_path / "chat"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = tokenizer.bos_token
    single = processors.TemplateProcessing(single=f"{start} $A", special_tokens=[(start, 0)])
    tokenizer.backend_tokenizer.post_processor = single
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder
