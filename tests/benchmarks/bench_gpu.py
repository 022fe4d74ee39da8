"""Everything that is worth measuring on a GPU, in independent parts, each with its own time limit.

    python tests/benchmarks/bench_gpu.py [--out FOLDER] [--parts step,attention] [--reduced]

`make gpu` calls this. Writes FOLDER/DEVICE.json as parts end and FOLDER/DEVICE.html from it: a part
that failed, ran out of time or lacks a package says so in its place, and nothing stands there that
was not measured. All weights are random; what is measured is speed, memory and equality.

- tests: the tests of engines, packing, losses and training, which compute on the GPU where one is.
- step: one training step (RRTF, AdamW, bfloat16 autocast) of Qwen2-0.5B's shape at one and eight
  students a prompt: ours, the literal padded formulation with all logits, and where they are
  installed TRL's CPO and Liger's chunked CPO, SimPO and DPO losses, on the same tokens. Useful
  FLOPs are 6 x parameters x (prompt + responses), the same for all, so MFU compares too.
- attention: our packed step by flash-attention and by SDPA at 2K and 8K tokens: speed, difference.
- sampling: our `transformers` engine beside `transformers.generate`, 164 prompts.
- table4: StarCoder-15B's shape in float16: memory, ms/token at batch 1; peak of a LoRA step.
- story: all notebooks on the profile gpu-nano through papermill; its pages go to FOLDER/story.

`--reduced` takes tiny shapes, so that every part but story can be tried on a CPU in a minute.
"""

import argparse
import gc
import html
import importlib
import json
import math
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
from bench_training import Group, as_written, group_of

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"tests": 90, "step": 120, "attention": 40, "sampling": 50, "table4": 60, "story": 240}
TESTS = ("test_engines", "test_step", "test_networks", "test_loss")
QWEN = {
    "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}  # fmt: skip
TINY = QWEN | {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip
STARCODER = {"vocab_size": 49152, "n_positions": 8192, "n_embd": 6144, "n_layer": 40, "n_head": 48}
SMALL_STARCODER = STARCODER | {"vocab_size": 512, "n_embd": 64, "n_layer": 2, "n_head": 4}
Loss = Callable[[list[Group]], torch.Tensor]
Rows = Iterator[dict[str, Any]]


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def peak_tflops() -> float:
    """Of this GPU in bfloat16 by data/devices.toml; NaN for one that is not listed."""
    import tomllib

    known = tomllib.loads((ROOT / "data" / "devices.toml").read_text(encoding="utf-8"))
    name = torch.cuda.get_device_name().lower() if device() == "cuda" else "cpu"
    return next((one["flops"] for key, one in known.items() if key in name), math.nan)


def qwen(reduced: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.device(device()):
        settings = transformers.Qwen2Config(**(TINY if reduced else QWEN))
        return transformers.Qwen2ForCausalLM(settings).float().train()


def drawn(students: int, prompt: int, response: int, count: int, words: int) -> list[Group]:
    """Groups of random ids."""
    draw = random.Random(students * prompt)

    def ids(size: int) -> list[int]:
        return [draw.randrange(1, words) for _ in range(size)]

    return [group_of(ids(prompt), [ids(response) for _ in range(students + 1)])
            for _ in range(count)]  # fmt: skip


def ours(model: torch.nn.Module, attention: str = "auto") -> Loss:
    from rrtf import loss
    from rrtf.step import batches, packing, scoring

    packing.use(model, attention, half=device() == "cuda")

    def value(groups: list[Group]) -> torch.Tensor:
        batch = batches.collate([
            batches.Example("t", tuple(g["prompt"]), tuple(map(tuple, g["responses"])),
                            tuple(g["scores"]), 0) for g in groups
        ], device=model.device)  # fmt: skip
        sums, lengths = scoring.score(model, batch)
        return loss.rrtf(batch, sums, lengths, loss.PAPER).loss

    return value


def padded(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, ...]:
    """(ids, mask, labels) of (prompt, response) rows, each (rows, longest)."""
    width = max(len(p) + len(r) for p, r in rows)
    ids, mask = torch.zeros(2, len(rows), width, dtype=torch.long).unbind()
    labels = torch.full_like(ids, -100)
    for row, (p, r) in enumerate(rows):
        ids[row, : len(p) + len(r)] = torch.tensor(p + r)
        mask[row, : len(p) + len(r)] = 1
        labels[row, len(p) : len(p) + len(r)] = torch.tensor(r)
    return tuple(x.to(device()) for x in (ids, mask, labels))


def literal(model: torch.nn.Module) -> Loss:
    """The paper's formulas (1) to (4) as they stand, on padded rows with all logits."""

    def value(groups: list[Group]) -> torch.Tensor:
        ids, mask, labels = padded([(g["prompt"], r) for g in groups for r in g["responses"]])
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        logs = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        chosen = labels[:, 1:] != -100
        sums = (logs.gather(2, ids[:, 1:, None])[..., 0] * chosen).sum(1)
        return as_written(groups, sums, chosen.sum(1))

    return value


def liger(name: str) -> Callable[[torch.nn.Module], Loss]:
    """A chunked loss of Liger on padded pairs; DPO without a reference model."""

    def made(model: torch.nn.Module) -> Loss:
        chunked = importlib.import_module("liger_kernel.chunked_loss")  # may be missing
        kind = getattr(chunked, f"LigerFusedLinear{name}Loss")
        fused = kind(use_ref_model=False) if name == "DPO" else kind()

        def value(groups: list[Group]) -> torch.Tensor:
            pairs = [(g, student) for g in groups for student in g["responses"][1:]]
            rows = [(g["prompt"], g["responses"][0]) for g, _ in pairs]
            ids, mask, labels = padded([*rows, *((g["prompt"], s) for g, s in pairs)])
            states = model.model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
            found = fused(model.lm_head.weight, states[:, :-1], labels[:, 1:])
            return found[0] if isinstance(found, tuple) else found

        return value

    return made


def trl(model: torch.nn.Module) -> Loss:
    """CPO as `bench_training.py` has it."""
    import bench_training

    value = bench_training.trl(model, str(ROOT / "data" / "nano" / "models" / "student"))
    return lambda groups: value(groups)[0]


CONTENDERS = {"ours": ours, "literal": literal, "trl CPO": trl} | {
    f"liger {name}": liger(name) for name in ("CPO", "SimPO", "DPO")
}


def timed(value: Loss, model: torch.nn.Module, groups: list[Group], rounds: int) -> dict[str, Any]:
    """Seconds of an update, its peak of memory, and the first loss; as few passes as fit."""
    optimizer, size = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True), len(groups)
    while size:
        gc.collect()
        if device() == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        times, losses = [], []
        try:
            for _ in range(rounds + 2):
                start, total = time.perf_counter(), 0.0
                for at in range(0, len(groups), size):
                    some = groups[at : at + size]
                    with torch.autocast(device(), torch.bfloat16):
                        part = value(some) * (len(some) / len(groups))
                    part.backward()
                    total += float(part.detach())  # waits
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if device() == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
                losses.append(total)
        except torch.OutOfMemoryError:
            optimizer.zero_grad(set_to_none=True)
            size //= 2
            continue
        peak = torch.cuda.max_memory_allocated() / 2**30 if device() == "cuda" else math.nan
        return {"seconds": statistics.median(times[2:]), "peak GiB": peak, "first loss": losses[0],
                "prompts per pass": size}  # fmt: skip
    return {"said": "out of memory at one prompt per pass"}


def step(reduced: bool) -> Rows:
    shapes = [(k, p) for p in ((32,) if reduced else (256, 1024, 4096)) for k in (1, 8)]
    response, budget = (8, 256) if reduced else (256, 16384)
    for students, prompt in shapes:
        positions = prompt + (students + 1) * response
        words = (TINY if reduced else QWEN)["vocab_size"]
        groups = drawn(students, prompt, response, max(1, budget // positions), words)
        tokens = len(groups) * (students + 1) * response
        for name, contender in CONTENDERS.items():
            row = {"prompt": prompt, "students": students, "contender": name}
            model = qwen(reduced)
            try:
                found = timed(contender(model), model, groups, 2 if reduced else 4)
            except (ImportError, TypeError, AttributeError) as error:
                yield row | {"said": f"not run: {type(error).__name__}: {error}"}
                continue
            if "seconds" in found:
                useful = 6 * sum(p.numel() for p in model.parameters()) * len(groups) * positions
                found["response tokens/s"] = tokens / found["seconds"]
                found["MFU"] = useful / found["seconds"] / (1e12 * peak_tflops())
            yield row | found
            del model


def attention(reduced: bool) -> Rows:
    for length in (64,) if reduced else (2048, 8192):
        groups = drawn(1, length // 2, length // 4, 1, (TINY if reduced else QWEN)["vocab_size"])
        for name in ("sdpa", "flash_attention_2"):
            model = qwen(reduced)
            try:
                found = timed(ours(model, name), model, groups, 2 if reduced else 5)
            except (ImportError, ValueError) as error:
                found = {"said": f"not run: {error}"}
            yield {"tokens": length, "attention": name} | found


def sampling(reduced: bool) -> Rows:
    from rrtf.engines import Decoding, open_engine, resolve_model

    each, wanted, longest = (2, 4, 8) if reduced else (20, 164, 140)
    folder = resolve_model("nano-student")
    what = "Return every item of xs that is larger than"
    texts = [f'def f(xs):\n    """{what} {bound}."""\n' for bound in range(wanted)]
    engine = open_engine("transformers", folder)
    decoding = Decoding(0.8, 0.95, longest, 0)
    start = time.perf_counter()
    found = engine.generate(texts, n=each, decoding=decoding, stops=())
    seconds = time.perf_counter() - start
    count = sum(one.n_tokens for group in found for one in group)
    yield {"contender": engine.name, "prompts": wanted, "n": each, "tokens/s": count / seconds}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).to(device())
    model = model.to(torch.bfloat16) if device() == "cuda" else model
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    for rows in (8,) if reduced else (512, 2048):
        start, count = time.perf_counter(), 0
        for at in range(0, len(texts), max(1, rows // each)):
            batch = tokenizer(texts[at : at + max(1, rows // each)], return_tensors="pt",
                              padding=True, return_token_type_ids=False).to(device())  # fmt: skip
            out = model.generate(**batch, do_sample=True, temperature=0.8, top_p=0.95, top_k=0,
                                 max_new_tokens=longest, num_return_sequences=each)  # fmt: skip
            made = out[:, batch["input_ids"].shape[1] :]
            count += int((made != tokenizer.pad_token_id).sum())
        rate = count / (time.perf_counter() - start)
        name = f"transformers.generate, batches of {rows}"
        yield {"contender": name, "prompts": wanted, "n": each, "tokens/s": rate}


def table4(reduced: bool) -> Rows:
    shape = SMALL_STARCODER if reduced else STARCODER
    kind, new = torch.float16 if device() == "cuda" else torch.float32, 8 if reduced else 512
    settings = transformers.GPTBigCodeConfig(**shape, eos_token_id=0, pad_token_id=0)
    torch.set_default_dtype(kind)
    with torch.device(device()):
        model = transformers.GPTBigCodeForCausalLM(settings).eval()
    torch.set_default_dtype(torch.float32)
    size = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**30
    ids = torch.randint(1, shape["vocab_size"], (1, 64), device=device())
    times = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.no_grad():
            model.generate(ids, max_new_tokens=new, min_new_tokens=new, do_sample=False)
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device() == "cuda" else math.nan
    yield {"variant": f"full, {str(kind).removeprefix('torch.')}", "weights GiB": size,
           "peak GiB": peak, "ms/token": 1000 * min(times) / new}  # fmt: skip
    for name in ("gptq-int8", "gptq-int4", "ctranslate2"):
        yield {"variant": name, "said": "not run: needs calibrated weights of this size"}
    from peft import LoraConfig, inject_adapter_in_model

    model = model.to(torch.bfloat16).train()
    inject_adapter_in_model(LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
                            model)  # fmt: skip
    model.gradient_checkpointing_enable({"use_reentrant": False})
    groups = drawn(1, 64, 64, 1, shape["vocab_size"]) if reduced else drawn(1, 512, 512, 4, 49152)
    yield {"variant": "RRTF step with LoRA, rank 16"} | timed(ours(model), model, groups, 1)


def run_tests(reduced: bool) -> Rows:
    files = [f"tests/{name}.py" for name in (TESTS[3:4] if reduced else TESTS)]
    command = [sys.executable, "-m", "pytest", "-x", "-m", "not slow", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    last = [line for line in done.stdout.splitlines() if re.search("passed|failed|error", line)]
    yield {"files": " ".join(files), "exit": done.returncode, "said": " / ".join(last[-2:])}


def story(reduced: bool) -> Rows:
    home = Path(os.environ["RRTF_GPU_OUT"]) / "home"
    command = [sys.executable, "-m", "rrtf", "run", "--profile", "smoke" if reduced else "gpu-nano"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"RRTF_HOME": str(home)}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    for pages in (home / "reports").glob("*"):
        shutil.copytree(pages, Path(os.environ["RRTF_GPU_OUT"]) / "story", dirs_exist_ok=True)
    yield {"command": " ".join(command[1:]), "exit": done.returncode,
           "seconds": time.perf_counter() - start, "said": done.stdout[-300:]}  # fmt: skip


PARTS = {"tests": run_tests, "step": step, "attention": attention, "sampling": sampling,
         "table4": table4, "story": story}  # fmt: skip


def child(part: str, reduced: bool, out: Path) -> None:
    """One part in this process: a JSON line per row, as it comes."""
    os.environ["RRTF_GPU_OUT"] = str(out)
    for row in PARTS[part](reduced):
        row = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        print("ROW " + json.dumps(row), flush=True)


def measured(part: str, reduced: bool, out: Path) -> dict[str, Any]:
    """The rows of a part and how it ended."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", part, "--out", str(out)]
    command += ["--reduced"] if reduced else []
    log, start, how = out / f"{part}.log", time.perf_counter(), "done"
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT,
                                  timeout=LIMITS[part], cwd=ROOT)  # fmt: skip
        except subprocess.TimeoutExpired:
            how = f"stopped after its limit of {LIMITS[part]} s; what is here was finished"
        else:
            how = "done" if not done.returncode else f"failed with exit code {done.returncode}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [json.loads(line[4:]) for line in lines if line.startswith("ROW ")]
    told = {"how": how, "seconds": round(time.perf_counter() - start, 1), "rows": rows}
    return told if how == "done" else told | {"last words": lines[-5:]}


def page(facts: dict[str, Any], parts: dict[str, Any]) -> str:
    """All there is as one quiet page."""
    text = [f"<!doctype html><meta charset=utf-8><title>{html.escape(facts['device'])}</title>",
            "<style>body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
            "table{border-collapse:collapse}td,th{padding:.2em .7em;text-align:left;"
            "border-bottom:1px solid #ccc}</style>",
            f"<h1>Measured on {html.escape(facts['device'])}</h1>",
            f"<p>{html.escape(', '.join(f'{k} {v}' for k, v in facts.items()))}</p>"]  # fmt: skip
    for name in PARTS:
        found = parts.get(name, {"how": "not run", "rows": []})
        text.append(f"<h2>{name}</h2><p>{html.escape(found['how'])}</p>")
        heads = list(dict.fromkeys(key for row in found["rows"] for key in row))
        rows = [[_cell(row.get(head)) for head in heads] for row in found["rows"]]
        for tag, cells in [("th", heads), *(("td", row) for row in rows)] if heads else ():
            made = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            text.append(("<table>" if tag == "th" else "") + f"<tr>{made}</tr>")
        text.append("</table>" if heads else "")
    return "\n".join(text) + "\n"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "gpu")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        return child(args.part, args.reduced, args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if device() == "cuda" else f"CPU {platform.machine()}"
    facts = {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}
    facts |= {"python": platform.python_version(), "reduced": args.reduced}
    facts |= {"command": " ".join(["bench_gpu.py", *sys.argv[1:]])}
    place, parts = args.out / re.sub(r"\W+", "-", name.lower()).strip("-"), {}
    for part in args.parts.split(","):
        parts[part] = measured(part, args.reduced, args.out)
        print(f"{part}: {parts[part]['how']}, {parts[part]['seconds']} s", flush=True)
        found = json.dumps({"facts": facts, "parts": parts}, indent=1) + "\n"
        place.with_suffix(".json").write_text(found, encoding="utf-8")
        place.with_suffix(".html").write_text(page(facts, parts), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
