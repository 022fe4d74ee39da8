"""Detectors that compare real rows with real tasks: each finds what it should, and says why."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from conftest import AUDIT

from rrtf import records, similarity
from rrtf.audit import detectors, verdict, views
from rrtf.audit.rows import Corpus, Row

LONG = "Return the sum of the squares of all numbers of a list that are not negative."
SOLUTION = "    return sum(x * x for x in xs if x >= 0)\n"


def task(task_id: str, text: str, body: str = SOLUTION, name: str = "f") -> Row:
    code = f"def {name}(xs):\n{body}"
    return Row(task_id, text, code, name, answer=body)


def row(task_id: str, text: str, code: str = "") -> Row:
    return Row(task_id, text, code, "g" * bool(code), answer=code)


def sides(rows, *tasks) -> tuple[Corpus, Corpus]:
    return Corpus(rows), Corpus.of_benchmarks({"b": tasks})


def found(leaks) -> set[tuple[str, str, str]]:
    return {(leak.task_id, leak.benchmark_task_id, leak.detector) for leak in leaks}


def test_a_description_inside_a_longer_row_is_a_substring_exact_or_normalised():
    rows = [
        row("verbatim", f"Please do this. {LONG} And be quick."),
        row("loose", f"Please do this: {LONG.upper()}\nAnd be quick."),
        row("reordered", "Of all numbers of a list return the sum of the squares."),
    ]
    leaks = detectors.substrings(*sides(rows, task("t", LONG, "    pass\n")), n=8)
    assert found(leaks) == {("verbatim", "t", "exact substring"),
                            ("verbatim", "t", "normalised substring"),
                            ("loose", "t", "normalised substring")}  # fmt: skip
    assert leaks[0].evidence.startswith("description, 16 words: return the sum of")


def test_a_solution_inside_a_longer_program_is_a_substring():
    code = f"import math\n\ndef g(xs):\n    print(xs)\n{SOLUTION}\nprint(g([1]))\n"
    (exact, loose) = detectors.substrings(
        *sides([row("r", "Other words.", code)], task("t", LONG)), n=8
    )
    assert (exact.detector, loose.detector) == detectors.SUBSTRINGS
    assert exact.evidence.startswith("solution, ")


def test_texts_of_fewer_words_than_asked_for_are_not_looked_for():
    rows = [row("r", "Now add one to it and go on with it.")]
    assert not detectors.substrings(*sides(rows, task("t", "Add one to it.", "")), n=5)
    assert detectors.substrings(*sides(rows, task("t", "Add one to it.", "")), n=4)


def test_every_substring_is_found_that_a_slow_search_finds():
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(list("abc"), size=n)) for n in rng.integers(2, 60, 60)]
    tasks = [task(f"t{i}", text, "") for i, text in enumerate(texts[:30])]
    rows = [row(f"r{i}", text) for i, text in enumerate(texts[30:])]
    slow = {(r.task_id, t.task_id) for r in rows for t in tasks
            if len(t.text.split()) >= 3 and f" {t.text} " in f" {r.text} "}  # fmt: skip
    leaks = detectors.substrings(*sides(rows, *tasks), n=3)
    assert {(leak.task_id, leak.benchmark_task_id) for leak in leaks} == slow and slow


def test_ngrams_that_tasks_share_identify_none_of_them():
    asks = "Write a function to find the area of a {}."
    tasks = [task(name, asks.format(name)) for name in ("rhombus", "pentagon", "hexagon")]
    rows = [row("circle", asks.format("circle")), row("own", asks.format("pentagon"))]
    leaks = detectors.ngram_overlap(*sides(rows, *tasks), n=5, share=0.6)
    assert found(leaks) == {("own", "pentagon", "5-gram")}
    again = [*tasks, task("same words", asks.format("pentagon"))]
    leaks = detectors.ngram_overlap(*sides(rows, *again), n=5, share=0.6)
    assert {leak.benchmark_task_id for leak in leaks} == {"pentagon", "same words"}
    assert detectors.too_short(Corpus([*tasks, task("short", "Find it.")]), 5) == ("short",)


def test_the_method_of_a_class_is_compared_by_its_code():
    body = "        total = 0\n        for x in xs:\n            total += x\n        return total\n"
    code = f"class Solution:\n    def add(self, xs):\n{body}"
    asked = Row("t", LONG, f"import math\n{code}", "Solution().add", answer=code)
    copy = code.replace("total", "s").replace("add", "plus").replace("xs", "values")
    (leak,) = detectors.same_code(*sides([row("r", "Other.", copy)], asked))
    assert leak.benchmark_task_id == "t" and leak.evidence.startswith("def v0(v1, v2):")


def test_neighbours_by_tfidf_are_those_of_shared_rare_words():
    tasks = [task("roman", "Convert a roman numeral to an integer."),
             task("prime", "Tell whether a number is prime."),
             task("sum", "Add all numbers of a list.")]  # fmt: skip
    rows = [row("near", "Write a program: convert an integer roman numeral."),
            row("far", "Which wine goes with fish and a number of herbs?")]  # fmt: skip
    leaks = detectors.neighbours(*sides(rows, *tasks), threshold=0.5)
    assert found(leaks) == {("near", "roman", "embedding")}
    same = detectors.neighbours(*sides([row("r", tasks[1].text)], *tasks), threshold=0.99)
    assert [round(leak.score, 4) for leak in same] == [1.0]


def test_a_row_of_unknown_words_resembles_no_task():
    ours, theirs = detectors.latent([["list", "qux", "quux"], [], ["list"]], [["list", "sum"]])
    cosines = ours @ theirs.T
    assert cosines[1, 0] == 0 and cosines[0, 0] < cosines[2, 0] <= 1


def test_the_latent_space_of_many_tasks_is_the_same_every_time():
    words = [[f"w{i % 97}", f"v{i * i % 131}", f"u{i % 7}", f"t{i}"] for i in range(400)]
    first, second = (detectors.latent(words[:50], words) for _ in range(2))
    assert first[0].shape == (50, detectors.DIMENSIONS)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    close = detectors.close(*first, 0.5)
    assert {(i, i) for i in range(50)} <= {(i, j) for i, j, _ in close}


def test_any_sentence_model_can_embed(monkeypatch):
    class Model:
        def __init__(self, name):
            self.axes = name.split("-")

        def encode(self, texts, show_progress_bar):
            return [[2.0 * text.count(axis) for axis in self.axes] for text in texts]

    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Model
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    rows, tasks = [row("r", "red red"), row("q", "blue")], [task("t", "red"), task("u", "none")]
    leaks = detectors.neighbours(
        *sides(rows, *tasks), threshold=0.9, embed=detectors.by_name("red-blue")
    )
    assert found(leaks) == {("r", "t", "embedding")}
    assert leaks[0].evidence == "sentence embeddings"


def test_a_sentence_model_without_its_package_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match="needs the package sentence-transformers"):
        detectors.by_name("any/model")


SETTINGS = replace(AUDIT, remove_on=("exact text", "code"))


def run(rows, tasks, **options) -> verdict.Audit:
    options = {"generic_nodes": 40, "settings": SETTINGS} | options
    return verdict.audit(rows, {"b": tasks}, behaviour={}, **options)


SHORT = "    return len(xs)\n"
LARGE = (
    "    best, run = 0, 0\n    for x in xs:\n        run = run + x if x > 0 else 0\n"
    "        if run > best:\n            best = run\n    return best - min(xs)\n"
)


def test_generic_code_is_chance_and_larger_code_a_leak():
    tasks = [task("small", LONG, SHORT), task("large", "Find the best run of a list.", LARGE)]
    rows = [row("a", "Count them.", "def g(v):\n    return len(v)\n"),
            row("b", "Do.", f"def g(xs):\n{LARGE}".replace("best", "top"))]  # fmt: skip
    sizes = [similarity.nodes(similarity.canonical_functions(t.code)["f"]) for t in tasks]
    assert sizes[0] < 40 <= sizes[1]
    result = run(rows, tasks)
    assert {(k.task_id, k.detector) for k in result.collisions} == {
        ("a", "code"), ("a", "minhash code")}  # fmt: skip
    assert dict(result.dropped) == {"b": "code"}
    assert "fewer than 40 nodes" in result.rule


def test_generic_code_under_the_same_words_is_a_leak():
    result = run([row("a", LONG, "def g(v):\n    return len(v)\n")], [task("small", LONG, SHORT)])
    assert not result.collisions and dict(result.dropped) == {"a": "exact text"}


def test_findings_of_an_execution_join_the_others_under_the_same_rule():
    tasks = [task("small", LONG, SHORT), task("large", "Find the best run of a list.", LARGE)]
    rows = [row("a", "Count them."), row("b", "Find the best run of a list")]
    assert "execution" not in run(rows, tasks).detectors
    passed = [records.Leak(r, "b", t, "execution", 1.0, "passes 3 of 3 tests")
              for r, t in (("a", "small"), ("b", "large"))]  # fmt: skip
    removing = replace(SETTINGS, remove_on=("execution",))
    result = run(rows, tasks, executed=passed, settings=removing)
    assert result.detectors[-1] == "execution"
    assert dict(result.dropped) == {"b": "execution"}
    assert [leak.task_id for leak in result.collisions if leak.detector == "execution"] == ["a"]
    assert result.rule.endswith(f"counts as a leak. {verdict.CHANCE_RULE}")


def test_tables_by_task_by_row_and_by_stage_count_the_same_leaks():
    tasks = [task("t", LONG), task("u", "Find the best run of a list.", LARGE)]
    rows = [row("a", LONG), row("b", LONG, f"def g(xs):\n{LARGE}"), row("c", "Nothing of it.")]
    exact = replace(SETTINGS, remove_on=("exact text",))
    stages = {"seeds": rows[2:], "final": rows}
    audits = {name: run(some, tasks, settings=exact) for name, some in stages.items()}
    by_task = {(r["benchmark"], r["task"]): r["rows"] for r in views.task_rows(audits["final"])}
    assert by_task == {("b", "t"): 2, ("b", "u"): 1}
    by_row = {r["row"]: (r["tasks"], r["removed"]) for r in views.row_rows(audits["final"])}
    assert by_row == {"a": (1, True), "b": (2, True)}
    first, last = views.stage_rows(audits)
    assert (first["set"], first["tasks leaked"], last["tasks leaked"]) == ("seeds", 0, 2)
    assert (last["exact text"], last["code"], last["rows leaking"]) == (1, 1, 2)
