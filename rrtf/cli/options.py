"""The command of a verb, its options made from `profiles.toml`: a line there is an option here.

A verb is a function of one argument in the file of its name: `Given`, an attribute per line.
"""

import inspect
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from rrtf import config
from rrtf.cli import screen

Given = SimpleNamespace  # what a command line said, by the names of the lines


def cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process may use: those it may run on, and of them its group's share."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name, quotas in (("cpu.max", []), ("cpu/cpu.cfs_quota_us", ["cpu/cpu.cfs_period_us"])):
        try:
            quota, period = " ".join((root / n).read_text() for n in (name, *quotas)).split()
            share = int(quota) / int(period)
        except (OSError, ValueError):  # no such file; `max` or -1: no limit
            continue
        return max(1, min(own, math.ceil(share))) if share > 0 else own
    return own


ALL_CORES = cores()
_COMMENT = re.compile(r"(\w+) = \{.*\}  # (?:(\S*(?:[A-Z|]|\.\.)\S*): )?(.*?)(?:\. .*)?")
_CHOICE = re.compile(r"[a-z0-9_+]+(\|[a-z0-9_+]+)+")
_KIND = inspect.Parameter.KEYWORD_ONLY
_RANGE = re.compile(r"(?:(\w+)>?=)?(\d+(?:\.\d+)?)(?:\.\.(\d+))?")


@dataclass(frozen=True, slots=True)
class Option:
    """A line as an option of one verb: its value where it is not given, what it takes, its help.

    `names` are its spellings with dashes, the first as it is shown.
    """

    name: str
    value: config.Value
    takes: str
    help: str
    names: tuple[str, ...]
    panel: str | None
    switch: bool  # of a stage, where it may be true: with --no-NAME


def options_of(verb: str) -> list[Option]:
    """Every option of `verb` by panel, in each its own lines in their order, then shared ones."""
    table, told, spelling = config.table(verb), _comments(), config.table("spelling")
    panels = {name: (at, panel) for at, (panel, names) in enumerate(config.table("panels").items())
              for name in names}  # fmt: skip
    order, found = [*table], []
    for name, (section, columns) in config.lines(verb, verb=True).items():
        if name in table.get("notebook", ()):
            continue
        value = next(columns[c] for c in ("verb", "nano", "all") if c in columns)
        names = dict.fromkeys([*spelling.get(name, ()), name.replace("_", "-")])
        at, panel = panels.get(f"{verb}.{name}", panels.get(name, (-1, None)))
        switch = value is True or columns.keys() != {"verb"}
        one = Option(name, value, *told[section, name], tuple(names), panel, switch)
        found.append((at, order.index(name) if name in order else len(order), one))
    return [one for *_, one in sorted(found, key=lambda item: item[:2])]


def _comments() -> dict[tuple[str, str], tuple[str, str]]:
    """(section, name) -> (what it takes, help) as the comment of its line says them."""
    found, section = {}, ""
    for line in config.profiles_text().splitlines():
        if line.startswith("["):
            section = line[1 : line.index("]")]
        elif said := _COMMENT.fullmatch(line):
            found[section, said[1]] = (said[2] or "", said[3])
    return found


def command(verb: str) -> Any:
    """The command `verb`: `rrtf.cli.VERB`'s function of that name behind its options."""
    module, table, options = import_module(f"rrtf.cli.{verb}"), config.table(verb), options_of(verb)

    def call(context: typer.Context, **words: Any) -> None:
        with screen.exit_codes():
            source = context.get_parameter_source
            typed = {name for name in words if source(name).name != "DEFAULT"}
            given = chosen(verb, options, words, typed)
        with screen.exit_codes(module.saved(given)), config.extras_named(verb):
            getattr(module, verb)(given)

    first, needed = table.get("arguments", []), table.get("required", [])
    of = {one.name: one for one in options}
    arguments = [_parameter(of.pop(name), None) for name in first]
    rest = sorted(of.values(), key=lambda one: one.name not in needed)
    context = inspect.Parameter("context", _KIND, annotation=typer.Context)
    every = [context, *arguments, *(_parameter(one, one.name in needed) for one in rest)]
    call.__signature__ = inspect.Signature(every)
    call.__doc__ = getattr(module, verb).__doc__
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(verb, context_settings={"token_normalize_func": _spelt(options)})(call)
    return typer.main.get_command(app)


def _parameter(option: Option, required: bool | None) -> inspect.Parameter:
    """An option, or (None) an argument: needed, but for a list, which may be empty."""
    value, name = option.value, f"--{option.names[0]}"
    kind = list[str] if isinstance(value, list) else type(value)
    info: dict[str, Any] = {"help": option.help, "metavar": option.takes or None}
    if required is None:
        required, made = not isinstance(value, list), typer.Argument(show_default=False, **info)
    else:
        if kind is bool:
            name += f"/--no-{option.names[0]}" * option.switch
        elif kind in (int, float) and (limits := _RANGE.fullmatch(option.takes)):
            info["metavar"] = limits[1] or option.takes
            info |= {"min": _number(limits[2]), "max": _number(limits[3])}
        shown = kind is bool or value not in ("", [])
        made = typer.Option(name, rich_help_panel=option.panel, show_default=shown, **info)
    default = [str(one) for one in value] if isinstance(value, list) else value
    default = inspect.Parameter.empty if required else default
    return inspect.Parameter(option.name, _KIND, annotation=Annotated[kind, made], default=default)


def _number(text: str | None) -> float | None:
    return text and (float(text) if "." in text else int(text))


def _spelt(options: Sequence[Option]) -> Callable[[str], str]:
    """A spelling of an option, without its dashes -> the one that is shown.

    Underscores are dashes; a name that is no more is noted on standard error, once.
    """
    known = {name: option.names[0] for option in options for name in option.names}
    before = {old: known.get(new) for old, new in config.table("renamed").items()}
    noted = set()

    def spelt(token: str) -> str:
        word = token.replace("_", "-")
        off, bare = ("no-", word[3:]) if word.startswith("no-") else ("", word)
        if bare not in known and before.get(bare):
            if bare not in noted:
                screen.tell(f"note: --{bare} is --{before[bare]} now; the old name will go")
                noted.add(bare)
            return before[bare]
        return off + known.get(bare, bare)

    return spelt


def chosen(
    verb: str, options: Sequence[Option], words: Mapping[str, Any], typed: Collection[str]
) -> Given:
    """The values of a command line; `words` as typer gives them, of which `typed` were there.

    `--set VERB.KEY=VALUE` is `--KEY VALUE`, which goes before it; a verb with a profile keeps in
    `set` what it changes. `workers` 0 are as many as there are cores. ValueError names the option.
    """
    found = {one.name: _items(one, words[one.name]) for one in options}
    if "set" in found:
        found["set"] = changes = dict(map(_override, found["set"]))
        known = {f"{verb}.{one.name}": one for one in options}
        for key, value in changes.items() if "profile" not in found else ():
            if key not in known:
                raise ValueError(f"--set {key!r}: expected {verb}.KEY=VALUE of an option of {verb}")
            if known[key].name not in typed:
                found[known[key].name] = config.same_type(key, known[key].value, value)
    for one in options:
        value = found[one.name]
        if _CHOICE.fullmatch(one.takes) and value not in (one.value, *one.takes.split("|")):
            known = one.takes.replace("|", ", ")
            raise ValueError(f"--{one.names[0]} {value!r}: expected one of {known}")
    if found.get("workers") == 0:
        found["workers"] = ALL_CORES
    return Given(**found)


def _items(option: Option, value: Any) -> Any:
    """The parts of a list with commas in their type; anything else as it is."""
    if not isinstance(option.value, list) or "," not in option.takes:
        return value
    kind = type(option.value[0]) if option.value else str
    try:
        parts = [part.strip() for text in value for part in str(text).split(",")]
        return [kind(part) for part in parts if part or kind is not str]
    except ValueError:
        raise ValueError(
            f"--{option.names[0]} {','.join(value)!r}: expected {option.takes}"
        ) from None


def _override(text: str) -> tuple[str, config.Value]:
    """`config.parse_override`, under the name that is right today."""
    key, value = config.parse_override(text)
    section, _, name = key.partition(".")
    today = config.table("renamed").get(name)
    if today in config.lines(section) and name not in config.lines(section):
        screen.tell(f"note: {key} is {section}.{today} now; the old name will go")
        key = f"{section}.{today}"
    return key, value
