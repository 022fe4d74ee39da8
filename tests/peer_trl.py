"""TRL's own losses on given texts: run by the Python that has TRL, see `test_trl.py`.

Reads a JSON file, prints one JSON list: for each case the loss, the norm of its gradient and the
token ids and labels that TRL made of the texts.
"""

import json
import sys
import tempfile

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

KINDS = {
    "dpo": (DPOTrainer, DPOConfig),
    "cpo": (CPOTrainer, CPOConfig),
    "sft": (SFTTrainer, SFTConfig),
}
QUIET = {"report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True}
QUIET |= {"gradient_checkpointing": False}


def network(folder: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def trainer(case: dict, models: dict, folder: str):
    """TRL's trainer of the case's kind, its data prepared by itself."""
    kind, settings = KINDS[case["kind"]]
    rows = [dict(row) for row in case["rows"]]
    if case["kind"] == "sft":
        rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(models["policy"])
    tokenizer.bos_token = None  # CPO would put it before the prompt
    own = {"ref_model": network(models["reference"])} if case["kind"] == "dpo" else {}
    return kind(
        model=network(models["policy"]),
        args=settings(output_dir=folder, max_length=None if own else 256, **QUIET, **case["args"]),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **own,
    )


def result(case: dict, models: dict, folder: str) -> dict:
    run = trainer(case, models, folder)
    rows = [run.train_dataset[at] for at in range(len(run.train_dataset))]
    if case["kind"] != "cpo":  # whose collator takes every column; the Trainer drops these
        run._set_signature_columns_if_needed()
        rows = [{k: v for k, v in row.items() if k in run._signature_columns} for row in rows]
    inputs = run._prepare_inputs(run.data_collator(rows))
    network = run.model.train()
    loss = run.compute_loss(network, inputs)
    loss.backward()
    squares = [p.grad.double().square().sum() for p in network.parameters() if p.grad is not None]
    shown = {name: value.tolist() for name, value in inputs.items() if torch.is_tensor(value)}
    return {"loss": float(loss), "gradient": float(sum(squares).sqrt()), "inputs": shown}


def main() -> None:
    torch.set_num_threads(1)
    disable_progress_bars()
    with open(sys.argv[1]) as file:
        task = json.load(file)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps([result(case, task["models"], folder) for case in task["cases"]]))


if __name__ == "__main__":
    main()
