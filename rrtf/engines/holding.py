"""Held against transformers: what an engine computes, on a few texts, before it is used.

Converters drop settings of a model without a word (a rope's scaling, an activation, a window).
So an engine gives the log-probabilities of three texts and the likeliest tokens behind them, and
both have to be close to transformers' in float32. How close follows from the model itself. An
engine that computes in half precision may be `TWICE` as far as transformers is in the same type.
`shaken` tells what a model loses when every weight is moved at random within the rounding of a
type: one of whole numbers may be `LOOSE` times as far. In float32, in which every engine is held as
well, it has to be `TIGHT` times closer than bfloat16's rounding of weights: another order of sums
is a hundred times closer than that, a wrong setting about as far as that rounding or farther. The
result is kept in the user's cache by what
decides it: settings, tokenizer, names and shapes of the tensors, this code and the libraries; not
by the values of the weights, so whatever is trained of one model shares it.
Not covered: differences that begin behind the longest text (`sizes`).
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rrtf import config, store
from rrtf.engines import Scorer, check_weights, line, weight_files, weight_header
from rrtf.engines.transformers import TransformersEngine, open_tokenizer, positions_of
from rrtf.prompts import prompt_ids

TIGHT, TWICE, LOOSE = 1 / 256, 2.0, 6.0
FLOOR = 5e-6  # nats: what float32 keeps of a log-probability
WRITTEN = 16  # tokens that an engine writes behind each text
SIZES = (24, 96, 192)  # tokens of the texts
FAR = 1024  # of the last one where a border lies too far to be reached
CHEAP = 3e11  # FLOPs of reading a text that a start may cost: seconds of one core
HELD = 1 << 26  # numbers that reading a text may hold at a time: logits, attention of a layer
BEHIND = 64  # tokens behind the border of a window, or of the positions a rope was trained on
BORDERS = ("sliding_window", "original_max_position_embeddings")
GROUP = 128  # weights that are rounded with one scale, in a row
HALF = ("bfloat16", "float16")
RELATIVE = {"float32": 2.0**-8, "bfloat16": 2.0**-8, "float16": 2.0**-11}  # of rounding a weight
CHOSEN = {"float32": 1e-3, "bfloat16": 0.25}  # nats that a written token may lose by the loop
LIBRARIES = ("torch", "transformers", "ctranslate2", "tokenizers")


def fault(name: str, folder: Path, open_as: Callable[..., Any], *, dtype: str = "float32") -> str:
    """Why the engine `name` does not compute what the model in `folder` says, or `''`.

    `open_as(name, folder, dtype=)` opens it. Whatever a library raises is such a reason. Errors as
    `check_weights`.
    """
    place = _place(name, folder, dtype)
    if place.exists():
        return store.read_json(place)["fault"]
    check_weights(folder)
    told, kind = "", dtype
    for kind in dict.fromkeys((dtype, "float32")):
        try:
            told = told or compare(open_as(name, folder, dtype=kind), folder)
        except MemoryError:
            raise
        except Exception as error:  # libraries raise what they like
            told = line(error)
    store.write_json(place, {"engine": name, "model": folder.name, "fault": told})
    return told


def loop_fault(engine: TransformersEngine, folder: Path) -> str:
    """Why the loop of `engine` does not write what its model's plain `forward` says, or `''`.

    The loop pads on the left, and lets rows leave the cache; not every state allows that.
    """
    place = _place(f"loop {engine.name}", folder, engine.precision)
    if place.exists():
        return store.read_json(place)["fault"]
    texts, told = rows(folder), ""
    try:
        written = engine.greedy(texts, WRITTEN)
        whole = [[*text, *more] for text, more in zip(texts, written, strict=True)]
        read = zip(texts, engine.read(whole), strict=True)
        lost = max(((best - own)[len(t) - 1 :].max().item() if len(own) >= len(t) else 0.0)
                   for t, (own, best) in read)  # fmt: skip
        if not lost <= CHOSEN.get(engine.precision, max(CHOSEN.values())):
            told = f"with a cache it writes tokens {lost:.2g} nats less likely than the likeliest"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # caches and states of architectures raise what they like
        told = f"its cache does not do ({line(error)})"
    store.write_json(place, {"engine": engine.name, "model": folder.name, "fault": told})
    return told


def _place(name: str, folder: Path, dtype: str) -> Path:
    return config.cache_dir() / "held" / f"{_key(name, folder, dtype)}.json"


def _key(name: str, folder: Path, dtype: str) -> str:
    files = ["config.json", *sorted(p.name for p in folder.glob("*token*") if p.is_file())]
    shapes = [
        [tensor, entry["dtype"], entry["shape"]]
        for file in weight_files(folder)
        for tensor, entry in weight_header(file).items()
    ]
    found = [name, dtype, {file: store.sha256(folder / file) for file in files}, sorted(shapes)]
    found += [store.sha256(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
    found += [torch.backends.cpu.get_cpu_capability(), *map(version, LIBRARIES)]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:24]


def compare(engine: Scorer, folder: Path) -> str:
    """How `engine` differs from the model in `folder` by more than its precision, or `''`."""
    texts = rows(folder)
    found, written = engine.log_probs(texts), engine.greedy(texts, WRITTEN)
    kind = engine.precision
    del engine  # the caller's went before: two models may not fit beside each other
    known = TransformersEngine(folder, threads=torch.get_num_threads(), dtype="float32")
    whole = [[*text, *more] for text, more in zip(texts, written, strict=True)]
    read = list(known.read(whole))
    own = torch.cat([values[: len(t) - 1] for t, (values, _) in zip(texts, read, strict=True)])
    lost = torch.cat([(b - v)[len(t) - 1 :] for t, (v, b) in zip(texts, read, strict=True)])
    if kind in HALF:
        del known
        known = TransformersEngine(folder, threads=torch.get_num_threads(), dtype=kind)
        share = TWICE
    else:
        shaken(known.model, kind)
        share = TIGHT if kind == "float32" else LOOSE
    loss = torch.cat([v[: len(t) - 1] for t, (v, _) in zip(texts, known.read(whole), strict=True)])
    error = torch.tensor([value for values in found for value in values]) - own.cpu()
    return _told(error, lost.cpu(), (loss.cpu() - own.cpu()).float(), share)


def _told(error: Tensor, lost: Tensor, loss: Tensor, share: float) -> str:
    """A sentence where the `error` of log-probabilities, or what written tokens `lost` against the
    likeliest ones, is more than `share` of the `loss` of rounding; a token is chosen by two."""
    bound, most = (FLOOR + share * size for size in (_mean(loss), loss.abs().max().item()))
    if not _mean(error) <= bound:
        return (
            f"log-probabilities differ from those of transformers by {_mean(error):.2g} nats "
            f"(root mean square of {len(error)} tokens; up to {bound:.2g} is rounding)"
        )
    if len(lost) and not lost.max() <= 2 * most:
        return (
            f"it writes tokens that are {lost.max():.2g} nats less likely in transformers than "
            f"the likeliest (up to {2 * most:.2g} is rounding)"
        )
    return ""


def _mean(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


@torch.no_grad()
def shaken(model: Any, kind: str) -> None:
    """Moves every weight at random by up to half a step of its rounding to `kind`, in place.

    A step of whole numbers is a share of the largest weight of `GROUP` in a row, that of floats a
    share of the weight itself; float32 stands for bfloat16. Vectors are not rounded to whole
    numbers.
    """
    drawn = torch.Generator(model.device).manual_seed(0)
    for weights in model.parameters():
        if kind in RELATIVE:
            step = RELATIVE[kind] * weights
        elif weights.dim() < 2:
            continue
        else:
            groups = weights.split(GROUP, -1)
            top = 2 ** (int(kind.removeprefix("int")) - 1) - 1
            step = (
                torch.cat([g.abs().amax(-1, keepdim=True).expand_as(g) for g in groups], -1) / top
            )
        weights += step * (torch.rand(weights.shape, generator=drawn, device=weights.device) - 0.5)


def rows(folder: Path) -> list[list[int]]:
    """Token ids of the texts: made-up code, no two of its lines alike."""
    from transformers import AutoConfig

    own = AutoConfig.from_pretrained(folder)
    weights = sum(prod(e["shape"]) for f in weight_files(folder) for e in weight_header(f).values())
    tokenizer, drawn = open_tokenizer(folder), random.Random(0)
    most, found = max(2, positions_of(own) - WRITTEN), []
    for size in sizes(own.get_text_config(), weights):
        text, ids = "", []
        while len(ids) < min(size, most):
            text += "".join(_line(drawn) for _ in range(1 + size // 16))
            ids = prompt_ids(tokenizer, text)
        found.append(ids[: min(size, most)])
    return found


def _line(drawn: random.Random) -> str:
    one, other = (drawn.choice(("total", "xs", "key", "left", "find", "row")) for _ in range(2))
    number = drawn.randrange(1000)
    return drawn.choice(
        (
            f"def {one}_{number}({other}):\n",
            f"    {one} = {other}[{number}]\n",
            f"    return {one} + {number}\n\n",
            f"    if {one} > {other}:  # {number / 7:.3f}\n",
        )
    )


def sizes(own: Any, weights: int) -> list[int]:
    """Tokens of the texts for a model of so many `weights` and the configuration `own`.

    The last reaches behind the borders of windows and ropes where that is cheap.
    """
    width = getattr(own, "hidden_size", 0) * getattr(own, "num_hidden_layers", 0)
    heads = getattr(own, "num_attention_heads", None) or 1

    def cheap(size: int) -> bool:
        held = size * max(own.vocab_size, heads * size)
        return size * (2 * weights + 4 * width * size) <= CHEAP and held <= HELD

    borders = [border + BEHIND for border in _borders(own.to_dict())]
    wanted = [*borders, *[FAR] * bool(borders), SIZES[-1]]
    return [*SIZES[:-1], max(filter(cheap, wanted), default=SIZES[-2])]


def _borders(fields: Mapping[str, Any]) -> list[int]:
    """The numbers by the names of `BORDERS`, however deep they stand in a configuration."""
    inner = [n for value in fields.values() if isinstance(value, dict) for n in _borders(value)]
    own = (fields.get(name) for name in BORDERS)
    return inner + [number for number in own if isinstance(number, int)]
