"""Plants of real tasks keep the solution's logic, and each disguise hides what it says."""

import re
from dataclasses import replace
from functools import partial

import disguises
import pytest
import restyling
from conftest import call, judge

from rrtf import similarity
from rrtf.audit import running
from rrtf.records import Problem

call = partial(call, workers=1, isolation="none", cpu_seconds=1.0)
judge = partial(judge, workers=1, isolation="none")
TASK = Problem(
    task_id="t/shorter",
    prompt=(
        "from typing import List\n\n\ndef keep_shorter(words: List[str], size: int) -> List[str]:\n"
        '    """ Given a list of strings, return the strings whose length is smaller than size.\n'
        "    The order of the list should not change. An empty list gives an empty list.\n"
        "    >>> keep_shorter(['a', 'abc'], 2)\n    ['a']\n"
        '    """\n'
    ),
    entry_point="keep_shorter",
    tests=(
        "def check(candidate):\n    assert candidate(['a', 'abc'], 2) == ['a']\n"
        "    assert candidate([], 3) == []\n    assert candidate(words=['abc', 'a'], size=9) == ['abc', 'a']\n"  # noqa: E501
    ),
    reference=(
        "    found = []\n    for word in words:\n        if len(word) < size:\n"
        "            found += [word]\n        else:\n            continue\n"
        "    return [word for word in found]\n"
    ),
)


def plant(kind: str) -> disguises.Plant:
    made, again = disguises.disguised([TASK], kind), disguises.disguised([TASK], kind)
    assert made == again, "the same every time"
    return made[0]


@pytest.mark.parametrize("kind", disguises.KINDS)
def test_every_disguise_keeps_the_logic_and_is_found_by_execution(kind):
    made = plant(kind)
    assert disguises.sound([made], [TASK], judge) == [made]
    leaks = running.passes_tests([made.row], "b", [TASK], call=call, judge=judge)
    assert [leak.benchmark_task_id for leak in leaks] == ["t/shorter"]


def test_a_plant_whose_solution_fails_is_no_plant():
    broken = replace(
        plant("verbatim"), solution="def keep_shorter(words, size):\n    return words\n"
    )
    assert disguises.sound([broken], [TASK], judge) == []
    with pytest.raises(ValueError, match="t/shorter: no reference"):
        disguises.disguised([replace(TASK, reference="")], "verbatim")


def test_other_names_leave_the_canonical_code_and_no_name_of_its_own():
    row = plant("other names").row
    names = set(re.findall(r"\w+", row.code))
    assert not names & {"keep_shorter", "words", "size", "word"}
    (code,) = similarity.canonical_functions(row.code).values()
    known = similarity.canonical_functions(TASK.prompt + TASK.reference)
    assert code == known["keep_shorter"]
    styled = similarity.canonical_functions(plant("other words, other style").row.code)
    assert not set(styled.values()) & set(known.values()), "another style changes it"


def test_other_words_come_in_another_order_and_leave_no_seven_words_as_they_were():
    text = plant("other words, other names").row.text
    assert text.index("empty") < text.index("order")
    before, after = (similarity.words(t) for t in (disguises.description(TASK), text))
    assert not similarity.ngrams(before, 7) & similarity.ngrams(after, 7)


def test_a_translation_leaves_no_two_english_words_side_by_side():
    text = plant("another language, other names").row.text
    before = similarity.words(disguises.description(TASK))
    assert "Liste" in text
    assert not similarity.ngrams(before, 2) & similarity.ngrams(similarity.words(text), 2)


@pytest.mark.parametrize(("kind", "is_nested"), [
    ("embedded, other words, other style", False), ("embedded inside another function", True),
])  # fmt: skip
def test_an_embedded_solution_is_not_the_row_s_own_function(kind, is_nested):
    row = plant(kind).row
    assert row.entry_point == restyling.WRAPPER
    assert (restyling.WRAPPER in next(iter(similarity.canonical_functions(row.code)))) == is_nested
    assert len(row.text) > 2 * len(disguises.description(TASK))


def test_names_that_mean_something_elsewhere_stay():
    code, new = restyling.renamed(
        "import math\nclass Box:\n    def get(self, n):\n        return n\n"
        "def f(list, n=1):\n    return math.floor(n) + Box().get(n) + len(list)\nf([], n=2)\n"
    )
    assert {"math", "Box", "get", "list", "len"} & new.keys() == set()
    assert eval(compile(code.rpartition("\n")[0], "", "exec")) is None
    space: dict = {}
    exec(code, space)
    assert space[new["f"]]([], **{new["n"]: 2}) == 4
