"""Engines: prompts in, completions out, whichever library or server does the work.

An engine is opened by name and imported only then. All engines agree on the meaning of the
options (temperature 0 is greedy; the text ends before the first stop sequence) and in float32 on
greedy text; samples differ between engines, because each has its own random numbers.

Remote engines are spelled with where they are: `openai@http://HOST:8000/v1` (any OpenAI-compatible
endpoint), `vllm@http://HOST:8000/v1`, `replay@FOLDER` (what the two recorded). They take a model
by the name that the server has for it.
"""

import hashlib
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Protocol

from rrtf import config, prompts
from rrtf.records import Problem


class Message(str):
    """A prompt that is a user's message: the server puts it into its own chat template."""


Decode = Callable[[Sequence[int]], str]


class UnsupportedModel(ValueError):
    """The engine cannot run this model, or not as it is; the message names one that can."""


class Note(UserWarning):
    """What a caller should know although the work goes on."""


def note(text: str) -> None:
    """Says `text` once, from the first process alone: each of its workers finds the same."""
    if parent_process() is None:
        warnings.warn(text, Note, stacklevel=3)


POSITIONS = ("n_positions", "max_position_embeddings", "max_seq_len")  # as configurations have it
NO_ROOM = "prompt"  # why there is no answer: the prompt fills what the model can hold
REFUSED = "refused: "  # or its server does not take it; what the server says stands behind


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated continuation.

    `text` ends before the first stop sequence; `n_tokens` counts generated tokens, those of the
    stop sequence included, the end-of-text token not. `finish_reason` is `stop` (end of text or a
    stop sequence), `length` (`max_new_tokens`, or all that the model can hold, reached), or where
    nothing was generated `NO_ROOM` or what begins with `REFUSED`.
    """

    text: str
    n_tokens: int
    finish_reason: str


NOTHING = Completion("", 0, NO_ROOM)


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


def portions(
    lengths: Sequence[int], *, n: int, rows: int, max_new_tokens: int, positions: int
) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """(a batch, the tokens that its answers may have) for prompts of such `lengths`.

    At most `max_new_tokens`, at least 0: prompt and answer share the model's `positions`.
    ValueError for the first prompt that is empty.
    """
    rooms: defaultdict[int, list[int]] = defaultdict(list)
    for number, length in enumerate(lengths):
        if length == 0:
            raise ValueError(f"prompt {number} is empty: the model has nothing to continue")
        rooms[max(0, min(max_new_tokens, positions - length))].append(number)
    for room, numbers in rooms.items():
        for batch in batches([lengths[number] for number in numbers], n=n, rows=rows):
            yield [(numbers[prompt], sample) for prompt, sample in batch], room


DTYPES = {"ctranslate2": "float32", "gptbigcode": "auto"}  # where none is named
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

        The same call gives the same result. An answer ends where the model's positions do; a
        prompt that leaves none gets `NO_ROOM`. ValueError for options out of range.
        """
        ...

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        """(sum of the answer's token log-probabilities in nats, number of answer tokens) per pair.

        The end-of-text token is not part of the answer.
        """
        ...


Rows = Sequence[Sequence[int]]  # token ids of whole texts


class Scorer(Protocol):
    """What `score_pairs` and `holding` need of a local engine.

    `precision` is what it computes in: `float32`, `bfloat16`, `float16`, or `intN` of its weights.
    """

    tokenizer: Any
    precision: str

    def log_probs(self, rows: Rows) -> list[list[float]]:
        """Nats of every token of each row but its first, given those before it."""
        ...

    def greedy(self, rows: Rows, length: int) -> list[list[int]]:
        """Up to `length` likeliest tokens behind each row, without the one that ends a text."""
        ...


def score_pairs(
    engine: Scorer, heads: Sequence[str], answers: Sequence[str]
) -> list[tuple[float, int]]:
    """`Generator.score` of a local engine."""
    pairs = [
        prompts.pair_ids(engine.tokenizer, head, [answer])
        for head, answer in zip(heads, answers, strict=True)
    ]
    found = engine.log_probs([head + tail for head, (tail,) in pairs])
    return [
        (sum(values[len(head) - 1 :]), len(tail))
        for (head, (tail,)), values in zip(pairs, found, strict=True)
    ]


def settings(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A JSON file of a model folder; {} where it has none."""
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def positions(model: str | Path) -> int | None:
    """How many tokens a local model can hold, prompt and answer; None where it does not say."""
    own = settings(Path(resolve_model(model)))
    own = own | (own.get("text_config") or {})
    return next((own[name] for name in POSITIONS if own.get(name)), None)


def end_tokens(folder: Path, tokenizer_end: int | None) -> frozenset[int]:
    """The tokens that end a text, to every engine.

    Those of `generation_config.json`, where it names none of `config.json`, and the tokenizer's:
    what is trained on its texts ends them with it.
    """
    own = settings(folder)
    places = settings(folder, "generation_config.json"), own, own.get("text_config") or {}
    named = next((e for one in places if (e := one.get("eos_token_id")) is not None), [])
    ends = [*(named if isinstance(named, list) else [named]), tokenizer_end]
    return frozenset(end for end in ends if isinstance(end, int))


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
        wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
        return Path(snapshot_download(text, allow_patterns=wanted))
    except Exception as error:  # the hub client raises a dozen unrelated classes
        raise FileNotFoundError(
            f"{text}: neither a folder nor a model of the Hugging Face cache or hub ({error})"
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files with a model's weights, those of its index where it has one.

    None where they are in torch's older form. FileNotFoundError for a file that the index names
    and the folder lacks, and where there are no weights.
    """
    index = settings(folder, "model.safetensors.index.json").get("weight_map", {})
    files = [folder / name for name in sorted(set(index.values()))]
    files = files or [*folder.glob("model.safetensors")] or sorted(folder.glob("*.safetensors"))
    if lost := [file for file in files if not file.exists()]:
        raise FileNotFoundError(f"{lost[0]}: named by the index of the weights, and not there")
    if not files and not any(folder.glob("*.bin")):
        raise FileNotFoundError(f"{folder}: no weights there (no .safetensors file)")
    return files


def weight_header(path: Path) -> dict[str, dict[str, Any]]:
    """name -> {dtype, shape, data_offsets} of a safetensors file's tensors.

    ValueError for a file that is none, or is cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= size - 8 else b""
    try:
        header = json.loads(text)
        found = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in found.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError):
        found, end = {}, size
    if not found:
        raise ValueError(
            f"{path}: holds no weights ({size} bytes): a pointer that a clone without large files "
            "leaves, or a download cut short? fetch the file again"
        )
    if end > size:
        raise ValueError(f"{path}: is cut short ({size} of {end} bytes): fetch the file again")
    return found


def check_weights(folder: Path) -> None:
    """ValueError, with names, for weights that do not fill the model in `folder`.

    Reads the headers of the files, not the weights. FileNotFoundError as `weight_files`. Not
    looked at: weights in torch's older form, quantised ones, architectures that transformers does
    not have.
    """
    headers = {name: entry for file in weight_files(folder) for name, entry in
               weight_header(file).items()}  # fmt: skip
    own = settings(folder)
    if headers and "quantization_config" not in own and _known(own):
        _check_filled(folder, headers)


def _known(own: Mapping[str, Any]) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return own.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _check_filled(folder: Path, headers: Mapping[str, Mapping[str, Any]]) -> None:
    """transformers itself says what it would find missing, of tensors that have shapes alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # it would print a table of what is missing
    logging.disable_progress_bar()
    try:
        own = AutoConfig.from_pretrained(folder)
        kind = AutoModelForCausalLM._model_mapping[type(own)]
        hollow = {name: torch.empty(entry["shape"], device="meta") for name, entry in
                  headers.items()}  # fmt: skip
        how = {"device_map": "meta", "output_loading_info": True, "ignore_mismatched_sizes": True}
        _, told = kind.from_pretrained(None, config=own, state_dict=hollow, **how)
    except Exception as error:  # an architecture's own complaint about its configuration
        raise UnsupportedModel(
            f"{folder}: transformers does not build it ({line(error)})"
        ) from error
    finally:
        logging.set_verbosity(before)
    for what, names in (("missing", told["missing_keys"]), ("of another shape",
                        [key[0] for key in told["mismatched_keys"]])):  # fmt: skip
        if names:
            shown = ", ".join(sorted(names)[:4]) + ", ..." * (len(names) > 4)
            raise ValueError(
                f"{folder}: its weights do not fill the model of its config.json: {len(names)} "
                f"tensors are {what}: {shown}"
            )


def line(error: BaseException) -> str:
    """What a library's exception says, in a line of at most 300 characters."""
    told = " ".join(str(error).split()) or type(error).__name__
    return told if len(told) <= 300 else f"{told[:297]}..."


def chat_template(folder: Path) -> Callable[[str | list[dict]], str]:
    """A user's message -> the text that the chat model in `folder` reads, its turn to answer.

    Or all messages, of `role` and `content`, whose last is the user's: a `Conversation` where
    there are several. ValueError where the tokenizer of the folder has no chat template, where it
    refuses, and for a special token in one of several messages, which would be read as one.
    """
    from rrtf.engines.transformers import open_tokenizer

    tokenizer = open_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ValueError(f"{folder}: its tokenizer has no chat template; is this a base model?")

    def ask(said: str | list[dict]) -> str:
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        try:
            text = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # whatever jinja raises of a template
            raise ValueError(f"{folder}: its chat template refuses: {line(error)}") from None
        if all(one["role"] != "assistant" for one in messages):
            return text
        for one in messages:
            if found := prompts.marks_in(tokenizer, one["content"]):
                mark = one["content"][slice(*found[0])]
                raise ValueError(f"{mark!r} in a message would be read as a special token")
        return prompts.Conversation(text)

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


def choices(folder: Path) -> tuple[str, ...]:
    """The engines that `auto` tries for a model on this machine, in their order.

    On a CPU the decode loop of this package for GPTBigCode with multi-query attention; everywhere
    transformers. CTranslate2 is faster than these for single rows of small models only
    (tests/benchmarks/bench_engines.py).
    """
    own = "gptbigcode" in able(folder) and device() == "cpu"
    return (*["gptbigcode"] * own, "transformers")


def remote(name: str) -> bool:
    """Whether an engine's spelling means a server, or a recording of one."""
    return name.partition("@")[0] in REMOTE


def served_name(name: str, model: str | Path) -> str:
    """What the remote engine `name` calls `model` in recordings.

    Where `vllm` serves (or served) a local folder, this names its content; so it tells whether two
    answers are of the same model.
    """
    return str(model) if name.startswith("openai") else content_name(resolve_model(model))


def content_name(model: str | Path) -> str:
    """A local folder by its name and the sha256 of its files, any other model as it is called."""
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    total = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"{folder.resolve().name}-{total.hexdigest()[:12]}"


def open_engine(name: str, model: str | Path, *, threads: int = 1, **options) -> Generator:
    """Loads `model` into the engine `name` (one of `ENGINES`); `options` are the engine's own.

    Remote engines record their replies below the folder `replies` (default: in the user's cache).
    FileNotFoundError for a missing model or recording; `UnsupportedModel` (a
    ValueError) that names other engines where this one cannot run the architecture.
    """
    kind, _, where = name.partition("@")
    if kind not in ENGINES:
        raise ValueError(f"unknown engine {name!r}: expected one of {', '.join(ENGINES)}")
    if kind in REMOTE:
        return _open_remote(kind, where, model, **options)
    if where:
        raise ValueError(f"engine {name!r}: {kind} runs here; {_SPELLED}")
    return _settled(kind, model_folder(model), threads=threads, **options)[1]


def settle(name: str, model: str | Path) -> None:
    """Has `model` held for the engine `name`, so that the processes that open it find it done.

    Says what `auto` does not take. Errors as `open_engine`; nothing for remote engines.
    """
    if not remote(name):
        _settled(name, model_folder(model), threads=1, only_hold=True)


def _settled(
    kind: str, folder: Path, *, only_hold: bool = False, **options
) -> tuple[str, Generator | None]:
    """(the local engine that `kind` means for a model, and the model in it).

    Each is first held against transformers (`rrtf.engines.holding`), which is the last choice.
    """
    names = choices(folder) if kind == "auto" else (kind,)
    asked = {"dtype": options["dtype"]} if "dtype" in options else {}
    lost = []
    for name in names:
        try:
            told = fault(name, folder, **asked)
            if not told:
                if kind == "auto" and device() == "cpu":
                    options = {"dtype": computes_in(folder)} | options
                opened = None if only_hold else _open(name, folder, **options)
                if lost:
                    note(f"{folder.name}: {name} is taken: {'; '.join(lost)}")
                return name, opened
        except UnsupportedModel as error:
            told = line(error)
        lost.append(f"{name} cannot ({told})")
    raise UnsupportedModel(f"{folder}: {'; '.join(lost)}{_others(kind, folder)}")


def computes_in(folder: Path) -> str:
    """What `auto` computes in on a CPU: bfloat16 where it has that and the weights have no more.

    Weights that are stored in float32 stay so. Rounded to bfloat16, a model that was trained at a
    small rate for a short time is half its start model again.
    """
    from rrtf.engines.gptbigcode import supports_bfloat16

    headers = (weight_header(file) for file in weight_files(folder))
    kinds = {entry["dtype"] for header in headers for entry in header.values()}
    half = not kinds & {"F32", "F64"} and bool(kinds & {"BF16", "F16"})
    return "bfloat16" if half and supports_bfloat16() else "float32"


def fault(name: str, folder: Path, *, dtype: str = "") -> str:
    """Why an engine does not do for a model, of which transformers is the measure, or `''`."""
    if name == "gptbigcode":
        from rrtf.engines.gptbigcode import check_settings

        check_settings(folder)
    elif name not in able(folder):
        return f"it does not have the architecture {architecture(folder)!r}"
    if name == "transformers":
        return ""
    from rrtf.engines import holding

    return holding.fault(name, folder, _open, dtype=dtype or DTYPES[name])


def _others(kind: str, folder: Path) -> str:
    """The local engines that have the architecture, but for one that cannot."""
    others = [other for other in able(folder) if kind not in ("auto", other)]
    told = f"engines that can: {', '.join(others)}" if others else "no local engine can"
    return f" ({told}; vllm has some that others lack)"


_SPELLED = "with a place: openai@http://HOST:8000/v1, vllm@http://HOST:8000/v1, replay@FOLDER"
SERVE = (
    "start a server, `vllm serve MODEL --port 8000` (vLLM in an environment of its own: pip "
    "install vllm==0.32.0), and name it: --engine vllm@http://127.0.0.1:8000/v1"
)


def _open_remote(
    kind: str, where: str, model: str | Path, *, replies: Path | None = None, **options
) -> Generator:
    """What is replayed is recorded already, so `replies` is nothing to `replay`."""
    replies = replies or config.cache_dir() / "replies"
    if not where:
        raise ValueError(f"engine {kind!r}: where? {SERVE if kind == 'vllm' else _SPELLED}")
    if not str(model):
        raise ValueError(f"engine {kind!r}: no model is named; give the name that the server has")
    from rrtf.engines.endpoint import open_recording, open_server, open_vllm

    if kind == "replay":
        return open_recording(Path(where), served_name(kind, model), **options)
    opened = open_vllm if kind == "vllm" else open_server
    return opened(where, str(model), replies=replies, **options)


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


def _open(name: str, folder: Path, *, threads: int = 1, **options) -> Generator:
    if name == "gptbigcode":
        from rrtf.engines.gptbigcode import GptBigCodeEngine

        return GptBigCodeEngine(folder, threads=threads, **options)
    if name == "ctranslate2":
        from rrtf.engines.ctranslate2 import CTranslate2Engine

        return CTranslate2Engine(folder, threads=threads, **options)
    from rrtf.engines.transformers import TransformersEngine

    engine = TransformersEngine(folder, threads=threads, **options)
    from rrtf.engines import holding

    if told := holding.loop_fault(engine, folder):
        engine.plain = True
        note(f"{folder.name}: every token reads its whole text again, which is slow: {told}")
    return engine


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
