"""Our multi-query attention against transformers' own paths: forward and backward, one thread.

    python tests/benchmarks/bench_attention.py

Prints tokens/s of a GPTBigCode of the nano student's shape (random weights) for each
implementation, the median of several rounds in which they take turns, and the ratio to `sdpa`.
"""

import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

from rrtf.step import packing

SHAPES = ((32, 115), (8, 160), (16, 192))
ROUNDS = 5


def network(name: str) -> GPTBigCodeForCausalLM:
    config = GPTBigCodeConfig(
        vocab_size=2048, n_positions=512, n_embd=256, n_layer=4, n_head=4, multi_query=True,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GPTBigCodeForCausalLM(config)
    model.set_attn_implementation(packing.choose(config) if name == "ours" else name)
    return model


def seconds(model: GPTBigCodeForCausalLM, ids: torch.Tensor) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    models = {name: network(name) for name in ("sdpa", "eager", "ours")}
    for batch, length in SHAPES:
        ids = torch.randint(1, 2048, (batch, length))
        times = {name: [] for name in models}
        for number in range(ROUNDS + 1):
            for name, model in models.items():
                took = seconds(model, ids)
                if number:  # the first round warms up
                    times[name].append(took)
        rate = {name: ids.numel() / statistics.median(t) for name, t in times.items()}
        shown = ", ".join(f"{n} {r:,.0f} tok/s ({r / rate['sdpa']:.2f}x)" for n, r in rate.items())
        print(f"{batch} x {length}: {shown}", flush=True)


if __name__ == "__main__":
    main()
