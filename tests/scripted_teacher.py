"""A double for `endpoint.ask`: a teacher whose replies are written down; it counts requests."""

import re

from rrtf.engines.endpoint import Ask, Reply
from rrtf.evolve import asking

ADDED = "Numbers that are negative and odd must be left out of the result."
CODE = "def total(numbers):\n    return sum(n for n in numbers if n >= 0 or n % 2 == 0)\n"
INPUTS = "[[1, 2, 3]]\n[[]]\n[[-1, -2, 5]]\n[[7]]\n[[0, 0, -3]]\n"


def reply(text: str, *, finish_reason: str = "stop", error: str = "") -> Reply:
    return Reply(text, finish_reason, 10, len(text.split()), error)


def kind(ask: Ask) -> str:
    """Which section of the wording a request was made of."""
    said = ask.messages[-1][1]
    for name in ("evolve", "answer", "again", "inputs"):
        if said.startswith(asking.wording()[name]["user"].partition("{")[0].strip()[:30]):
            return name
    raise AssertionError(f"a request of no known kind: {said[:60]}")


def task_of(ask: Ask) -> str:
    """The task inside a request for its evolution."""
    return re.search(r"<<<\n(.*)\n>>>", ask.messages[-1][1], re.DOTALL)[1]


class Teacher:
    """Answers by kind of request; what is given by name replaces the good reply.

    A replacement is a text, a `Reply`, or a function of the ask.
    """

    def __init__(self, **replaced):
        self.asks: list[Ask] = []
        self.replaced = replaced

    def __call__(self, asks):
        self.asks += asks
        return [self._reply(ask) for ask in asks]

    def _reply(self, ask: Ask) -> Reply:
        said = self.replaced.get(kind(ask), getattr(self, f"_{kind(ask)}"))
        said = said(ask) if callable(said) else said
        return reply(said) if isinstance(said, str) else said

    def _evolve(self, ask):
        return f"{task_of(ask)} {ADDED}"

    def _answer(self, ask):
        return f"Here it is:\n\n```python\n{CODE}```\n"

    def _again(self, ask):
        return f"```python\n{CODE}```"

    def _inputs(self, ask):
        return INPUTS
