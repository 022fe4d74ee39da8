"""The command of a verb, its options made from `profiles.toml`: a line there is an option here.

A verb is a function of one argument in the file of its name: `Given`, an attribute per line.
"""

import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from rrtf import config
from rrtf.cli import screen

Given = SimpleNamespace  # what a command line said, by the names of the lines
ALL_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
_COMMENT = re.compile(r"(\w+) = \{.*\}  # (?:(\S*(?:[A-Z|]|\.\.)\S*): )?(.*?)(?:\. .*)?")
_CHOICE = re.compile(r"[a-z0-9_+]+(\|[a-z0-9_+]+)+")
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
    """Every option of `verb`: its own lines in their order, then those of [shared]."""
    table, told = config.table(verb), _comments()
    lines = {n: line for n, line in config.lines(verb, verb=True).items()
             if n not in table.get("notebook", ())}  # fmt: skip
    spelling, panels = config.table("spelling"), config.table("panels")
    of = {name: panel for panel, names in panels.items() for name in names}
    order = [*panels, None]
    found = []
    place = {name: number for number, name in enumerate(table)}
    for name, (section, columns) in sorted(
        lines.items(), key=lambda item: place.get(item[0], len(place))
    ):
        value = next(columns[c] for c in ("verb", "nano", "all") if c in columns)
        takes, text = told[section, name]
        dashed = name.replace("_", "-")
        names = dict.fromkeys([*spelling.get(name, ()), dashed])
        panel = of.get(f"{verb}.{name}", of.get(name))
        switch = value is True or columns.keys() != {"verb"}
        found.append(Option(name, value, takes, text, tuple(names), panel, switch))
    return sorted(found, key=lambda option: order.index(option.panel) if option.panel else -1)


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
    module = import_module(f"rrtf.cli.{verb}")
    options, table = options_of(verb), config.table(verb)

    def call(context: typer.Context, **words: Any) -> None:
        with screen.exit_codes():
            source = context.get_parameter_source
            typed = {name for name in words if source(name).name != "DEFAULT"}
            given = chosen(verb, options, words, typed)
        with screen.exit_codes(module.saved(given) if hasattr(module, "saved") else "saved"):
            getattr(module, verb)(given)

    arguments, required = table.get("arguments", ()), table.get("required", ())
    first = [one for name in arguments for one in options if one.name == name]
    rest = sorted(
        (one for one in options if one not in first), key=lambda one: one.name not in required
    )
    parameters = [_argument(one) for one in first] + [
        _option(one, required=one.name in required) for one in rest
    ]
    place = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    call.__signature__ = inspect.Signature([place, *parameters])
    call.__doc__ = getattr(module, verb).__doc__
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(verb, context_settings={"token_normalize_func": _spelt(options)})(call)
    return typer.main.get_command(app)


def _argument(option: Option) -> inspect.Parameter:
    """Needed, but for a list, which may be empty."""
    several = isinstance(option.value, list)
    info = typer.Argument(metavar=option.takes, help=option.help, show_default=False)
    return _parameter(option, info, list[str] if several else str, required=not several)


def _option(option: Option, *, required: bool) -> inspect.Parameter:
    value, name = option.value, f"--{option.names[0]}"
    info: dict[str, Any] = {"help": option.help, "rich_help_panel": option.panel}
    kind = list[str] if isinstance(value, list) else type(value)
    if kind is bool:
        name += f"/--no-{option.names[0]}" * option.switch
    else:
        info |= {"metavar": option.takes or None, "show_default": value not in ("", [])}
    if kind in (int, float) and (limits := _RANGE.fullmatch(option.takes)):
        low, high = (
            text and (float(text) if "." in text else int(text)) for text in limits.group(2, 3)
        )
        info |= {"min": low, "max": high, "metavar": limits[1] or option.takes}
    return _parameter(option, typer.Option(name, **info), kind, required=required)


def _parameter(option: Option, info: Any, kind: Any, *, required: bool) -> inspect.Parameter:
    several = isinstance(option.value, list)
    default = [str(one) for one in option.value] if several else option.value
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, info],
        default=inspect.Parameter.empty if required else default,
    )


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
