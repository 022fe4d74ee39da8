"""What the small world's models are pre-trained on: problems, plain Python, a tokenizer.

Problems of the pre-training split in every style, or with their solutions rewritten for a
teacher, and chunks of Python's standard library. None behaves like a problem of another split.
"""

import hashlib
import json
import random
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rrtf import config, store
from rrtf.nano import grammar, wording
from rrtf.nano.problems import build, world
from rrtf.records import Problem

END = "<|endoftext|>"
VOCABULARY = 2048
MAX_DOCUMENT = 256  # tokens; longer documents are left out
LIBRARY_CHUNK = 192  # tokens
BATCH_TOKENS = 4096
PROMPT_WEIGHT = 0.2  # of the loss on prompt tokens, relative to solution tokens
TRUNK_PROBLEMS = 104_000
DECAY_PROBLEMS = 20_000
LIBRARY_CHUNKS = 6_000

Row = tuple[list[int], int]  # token ids with the end token, number of prompt tokens


def prepare(
    folder: Path, *, workers: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Problems, tokenizer and token rows of every set, into `folder`; facts about them."""
    facts = folder / "corpus.json"
    if facts.exists():
        return store.read_json(facts)
    problems, keys, dropped, avoid = _pretraining(workers, progress)
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


def _pretraining(
    workers: int, progress: Callable[[int, int], None] | None
) -> tuple[list[Problem], list[str], dict[str, int], set[str]]:
    """Problems, their behaviours, what was dropped, and the behaviours that were avoided."""
    avoid = {key for _, keys in world(workers).values() for key in keys}
    found = build(
        "pretrain", TRUNK_PROBLEMS + DECAY_PROBLEMS, avoid=avoid, shard_size=2000,
        workers=workers, progress=progress,
    )  # fmt: skip
    return *found, avoid


def behaviours(*, workers: int, progress: Callable[[int, int], None] | None = None) -> set[str]:
    """The behaviours of all problems that the models were pre-trained on; a minute or two."""
    return set(_pretraining(workers, progress)[1])


def documents(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    """(prompt, solution) of each problem as the models read them: the break comes second."""
    return [(p.prompt.rstrip("\n"), "\n" + p.reference.rstrip("\n")) for p in problems]


def restyled(problems: Sequence[Problem], style: str) -> list[tuple[str, str]]:
    """The same prompts with `canonical` solutions, those of the `blind_spots`, or `varied` ones.

    Varied solutions are right and written in the styles of pre-training, drawn by task id.
    """
    table = grammar.blind_spots() if style == "blind_spots" else grammar.operations()
    found = []
    for problem in problems:
        argument = grammar.argument_of(problem)
        rng = random.Random(config.derive_seed(0, "restyle", problem.task_id))
        spec = grammar.spec_of(problem)
        way = rng.choice(wording.STYLES) if style == "varied" else wording.CANONICAL
        body = wording.solution(spec, argument, way, rng, table=table)
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


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer that `prepare` wrote."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Rows of at most MAX_DOCUMENT tokens; prompt and solution are tokenised apart."""
    prompts = tokenizer.encode_batch([prompt for prompt, _ in pairs])
    answers = tokenizer.encode_batch([answer for _, answer in pairs])
    rows = [(p.ids + a.ids + [0], len(p.ids)) for p, a in zip(prompts, answers, strict=True)]
    return [row for row in rows if len(row[0]) <= MAX_DOCUMENT]


def library_rows(tokenizer: Any, sources: Sequence[str]) -> list[Row]:
    """Chunks of LIBRARY_CHUNK tokens; all of their tokens count fully."""
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


def save_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows as two tensors: all ids in one line, and the sizes."""
    import torch
    from safetensors.torch import save

    flat = torch.tensor([token for ids, _ in rows for token in ids], dtype=torch.int16)
    sizes = torch.tensor([[len(ids), n_prompt] for ids, n_prompt in rows], dtype=torch.int16)
    store.write_bytes(path, save({"ids": flat, "sizes": sizes}))


def load_rows(path: Path) -> list[Row]:
    """The inverse of `save_rows`."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    flat, rows, place = tensors["ids"].tolist(), [], 0
    for size, n_prompt in tensors["sizes"].tolist():
        rows.append((flat[place : place + size], n_prompt))
        place += size
    return rows


def data_hash(rows: Sequence[Row]) -> str:
    """sha256 of token rows: what a model card records of its data."""
    digest = hashlib.sha256()
    for ids, n_prompt in rows:
        digest.update(json.dumps([n_prompt, *ids]).encode())
    return digest.hexdigest()
