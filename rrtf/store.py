"""Every read and every write: records as JSONL or Parquet, shards, manifests.

A stage folder is finished when it holds `manifest.json`, which is written last and names the
sha256 of everything the stage read and wrote. Files appear whole (written beside, then renamed)
and are never pickled.
"""

import ast
import csv
import gzip
import hashlib
import io
import json
import os
import platform
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from rrtf import config
from rrtf.records import Outcome, Problem

_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
LONGEST = 128 << 20  # bytes of a line, and of what a small packed file may hold
UNPACKED = 20  # times its size that a larger packed file may hold, where it is no lines
_PIECE = 1 << 20  # bytes that are read at a time


def rows(name: str) -> Iterator[tuple[str, Any]]:
    """(`file:line`, row) of a file, `-` for lines of standard input, or a data set by its name.

    A data set is a folder, or `owner/name` on the hub, read through `datasets` without running
    code of its repository; all splits, each row's place named `name:split:number`. Errors as
    `read_rows`; FileNotFoundError where there is neither file nor data set.
    """
    path = Path(name)
    if name == "-" or path.is_file() or path.name.removesuffix(".gz").endswith(_SUFFIXES):
        for number, row in read_rows(path):
            if not is_unicode(row):
                raise ValueError(f"{name}:{number}: half a surrogate pair, no Unicode")
            yield f"{name}:{number}", row
        return
    for split, table in _data_set(name).items():
        yield from ((f"{name}:{split}:{at}", row) for at, row in enumerate(table, start=1))


def is_unicode(value: Any) -> bool:
    """Whether every text in a JSON value can be written: it has no half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


_SUFFIXES = (".json", ".jsonl", ".parquet")


def _data_set(name: str) -> dict[str, Any]:
    """split -> its rows."""
    try:
        config.need("a data set", "datasets")
    except OSError as lacking:
        raise FileNotFoundError(f"{name}: no such file; {lacking}") from None
    import datasets

    path = Path(name)
    saved = any((path / file).exists() for file in ("dataset_dict.json", "state.json"))
    try:
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:  # of many kinds, of `datasets`, the hub and the network
        reason = (str(error) or type(error).__name__).splitlines()[0]
        what = "folder of a data set" if path.is_dir() else "file, and no data set that can be had"
        raise FileNotFoundError(f"{name}: no such {what}: {reason}") from error
    return found if isinstance(found, dict) else {"rows": found}


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, row) of a `.jsonl`, `.json`, `.parquet` file, or `.gz` of it; `-` is stdin.

    A `.json` file holds a list of rows, or lines as `.jsonl` does; rows of lists and of tables are
    numbered from 1. ValueError names the file, and the line where there is one, of what is no
    UTF-8, no JSON, breaks off or is too long (`LONGEST`, `UNPACKED`); FileNotFoundError.
    """
    path = Path(path)
    kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if str(path) != "-" and not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if kind == ".parquet":
        yield from enumerate(_parquet_rows(path), start=1)
    elif kind == ".json":
        yield from _json_rows(path)
    else:
        yield from _lines(path)


def _open(path: Path) -> Any:
    if str(path) == "-":
        return sys.stdin.buffer
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in lines(file, str(path)):
                if line.strip():
                    yield number, _value(line, path, number)
    except _DAMAGED as error:
        told = f"gzip file after line {number} ({error})"
        raise ValueError(f"{path}: truncated or damaged {told}") from error


def _value(line: bytes, path: Path, number: int) -> Any:
    where = f"{path}:{number}"
    try:
        return json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 text ({error})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON line ({error})") from error


def lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """(number, line) of an open file; ValueError for one that is longer than `LONGEST`."""
    number, pieces, size = 1, [], 0
    while piece := file.readline(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > LONGEST:
            raise ValueError(f"{name}:{number}: a line of more than {LONGEST >> 20} MiB")
        if len(piece) < _PIECE or piece.endswith(b"\n"):
            yield number, b"".join(pieces)
            number, pieces, size = number + 1, [], 0
    if pieces:
        yield number, b"".join(pieces)


def _whole(path: Path) -> bytes:
    """All that a file holds; ValueError where a packed one holds too much for its size."""
    with _open(path) as file:
        if path.suffix != ".gz":
            return file.read()
        most, found = max(LONGEST, UNPACKED * path.stat().st_size), bytearray()
        while piece := file.read(_PIECE):
            found += piece
            if len(found) > most:
                raise ValueError(f"{path}: unpacks to more than {most >> 20} MiB; unpack it first")
    return bytes(found)


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a JSON list; of lines where the file has one object a line, whatever its name."""
    try:
        data = _whole(path)
    except _DAMAGED as error:
        raise ValueError(f"{path}: truncated or damaged gzip file ({error})") from error
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text ({error})") from error
    except (ValueError, RecursionError) as error:
        if not (data.lstrip().startswith(b"{") and "Extra data" in str(error)):
            raise ValueError(f"{path}: not JSON ({error})") from error
        numbered = enumerate(data.splitlines(), start=1)
        yield from ((at, _value(line, path, at)) for at, line in numbered if line.strip())
        return
    if not isinstance(found, list):
        raise ValueError(f"{path}: expected a JSON list of objects")
    yield from enumerate(found, start=1)


def _parquet_rows(path: Path) -> Iterator[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        with io.BytesIO(_whole(path)) if path.suffix == ".gz" else path.open("rb") as source:
            file = pyarrow.parquet.ParquetFile(source)
            groups = map(file.metadata.row_group, range(file.num_row_groups))
            most = max(LONGEST, UNPACKED * source.seek(0, io.SEEK_END))
            if sum(group.total_byte_size for group in groups) > most:
                raise ValueError(f"{path}: unpacks to more than {most >> 20} MiB")
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, *_DAMAGED) as error:
        raise ValueError(f"{path}: truncated or damaged Parquet file ({error})") from error


Record = TypeVar("Record")

HUMANEVAL_NAMES = {"tests": "test", "reference": "canonical_solution"}


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` so that `path` is either absent, old or whole, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error


def sha256(path: Path) -> str:
    """Hash of a file, or of a folder's files with their relative names."""
    if path.is_dir():
        files = (p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith("."))
        lines = [f"{sha256(file)}  {file.relative_to(path)}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_row(record: Any) -> dict[str, Any]:
    """A record as JSON-ready fields; a Problem gets HumanEval's names."""
    names = HUMANEVAL_NAMES if isinstance(record, Problem) else {}
    return {names.get(name, name): _plain(value) for name, value in asdict(record).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Outcome):
        return value.name
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def from_row(row: Mapping[str, Any], kind: type[Record], where: str = "row") -> Record:
    """The inverse of `to_row`; unknown fields are ignored, and empty ones that have a default.

    ValueError where a field is missing or holds another kind of value.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: expected a JSON object, found {type(row).__name__}")
    names = HUMANEVAL_NAMES if kind is Problem else {}
    values = dict(row)
    for ours, theirs in names.items():
        values.setdefault(ours, values.get(theirs, ""))
    wanted = {f.name: f for f in fields(kind)}
    required = [n for n, f in wanted.items() if f.default is f.default_factory]
    if missing := [names.get(n, n) for n in required if values.get(n) is None]:
        raise ValueError(f"{where}: {kind.__name__} without {', '.join(missing)}")
    if not is_unicode(row):
        raise ValueError(f"{where}: half a surrogate pair, no Unicode")
    given = {name: values[name] for name in wanted if values.get(name) is not None}
    try:
        return kind(**{name: _typed(wanted[name], value) for name, value in given.items()})
    except KeyError as error:
        raise ValueError(f"{where}: {error} is no outcome") from None
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


_PLAIN = {str: (str, "text"), int: (int, "whole number"), float: ((int, float), "number")}


def _typed(to: Field, value: Any) -> Any:
    """A value of JSON as the field wants it; TypeError for another, KeyError for no outcome."""
    if to.type is Outcome and isinstance(value, str):
        return Outcome[value]
    kinds, what = _PLAIN.get(to.type, (object, ""))
    if not isinstance(value, kinds) or (what and isinstance(value, bool)):
        raise TypeError(f"{HUMANEVAL_NAMES.get(to.name, to.name)}: no {what}")
    if isinstance(value, list):
        items = (Outcome[v] if to.type == tuple[Outcome, ...] else v for v in value)
        return tuple(items)
    return value


def read(path: Path, kind: type[Record]) -> list[Record]:
    """All records of a file; errors name the file and the line."""
    return [from_row(row, kind, f"{path}:{number}") for number, row in read_rows(Path(path))]


def read_json(path: Path) -> Any:
    """The value of a `.json` file, plain or `.gz`."""
    return json.loads(_whole(Path(path)).decode())


def encode(records: Iterable[Any], suffix: str) -> bytes:
    """Records as the bytes of a file that ends in `suffix`: `.jsonl`, `.parquet`, or of TABLES."""
    rows = [to_row(r) if hasattr(r, "__dataclass_fields__") else dict(r) for r in records]
    if suffix in TABLES:
        return _table(rows, suffix).encode(errors="backslashreplace")
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        names = dict.fromkeys(name for row in rows for name in row)  # also those of later rows
        table = pyarrow.Table.from_pylist([{n: row.get(n) for n in names} for row in rows])
        buffer = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, buffer)
        return buffer.getvalue().to_pybytes()
    return b"".join(map(_line, rows))


TABLES = (".csv", ".md", ".tex")
_LATEX = str.maketrans({c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " ",
})  # fmt: skip
_MARKDOWN = str.maketrans({"|": r"\|", "\n": "<br>"})


def _table(rows: Sequence[Mapping[str, Any]], suffix: str) -> str:
    """Rows as comma-separated values (RFC 4180), or as a table of Markdown or plain LaTeX.

    Columns in the order of their first use, those of numbers to the right; None is an empty cell.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    if suffix == ".csv":
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(cells)
        return text.getvalue()
    kinds = [{type(row.get(name)) for row in rows} - {type(None)} for name in names]
    right = [bool(kind) and kind <= {int, float} for kind in kinds]
    if suffix == ".md":
        lines = [[cell.translate(_MARKDOWN) for cell in line] for line in cells]
        lines.insert(1, ["---:" if number else "---" for number in right])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)
    head, *body = (" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in cells)
    columns = "".join("r" if number else "l" for number in right)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\hline", head, r"\hline", *body, r"\hline"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _cell(value: Any) -> str:
    """A value as the text of a cell; what is neither text nor None as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _line(row: Any) -> bytes:
    """A row as JSON; escaped where it holds half of a surrogate pair, which is no Unicode."""
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row) + "\n").encode()


def write(path: Path, records: Iterable[Any]) -> None:
    """Writes records as the name of the file ends (`encode`), whole or not at all."""
    path = Path(path)
    write_bytes(path, encode(records, path.suffix))


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all."""
    write_bytes(Path(path), (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def shard_path(folder: Path, key: Any) -> Path:
    """Where the result lies of the work that `key` names."""
    text = "sealed " + json.dumps(key, sort_keys=True, default=str)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.jsonl"


Batch = TypeVar("Batch")
Put = Callable[[int, Sequence[Record]], None]


def through_shards(
    folder: Path | None,
    batches: Sequence[Batch],
    *,
    key: Callable[[Batch], Any],
    kind: type[Record],
    work: Callable[[list[int], Put], None],
    progress: Callable[[int, int], None] | None = None,
) -> list[Record]:
    """The records of all `batches`, in their order, each batch saved by the hash of its `key`.

    `work(left, put)` is given the numbers of those that `folder` does not hold, if there are any,
    and puts what each comes to as it ends, in any order, from wherever it was made. The key must
    name everything that this depends on (settings, inputs, code): whatever ends the process costs
    the batches under way and changes nothing in the result. Without a `folder` nothing is saved.
    `progress(done, total)` counts batches.

    ValueError names a damaged file. It is not made anew in silence, because whatever changed it
    may have changed others.
    """
    paths = [folder and shard_path(folder, key(batch)) for batch in batches]
    found = {n: _unsealed(path, kind) for n, path in enumerate(paths) if path and path.exists()}

    def tell() -> None:
        if progress:
            progress(len(found), len(batches))

    def put(number: int, records: Sequence[Record]) -> None:
        if path := paths[number]:
            write_bytes(path, _sealed(path, encode(records, path.suffix)))
        found[number] = list(records)
        tell()

    if found:
        tell()
    if left := [number for number in range(len(batches)) if number not in found]:
        work(left, put)
    return [record for number in range(len(batches)) for record in found[number]]


def _sealed(path: Path, rows: bytes) -> bytes:
    """A shard's file: a line that holds the hash of its name and rows, then the rows.

    The seal finds damage and files that were exchanged; it is no signature.
    """
    seal = hashlib.sha256(f"{path.name}\n".encode() + rows).hexdigest()
    return f'{{"seal": "{seal}"}}\n'.encode() + rows


def _unsealed(path: Path, kind: type[Record]) -> list[Record]:
    data = path.read_bytes()
    rows = data.partition(b"\n")[2]
    if data != _sealed(path, rows):
        raise ValueError(
            f"{path}: damaged: its rows are not those that were sealed; find out what changed it, "
            "then delete it to have its work done again"
        )
    numbered = enumerate(rows.splitlines(), start=2)
    return [from_row(json.loads(row), kind, f"{path}:{number}") for number, row in numbered]


RUN_MARKER = "RRTF_RUN"  # environment variable that every process of the runner inherits


@dataclass
class Stage:
    """One stage's folder under one profile: what it loads, what it saves, its manifest."""

    name: str
    profile: str
    settings: dict[str, Any]
    folder: Path
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, stage: str, namespace: Mapping[str, Any]) -> "Stage":
        """The stage of a notebook: `Stage.open("sample", globals())` after its parameters cell."""
        name = config.stage_name(stage)
        settings = config.declared(name, namespace)
        folder = config.run_dir(settings["profile"]) / name
        folder.mkdir(parents=True, exist_ok=True)
        return cls(name, settings["profile"], settings, folder)

    def input(self, name: str) -> Path:
        """The path of `'rank/groups.jsonl'` in this profile's run, recorded as read."""
        word, _, file = name.partition("/")
        stage = config.stage_name(word)
        path = self.folder.parent / stage / file
        if not path.exists():
            raise FileNotFoundError(f"{path}: not there; run stage {stage} first")
        self.inputs[f"{stage}/{file}"] = sha256(path)
        return path

    def load(self, name: str, kind: type[Record]) -> list[Record]:
        return read(self.input(name), kind)

    def data(self, path: Path) -> Path:
        """A file of the checkout (or the user's, by its absolute path), recorded as read."""
        path = config.home() / path
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        shown = path.relative_to(config.home()) if path.is_relative_to(config.home()) else path
        self.inputs[str(shown)] = sha256(path)
        return path

    def save(self, name: str, records: Iterable[Any]) -> Path:
        """Writes records (`.jsonl`, `.parquet`) or a value (`.json`) into the stage's folder."""
        path = self.folder / name
        (write_json if path.suffix == ".json" else write)(path, records)
        return self.keep(name)

    def keep(self, name: str) -> Path:
        """Records a file or folder that something else wrote into the stage's folder.

        What was finished there before is over with the first of them, and not with opening.
        """
        (self.folder / "manifest.json").unlink(missing_ok=True)
        path = self.folder / name
        self.outputs[name] = sha256(path)
        return path

    def progress(self, what: str) -> Callable[..., None]:
        """A callback `(done, total, ...)` by which a long step tells where it is.

        It tells the runner, and where a person runs the notebook, a line below the cell.
        """
        path = self.folder / ".progress"
        told, started = -1.0, time.monotonic()
        show = _bar if RUN_MARKER not in os.environ and "ipykernel" in sys.modules else None
        shown: list[Any] = []

        def tell(done: int, total: int, *_: float) -> None:
            nonlocal told
            if time.monotonic() - told >= 0.2 or done >= total:
                told = time.monotonic()
                beside = path.with_name(".progress.part")
                seconds = round(told - started, 1)
                now = {"what": what, "done": done, "total": total, "seconds": seconds}
                beside.write_text(json.dumps(now))
                os.replace(beside, path)
                if show:
                    show(now, shown)

        return tell

    def note(self, name: str, value: Any) -> Path:
        """Timings, hosts and the like: a JSON file beside the records, outside every hash."""
        path = self.folder / name
        write_json(path, value)
        self.beside.append(name)
        return path

    def finish(
        self, *, counts: Mapping[str, int], figures: Mapping[str, Any] | None = None
    ) -> Path:
        """Writes `manifest.json`: from here on the stage counts as done.

        `counts` are whole numbers (in, kept, dropped by reason); `figures` the few key numbers
        that the index shows.
        """
        of = ("settings", "inputs", "outputs", "beside")
        manifest = {"stage": self.name, "profile": self.profile}
        manifest |= {name: getattr(self, name) for name in of}
        manifest |= {"counts": dict(counts), "figures": dict(figures or {})}
        manifest["seconds"] = round(time.monotonic() - self.started, 1)
        manifest |= {"versions": _versions(), "device": _device()}
        (self.folder / ".progress").unlink(missing_ok=True)
        path = self.folder / "manifest.json"
        write_json(path, manifest)
        return path


def _versions() -> dict[str, str]:
    """Python and the libraries loaded by now that decide results."""
    names = ("torch", "transformers", "tokenizers", "numpy", "scipy", "ctranslate2", "gptqmodel")
    loaded = {n: getattr(sys.modules[n], "__version__", "") for n in names if n in sys.modules}
    return {"python": platform.python_version(), "rrtf": config.version(), **loaded}


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu, {os.cpu_count()} cores, {platform.machine()}"


def meter(now: Mapping[str, Any]) -> str:
    """What `Stage.progress` told as a line: what, a bar, done of total, elapsed and left."""
    from tqdm.std import tqdm

    done, total, seconds = (now[name] for name in ("done", "total", "seconds"))
    return tqdm.format_meter(done, total, seconds, ncols=78, prefix=now["what"])


def _bar(now: Mapping[str, Any], shown: list[Any]) -> None:
    """The meter below the running cell; `shown` holds the handle of the line that is there."""
    from IPython.display import display

    line = {"text/plain": meter(now)}
    if shown:
        shown[0].update(line, raw=True)
    else:
        shown.append(display(line, raw=True, display_id=True))


def read_progress(folder: Path) -> dict | None:
    """What `Stage.progress` told last: `{"what", "done", "total", "seconds"}`, or None."""
    try:
        return json.loads((folder / ".progress").read_text())
    except (OSError, ValueError):
        return None


def manifest(profile: str, stage: str) -> dict | None:
    """The manifest of a finished stage, or None."""
    try:
        found = read_json(config.run_dir(profile) / config.stage_name(stage) / "manifest.json")
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and "settings" in found else None


def stale(profile: str, stage: str, settings: Mapping[str, Any]) -> str:
    """Why a stage must run (again), or `''`: no manifest, other settings, inputs or outputs."""
    done = manifest(profile, stage)
    if done is None:
        return "not run yet"
    if done["settings"] != dict(settings):
        changed = [k for k in settings if done["settings"].get(k) != settings[k]]
        return f"settings changed: {', '.join(changed) or 'names'}"
    folder = config.run_dir(profile)
    for name, digest in done["inputs"].items():
        path = folder / name if (folder / name).exists() else config.home() / name
        if not path.exists():
            return f"input {name} is gone"
        if sha256(path) != digest:
            return f"input {name} changed"
    for name, digest in done["outputs"].items():
        path = folder / config.stage_name(stage) / name
        if not path.exists() or sha256(path) != digest:
            return f"output {name} is gone or changed"
    return ""


PACKAGE = Path(__file__).resolve().parent


def cells(notebook: Path) -> list[dict]:
    """The cells of a notebook file; ValueError naming the file where it is not one."""
    if not notebook.exists():
        raise FileNotFoundError(f"{notebook}: no such notebook")
    try:
        return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook}: not a notebook ({error!r})") from error


def text(cell: dict) -> str:
    """A cell's source as one string, however the file stores it."""
    return "".join(cell["source"])


Parsed = TypeVar("Parsed")


def undisturbed(work: Callable[[], Parsed]) -> Parsed:
    """`work()`, which parses Python, again where another thread parsed at the same time.

    Before 3.11.8 the parser counts its depth for all threads together, and a switch between two
    that parse may end in a SystemError (CPython's issue 106905).
    """
    for _ in range(9):
        try:
            return work()
        except SystemError:
            time.sleep(0.01)
    return work()


def parse(code: str, where: str) -> ast.Module:
    """The syntax tree of `code`; a syntax error is a ValueError that says `where`."""
    try:
        return undisturbed(lambda: ast.parse(code))
    except SyntaxError as error:
        raise ValueError(f"{where}: line {error.lineno} is not Python ({error.msg})") from error


def assigned(notebook: Path) -> list[str]:
    """The names that the cell tagged `parameters` sets, in order."""
    for cell in cells(notebook):
        if "parameters" in cell["metadata"].get("tags", []):
            body = parse(text(cell), f"{notebook}, parameters cell").body
            targets = [t for node in body if isinstance(node, ast.Assign) for t in node.targets]
            return [target.id for target in targets if isinstance(target, ast.Name)]
    raise ValueError(f"{notebook}: no cell is tagged `parameters`")


def imported(tree: ast.Module, package: Path = PACKAGE) -> set[str]:
    """Dotted names below `package` that a module imports anywhere, like `engines.replay`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name.partition(".")[2] for name in names if name.startswith(f"{package.name}.")}
    return {name for name in inside if any(_files(name, package))}


def _files(name: str, package: Path) -> Iterator[Path]:
    """The files of a module; of a sub-package all, because it picks its parts at run time."""
    path = package.joinpath(*name.split("."))
    if path.is_dir():
        yield from sorted(path.rglob("*.py"))
    elif path.with_suffix(".py").exists():
        yield path.with_suffix(".py")


def closure(tree: ast.Module, package: Path = PACKAGE) -> tuple[Path, ...]:
    """Every file of `package` that the module reaches through imports, sorted."""
    found: set[Path] = set()
    waiting = [tree]
    while waiting:
        for name in imported(waiting.pop(), package):
            for path in _files(name, package):
                if path not in found:
                    found.add(path)
                    waiting.append(parse(path.read_text(encoding="utf-8"), str(path)))
    return tuple(sorted(found))


class _Essence(ast.NodeTransformer):
    """Leaves out what says nothing of what code does: prose, and where its own parts are found.

    An import from `package` goes, because what it reaches is hashed itself; one from elsewhere
    stays, because what it reaches is not.
    """

    def __init__(self, package: str):
        self.package = package

    def visit_Import(self, node: ast.Import) -> ast.Import | None:
        names = [a for a in node.names if a.name.partition(".")[0] != self.package]
        return ast.Import(names) if names else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        own = node.level or (node.module or "").partition(".")[0] == self.package
        return None if own else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        prose = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if prose else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        face = [t.id for t in node.targets if isinstance(t, ast.Name)] == ["__all__"]
        return None if face else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None


def essence(code: str, where: str, package: Path = PACKAGE) -> str:
    """What `code` does, as one line; `''` of a file with nothing but prose and own imports."""
    tree = _Essence(package.name).visit(parse(code, where))
    return ast.dump(tree) if tree.body else ""


def digest(notebook: Path, package: Path = PACKAGE) -> str:
    """The hash of a notebook's code cells and of the modules they reach."""
    total = hashlib.sha256()
    trees = []
    for cell in cells(notebook):
        if cell["cell_type"] == "code":
            where = f"{notebook}, cell {cell.get('id', '?')}"
            does = essence(text(cell), where, package)
            total.update(f"{cell.get('id', '')}\n{does}\n".encode())
            trees += parse(text(cell), where).body
    total.update(code(ast.Module(body=trees, type_ignores=[]), package).encode())
    return total.hexdigest()


def code(tree: ast.Module, package: Path = PACKAGE) -> str:
    """The hash of every module of `package` that `tree` reaches, wherever in it they stand."""
    reached = closure(tree, package)
    found = [essence(path.read_text(encoding="utf-8"), str(path), package) for path in reached]
    return hashlib.sha256("\n".join(sorted(filter(None, found))).encode()).hexdigest()


@cache
def version(module: str) -> str:
    """The hash of a module (`rrtf.sandbox`), of all it reaches, and of Python's version."""
    reached = code(ast.parse(f"import {module}"))
    return hashlib.sha256(f"{platform.python_version()}\n{reached}".encode()).hexdigest()
