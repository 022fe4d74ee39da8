"""Rows with what the detectors compare of them, each form computed once and when it is needed."""

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property

from rrtf import similarity
from rrtf.audit.rows import Row


class Corpus:
    """Rows, or the tasks of benchmarks (`names` says of which each is), and their normal forms.

    Every form is a list parallel to `rows`. Words and tokens are shared between rows, so that
    those of 68,000 rows take some hundred megabytes.
    """

    def __init__(self, rows: Sequence[Row], names: Sequence[str] = ()) -> None:
        self.rows = tuple(rows)
        self.names = tuple(names)

    @classmethod
    def of_benchmarks(cls, benchmarks: Mapping[str, Sequence[Row]]) -> "Corpus":
        """The tasks of all benchmarks, one after the other."""
        tasks = [(task, name) for name, members in benchmarks.items() for task in members]
        return cls([task for task, _ in tasks], [name for _, name in tasks])

    @cached_property
    def words(self) -> list[list[str]]:
        """Words of the description (`similarity.words`)."""
        return [_shared(similarity.words(row.text)) for row in self.rows]

    @cached_property
    def whole_words(self) -> list[list[str]]:
        """Words of all that a row holds."""
        return [_shared(similarity.words(row.whole)) for row in self.rows]

    @cached_property
    def whole_tokens(self) -> list[list[str]]:
        """Tokens of all that a row holds: words and single signs, in lower case."""
        return [_shared(similarity.tokens(row.whole)) for row in self.rows]

    @cached_property
    def answer_tokens(self) -> list[list[str]]:
        """Tokens of what answers the description."""
        return [_shared(similarity.tokens(row.answer)) for row in self.rows]

    @cached_property
    def functions(self) -> list[dict[str, str]]:
        """Canonical functions by name; of a program that repeats given helpers, its own ones."""
        return [_own_functions(row) for row in self.rows]

    @cached_property
    def solutions(self) -> list[str]:
        """The canonical text of the entry point, '' where there is none."""
        names = [row.entry_point.rpartition(".")[2] for row in self.rows]
        return [of.get(name, "") for of, name in zip(self.functions, names, strict=True)]

    @cached_property
    def sizes(self) -> list[int]:
        """Nodes of the syntax tree of the entry point's canonical text, 0 where there is none."""
        return [similarity.nodes(text) if text else 0 for text in self.solutions]

    @cached_property
    def code_tokens(self) -> list[list[str]]:
        """Tokens of the canonical functions in order."""
        return [_shared(similarity.tokens("\n".join(of.values()))) for of in self.functions]


def _own_functions(row: Row) -> dict[str, str]:
    """The functions of a task's reference where it is whole, else those of the program."""
    own = similarity.canonical_functions(row.answer) if row.answer != row.code else {}
    whole = row.entry_point.rpartition(".")[2] in own
    return own if whole else similarity.canonical_functions(row.code)


def _shared(words: Sequence[str]) -> list[str]:
    return [sys.intern(word) for word in words]
