"""The program that the auto-gptq lane's own Python runs: one job from standard input.

It imports nothing of this package, whose libraries are years newer than the lane's, and it is
handed token ids, because tokenizers saved today do not open there. The result is a JSON file; a
failure is one line on standard error and exit status 1 (3 where the model is of no kind that
auto-gptq knows).
"""

import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from unittest import mock

PACKAGES = ("auto-gptq", "transformers", "torch", "tokenizers", "accelerate")


def main() -> int:
    """Runs the job `{"action": "versions" | "quantise" | "nll", "result": FILE, ...}`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with the process that asked
    job = json.load(sys.stdin)
    actions = {"versions": versions, "quantise": quantise, "nll": nll}
    try:
        with redirect_stdout(sys.stderr):
            found = actions[job["action"]](job)
    except Exception as error:
        kind = type(error).__name__
        print(" ".join(f"{kind}: {error}".split()), file=sys.stderr)
        return 3 if "isn't supported yet" in str(error) else 1
    with open(job["result"], "w", encoding="utf-8") as file:
        json.dump(found, file)
    return 0


def versions(job: dict) -> dict:
    """package -> version or None, of the packages that decide results here."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def quantise(job: dict) -> dict:
    """Writes the model in the folder `model` to `output`, in `bits` bits, as safetensors.

    `rows` are token ids to calibrate on, `batch_size` of them at a time.
    """
    torch = _quiet_torch(job)
    from auto_gptq import AutoGPTQForCausalLM, BaseQuantizeConfig

    settings = BaseQuantizeConfig(
        bits=job["bits"], group_size=job["group_size"], desc_act=False, sym=True
    )
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["rows"]]
    # Half precision is slow on a CPU; there the weights are rounded to it when they are done.
    dtype = torch.float16 if torch.cuda.is_available() else torch.float32
    with cpu_in_place_of_cuda(torch):
        model = AutoGPTQForCausalLM.from_pretrained(job["model"], settings, torch_dtype=dtype)
        model.quantize(rows, batch_size=job["batch_size"])
    model.model.half()
    model.model.config.torch_dtype = torch.float16
    model.save_quantized(job["output"], use_safetensors=True)
    return versions(job)


@contextmanager
def cpu_in_place_of_cuda(torch: Any) -> Iterator[None]:
    """Lets auto-gptq quantise without CUDA; with CUDA it changes nothing.

    It refuses to start where there is none, and names the first GPU as the place to compute and
    to wait for. None of its arithmetic needs one: the CPU is named instead, and waiting for it is
    nothing to do.
    """
    if torch.cuda.is_available():
        yield
        return
    with (
        mock.patch("torch.cuda.is_available", return_value=True),
        mock.patch("torch.cuda.synchronize"),
        mock.patch("torch.cuda.empty_cache"),
        mock.patch("auto_gptq.modeling._base.CUDA_0", torch.device("cpu")),
    ):
        yield


def nll(job: dict) -> dict:
    """Nats per token of the tails, each after its head, under each auto-gptq checkpoint.

    `pairs` are (head, tail) of token ids; it computes in float32 on a CPU and float16 on a GPU.
    """
    torch = _quiet_torch(job)
    from auto_gptq import AutoGPTQForCausalLM

    gpu = torch.cuda.is_available()
    found = []
    for folder in job["models"]:
        model = AutoGPTQForCausalLM.from_quantized(
            folder,
            device="cuda:0" if gpu else "cpu",
            use_safetensors=True,
            torch_dtype=torch.float16 if gpu else torch.float32,
            disable_exllama=True,
            disable_exllamav2=True,  # their kernels are of early 2024
        )
        found.append(_nll(torch, model, job["pairs"]))
    return {"nll": found}


def _nll(torch: Any, model: Any, pairs: list) -> float:
    total, count = 0.0, 0
    with torch.inference_mode():
        for head, tail in pairs:
            tokens = torch.tensor([head + tail], device=model.device)
            logits = model(input_ids=tokens).logits[0, len(head) - 1 : -1].float()  # (T, V)
            picked = torch.log_softmax(logits, -1).gather(1, tokens[0, len(head) :, None])
            total, count = total - picked.sum().item(), count + len(tail)
    return total / count


def _quiet_torch(job: dict) -> Any:
    """torch, with the threads of the job; a line per layer of every library is not written."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch

    torch.set_num_threads(job["threads"])
    logging.disable(logging.WARNING)
    return torch


if __name__ == "__main__":
    sys.exit(main())
