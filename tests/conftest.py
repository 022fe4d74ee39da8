"""Shared fixtures: one hand-written problem, one tiny random model with a byte-level tokenizer."""

import os
import signal

# A shell starts background commands with SIGINT ignored, and every child inherits that: tests that
# interrupt a program would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from rrtf.records import Problem


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
