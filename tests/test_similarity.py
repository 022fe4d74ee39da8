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


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Return the SUM of\n    the even-numbered items!",
         "return the sum of the even numbered items"),
        ("x > -3", "x > -3"), ("x < -3", "x < -3"), ("add 2.5", "add 2.5"),
        ("Add one.\n\n    >>> f(1)\n    2\n    >>> f(2)\n    3\n\nNever.", "add one never"),
        ("Add one.\n>>> f(1)\n2", "add one"),
        ("Add one.\n  Example: f([1]) == 2\nf(5) ➞ 6\nx == 3", "add one x == 3"),
    ],
)  # fmt: skip
def test_normal_text_ignores_case_layout_punctuation_and_examples_and_keeps_signs(text, normal):
    assert similarity.normalise(text) == normal


def test_sets_and_runs_of_words_by_hand():
    assert similarity.ngrams(["a", "b"], 3) == frozenset()
    assert similarity.shingles(["a", "b"], 3) == {"a b"}, "a short text is one shingle"
    assert similarity.shingles([], 3) == frozenset()
    assert similarity.ngrams(["a", "b", "c"], 2) == {("a", "b"), ("b", "c")}
    with pytest.raises(ValueError, match="n >= 1"):
        similarity.ngrams(["a"], 0)
    assert similarity.jaccard({"a", "b", "c"}, {"b", "c", "d"}) == 0.5
    assert similarity.jaccard(set(), set()) == 0.0
    left, right = list("abcxdefg"), list("defgyabc")
    assert similarity.shared_runs(left, right, 3)[0] == (4, 0, 4), "the longest first"
    assert similarity.shared_runs(left, right, 5) == []


def test_marked_pieces_join_to_the_texts_and_mark_the_shared_run():
    left, right = "Keep the even ones, then sum.", "First keep the EVEN ones and add."
    marked = similarity.marked(left, right, 3)
    assert ["".join(piece for piece, _ in side) for side in marked] == [left, right]
    assert [piece for piece, shared in marked[1] if shared] == ["keep the EVEN ones"]


def test_renaming_comments_annotations_and_docstrings_do_not_change_a_code_hash():
    assert only_text(SUM_EVEN) == only_text(RENAMED)


@pytest.mark.parametrize(
    ("old", "new"),
    [("== 0", "!= 0"), ("% 2", "% 3"), ("return acc", "return xs"), ("acc += v", "acc += k"),
     ("k=3", "k=4")],
)  # fmt: skip
def test_a_changed_meaning_changes_the_code_hash(old, new):
    assert only_text(RENAMED.replace(old, new)) != only_text(RENAMED)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("def f(x):\n    return [x for x in x] + [x for x in x]\n",
         "def g(a):\n    return [b for b in a] + [c for c in a]\n", True),
        ("def f(x, y):\n    return (lambda x: x + y)(x)",
         "def f(a, b):\n    return (lambda c: c + b)(a)", True),
        ("def f(x):\n    try:\n        return x[0]\n    except KeyError as e:\n        return e",
         "def f(y):\n    try:\n        return y[0]\n    except KeyError as er:\n        return er",
         True),
        ("def fact(n):\n    return 1 if n < 2 else n * fact(n - 1)\n",
         "def g(n):\n    return 1 if n < 2 else n * g(n - 1)\n", True),
        ("def f(xs):\n    return max(xs)\n", "def f(xs):\n    return min(xs)\n", False),
        ("def f(s):\n    return s.upper()", "def f(s):\n    return s.lower()", False),
    ],
)  # fmt: skip
def test_names_are_renamed_scope_by_scope_and_builtins_and_attributes_keep_theirs(
    left, right, same
):
    assert (only_text(left) == only_text(right)) is same


def test_every_function_and_method_stands_alone():
    source = SUM_EVEN + "\nclass Solution:\n    def run(self, a):\n        return a\nprint(1)\n"
    assert set(similarity.canonical_functions(source)) == {"sum_even", "run"}
    assert only_text(SUM_EVEN) in similarity.canonical_functions(source).values()


@pytest.mark.parametrize(
    "source",
    [*(f"def f(x):\n    {body}\n" for body in ("pass", "...", '"""Doc."""',
                                               "raise NotImplementedError")),
     "", "def f(:", "function () { }", "\0", "x = " + "(" * 5000 + ")" * 5000],
)  # fmt: skip
def test_a_function_without_a_body_and_what_is_not_python_have_no_text(source):
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


@pytest.mark.parametrize("threshold, permutations", [(0.3, 16), (0.5, 128), (0.9, 33)])
def test_the_proposed_pairs_are_those_of_datasketch(threshold, permutations):
    datasketch = pytest.importorskip("datasketch")
    draw = random.Random(8)
    sets = [frozenset(str(draw.randrange(60)) for _ in range(draw.randrange(1, 30)))
            for _ in range(60)]  # fmt: skip
    index = datasketch.MinHashLSH(threshold=threshold, num_perm=permutations)
    sketches = [datasketch.MinHash(num_perm=permutations, seed=4) for _ in sets]
    for at, (sketch, one) in enumerate(zip(sketches, sets, strict=True)):
        sketch.update_batch([item.encode() for item in one])
        index.insert(at, sketch)
    theirs = [
        (i, j, value)
        for i, sketch in enumerate(sketches)
        for j in sorted(index.query(sketch))
        if (value := similarity.jaccard(sets[i], sets[j])) >= threshold
    ]
    found = similarity.near_duplicates(
        sets, sets, threshold=threshold, permutations=permutations, seed=4
    )
    assert found == theirs


def test_near_duplicates_repeat_under_one_seed_and_skip_empty_sets():
    left = [frozenset("abcdef"), frozenset()]
    how = dict(permutations=128, seed=7)
    first = similarity.near_duplicates(left, left, threshold=0.6, **how)
    assert first == similarity.near_duplicates(left, left, threshold=0.6, **how) == [(0, 0, 1.0)]
    with pytest.raises(ValueError, match="threshold"):
        similarity.near_duplicates(left, left, threshold=0.0, **how)
