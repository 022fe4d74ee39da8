"""One model in two processes: the run of one, and checkpoints that either can go on from."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from test_train import UNEQUAL, _groups, _resumed, _validation, recipe, stopping

from rrtf import store, train
from rrtf.step import sharding

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
# runs given as a JSON list, one after the other, in each of torchrun's processes
WORKER = """
import json, sys
from pathlib import Path
from rrtf import store, train
from rrtf.records import RankedGroup
from rrtf.step import sharding

with sharding.joined():
    for run in json.load(open(sys.argv[1])):
        groups = store.read(Path(run.pop("groups")), RankedGroup)
        stop = run.pop("stop", 0)

        def told(step, updates):
            print(f"rank {sharding.rank()} update {step.step}", flush=True)
            if stop and step.step == stop:
                raise KeyboardInterrupt

        where = {"model": run.pop("model"), "output": Path(run.pop("output")), "overwrite": True}
        train.train(groups, recipe=train.Recipe(**run), told=told, **where)
"""


def _two(tmp_path: Path, runs: list[dict]) -> subprocess.CompletedProcess:
    """The runs in two processes under torchrun."""
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "runs.json").write_text(json.dumps(runs, default=str))
    return _torchrun(str(tmp_path / "worker.py"), str(tmp_path / "runs.json"))


def _alone(groups: list, output: Path, run: dict, **how) -> list:
    """The same run in this process."""
    where = {"model": run["model"], "output": output, "overwrite": True}
    return train.train(groups, recipe=train.Recipe.of(run), **where, **how)


def _torchrun(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(_free_port())]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, env=environment, timeout=300
    )


def _said(done: subprocess.CompletedProcess) -> str:
    """What went wrong in a process; torchrun's own lines come after it."""
    return done.stderr.partition("torch/distributed/elastic")[0][-3000:]


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _alike(one: list, other: list, name: str = "") -> None:
    assert [row.step for row in one] == [row.step for row in other]
    for field in ("loss", "rank_loss", "ft_loss", "violated", "grad_norm"):
        expected = pytest.approx(
            [getattr(row, field) for row in one], rel=1e-5, abs=1e-6, nan_ok=True
        )
        assert [getattr(row, field) for row in other] == expected, (name, field)


def _close(one: Path, other: Path) -> None:
    """Both folders load and predict the same. Weights alone need not be close: the gradient of a
    key's bias is zero but for rounding, and Adam divides by its size."""
    from transformers import AutoModelForCausalLM

    ids = torch.tensor([list(range(1, 60))])
    with torch.no_grad():
        a, b = (AutoModelForCausalLM.from_pretrained(f)(ids).logits for f in (one, other))
    assert torch.allclose(a, b, atol=1e-3 * float(a.abs().max())), float((a - b).abs().max())


def test_two_processes_make_the_runs_of_one(tiny_model, model_of, tmp_path):
    groups, unequal = tmp_path / "groups.jsonl", tmp_path / "unequal.jsonl"
    store.write(groups, _groups())
    store.write(unequal, UNEQUAL)
    base = {**asdict(recipe()), "model": tiny_model, "groups": groups}
    odd = {"groups": unequal, "groups_per_batch": 3, "tokens_per_forward": 250, "updates": 4}
    gently = {"checkpointing": True, "learning_rate": 1e-4}
    runs = {
        "plain": base,
        "unequal parts": base | odd,
        "one group for two": base | {"groups_per_batch": 1, "updates": 4},
        "dpo": base | {"objective": "dpo", "updates": 3},
        "adafactor": base | {"optimizer": "adafactor", "updates": 4, "learning_rate": 1e-4},
        "lora": base | {"lora_rank": 4, "updates": 4, "learning_rate": 1e-2},
        "held out": base | {"held_out": 2, "validate_every": 2, "updates": 4},
        "row by row": base | {"model": model_of("bloom"), "updates": 3},
        "whole logits": base | {"model": model_of("cohere"), "updates": 3},
        "qwen2": base | {"model": model_of("qwen2"), "updates": 4} | gently,
    }
    many = [run | {"output": tmp_path / "two" / name} for name, run in runs.items()]
    done = _two(tmp_path, many)
    assert done.returncode == 0, _said(done)
    assert "rank 0 update" in done.stdout and "rank 1" not in done.stdout
    for name, run in runs.items():
        what = UNEQUAL if run["groups"] == unequal else _groups()
        alone = _alone(what, tmp_path / "one" / name, run)
        _alike(alone, train.read_steps(tmp_path / "two" / name), name)
        _close(tmp_path / "one" / name, tmp_path / "two" / name)
        facts = [store.read_json(tmp_path / n / name / "training.json") for n in ("one", "two")]
        assert facts[0]["digest"] == facts[1]["digest"]
        for one, other in zip(*(fact.get("looks", []) for fact in facts), strict=True):
            assert one.pop("pass_at_1") is other.pop("pass_at_1") is None
            assert one == pytest.approx(other, rel=1e-5), name
    _close(tmp_path / "one" / "held out" / "best", tmp_path / "two" / "held out" / "best")
    config = (tmp_path / "one" / "plain" / "config.json").read_bytes()
    assert (tmp_path / "two" / "plain" / "config.json").read_bytes() == config


def test_a_checkpoint_of_two_processes_is_resumed_by_one(tiny_model, tmp_path):
    groups = tmp_path / "groups.jsonl"
    store.write(groups, _groups())
    run = {**asdict(recipe(checkpoint_every=2)), "model": tiny_model}
    whole = _alone(_groups(), tmp_path / "whole", run)
    cut = _two(tmp_path, [run | {"groups": groups, "output": tmp_path / "a", "stop": 5}])
    assert cut.returncode and "rank 0 update 5" in cut.stdout, _said(cut)
    newest = tmp_path / "a" / "checkpoints" / "checkpoint-4"
    assert {path.suffix for path in newest.iterdir()} == {".safetensors", ".json"}
    rows = [_rows(part) for part in newest.glob("*.safetensors")]
    assert rows == [32, 32], "each process wrote half of a matrix of 64 rows"
    again = partial(_alone, _groups(), run=run)
    seen, one = _resumed(again, tmp_path / "a")
    assert seen == [5, 6]
    _alike(whole, one)
    _close(tmp_path / "whole", tmp_path / "a")


def _rows(part: Path) -> int:
    with safe_open(part, "pt") as file:
        return file.get_slice("network.transformer.h.0.attn.c_attn.weight/exp_avg").get_shape()[0]


@pytest.mark.parametrize("options", [{}, {"lora_rank": 4}, {"optimizer": "adafactor"}], ids=str)
def test_what_one_process_interrupted_two_go_on_with(tiny_model, tmp_path, options):
    groups = tmp_path / "groups.jsonl"
    store.write(groups, _groups())
    run = {**asdict(recipe(checkpoint_every=2, **options)), "model": tiny_model}
    whole = _alone(_groups(), tmp_path / "whole", run)

    with pytest.raises(KeyboardInterrupt):
        _alone(_groups(), tmp_path / "b", run, told=stopping(5))
    done = _two(tmp_path, [run | {"groups": groups, "output": tmp_path / "b"}])
    assert done.returncode == 0, _said(done)
    assert "update 5" in done.stdout and "update 4" not in done.stdout
    _alike(whole, train.read_steps(tmp_path / "b"))
    _close(tmp_path / "whole", tmp_path / "b")


def test_the_verb_runs_under_torchrun_and_one_process_writes_and_speaks(tiny_model, tmp_path):
    store.write(tmp_path / "groups.jsonl", _groups())
    arguments = [
        "train", str(tmp_path / "groups.jsonl"), "--model", str(tiny_model), "--objective", "rrtf",
        "--out", str(tmp_path / "out"), "--updates", "2", "--groups-per-batch", "2",
        "--precision", "float32", "--threads", "1", "--validate-on", str(tmp_path / "asked.jsonl"),
    ]  # fmt: skip
    store.write(tmp_path / "asked.jsonl", _validation().problems)
    done = _torchrun("-m", "rrtf", *arguments)
    assert done.returncode == 0, _said(done)
    assert done.stdout.count("trained on") == 1 and done.stderr.count("update 2 of 2") == 1
    assert len(list((tmp_path / "out" / "logs").iterdir())) == 1
    looks = store.read_json(tmp_path / "out" / "training.json")["looks"]
    assert [(look["step"], look["pass_at_1"]) for look in looks] == [(0, 0.0), (2, 0.0)]
    assert done.stderr.count("after update 2: pass@1 0.0 % on validation") == 1


def test_a_model_that_is_not_split_is_refused(tiny_model):
    scorer, _ = train.load(tiny_model, recipe())
    with pytest.raises(RuntimeError, match=r"not split among the processes: network\.transformer"):
        sharding.require_sharded(scorer)
