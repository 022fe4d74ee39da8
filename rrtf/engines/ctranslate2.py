"""CTranslate2: converts a model once and runs it on CPU or one GPU, also in int8.

Not covered: architectures without a converter (CTranslate2 names them).
"""

import ctypes
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from rrtf.config import derive_seed
from rrtf.engines import (
    NOTHING,
    Completion,
    Decoding,
    Rows,
    UnsupportedModel,
    check_sampling,
    complete,
    end_tokens,
    line,
    portions,
    score_pairs,
    stop_near_end,
)
from rrtf.prompts import prompt_ids

PERIOD = 8  # tokens between two looks for stop sequences


PRECISIONS = ("float32", "int8", "int16", "float16", "bfloat16")


def choose_device() -> str:
    """`cuda` where there is a GPU and the cuBLAS 12 that CTranslate2 is built for, else `cpu`."""
    import ctranslate2

    return "cuda" if ctranslate2.get_cuda_device_count() and _loads_cublas() else "cpu"


def _loads_cublas() -> bool:
    """Loads cuBLAS 12 from the package nvidia-cublas-cu12 or the system: torch brings another."""
    package = find_spec("nvidia")
    folders = package.submodule_search_locations if package else []
    for name in [
        *(f"{folder}/cublas/lib/libcublas.so.12" for folder in folders),
        "libcublas.so.12",
    ]:
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return True
    return False


def check_precision(precision: str) -> None:
    """ValueError where this device does not compute in `precision`; it names those that it does.

    CTranslate2 would store such a type and compute in another one.
    """
    import ctranslate2

    device = choose_device()
    can = ctranslate2.get_supported_compute_types(device)
    if precision not in can:
        named = ", ".join(name for name in PRECISIONS if name in can)
        raise ValueError(
            f"ctranslate2-{precision}: CTranslate2 does not compute in it on this {device}; "
            f"what it can: {named}"
        )


def convert(folder: Path, output: Path, *, precision: str) -> Path:
    """Writes `folder` (transformers' form) as a CTranslate2 model of `precision` to `output`.

    `precision` is `float32`, `int8`, `int8_float32`, ...; `UnsupportedModel` for architectures
    that CTranslate2 does not convert.
    """
    from ctranslate2.converters import TransformersConverter
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        TransformersConverter(str(folder), load_as_float16=False).convert(
            str(output), quantization=precision, force=True
        )
    except Exception as error:  # a converter meets an architecture's fields in its own ways
        raise UnsupportedModel(
            f"{folder}: CTranslate2 does not convert it ({line(error)}); use the engine "
            "transformers"
        ) from error
    _name_tokens(output)
    return output


def _name_tokens(folder: Path) -> None:
    """Tokenizers lack an unknown token, or others, but CTranslate2 does not open a null.

    Which one stands there does not matter: rows come as tokens that there are, and what ends a
    text is told with every call.
    """
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    names = [settings.get(name) for name in ("eos_token", "bos_token")]
    first = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))[0]
    stand_in = next(filter(None, names), first)
    named = {
        name: settings.get(name) or stand_in for name in ("bos_token", "eos_token", "unk_token")
    }
    if named.items() - settings.items():
        path.write_text(json.dumps(settings | named, indent=2), encoding="utf-8")


def _of_one_length(
    found: Iterable[tuple[list[tuple[int, int]], int]], lengths: Sequence[int]
) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """The batches cut into rows whose prompts are equally long.

    With prompts of different lengths CTranslate2 counts what the longer ones have more against
    `max_length`, and whether it returns that part as generated differs from call to call.
    """
    for batch, room in found:
        ordered = sorted(batch, key=lambda pair: lengths[pair[0]])
        for _, same in groupby(ordered, key=lambda pair: lengths[pair[0]]):
            yield list(same), room


class CTranslate2Engine:
    """`dtype` is the precision converted to; `converted` a folder that holds (or will hold) it.

    Without `converted` the conversion lives as long as the engine. `name` says the precision that
    really computes: int16, for one, silently becomes int8 on CPUs without MKL.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int = 1,
        dtype: str = "float32",
        rows: int = 64,
        converted: Path | None = None,
    ):
        from transformers import AutoConfig

        from rrtf.engines.transformers import open_tokenizer, positions_of

        self.rows, self.threads = rows, threads
        self.device = choose_device()
        if converted is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="rrtf-ctranslate2-")
            converted = Path(self._temporary.name) / "model"
        if not (converted / "model.bin").exists():
            convert(folder, converted, precision=dtype)
        self.path, self.dtype = converted, dtype
        self.tokenizer = open_tokenizer(folder)
        self.positions = positions_of(AutoConfig.from_pretrained(folder))
        self.ends = end_tokens(folder, self.tokenizer.eos_token_id)
        self.model = self._open()
        self.name = f"ctranslate2-{self.model.compute_type}"
        self.precision = self.model.compute_type.partition("_")[0]

    def _open(self) -> Any:
        import ctranslate2

        return ctranslate2.Generator(
            str(self.path), device=self.device, compute_type=self.dtype, intra_threads=self.threads
        )

    def _seed(self, seed: int) -> None:
        """A seed holds only for a generator that is opened after it was set."""
        import ctranslate2

        ctranslate2.set_random_seed(seed % 2**31)
        self.model = self._open()

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        return self.tokenizer.convert_ids_to_tokens(list(ids))

    def generate(
        self, prompts: Sequence[str], *, n: int, decoding: Decoding, stops: Sequence[str]
    ) -> list[list[Completion]]:
        check_sampling(decoding, n)
        warmth = decoding.temperature
        ids = [prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        lengths = [len(one) for one in ids]
        options = {"sampling_topk": 1}
        if warmth > 0:
            self._seed(derive_seed(decoding.seed, *prompts))
            options = {"sampling_topk": 0, "sampling_temperature": warmth}
            options |= {"sampling_topp": decoding.top_p}
        found: dict[tuple[int, int], Completion] = {}
        decode = partial(_decode, self.tokenizer)
        how = {"max_new_tokens": decoding.max_new_tokens, "positions": self.positions}
        for batch, longest in _of_one_length(
            portions(lengths, n=n, rows=self.rows, **how), lengths
        ):
            if not longest:
                found |= dict.fromkeys(batch, NOTHING)
                continue
            rows = self._batch([ids[p] for p, _ in batch], longest, options, stops)
            for pair, row in zip(batch, rows, strict=True):
                ended = len(row) < longest
                found[pair] = complete(row, stops=stops, decode=decode, ended=ended)
        return [[found[prompt, sample] for sample in range(n)] for prompt in range(len(prompts))]

    def _batch(
        self, rows: list[list[int]], max_new_tokens: int, options: dict, stops: Sequence[str]
    ) -> list[list[int]]:
        """Generated ids of rows of one length; rows with a stop sequence end early."""
        written: list[list[int]] = [[] for _ in rows]
        # The library's thread may be the last to let go of the callback. Did that hold the engine,
        # the thread would end the model, wait for itself, and take the process down.
        decode = partial(_decode, self.tokenizer)

        def stopped(result: Any) -> bool:
            ids = written[result.batch_id]
            ids.append(result.token_id)
            if len(ids) % PERIOD:
                return False
            return stop_near_end(ids, stops, decode, fresh=PERIOD)

        results = self.model.generate_batch(
            [self._pieces(row) for row in rows],
            include_prompt_in_result=False,
            end_token=sorted(self.ends),
            callback=stopped if stops else None,
            max_length=max_new_tokens,
            **options,
        )
        return [result.sequences_ids[0] for result in results]

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        return score_pairs(self, prompts, answers)

    def log_probs(self, rows: Rows) -> list[list[float]]:
        pieces = [self._pieces(row) for row in rows]
        return [one.log_probs for one in self.model.score_batch(pieces, max_batch_size=self.rows)]

    def greedy(self, rows: Rows, length: int) -> list[list[int]]:
        return [self._batch([row], length, {"sampling_topk": 1}, ())[0] for row in rows]


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
