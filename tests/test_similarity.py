"""Normal forms of text and code: what must be equal is equal, what must differ differs."""

import random

import pytest

from rrtf import similarity

SUM_EVEN = '''
def sum_even(numbers: list[int], bound: int = 3) -> int:
    """Return the sum of the even numbers."""
    total: int = 0
    for number in numbers:  # one by one
        if number % 2 == 0:
            total += number
    return total
'''
RENAMED = """
def f(xs, k=3):
    acc = 0
    for v in xs:
        if v % 2 == 0:
            acc += v
    return acc
"""


def only_text(source: str) -> str:
    (text,) = similarity.canonical_functions(source).values()
    return text


def test_normal_text_ignores_case_layout_and_punctuation():
    left = "Return the SUM of\n    the even-numbered items!"
    assert similarity.normalise(left) == "return the sum of the even numbered items"


def test_normal_text_keeps_signs_and_comparisons():
    assert similarity.normalise("x > -3") == "x > -3"
    assert similarity.normalise("x < -3") != similarity.normalise("x > -3")
    assert similarity.normalise("add 2.5") == "add 2.5"


def test_normal_text_leaves_examples_out():
    text = "Add one.\n\n    >>> f(1)\n    2\n    >>> f(2)\n    3\n\nNever fail."
    assert similarity.normalise(text) == "add one never fail"
    assert similarity.normalise("Add one.\n>>> f(1)\n2") == "add one"
    assert (
        similarity.normalise("Add one.\n  Example: f([1]) == 2\nf(5) ➞ 6\nx == 3")
        == "add one x == 3"
    )


def test_ngrams_of_a_short_text_are_empty_but_its_shingle_is_not():
    assert similarity.ngrams(["a", "b"], 3) == frozenset()
    assert similarity.shingles(["a", "b"], 3) == {"a b"}
    assert similarity.shingles([], 3) == frozenset()
    assert similarity.ngrams(["a", "b", "c"], 2) == {("a", "b"), ("b", "c")}
    with pytest.raises(ValueError, match="n >= 1"):
        similarity.ngrams(["a"], 0)


def test_jaccard_by_hand():
    assert similarity.jaccard({"a", "b", "c"}, {"b", "c", "d"}) == 0.5
    assert similarity.jaccard(set(), set()) == 0.0


def test_marked_pieces_join_to_the_texts_and_mark_the_shared_run():
    left, right = "Keep the even ones, then sum.", "First keep the EVEN ones and add."
    marked = similarity.marked(left, right, 3)
    assert ["".join(piece for piece, _ in side) for side in marked] == [left, right]
    assert [piece for piece, shared in marked[1] if shared] == ["keep the EVEN ones"]


def test_shared_runs_are_longest_first():
    left, right = list("abcxdefg"), list("defgyabc")
    assert similarity.shared_runs(left, right, 3)[0] == (4, 0, 4)
    assert similarity.shared_runs(left, right, 5) == []


def test_renaming_comments_annotations_and_docstrings_do_not_change_a_code_hash():
    assert only_text(SUM_EVEN) == only_text(RENAMED)


@pytest.mark.parametrize(
    "changed",
    [
        RENAMED.replace("== 0", "!= 0"),
        RENAMED.replace("% 2", "% 3"),
        RENAMED.replace("return acc", "return xs"),
        RENAMED.replace("acc += v", "acc += k"),
        RENAMED.replace("k=3", "k=4"),
    ],
)
def test_a_changed_meaning_changes_the_code_hash(changed):
    assert only_text(changed) != only_text(RENAMED)


def test_builtins_and_attributes_keep_their_names():
    body = "def f(xs):\n    return {}(xs)\n"
    assert only_text(body.format("max")) != only_text(body.format("min"))
    assert only_text("def f(s):\n    return s.upper()") != only_text(
        "def f(s):\n    return s.lower()"
    )


def test_names_are_renamed_scope_by_scope():
    reused = "def f(x):\n    return [x for x in x] + [x for x in x]\n"
    apart = "def g(a):\n    return [b for b in a] + [c for c in a]\n"
    assert only_text(reused) == only_text(apart)
    assert only_text("def f(x, y):\n    return (lambda x: x + y)(x)") == only_text(
        "def f(a, b):\n    return (lambda c: c + b)(a)"
    )
    assert only_text("def f(x):\n    try:\n        return x[0]\n    except KeyError as e:\n"
                     "        return e") == only_text(
        "def f(y):\n    try:\n        return y[0]\n    except KeyError as err:\n        return err"
    )  # fmt: skip


def test_recursion_is_recognised_under_another_name():
    source = "def {0}(n):\n    return 1 if n < 2 else n * {0}(n - 1)\n"
    assert only_text(source.format("fact")) == only_text(source.format("g"))


def test_every_function_and_method_stands_alone():
    source = SUM_EVEN + "\nclass Solution:\n    def run(self, a):\n        return a\nprint(1)\n"
    assert set(similarity.canonical_functions(source)) == {"sum_even", "run"}
    assert only_text(SUM_EVEN) in similarity.canonical_functions(source).values()


@pytest.mark.parametrize("body", ["pass", "...", '"""Doc."""', "raise NotImplementedError"])
def test_a_function_without_a_body_has_no_text(body):
    assert similarity.canonical_functions(f"def f(x):\n    {body}\n") == {}


@pytest.mark.parametrize(
    "source", ["", "def f(:", "function () { }", "\0", "x = " + "(" * 5000 + ")" * 5000]
)
def test_what_is_not_python_has_no_functions(source):
    assert similarity.canonical_functions(source) == {}


def test_near_duplicates_agree_with_comparing_all_pairs_away_from_the_threshold():
    draw = random.Random(5)
    left = [frozenset(str(draw.randrange(40)) for _ in range(20)) for _ in range(30)]
    right = [frozenset([*list(s)[:-1], "new"]) for s in left[:15]] + left[20:]
    found = similarity.near_duplicates(left, right, threshold=0.5, permutations=128, seed=3)
    slow = {
        (i, j): value
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if (value := similarity.jaccard(a, b)) >= 0.8
    }
    assert len(slow) >= 25
    assert slow.items() <= {(i, j): value for i, j, value in found}.items()
    assert all(value >= 0.5 for *_, value in found)


def test_near_duplicates_repeat_under_one_seed_and_skip_empty_sets():
    left = [frozenset("abcdef"), frozenset()]
    how = dict(permutations=128, seed=7)
    first = similarity.near_duplicates(left, left, threshold=0.6, **how)
    assert first == similarity.near_duplicates(left, left, threshold=0.6, **how) == [(0, 0, 1.0)]
    with pytest.raises(ValueError, match="threshold"):
        similarity.near_duplicates(left, left, threshold=0.0, **how)
