"""Engines: prompts in, completions out, whichever library does the work.

An engine is opened by name and imported only then. All engines agree on the meaning of the
options (temperature 0 is greedy; the text ends before the first stop sequence) and in float32 on
greedy text; samples differ between engines, because each has its own random numbers.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from rrtf import config
from rrtf.engines.answers import Completion, UnsupportedModel, check_sampling, prompt_ids

__all__ = [
    "ENGINES",
    "Completion",
    "Generator",
    "UnsupportedModel",
    "chat_template",
    "check_sampling",
    "choose_engine",
    "model_folder",
    "open_engine",
    "processes",
    "prompt_ids",
    "remote",
    "resolve_model",
]

ENGINES = ("auto", "transformers", "ctranslate2", "gptbigcode")


class Generator(Protocol):
    """What an engine is. `name` says engine and precision (a setting that decides results)."""

    name: str
    device: str

    def generate(
        self,
        prompts: Sequence[str],
        *,
        n: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        stops: Sequence[str],
        seed: int,
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
    from rrtf.engines.transformers_engine import open_tokenizer

    tokenizer = open_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ValueError(f"{folder}: its tokenizer has no chat template; is this a base model?")

    def ask(text: str) -> str:
        message = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)

    return ask


def remote(name: str) -> bool:
    """Whether an engine's spelling means a server, or a recording of one."""
    return "@" in name or name == "vllm"


def processes(workers: int) -> int:
    """How many processes of one engine make sense here: `workers` on CPU, one on a GPU."""
    import torch

    return 1 if torch.cuda.is_available() else workers


def architecture(folder: Path) -> str:
    """`model_type` of a model folder, `gpt_bigcode` for StarCoder's family."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type", "")


def choose_engine(folder: Path) -> str:
    """What `auto` means for a model on this machine.

    CUDA: transformers. CPU: the decode loop of this package for GPTBigCode with multi-query
    attention; CTranslate2 for others (where it converts them, else transformers).
    """
    import torch

    if torch.cuda.is_available():
        return "transformers"
    return "gptbigcode" if architecture(folder) == "gpt_bigcode" else "ctranslate2"


def open_engine(name: str, model: str | Path, *, threads: int = 1, **options) -> Generator:
    """Loads `model` into the engine `name` (one of `ENGINES`); `options` are the engine's own.

    FileNotFoundError for a missing model, `UnsupportedModel` (a ValueError) where the engine
    cannot run the architecture.
    """
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}: expected one of {', '.join(ENGINES)}")
    folder = model_folder(model)
    if name != "auto":
        return _open(name, folder, threads=threads, **options)
    try:
        return _open(choose_engine(folder), folder, threads=threads, **options)
    except UnsupportedModel:
        return _open("transformers", folder, threads=threads, **options)


def _open(name: str, folder: Path, *, threads: int, **options) -> Generator:
    if name == "gptbigcode":
        from rrtf.engines.gptbigcode import GptBigCodeEngine

        return GptBigCodeEngine(folder, threads=threads, **options)
    if name == "ctranslate2":
        from rrtf.engines.ctranslate2_engine import CTranslate2Engine

        return CTranslate2Engine(folder, threads=threads, **options)
    from rrtf.engines.transformers_engine import TransformersEngine

    return TransformersEngine(folder, threads=threads, **options)
