"""Where things are, and what a profile means.

`profiles.toml` holds every parameter of every stage; `resolve` turns a profile and a stage into
flat keyword arguments, which are the papermill parameters of the stage's notebook. The options of
the command line come from the same lines (`cli.options`).
"""

import hashlib
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

STAGES = (
    "00_rrtf_by_hand",
    "01_evolve",
    "02_audit",
    "03_sample",
    "04_rank",
    "05_train",
    "06_evaluate",
    "07_cases",
    "08_quantize",
)
CLOSING = ("appendix_paper_audit",)  # a plain run ends with these: seconds, from what it found
APPENDICES = (
    *CLOSING,
    "appendix_ablation",
    "appendix_leaderboard",
    "appendix_graders",
    "appendix_nano_models",
)  # the others: by --only

Value = str | int | float | bool | list
EXTRAS = {  # what an extra of pyproject.toml brings, by the name that is imported
    "sample": ("torch", "transformers", "tokenizers", "safetensors", "ctranslate2", "openai",
               "httpx"),
    "train": ("peft", "accelerate", "tensorboard"),
    "quantize": ("gptqmodel", "optimum"),
    "data": ("huggingface_hub", "datasets", "pyarrow"),
    "notebooks": ("jupyterlab", "papermill", "nbconvert", "nbclient", "nbformat", "ipykernel",
                  "jupyter_client", "jupyter_core", "psutil", "latex2mathml", "matplotlib", "scipy",
                  "tqdm"),
    "ray": ("ray",),
}  # fmt: skip
_WHOLE = {"train": "train", "plan": "train", "quantize": "quantize", "run": "notebooks"}


@cache
def home() -> Path:
    """The folder that holds `data/` and `notebooks/`: the checkout, or what an installation copied.

    That is `share/rrtf` above the package: of an environment, a user's own folder, a `--target`.
    FileNotFoundError where there is none.
    """
    above = Path(__file__).resolve().parents[1:]
    for place in (above[0], *(folder / "share" / "rrtf" for folder in above)):
        if (place / "data" / "devices.toml").exists():
            return place
    raise FileNotFoundError(
        f"{above[0]}: rrtf was installed without its data, which lie in share/rrtf beside or above "
        "it; install its wheel by pip, or a checkout in place: pip install -e ."
    )


def need(what: str, *libraries: str) -> None:
    """OSError for the first library that is not installed: which extra brings it to `what`."""
    for library in libraries:
        if not find_spec(library):
            raise OSError(_lacks(what, library))


@contextmanager
def extras_named(what: str) -> Iterator[None]:
    """Turns an import that fails inside into `need`'s error, where an extra brings the library."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if not any(library in brings for brings in EXTRAS.values()):
            raise
        raise OSError(_lacks(what, library)) from error


def _lacks(what: str, library: str) -> str:
    brings = next(extra for extra, libraries in EXTRAS.items() if library in libraries)
    return f"{what} needs {library}: pip install 'rrtf[{_WHOLE.get(what, brings)}]'"


def output_home() -> Path:
    """Where `data/runs` and `reports` are written: `$RRTF_HOME`, else the checkout.

    Where rrtf is installed without one, the folder it is called in.
    """
    checkout = home() if (home() / "rrtf").is_dir() else Path.cwd()
    return Path(os.environ.get("RRTF_HOME") or checkout).resolve()


def environment() -> dict[str, str]:
    """What a process that starts in another folder needs to find the same places."""
    place = output_home()
    return {"RRTF_HOME": str(place)} if os.environ.get("RRTF_HOME") or place != home() else {}


def run_dir(profile: str) -> Path:
    """What a run of `profile` writes: `data/runs/<profile>`."""
    return output_home() / "data" / "runs" / profile


def models_dir() -> Path:
    """Where the small world's models are written; those that ship lie in the checkout."""
    return output_home() / "data" / "nano" / "models"


def cache_dir() -> Path:
    """What can be computed again at any time and serves all checkouts of one user.

    `$RRTF_HOME/cache` where that is set, else `$XDG_CACHE_HOME/rrtf`, else `~/.cache/rrtf`, for a
    user without a home below the system's folder for what is temporary: not the checkout, which
    may be read-only, and not a run's folder, which is deleted to start over.
    """
    if os.environ.get("RRTF_HOME"):
        return output_home() / "cache"
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "rrtf"
    try:
        return Path.home() / ".cache" / "rrtf"
    except RuntimeError:  # neither $HOME nor an entry of this user
        return Path(tempfile.gettempdir()) / f"rrtf-{os.getuid()}"


def report_dir(profile: str) -> Path:
    """The reports of `profile`: `reports/<profile>`."""
    return output_home() / "reports" / profile


def stage_name(word: str) -> str:
    """`'sample'`, `'03'` or `'03_sample'` -> `'03_sample'`, also appendices; else ValueError."""
    for stage in (*STAGES, *APPENDICES):
        number, _, name = stage.partition("_")
        if word in (stage, name) or (stage in STAGES and word == number):
            return stage
    raise ValueError(f"unknown stage {word!r}: expected one of {', '.join(STAGES)}")


def profiles_text() -> str:
    """`profiles.toml`, with the comments that are the help of options."""
    return files("rrtf").joinpath("profiles.toml").read_text(encoding="utf-8")


@cache
def _profiles() -> dict:
    return tomllib.loads(profiles_text())


def table(section: str) -> dict[str, Any]:
    """A section of `profiles.toml` as it stands there; {} for one that is not there."""
    return _profiles().get(section, {})


def profiles() -> tuple[str, ...]:
    """The names of all profiles, the columns of `profiles.toml`."""
    return tuple(_profiles()["profiles"])


def lines(word: str, *, verb: bool = False) -> dict[str, tuple[str, Mapping[str, Value]]]:
    """name -> (section, columns) of every parameter of a stage, or of the verb of this name.

    Lines of `verb` alone are the verb's; a section's own line goes before a shared one.
    """
    own = {name: (word, line) for name, line in table(word).items() if isinstance(line, dict)}
    if not verb:
        own = {name: line for name, line in own.items() if line[1].keys() != {"verb"}}
    lists = ("shared", "options") if verb else ("shared",)
    names = [name for key in lists for name in table(word).get(key, [])]
    return {name: ("shared", table("shared")[name]) for name in names} | own


def _column(name: str, columns: Mapping[str, Value], profile: str) -> Value:
    if profile in columns:
        return columns[profile]
    if "all" in columns:
        return columns["all"]
    raise ValueError(f"profiles.toml: {name} has no value for profile {profile!r} and no `all`")


def resolve(
    profile: str, stage: str, overrides: Mapping[str, Value] | None = None
) -> dict[str, Value]:
    """The parameters of one stage under one profile, flat, `profile` first.

    `overrides` maps `stage.key` (or `shared.key`) to a value; a key that does not exist, or a
    value of another type than the profile's, is a ValueError that names it.
    """
    if profile not in profiles():
        raise ValueError(f"unknown profile {profile!r}: expected one of {', '.join(profiles())}")
    word = stage_name(stage).partition("_")[2]
    values: dict[str, Value] = {"profile": profile}
    for name, (section, columns) in lines(word).items():
        value = _column(f"{section}.{name}", columns, profile)
        for key in (f"{section}.{name}", f"{word}.{name}"):
            if overrides and key in overrides:
                value = same_type(key, value, overrides[key])
        values[name] = value
    return values


def check_overrides(overrides: Mapping[str, Value]) -> None:
    """ValueError for the first override that no stage has, with the nearest names."""
    stages = [stage.partition("_")[2] for stage in (*STAGES, *APPENDICES)]
    known = {f"{where}.{name}" for word in stages for name, (section, _) in lines(word).items()
             for where in (word, section)}  # fmt: skip
    for key in overrides:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, known, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"unknown parameter {key!r}{hint}")


def parse_override(text: str) -> tuple[str, Value]:
    """`'train.updates=80'` -> `('train.updates', 80)`; the right side is TOML, else a string."""
    key, sign, right = text.partition("=")
    if not sign or "." not in key:
        raise ValueError(f"--set {text!r}: expected stage.key=value")
    try:
        table = tomllib.loads(f"value = {right}")
    except tomllib.TOMLDecodeError:
        table = {}
    return key.strip(), table["value"] if len(table) == 1 else right.strip()


def same_type(key: str, default: Value, value: Value) -> Value:
    """`value` in the type of `default`; ValueError where it has another.

    A whole number stands for a float, and what is no list for a list: `a,b` of two texts.
    """
    if isinstance(default, list) and not isinstance(value, list):
        parts = value.split(",") if isinstance(value, str) else [value]
        return [
            one for part in parts if (one := part.strip() if isinstance(part, str) else part) != ""
        ]
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        expected = type(default).__name__
        raise ValueError(f"{key}={value!r}: expected {expected}, like {default!r}")
    return value


def declared(stage: str, namespace: Mapping[str, Value]) -> dict[str, Value]:
    """The parameters of `stage` as they stand in a notebook's namespace (its `globals()`)."""
    names = resolve(namespace["profile"], stage)
    missing = [name for name in names if name not in namespace]
    if missing:
        raise ValueError(f"{stage}: the parameters cell lacks {', '.join(missing)}")
    return {name: namespace[name] for name in names}


def derive_seed(seed: int, *keys: str | int) -> int:
    """A 63-bit seed for `keys` under `seed`: independent of order, batch size and process count."""
    text = "\x1f".join([str(seed), *map(str, keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def set_threads(count: int) -> None:
    """Pins the thread pools of libraries that are loaded after this call to `count` threads."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
    # Batches of many shapes would fill oneDNN's cache of 1,024 compiled operations.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def version() -> str:
    """The version of rrtf; looked up late because the package imports nothing itself."""
    from rrtf import __version__

    return __version__


def data_text(name: str) -> str:
    """The text of a file that ships in `data/`."""
    return (home() / "data" / name).read_text(encoding="utf-8")
