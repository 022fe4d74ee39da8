"""Pre-training of the small world's models: one student, two fallible teachers.

One trunk is trained at a constant learning rate on problems of the pre-training split and on
Python's standard library; each model is a branch of it, annealed to zero (warm-up, stable,
decay). The student leaves the trunk early and keeps the mixed style; the teachers leave later
and anneal on the canonical style, one of them on data in which some operations are consistently
misunderstood (`data/nano/blind_spots.toml`). Nobody plants errors in the student's data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrtf import store
from rrtf.nano import corpus, grammar
from rrtf.nano.corpus import END, VOCABULARY, Row
from rrtf.records import Execution, Outcome, Problem

POSITIONS = 512
SHAPE = {"n_embd": 256, "n_layer": 4, "n_head": 4}
LEARNING_RATE = {"matrices": 4e-3, "rest": 3e-3}  # Muon, AdamW
WARMUP = 100


@dataclass(frozen=True, slots=True)
class Branch:
    """A model: where it leaves the trunk and what it anneals on (`style`)."""

    name: str
    trunk_tokens: int
    decay_tokens: int
    style: str  # mixed | canonical | blind_spots
    summary: str


BRANCHES = (
    Branch("student", 5_500_000, 850_000, "mixed", "the model that RRTF trains"),
    Branch(
        "teacher-slips", 7_175_000, 1_500_000, "canonical",
        "a longer trained relative in a clean style, errors as they come",
    ),
    Branch(
        "teacher-blind-spots", 10_000_000, 1_900_000, "blind_spots",
        "the longest trained, in a clean style, with a recorded set of misconceptions",
    ),
)  # fmt: skip


def train_trunk(
    folder: Path, *, threads: int, progress: Callable[[int, int], None] | None = None
) -> list[tuple[int, float]]:
    """The common trunk, with a checkpoint where each branch leaves; (step, loss) pairs."""
    import torch

    torch.set_num_threads(threads)
    found = corpus.batches(corpus.load_rows(folder / "trunk.safetensors"), seed=0)
    leave = stops(found)
    found = found[: max(leave.values())]
    training = Pretraining(seed=0)
    kept = tuple(leave.values())
    for _ in advance(training, found, trunk_scale, kept, folder, "trunk", progress=progress):
        pass
    return list(enumerate(training.losses, start=1))


def train_branch(folder: Path, name: str, models: Path, *, threads: int) -> dict[str, Any]:
    """Anneals one branch to zero and exports it into `models/<name>`; the facts of its card."""
    import torch

    branch = {b.name: b for b in BRANCHES}[name]
    torch.set_num_threads(threads)
    leave = stops(corpus.batches(corpus.load_rows(folder / "trunk.safetensors"), seed=0))[name]
    found = corpus.batches(corpus.load_rows(folder / f"{branch.style}.safetensors"), seed=1)
    found = found[: corpus.upto(found, branch.decay_tokens)]
    training = Pretraining(seed=0)
    load_checkpoint(folder / f"trunk-{leave}.safetensors", training)
    training.step = 0
    list(advance(training, found, falling(len(found)), (), folder, name))
    facts = store.read_json(folder / "corpus.json")
    card = {
        "model": name,
        "purpose": branch.summary,
        "style of the last phase": branch.style,
        "trunk tokens": branch.trunk_tokens,
        "annealing tokens": branch.decay_tokens,
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "sha256 of the trunk's data": facts["sha256"]["trunk"],
        "sha256 of the annealing data": facts["sha256"][branch.style],
    }
    export(training, corpus.load_tokenizer(folder), models / name, card)
    return card


def train_base(
    folder: Path, name: str, models: Path, *, shape: Mapping[str, int], seed: int, threads: int
) -> Path:
    """A start model as the student, of another shape or seed, from a trunk of its own.

    `folder` holds what `corpus.prepare` wrote; the model lies in `models/<name>`, and one that is
    there is not trained again.
    """
    import torch

    if (models / name / "training.json").exists():
        return models / name
    student = BRANCHES[0]
    torch.set_num_threads(threads)
    training = Pretraining(SHAPE | dict(shape), seed=seed)
    parts = (
        ("trunk", student.trunk_tokens, trunk_scale),
        (student.style, student.decay_tokens, None),
    )
    for number, (rows, tokens, scale) in enumerate(parts):
        found = corpus.batches(
            corpus.load_rows(folder / f"{rows}.safetensors"), seed=2 * seed + number
        )
        found = found[: corpus.upto(found, tokens)]
        training.step = 0
        where = (folder, f"{name}-{rows}")
        list(advance(training, found, scale or falling(len(found)), (), *where))
    facts = {
        "model": name,
        "purpose": "a start model of the ablation",
        "seed": seed,
        **training.shape,
    }
    export(training, corpus.load_tokenizer(folder), models / name, facts)
    return models / name


def falling(steps: int) -> Callable[[int], float]:
    """The schedule of annealing: linear, to zero."""
    return lambda step: 1 - step / steps


def stops(found: Sequence[list[Row]]) -> dict[str, int]:
    """The trunk step at which each branch leaves."""
    return {branch.name: corpus.upto(found, branch.trunk_tokens) for branch in BRANCHES}


class Pretraining:
    """A model with its optimizers (Muon for matrices, AdamW for the rest) and its place."""

    def __init__(self, shape: Mapping[str, int] = SHAPE, *, seed: int):
        import torch
        from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

        torch.manual_seed(seed)  # 0: the shipped models are fixed
        self.shape = dict(shape)
        settings = GPTBigCodeConfig(
            vocab_size=VOCABULARY, n_positions=POSITIONS, multi_query=True, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
            use_cache=False, **shape,
        )  # fmt: skip
        self.model = GPTBigCodeForCausalLM(settings)
        named = list(self.model.named_parameters())
        matrices = [p for n, p in named if p.dim() == 2 and ".h." in n]
        tables = [p for n, p in named if p.dim() == 2 and ".h." not in n]
        vectors = [p for _, p in named if p.dim() < 2]
        self.optimizers = (
            torch.optim.Muon(
                matrices, lr=LEARNING_RATE["matrices"], weight_decay=0.1, momentum=0.95,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                [{"params": tables, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0}],
                lr=LEARNING_RATE["rest"], betas=(0.9, 0.95), fused=True,
            ),
        )  # fmt: skip
        self.step = 0
        self.losses: list[float] = []  # of every step so far, on solution tokens

    def update(self, batch: Sequence[Row], scale: float) -> float:
        """One step at `scale` times the peak learning rate; the mean loss on solution tokens."""
        import torch
        from torch.nn import functional

        ids, weights = corpus.collate(batch)  # (B, T), (B, T)
        chosen = weights[:, 1:] > 0
        kind = self.model.device.type
        half = kind != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # else 4 times slower
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
            hidden = self.model.transformer(ids[:, :-1], use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden[chosen])  # (N, V)
        losses = functional.cross_entropy(logits.float(), ids[:, 1:][chosen], reduction="none")
        weight = weights[:, 1:][chosen]
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rate in zip(self.optimizers, LEARNING_RATE.values(), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.losses.append(float(losses.detach()[weight == 1].mean()))
        return self.losses[-1]

    def tensors(self) -> dict[str, Any]:
        """Weights, optimizer state and losses, flat, for safetensors."""
        import torch

        found = {f"model.{n}": p.detach().clone() for n, p in self.model.named_parameters()}
        found["losses"] = torch.tensor(self.losses)
        for place, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                for name, value in state.items():
                    tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
                    found[f"optimizer.{place}.{index}.{name}"] = tensor.clone()
        return found

    def restore(self, tensors: Mapping[str, Any], step: int) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
        for place, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Any]] = {}
            for key, value in tensors.items():
                kind, _, rest = key.partition(".")
                if kind == "optimizer" and rest.startswith(f"{place}."):
                    _, index, name = rest.split(".")
                    state.setdefault(int(index), {})[name] = value.clone()
            whole = optimizer.state_dict()
            optimizer.load_state_dict({**whole, "state": state})
        self.step, self.losses = step, tensors["losses"].tolist()


def advance(
    training: Pretraining,
    found: Sequence[list[Row]],
    scale: Callable[[int], float],
    stops: Sequence[int],
    folder: Path,
    name: str,
    *,
    every: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, float]]:
    """Trains on `found` from where the newest checkpoint of `name` stands; yields (step, loss).

    Checkpoints are written at every multiple of `every` (the newest is kept) and at `stops`
    (all are kept), as `<folder>/<name>-<step>.safetensors`.
    """
    done = sorted((p for p in folder.glob(f"{name}-*.safetensors")), key=_step_of)
    if done:
        load_checkpoint(done[-1], training)
    start = training.step
    for step in range(start, len(found)):
        loss = training.update(found[step], scale(step))
        if training.step % every == 0 or training.step in stops or training.step == len(found):
            save_checkpoint(folder / f"{name}-{training.step}.safetensors", training)
            for old in folder.glob(f"{name}-*.safetensors"):
                if _step_of(old) < training.step and _step_of(old) not in stops:
                    old.unlink()
        if progress:
            progress(training.step, len(found))
        yield training.step, loss


def trunk_scale(step: int) -> float:
    """The trunk's schedule: a linear warm-up, then constant; times the peak rate."""
    return min(1.0, (step + 1) / WARMUP)


def save_checkpoint(path: Path, training: Pretraining) -> None:
    """Writes weights, optimizer state and step as one safetensors file."""
    from safetensors.torch import save

    store.write_bytes(path, save(training.tensors(), {"step": str(training.step)}))


def load_checkpoint(path: Path, training: Pretraining) -> None:
    """The inverse of `save_checkpoint`, into `training`."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
        training.restore({key: file.get_tensor(key) for key in file.keys()}, step)  # noqa: SIM118


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def export(training: Pretraining, tokenizer: Any, folder: Path, card: Mapping[str, Any]) -> None:
    """A `from_pretrained` folder: bfloat16 weights that load as float32, tokenizer, model card."""
    import torch
    from safetensors.torch import save
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    ends = {"eos_token": END, "bos_token": END, "pad_token": END}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends).save_pretrained(folder)
    settings = training.model.config
    settings.use_cache, settings.dtype = True, torch.float32
    settings.architectures = ["GPTBigCodeForCausalLM"]
    settings.save_pretrained(folder)
    GenerationConfig(eos_token_id=0, pad_token_id=0).save_pretrained(folder)
    weights = {
        name: parameter.detach().to(torch.bfloat16).contiguous()
        for name, parameter in training.model.named_parameters()
    }
    store.write_bytes(folder / "model.safetensors", save(weights, {"format": "pt"}))
    store.write_bytes(folder / "README.md", model_card(card).encode())
    store.write_json(folder / "training.json", dict(card))


def model_card(card: Mapping[str, Any]) -> str:
    """A Hugging Face model card from the facts in `card`."""
    facts = "\n".join(f"- {name}: {value}" for name, value in card.items() if name != "model")
    return (
        "---\nlicense: apache-2.0\nlibrary_name: transformers\nlanguage: code\n---\n"
        f"# nano {card['model']}\n\n"
        "A GPTBigCode model (multi-query attention, tied embeddings) for the small world of\n"
        "rrtf. It writes short Python functions composed of a fixed set of operations and is of\n"
        "no use outside that world.\n\n"
        f"{facts}\n\n"
        "Pre-trained by `make models` (`notebooks/appendix_nano_models.ipynb`). Test and\n"
        "validation problems, and all compositions that behave like them, were kept out of its\n"
        "data.\n"
    )


def misconceptions() -> list[dict[str, str]]:
    """Rows (operation, says, is, believes) of the blind spots."""
    true, believed = grammar.operations(), grammar.blind_spots()
    return [
        {
            "operation": name,
            "says": true[name].verbs[0],
            "is": true[name].expressions[0],
            "believes": believed[name].expressions[0],
        }
        for name in true
        if believed[name] != true[name]
    ]


def pass_rates(problems: Sequence[Problem], executions: Sequence[Execution]) -> list[dict]:
    """pass@1 of every source, over all problems and by the number of steps."""
    steps = {p.task_id: len(grammar.spec_of(p).steps) for p in problems}
    rows = []
    for source in dict.fromkeys(e.source for e in executions):
        mine = [e for e in executions if e.source == source]
        row = {"model": source, "pass@1": _rate(mine)}
        for count in sorted(set(steps.values())):
            row[f"{count} steps"] = _rate([e for e in mine if steps[e.task_id] == count])
        rows.append(row)
    return rows


def _rate(executions: Sequence[Execution]) -> float:
    return sum(e.outcome == Outcome.PASS for e in executions) / len(executions)
