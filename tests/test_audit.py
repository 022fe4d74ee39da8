"""Planted leaks are found, by the detector that should; what is clean stays."""

import copy
import os
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from conftest import AUDIT
from conftest import call as fenced_call

from rrtf import probes, store
from rrtf.audit import detectors, verdict, views
from rrtf.audit import plants as audit_plants
from rrtf.audit.rows import Corpus, Row, from_fields, from_problem, guess_fields
from rrtf.figures import charts, tables
from rrtf.records import Problem, Response


@dataclass(frozen=True)
class Returned:
    value: object
    error: str = ""


def call(programs, inputs):
    """The sandbox's `call` for programs written in this file."""
    return [tuple(_one(code, name, args) for args in inputs) for code, name in programs]


def _one(code, name, args):
    space = {}
    try:
        exec(code, space)
        return Returned(space[name](*copy.deepcopy(args)))
    except Exception as error:
        return Returned(None, type(error).__name__)


def problem(task_id: str, text: str, body: str, tests: str, name: str = "f", x: str = "xs"):
    return Problem(
        task_id=task_id,
        prompt=f'def {name}({x}):\n    """{text}\n    """\n',
        entry_point=name,
        tests=f"def check(candidate):\n    assert candidate({tests}) == 0\n",
        reference="".join(f"    {line}\n" for line in body.split("\n")),
    )


SUM_EVEN = "Return the sum of the even numbers of a list of integers. An empty list gives zero."
REVERSE = "Given a list of strings, reverse each word and join all of them with a single space."
TASKS = [
    problem("t/sum", SUM_EVEN, "return sum(x for x in xs if x % 2 == 0)", "[1, 2]"),
    problem("t/join", REVERSE, "return ' '.join(x[::-1] for x in xs)", "['a']"),
    problem("t/digits", "Sum the digits.", "return sum(int(d) for d in str(n))", "12", x="n"),
    problem("t/swap", "Swap the case of every letter.", "return s.swapcase()", "'aB'", x="s"),
    problem("t/top", "Name the key of the largest value.", "return max(d, key=d.get)",
            "{'a': 1}", x="d"),
]  # fmt: skip
LOOP = "total = 0\nfor v in values:\n    if v % 2 == 0:\n        total += v\nreturn total"
PLANTS = {
    "verbatim": replace(TASKS[0], task_id="verbatim"),
    "layout": problem("layout", REVERSE.upper().replace(", ", ",\n      "), "return xs", "['a']"),
    "renamed": problem("renamed", "Add up what two divides.",
                       "return sum(v for v in values if v % 2 == 0)", "[3]", "g", "values"),
    "restyled": problem("restyled", "Add up what two divides.", LOOP, "[3]", "g", "values"),
    "reordered": problem(
        "reordered",
        "An empty list gives zero. Return the sum of the even numbers of a list of integers.",
        "return 0", "[1, 2]",
    ),
    "clean": problem("clean", "Return the largest of the odd numbers.",
                     "return max(x for x in xs if x % 2)", "[1]"),
}  # fmt: skip


def rows(problems) -> list[Row]:
    return [from_problem(p) for p in problems]


def run(problems, tasks=TASKS, **options) -> verdict.Audit:
    train, held_out = rows(problems), rows(tasks)
    behaviour = detectors.observe([*train, *held_out], call, n_random=20, seed=1)
    return verdict.audit(train, {"test": held_out}, replace(AUDIT, **options), behaviour=behaviour)


def found(result: verdict.Audit, task_id: str) -> set[str]:
    return {leak.detector for leak in result.leaks if leak.task_id == task_id}


@pytest.fixture(scope="module")
def planted() -> verdict.Audit:
    return run(PLANTS.values(), ngram_share=0.5, minhash_threshold=0.6)


def test_a_verbatim_copy_is_found_by_every_detector(planted):
    assert found(planted, "verbatim") == set(planted.detectors)
    assert len(planted.detectors) == 12


def test_renamed_variables_are_found_by_code_and_behaviour(planted):
    assert {"code", "behaviour"} <= found(planted, "renamed")
    assert "exact text" not in found(planted, "renamed")


def test_a_restyled_solution_is_found_by_behaviour_alone(planted):
    assert found(planted, "restyled") == {"behaviour"}
    assert "restyled" in {leak.task_id for (leak,) in views.only_by(planted, "behaviour")}


def test_a_clean_row_is_found_by_nothing_and_stays(planted):
    assert found(planted, "clean") == set()
    assert "clean" not in planted.dropped


def test_changed_layout_and_case_are_found_by_normalised_text(planted):
    assert "normalised text" in found(planted, "layout")
    assert "exact text" not in found(planted, "layout")


def test_reordered_sentences_are_found_by_words_but_excused_when_the_programs_differ(planted):
    excused = {leak.detector for leak in planted.collisions if leak.task_id == "reordered"}
    assert {"5-gram", "minhash text"} <= excused
    assert found(planted, "reordered") == set()


def test_rows_in_are_rows_kept_and_rows_dropped_by_reason(planted):
    assert dict(planted.dropped) == {
        "verbatim": "exact text",
        "layout": "normalised text",
        "renamed": "code",
        "restyled": "behaviour",
    }
    counted = views.certificate(planted, {"test": rows(TASKS)}, {})["rows"]
    assert counted["in"] == counted["kept"] + sum(counted["dropped"].values()) == len(PLANTS)


def test_the_removal_policy_decides_what_goes():
    assert set(run([PLANTS["restyled"]], remove_on=["code"]).dropped) == set()
    assert run([PLANTS["verbatim"]], remove_on=["13-gram"]).dropped == {"verbatim": "13-gram"}


def test_the_evidence_of_an_ngram_leak_is_the_longest_shared_run():
    row = Row("r", "Please return the sum of the even numbers of a list, now")
    sides = Corpus([row]), Corpus.of_benchmarks({"b": rows(TASKS[:1])})
    (leak,) = detectors.ngram_overlap(*sides, n=5, share=0.4)
    assert leak.evidence == "return the sum of the even numbers of a list"
    assert leak.score == 6 / 13  # 10 shared words hold 6 of the 13 5-grams of 17 words
    assert detectors.ngram_overlap(*sides, n=5, share=0.6) == []


def test_tasks_too_short_for_an_ngram_are_listed():
    assert detectors.too_short(Corpus(rows(TASKS)), 8) == ("t/digits", "t/swap", "t/top")
    assert run([], remove_on=[]).too_short[5] == ("t/digits",)


def test_chance_agreement_on_the_fixed_probes_is_told_apart_by_random_ones():
    inputs = [args[0] for args in probes.probe_inputs(("list[int]",), n_random=0, seed=1)]
    trick = problem(
        "trick", "Known lists only.",
        f"if xs in {inputs!r}:\n    return sum(x for x in xs if x % 2 == 0)\nreturn -1", "[1]",
    )  # fmt: skip
    result = run([trick])
    assert "behaviour" not in found(result, "trick")
    assert [leak.detector for leak in result.collisions if leak.detector == "behaviour"]


def test_constant_functions_and_errors_are_no_behaviour():
    tasks = [problem("t/zero", "Return zero.", "return 0", "[1]"),
             problem("t/raise", "Fail.", "raise ValueError(xs)", "[1]")]  # fmt: skip
    same = [replace(t, task_id=f"r{i}", prompt=t.prompt.replace("xs", "ys").replace(".", "!?"))
            for i, t in enumerate(tasks)]  # fmt: skip
    result = run(same, tasks)
    assert not verdict.pairs([*result.leaks, *result.collisions], "behaviour")


def test_duplicates_inside_the_rows_are_grouped():
    result = run([PLANTS["renamed"], PLANTS["restyled"], PLANTS["clean"]])
    assert result.duplicates == (("renamed", "restyled"),)


def test_rows_that_behaviour_cannot_judge_are_listed():
    without = replace(PLANTS["clean"], reference="")
    broken = replace(PLANTS["clean"], task_id="broken", reference="    raise KeyError(xs)\n")
    assert run([without, broken, PLANTS["renamed"]]).unseen == {
        "rows": ("clean", "broken"),
        "test": (),
    }


def test_an_identical_program_runs_once():
    seen = []

    def counting(programs, inputs):
        seen.extend(programs)
        return call(programs, inputs)

    detectors.observe(rows([TASKS[0], replace(TASKS[0], task_id="again")]), counting,
                  n_random=0, seed=1)  # fmt: skip
    assert len(seen) == 1


def test_the_same_audit_twice_gives_the_same_findings(planted):
    assert run(PLANTS.values(), ngram_share=0.5, minhash_threshold=0.6) == planted


def test_the_agreement_matrix_is_symmetric_and_counts_pairs_on_its_diagonal(planted):
    matrix = views.agreement_matrix(planted)
    assert matrix == [list(column) for column in zip(*matrix, strict=True)]
    table = views.detector_rows(planted)
    assert [matrix[i][i] for i in range(len(matrix))] == [row["pairs"] for row in table]


def test_the_worst_pair_is_the_one_most_detectors_found(planted):
    worst = views.worst_pairs(planted, 3)
    assert worst[0][0].task_id == "verbatim"
    assert len(worst[0]) == len(planted.detectors)
    title, left, right = views.compare(worst, rows(PLANTS.values()), {"test": rows(TASKS)})[0]
    assert title.startswith("verbatim and t/sum: exact text (1.00), normalised text")
    assert left == right == TASKS[0].prompt + TASKS[0].reference


def test_answers_show_each_program_on_each_probe():
    members = dict(zip("ab", rows([PLANTS["renamed"], PLANTS["clean"]]), strict=True))
    behaviour = detectors.observe(list(members.values()), call, n_random=2, seed=1)
    shown = views.answers(members, behaviour, n_random=2, seed=1)
    assert len(shown) == probes.N_FIXED + 2
    assert {"arguments": "[1, 2, 3, 4, 5, 6]", "a": "12", "b": "5"} in shown


def test_the_nearest_task_by_behaviour_comes_with_the_resemblance_of_its_words():
    train, held_out = rows([PLANTS["restyled"]]), rows(TASKS)
    behaviour = detectors.observe([*train, *held_out], call, n_random=20, seed=1)
    (near,) = views.nearest(train, held_out, behaviour)
    assert (near.benchmark_task_id, near.agreement) == ("t/sum", 1.0)
    assert 0.0 <= near.resemblance < 0.3


@pytest.fixture(scope="module")
def nano_problems() -> list[Problem]:
    spec = "ints: keep_even > square"
    text = "Keep the even numbers. Then return the squares of them."
    body = "ys = [x for x in xs if x % 2 == 0]\nreturn [y * y for y in ys]"
    made = problem("nano/1", text, body, "[1, 2]")
    return [replace(made, spec=spec)]


def test_disguises_keep_the_function_and_change_the_words(nano_problems):
    (original,) = rows(nano_problems)
    for name, plants in audit_plants.planted(nano_problems, seed=1).items():
        (row,) = rows(plants)
        seen = detectors.observe([row, original], call, n_random=20, seed=1)
        assert seen[row] == seen[original], name
        assert (row.text == original.text) == (name == "copied")


def test_behaviour_recalls_every_disguise_and_exact_text_only_the_copy(nano_problems):
    table = audit_plants.recall_rows(nano_problems, call, AUDIT, n_random=20)
    assert [row["behaviour"] for row in table] == [1.0] * len(table)
    assert [row["exact text"] for row in table] == [1.0, 0.0, 0.0, 0.0]
    assert audit_plants.recall_rows([], call, AUDIT, n_random=20) == []


def test_only_problems_with_a_specification_can_be_disguised():
    with pytest.raises(ValueError, match="t/sum"):
        audit_plants.planted(TASKS, seed=1)


def test_wrong_arguments_name_the_mistake():
    with pytest.raises(ValueError, match="'telepathy'"):
        run([PLANTS["clean"]], remove_on=["telepathy"])
    with pytest.raises(ValueError, match="clean: occurs more than once"):
        run([PLANTS["clean"], PLANTS["clean"]])
    with pytest.raises(ValueError, match="no program was observed"):
        verdict.audit(rows([PLANTS["clean"]]), {"test": rows(TASKS)}, AUDIT, behaviour={})


def test_free_rows_take_the_last_function_as_their_program():
    row = {"instruction": "Add.", "input": "", "output": "def a(x):\n    return x\ndef b(y):\n"
           "    return y + 1\nprint(b(1))"}  # fmt: skip
    fields = guess_fields([row], where="file")
    read = from_fields(row, task_id="r/0", fields=fields)
    assert (read.entry_point, read.text) == ("b", "Add.")
    with pytest.raises(ValueError, match=r"f:3: no text in field 'output', but int"):
        from_fields(row | {"output": 3}, task_id="r/0", fields=fields, where="f:3")


def test_humaneval_copied_into_the_rows_is_found_again_and_nothing_else():
    folder = Path(os.environ.get("RRTF_DATA", ""))
    path = folder / "humaneval" / "HumanEval.jsonl.gz"
    if not os.environ.get("RRTF_DATA") or not path.exists():
        pytest.skip("RRTF_DATA names no folder with humaneval")
    tasks = store.read(path, Problem)
    copies = [replace(t, task_id=f"copy/{i}") for i, t in enumerate(tasks)]
    settings = replace(AUDIT, remove_on=("exact text", "code"))
    result = verdict.audit(rows(copies), {"humaneval": rows(tasks)}, settings, behaviour={})
    own = {(f"copy/{i}", t.task_id) for i, t in enumerate(tasks)}
    for name in ("exact text", "normalised text", "minhash text", "minhash code"):
        pairs = {(row, task) for row, _, task in verdict.pairs(result.leaks, name)}
        assert own <= pairs and len(pairs - own) <= 4, name
    assert len(result.dropped) == len(tasks)


def test_the_sandbox_sees_what_the_programs_return():
    members = rows([*TASKS, *PLANTS.values()])
    fenced = partial(fenced_call, workers=1, isolation="none")
    seen = detectors.observe(members, fenced, n_random=4, seed=1)
    assert seen == detectors.observe(members, call, n_random=4, seed=1)


def test_the_pictures_show_every_detector(planted):
    found = charts.found_and_chance(views.detector_rows(planted))
    heat = charts.heat(planted.detectors, views.agreement_matrix(planted), "both")
    for figure in (found, heat):
        ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert ticks == list(planted.detectors)


def test_the_words_and_behaviour_picture_counts_the_rows_of_each_kind():
    near = [views.Neighbour("a", "x", 1.0, 0.1), views.Neighbour("b", "x", 0.5, 0.9)]
    legend = charts.words_and_behaviour(near).axes[0].get_legend()
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["other function (1)", "same function (1)"]


def test_pairs_side_by_side_mark_what_is_shared_and_escape_the_rest():
    shown = tables.side_by_side([("a < b", "if x < 1: return one two", "while x < 1: stop")]).data
    assert "a &lt; b" in shown
    assert shown.count(';color:inherit">x &lt; 1:</mark>') == 2
    assert "No pairs" in tables.side_by_side([]).data


def test_what_is_out_of_sight_is_counted(planted):
    counted = {row["what"]: row["count"] for row in views.out_of_sight(planted)}
    assert counted["tasks that no 8-gram finds: too short, or all shared with others"] == 3
    assert counted["rows that repeat another's function"] == 2


def test_one_leak_shows_two_programs_with_one_set_of_answers(nano_problems):
    text, shown = audit_plants.one_leak([*TASKS, *nano_problems], call, n_random=3, seed=1)
    assert len(text) == 1 and text[0][1] != text[0][2]
    assert all(row["held out"] == row["disguised"] for row in shown)
    assert audit_plants.one_leak(TASKS, call, n_random=3, seed=1) == ([], [])


def test_a_wrong_answer_that_solves_a_held_out_problem_is_found():
    asked = PLANTS["clean"]
    texts = ["    return max(x for x in xs if x % 2)\n", f"    {TASKS[0].reference.strip()}\n"]
    right, wrong = (
        Response(asked.task_id, "teacher", index, text, asked.prompt + text)
        for index, text in enumerate(texts)
    )
    sets = {"all": [right, wrong], "right": [right]}
    how = dict(told=asdict(AUDIT) | {"random_probes": 20}, call=call)
    found = verdict.audit_answers(sets, [asked], {"test": TASKS}, **how)
    assert list(found["all"].dropped) == ["clean#teacher-1"]
    assert {leak.benchmark_task_id for leak in found["all"].leaks} == {"t/sum"}
    assert not found["right"].dropped and found["right"].n_rows == 1
    stranger = replace(right, task_id="another")
    with pytest.raises(ValueError, match="another: an answer, but no such problem"):
        verdict.audit_answers({"all": [stranger]}, [asked], {"test": TASKS}, **how)
