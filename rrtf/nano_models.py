"""Pre-training of the small world's models: one student, two fallible teachers.

One trunk is trained at a constant learning rate on problems of the pre-training split and on
Python's standard library; each model is a branch of it, annealed to zero (warm-up, stable,
decay). The student leaves the trunk early and keeps the mixed style; the teachers leave later
and anneal on the canonical style, one of them on data in which some operations are consistently
misunderstood (`data/nano/blind_spots.toml`). Nobody plants errors in the student's data.
"""

import json
import random
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrtf import attention, config, nano, store
from rrtf.nano import grammar, wording
from rrtf.records import Problem

END = "<|endoftext|>"
VOCABULARY = 2048
POSITIONS = 512
SHAPE = {"n_embd": 256, "n_layer": 4, "n_head": 4}
MAX_DOCUMENT = 256  # tokens; longer documents are left out
LIBRARY_CHUNK = 192
BATCH_TOKENS = 4096
PROMPT_WEIGHT = 0.2  # of the loss on prompt tokens, relative to solution tokens
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
        "teacher-blind-spots", 12_400_000, 1_900_000, "blind_spots",
        "the longest trained, in a clean style, with a recorded set of misconceptions",
    ),
)  # fmt: skip


# documents: (text of the prompt, text of the solution)


def documents(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    return [(p.prompt.rstrip("\n"), "\n" + p.reference.rstrip("\n")) for p in problems]


def restyled(problems: Sequence[Problem], style: str) -> list[tuple[str, str]]:
    """The same prompts with canonical solutions, or with those of the blind spots."""
    table = grammar.blind_spots() if style == "blind_spots" else grammar.operations()
    found = []
    for problem in problems:
        argument = problem.prompt.partition("(")[2].partition(")")[0]
        rng = random.Random(config.derive_seed(0, "restyle", problem.task_id))
        spec = grammar.parse_spec(problem.spec)
        body = wording.solution(spec, argument, wording.CANONICAL, rng, table=table)
        found.append((problem.prompt.rstrip("\n"), "\n" + body.rstrip("\n")))
    return found


def library_sources(limit: int = 400) -> list[str]:
    """Sources of this Python's standard library, in a fixed order: plain, natural Python."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"site-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "turtledemo"}
    paths = sorted(p for p in root.rglob("*.py") if not skip & set(p.relative_to(root).parts))
    random.Random(0).shuffle(paths)
    return [p.read_text(encoding="utf-8", errors="ignore") for p in paths[:limit]]


def train_tokenizer(texts: Sequence[str]) -> Any:
    """Byte-level BPE of 2,048 pieces in which a line break is always a piece of its own.

    Were a break merged with the indent after it, a prompt that ends before the break would be
    tokenised differently from the same text inside a document.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n| ?\d"), "isolated"),  # digits one by one
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


Row = tuple[list[int], int]  # token ids with the end token, number of prompt tokens


def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Rows of at most MAX_DOCUMENT tokens; prompt and solution are tokenised apart."""
    prompts = tokenizer.encode_batch([prompt for prompt, _ in pairs])
    answers = tokenizer.encode_batch([answer for _, answer in pairs])
    rows = [(p.ids + a.ids + [0], len(p.ids)) for p, a in zip(prompts, answers, strict=True)]
    return [row for row in rows if len(row[0]) <= MAX_DOCUMENT]


def library_rows(tokenizer: Any, sources: Sequence[str]) -> list[Row]:
    rows = []
    for encoding in tokenizer.encode_batch(list(sources)):
        ids = encoding.ids
        starts = range(0, len(ids) - LIBRARY_CHUNK + 1, LIBRARY_CHUNK)
        rows += [(ids[i : i + LIBRARY_CHUNK], 0) for i in starts]
    return rows


def batches(rows: Sequence[Row], seed: int, pool: int = 4096) -> list[list[Row]]:
    """Batches of about BATCH_TOKENS padded tokens, similar lengths together, shuffled."""
    rng = random.Random(seed)
    order = rng.sample(rows, len(rows))
    found: list[list[Row]] = []
    for start in range(0, len(order), pool):
        batch: list[Row] = []
        for row in sorted(order[start : start + pool], key=lambda r: len(r[0])):
            if batch and len(row[0]) * (len(batch) + 1) > BATCH_TOKENS:
                found.append(batch)
                batch = []
            batch.append(row)
        found.append(batch)
    rng.shuffle(found)
    return found


def upto(found: Sequence[list[Row]], tokens: int) -> int:
    """How many of the batches make `tokens` tokens."""
    seen = 0
    for number, batch in enumerate(found):
        if seen >= tokens:
            return number
        seen += sum(len(ids) for ids, _ in batch)
    if seen < tokens:
        raise ValueError(f"only {seen:,} tokens of data, {tokens:,} asked for")
    return len(found)


# training


class Pretraining:
    """A model with its optimizers (Muon for matrices, AdamW for the rest) and its place."""

    def __init__(self, seed: int = 0, shape: Mapping[str, int] = SHAPE):
        import torch
        from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

        torch.manual_seed(seed)
        settings = GPTBigCodeConfig(
            vocab_size=VOCABULARY, n_positions=POSITIONS, multi_query=True, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
            use_cache=False, **shape,
        )  # fmt: skip
        self.model = GPTBigCodeForCausalLM(settings)
        attention.use(self.model)
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

    def update(self, batch: Sequence[Row], scale: float) -> float:
        """One step at `scale` times the peak learning rate; the mean loss on solution tokens."""
        import torch
        from torch.nn import functional

        ids, weights = collate(batch)  # (B, T), (B, T)
        chosen = weights[:, 1:] > 0
        device_type = self.model.device.type
        with torch.autocast(device_type, dtype=torch.bfloat16):
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
        return float(losses.detach()[weight == 1].mean())

    def tensors(self) -> dict[str, Any]:
        """Weights and optimizer state, flat, for safetensors."""
        import torch

        found = {f"model.{n}": p.detach().clone() for n, p in self.model.named_parameters()}
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
        self.step = step


def collate(batch: Sequence[Row]) -> tuple[Any, Any]:
    """Right-padded ids (B, T) and loss weights (B, T): 0 on padding, less than 1 on prompts."""
    import torch

    width = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    weights = torch.zeros(len(batch), width)
    for row, (tokens, n_prompt) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(tokens)] = 1.0
        weights[row, :n_prompt] = PROMPT_WEIGHT
    return ids, weights


def save_checkpoint(path: Path, training: Pretraining) -> None:
    from safetensors.torch import save

    store.write_bytes(path, save(training.tensors(), {"step": str(training.step)}))


def load_checkpoint(path: Path, training: Pretraining) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
        training.restore({key: file.get_tensor(key) for key in file.keys()}, step)  # noqa: SIM118


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


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def trunk_scale(step: int) -> float:
    return min(1.0, (step + 1) / WARMUP)


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


def data_hash(rows: Sequence[Row]) -> str:
    """sha256 of token rows: what a model card records of its data."""
    import hashlib

    digest = hashlib.sha256()
    for ids, n_prompt in rows:
        digest.update(json.dumps([n_prompt, *ids]).encode())
    return digest.hexdigest()


# the stages of `make models`, each resumable, each leaving files in one work folder

TRUNK_PROBLEMS = 104_000
DECAY_PROBLEMS = 20_000
LIBRARY_CHUNKS = 6_000
SETS = ("trunk", "mixed", "canonical", "blind_spots")


def prepare(
    folder: Path, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Problems, tokenizer and token rows of every set, into `folder`; facts about them."""
    facts = folder / "corpus.json"
    if facts.exists():
        return store.read_json(facts)
    world = nano.world(workers)
    avoid = {key for _, keys in world.values() for key in keys}
    problems, keys, dropped = nano.build(
        "pretrain", TRUNK_PROBLEMS + DECAY_PROBLEMS, avoid=avoid, shard_size=2000,
        workers=workers, progress=progress,
    )  # fmt: skip
    first, last = problems[:TRUNK_PROBLEMS], problems[TRUNK_PROBLEMS:]
    sources = library_sources()
    texts = [prompt + answer for prompt, answer in documents(first[:12_000])]
    tokenizer = train_tokenizer(texts + [source[:20_000] for source in sources[:150]])
    store.write_bytes(folder / "tokenizer.json", tokenizer.to_str().encode())
    library = library_rows(tokenizer, sources)[:LIBRARY_CHUNKS]
    share = LIBRARY_CHUNKS * len(last) // len(first)
    rows = {
        "trunk": encode(tokenizer, documents(first)) + library,
        "mixed": encode(tokenizer, documents(last)) + library[:share],
        "canonical": encode(tokenizer, restyled(last, "canonical")),
        "blind_spots": encode(tokenizer, restyled(last, "blind_spots")),
    }
    for name, found in rows.items():
        save_rows(folder / f"{name}.safetensors", found)
    summary = {
        "problems": len(problems),
        "dropped": dropped,
        "behaviours shared with other splits": len(avoid & set(keys)),
        "tokens": {name: sum(len(ids) for ids, _ in found) for name, found in rows.items()},
        "sha256": {name: data_hash(found) for name, found in rows.items()},
    }
    store.write_json(facts, summary)
    return summary


def save_rows(path: Path, rows: Sequence[Row]) -> None:
    import torch
    from safetensors.torch import save

    flat = torch.tensor([token for ids, _ in rows for token in ids], dtype=torch.int16)
    sizes = torch.tensor([[len(ids), n_prompt] for ids, n_prompt in rows], dtype=torch.int16)
    store.write_bytes(path, save({"ids": flat, "sizes": sizes}))


def load_rows(path: Path) -> list[Row]:
    from safetensors.torch import load_file

    tensors = load_file(path)
    flat, rows, place = tensors["ids"].tolist(), [], 0
    for size, n_prompt in tensors["sizes"].tolist():
        rows.append((flat[place : place + size], n_prompt))
        place += size
    return rows


def stops(found: Sequence[list[Row]]) -> dict[str, int]:
    """The trunk step at which each branch leaves."""
    return {branch.name: upto(found, branch.trunk_tokens) for branch in BRANCHES}


def train_trunk(
    folder: Path, *, threads: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[tuple[int, float]]:
    """The common trunk, with a checkpoint where each branch leaves; (step, loss) pairs."""
    import torch

    torch.set_num_threads(threads)
    found = batches(load_rows(folder / "trunk.safetensors"), seed=0)
    leave = stops(found)
    found = found[: max(leave.values())]
    losses = advance(
        Pretraining(), found, trunk_scale, tuple(leave.values()), folder, "trunk",
        progress=progress,
    )  # fmt: skip
    return list(losses)


def train_branch(folder: Path, name: str, models: Path, *, threads: int = 1) -> dict[str, Any]:
    """Anneals one branch to zero and exports it into `models/<name>`; its card's facts."""
    import time

    import torch
    from tokenizers import Tokenizer

    branch = {b.name: b for b in BRANCHES}[name]
    torch.set_num_threads(threads)
    trunk = batches(load_rows(folder / "trunk.safetensors"), seed=0)
    leave = stops(trunk)[name]
    rows = load_rows(folder / f"{branch.style}.safetensors")
    found = batches(rows, seed=1)
    found = found[: upto(found, branch.decay_tokens)]
    training = Pretraining()
    load_checkpoint(folder / f"trunk-{leave}.safetensors", training)
    training.step = 0
    started = time.process_time()
    losses = [
        loss
        for _, loss in advance(
            training, found, lambda step: 1 - step / len(found), (), folder, name
        )
    ]
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
    export(training, Tokenizer.from_file(str(folder / "tokenizer.json")), models / name, card)
    return {
        **card,
        "loss": sum(losses[-20:]) / max(1, len(losses[-20:])),
        "cpu_seconds": time.process_time() - started,
    }
