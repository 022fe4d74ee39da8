"""Engines: prompts in, completions out, whichever library or server does the work.

An engine is opened by name and imported only then. All engines agree on the meaning of the
options (temperature 0 is greedy; the text ends before the first stop sequence) and in float32 on
greedy text; samples differ between engines, because each has its own random numbers.

Remote engines are spelled with where they are: `openai@http://HOST:8000/v1` (any OpenAI-compatible
endpoint), `vllm@http://HOST:8000/v1`, `replay@FOLDER` (what the two recorded). `vllm` alone starts
a server. They take a model by the name that the server has for it.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Protocol

from rrtf import config, prompts
from rrtf.records import Problem


class Message(str):
    """A prompt that is a user's message: the server puts it into its own chat template."""


Decode = Callable[[Sequence[int]], str]


class UnsupportedModel(ValueError):
    """The engine cannot run this architecture; the message names one that can."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated continuation.

    `text` ends before the first stop sequence; `n_tokens` counts generated tokens, those of the
    stop sequence included, the end-of-text token not. `finish_reason` is `stop` (end of text or a
    stop sequence) or `length` (`max_new_tokens` reached).
    """

    text: str
    n_tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are written: drawn from the `top_p` nucleus at `temperature`, 0 is greedy.

    `seed` decides the draws; an answer is cut after `max_new_tokens` tokens.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int


def check_sampling(decoding: Decoding, n: int) -> None:
    """ValueError that names the first option out of its range; `n` is the answers to a prompt."""
    if n < 1:
        raise ValueError(f"n = {n}: at least 1 sample per prompt is needed")
    if not 0 <= decoding.temperature < float("inf"):
        raise ValueError(f"temperature = {decoding.temperature}: expected 0 (greedy) or more")
    if not 0 < decoding.top_p <= 1:
        raise ValueError(f"top_p = {decoding.top_p}: expected a value in (0, 1]")
    if decoding.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens = {decoding.max_new_tokens}: at least 1 is needed")
    if decoding.temperature == 0 and n > 1:
        raise ValueError(f"n = {n} at temperature 0: greedy answers are all the same; use n = 1")


def prompt_keys(prompts: Sequence[str]) -> list[tuple[str, int]]:
    """(prompt, how often it came before): what the random numbers of a prompt depend on."""
    seen: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        keys.append((prompt, seen[prompt]))
        seen[prompt] += 1
    return keys


def check_lengths(lengths: Sequence[int], *, max_new_tokens: int, positions: int) -> None:
    """ValueError for the first prompt that is empty or does not fit with its answer."""
    for number, length in enumerate(lengths):
        if length == 0:
            raise ValueError(f"prompt {number} is empty: the model has nothing to continue")
        if length + max_new_tokens > positions:
            raise ValueError(
                f"prompt {number} has {length} tokens; with max_new_tokens = {max_new_tokens} "
                f"that exceeds the model's {positions} positions"
            )


def first_stop(text: str, stops: Sequence[str]) -> int:
    """Where the earliest stop sequence begins, or -1."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return min(found, default=-1)


def stop_near_end(ids: Sequence[int], stops: Sequence[str], decode: Decode, *, fresh: int) -> bool:
    """Whether a stop sequence ends within the last `fresh` tokens.

    Every token has at least one byte, so only a short tail has to be decoded.
    """
    if not stops:
        return False
    tail = max(len(stop.encode()) for stop in stops) + fresh + 1
    return first_stop(decode(ids[-tail:]), stops) >= 0


def complete(
    ids: Sequence[int], *, stops: Sequence[str], decode: Decode, ended: bool
) -> Completion:
    """Generated token ids as a `Completion`; `ended` says that end of text followed them.

    The answer is what a reader of the token stream sees who stops at the first token that
    completes a stop sequence: it does not depend on how much an engine generated beyond it.
    """
    text = decode(ids)
    if first_stop(text, stops) < 0:
        return Completion(text, len(ids), "stop" if ended else "length")
    low, high = 1, len(ids)  # the fewest tokens whose text holds a stop sequence
    while low < high:
        middle = (low + high) // 2
        if first_stop(decode(ids[:middle]), stops) >= 0:
            high = middle
        else:
            low = middle + 1
    text = decode(ids[:low])
    return Completion(text[: first_stop(text, stops)], low, "stop")


def batches(lengths: Sequence[int], *, n: int, rows: int) -> list[list[tuple[int, int]]]:
    """(prompt, sample) pairs in batches of at most `rows`, prompts of similar length together."""
    order = sorted(range(len(lengths)), key=lambda prompt: (lengths[prompt], prompt))
    pairs = [(prompt, sample) for prompt in order for sample in range(n)]
    return [pairs[at : at + rows] for at in range(0, len(pairs), rows)]


LOCAL = ("auto", "transformers", "ctranslate2", "gptbigcode")
REMOTE = ("vllm", "openai", "replay")
ENGINES = LOCAL + REMOTE


class Generator(Protocol):
    """What an engine is. `name` says engine and precision (a setting that decides results)."""

    name: str
    device: str

    def generate(
        self, prompts: Sequence[str], *, n: int, decoding: Decoding, stops: Sequence[str]
    ) -> list[list[Completion]]:
        """`n` completions of every prompt, in the order of the prompts.

        The same call gives the same result; ValueError for options out of range and for prompts
        that do not fit the model's positions together with `max_new_tokens`.
        """
        ...

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        """(sum of the answer's token log-probabilities in nats, number of answer tokens) per pair.

        The end-of-text token is not part of the answer.
        """
        ...


def resolve_model(name: str | Path) -> Path | str:
    """The folder of a shipped model (`nano-student`, ...); any other name or path as it is."""
    shipped = config.home() / "data" / "nano" / "models" / str(name).removeprefix("nano-")
    if not str(name):
        raise ValueError("no model is named; give one, e.g. --set shared.teacher=FOLDER-OR-NAME")
    if str(name).startswith("nano-") and not Path(name).exists():
        if not (shipped / "config.json").exists():
            raise FileNotFoundError(f"{shipped}: the shipped model {name!r} is not there")
        return shipped
    return name


def model_folder(name: str | Path) -> Path:
    """The local folder of a model: itself, or the snapshot of a Hugging Face name `owner/name`."""
    resolved = resolve_model(name)
    folder = Path(resolved)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise FileNotFoundError(f"{folder}: not a model folder (no config.json)")
        return folder
    text = str(resolved)
    if isinstance(resolved, Path) or text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{resolved}: no such model folder")
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
        return Path(snapshot_download(text, allow_patterns=wanted))
    except Exception as error:  # the hub client raises a dozen unrelated classes
        raise FileNotFoundError(
            f"{text}: neither a folder nor a model of the Hugging Face cache or hub ({error})"
        ) from None


def chat_template(folder: Path) -> Callable[[str], str]:
    """A user's message -> the text that the chat model in `folder` reads, its turn to answer.

    ValueError where the tokenizer of the folder has no chat template.
    """
    from rrtf.engines.transformers import open_tokenizer

    tokenizer = open_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ValueError(f"{folder}: its tokenizer has no chat template; is this a base model?")

    def ask(text: str) -> str:
        message = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)

    return ask


def device() -> str:
    """Where local engines run on this machine: `cuda` or `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def processes(workers: int) -> int:
    """How many processes of one engine make sense here: `workers` on CPU, one on a GPU."""
    return 1 if device() == "cuda" else workers


def architecture(folder: Path) -> str:
    """`model_type` of a model folder, `gpt_bigcode` for StarCoder's family."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type", "")


def choose_engine(folder: Path) -> str:
    """What `auto` means for a model on this machine.

    CUDA: transformers. CPU: the decode loop of this package for GPTBigCode with multi-query
    attention; CTranslate2 for others (where it converts them, else transformers).
    """
    if device() == "cuda":
        return "transformers"
    if architecture(folder) == "gpt_bigcode":
        return "gptbigcode"
    return next(iter(able(folder)), "transformers")


def remote(name: str) -> bool:
    """Whether an engine's spelling means a server, or a recording of one."""
    return name.partition("@")[0] in REMOTE


def served_name(name: str, model: str | Path) -> str:
    """What the remote engine `name` calls `model` in requests and recordings.

    Where `vllm` serves (or served) a local folder, this names its content too; so it tells whether
    two answers are of the same model.
    """
    from rrtf.engines.vllm import content_name

    return str(model) if name.startswith("openai") else content_name(resolve_model(model))


def open_engine(name: str, model: str | Path, *, threads: int = 1, **options) -> Generator:
    """Loads `model` into the engine `name` (one of `ENGINES`); `options` are the engine's own.

    Remote engines record their replies below the folder `replies` (default: in the user's cache).
    FileNotFoundError for a missing model, environment or recording; `UnsupportedModel` (a
    ValueError) that names other engines where this one cannot run the architecture.
    """
    kind, _, where = name.partition("@")
    if kind not in ENGINES:
        raise ValueError(f"unknown engine {name!r}: expected one of {', '.join(ENGINES)}")
    if kind in REMOTE:
        return _open_remote(kind, where, model, **options)
    if where:
        raise ValueError(f"engine {name!r}: {kind} runs here; {_SPELLED}")
    folder = model_folder(model)
    if kind != "auto":
        return _open_named(kind, folder, threads=threads, **options)
    try:
        return _open(choose_engine(folder), folder, threads=threads, **options)
    except UnsupportedModel:
        return _open_named("transformers", folder, threads=threads, **options)


_SPELLED = "with a place: openai@http://HOST:8000/v1, vllm@http://HOST:8000/v1, replay@FOLDER"


def _open_remote(
    kind: str, where: str, model: str | Path, *, replies: Path | None = None, **options
) -> Generator:
    """What is replayed is recorded already, so `replies` is nothing to `replay`."""
    replies = replies or config.cache_dir() / "replies"
    if not where and kind != "vllm":
        raise ValueError(f"engine {kind!r}: where? {_SPELLED}")
    if not str(model):
        raise ValueError(f"engine {kind!r}: no model is named; give the name that the server has")
    if kind == "openai":
        from rrtf.engines.endpoint import open_server

        return open_server(where, str(model), replies=replies, **options)
    if kind == "replay":
        from rrtf.engines.endpoint import open_recording

        return open_recording(Path(where), served_name(kind, model), **options)
    from rrtf.engines import vllm

    if where:
        return vllm.point(where, str(model), replies=replies, **options)
    return vllm.start(resolve_model(model), replies=replies, **options)


def able(folder: Path) -> tuple[str, ...]:
    """The local engines that have the architecture of a model folder."""
    from ctranslate2.converters import transformers as converters
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = settings.get("model_type", "")
    found = []
    if kind == "gpt_bigcode" and settings.get("multi_query", True):
        found.append("gptbigcode")
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        name = type(AutoConfig.for_model(kind)).__name__
        found += ["ctranslate2"] * (name in converters._MODEL_LOADERS) + ["transformers"]
    return tuple(found)


def _open_named(name: str, folder: Path, **options) -> Generator:
    """`_open`, with the engines that can in the error of one that cannot."""
    try:
        return _open(name, folder, **options)
    except UnsupportedModel as error:
        others = [other for other in able(folder) if other != name]
        told = f"engines that can: {', '.join(others)}" if others else "no local engine can"
        raise UnsupportedModel(f"{error} ({told}; vllm has some that others lack)") from error


def _open(name: str, folder: Path, *, threads: int, **options) -> Generator:
    if name == "gptbigcode":
        from rrtf.engines.gptbigcode import GptBigCodeEngine

        return GptBigCodeEngine(folder, threads=threads, **options)
    if name == "ctranslate2":
        from rrtf.engines.ctranslate2 import CTranslate2Engine

        return CTranslate2Engine(folder, threads=threads, **options)
    from rrtf.engines.transformers import TransformersEngine

    return TransformersEngine(folder, threads=threads, **options)


Asker = Callable[[Problem], str]


def asker(model: str | Path, prompt_format: str, *, away: bool = False) -> Asker:
    """The function from a problem to the text that `model` is given.

    `prompt_format` is one of `prompts.FORMATS`. Only `chat` looks at the model: ValueError where
    its tokenizer brings no template, FileNotFoundError where there is no such model. A server
    (`away`) gets the message itself and puts it into the template.
    """
    template = None
    if prompt_format == "chat":
        template = Message if away else _template(model_folder(model))
    return partial(prompts.format_prompt, style=prompt_format, template=template)


@cache
def _template(folder: Path) -> Callable[[str], str]:
    return chat_template(folder)
