"""Packages of the caller's environment that candidates may import: none, unless named.

A named package, what its metadata says it needs and the libraries shipped beside it are imported
by the zygote before it is fenced, and their folders become part of the read-only view. Nothing
else of the environment is shown or importable. The packages themselves are trusted.
"""

import importlib.machinery
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@lru_cache(maxsize=32)
def view(names: tuple[str, ...]) -> dict[str, list[str]]:
    """What a zygote is told of the packages with these import names: plain texts.

    `site`: folders to import from, `named` and `needed`: what to import, `shown`: folders and
    files to make readable. ValueError for a name that is not installed here, or part of Python.
    """
    site, needed, shown = set(), set(), set()
    for name in names:
        site.add(str(Path(_places(name)[0]).parent))
        shown |= set(_places(name))
    for name in _with_requirements(distributions(names)):
        for path in _contents(name):
            shown.add(str(path))
            site.add(str(path.parent))
            if (path.is_dir() and (path / "__init__.py").is_file()) or path.suffix == ".py":
                needed.add(path.stem)
    found = {"named": names, "site": site, "needed": needed - set(names), "shown": shown}
    return {key: sorted(values) for key, values in found.items()}


def versions(names: Sequence[str]) -> dict[str, str]:
    """The versions of the distributions that hold these packages: part of what a verdict is."""
    found = distributions(names) if names else ()
    return {name: importlib.metadata.version(name) for name in sorted(found)}


def installed(names: Iterable[str]) -> set[str]:
    """Those of these import names that a distribution here holds; looks into no folder else."""
    return importlib.metadata.packages_distributions().keys() & set(names)


def distributions(names: Iterable[str]) -> set[str]:
    """The installed distributions (`PyYAML`) that hold packages of these import names (`yaml`)."""
    known = importlib.metadata.packages_distributions()
    return {distribution for name in names for distribution in known.get(name, ())}


def _places(name: str) -> list[str]:
    """The folders of a package, or the file of a module."""
    if not name.isidentifier() or name in sys.stdlib_module_names:
        why = "part of Python" if name in sys.stdlib_module_names else "expected an import name"
        raise ValueError(f"package {name!r}: {why}, as in numpy or yaml")
    spec = importlib.util.find_spec(name)
    if spec is None or not (spec.submodule_search_locations or spec.origin):
        raise ValueError(f"package {name!r} is not installed in this environment ({sys.prefix})")
    return list(spec.submodule_search_locations or [spec.origin])


def _with_requirements(found: set[str]) -> set[str]:
    """The distributions and all that they require, as far as installed; extras are no needs."""
    waiting, seen = list(found), set()
    while waiting:
        name = waiting.pop()
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in seen:
            seen.add(name)
            waiting += [_NAME.match(line)[0] for line in required if "extra ==" not in line]
    return seen


def _contents(distribution: str) -> list[Path]:
    """Top folders and modules of a distribution, the libraries that it ships included."""
    files = importlib.metadata.files(distribution) or []
    tops = {f.parts[0] for f in files if f.parts[0] not in ("..", "__pycache__")}
    root = Path(str(importlib.metadata.distribution(distribution).locate_file("")))
    kinds = (".py", *importlib.machinery.EXTENSION_SUFFIXES)
    return [
        root / top
        for top in sorted(tops)
        if ((root / top).is_dir() and not top.endswith(".dist-info")) or top.endswith(kinds)
    ]
