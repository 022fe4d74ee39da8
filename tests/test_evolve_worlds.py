"""Stage 01 either way: the same notebook, by the values of its parameters alone."""

import contextlib
import io

import pytest
from scripted_teacher import CODE, Teacher

from rrtf import config, store
from rrtf.engines import endpoint
from rrtf.evolve import offline, seeds
from rrtf.evolve.stage import grow, instruction_of, open_world
from rrtf.nano import evolution
from rrtf.nano.problems import build
from rrtf.records import Instruction, Problem

ADDRESS = "http://127.0.0.1:9/v1"


def _rows(count=24):
    """Tasks that share no three words in a row."""
    names = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnr"]
    return [
        {"instruction": f"Add {names[n]} to {names[n + 30]} and {names[n + 50]}.", "output": CODE}
        for n in range(count)
    ]


@pytest.fixture
def stage(tmp_path):
    """settings -> the stage, writing into `tmp_path`."""

    def open_stage(**settings):
        values = config.resolve("smoke", "evolve", {f"evolve.{k}": v for k, v in settings.items()})
        return store.Stage("01_evolve", "smoke", values, tmp_path)

    return open_stage


HOW = {"rounds": 1, "weights": dict.fromkeys(evolution.METHODS, 1), "seed": 3, "workers": 1}


@pytest.fixture
def small_world(monkeypatch):
    """Twelve nano seeds in the place of the whole small world, which takes longer to make."""
    problems = build("finetune", 16, shard_size=16, workers=2)[0]
    world = {"seeds": problems[:12], "evolvable": problems[:12], "train": problems[:12]}
    world |= {"validation": problems[12:14], "test": problems[14:]}
    monkeypatch.setattr(offline, "load_world", lambda stage, **_: world)
    return world


def test_without_a_model_the_stage_is_what_it_was(stage, small_world):
    opened = stage()
    world = open_world(opened, n_seeds=12, workers=1)
    grown = grow(opened, world, **HOW)
    assert world == small_world
    how = HOW | {"isolation": opened.settings["isolation"]}
    assert (grown.evolved, grown.dropped) == offline.evolve_problems(world["seeds"], **how)
    assert grown.train == grown.evolved and grown.test == world["test"] and not grown.rows


def test_nano_seeds_are_put_to_a_model_as_tasks_in_words(stage, small_world):
    opened = stage(engine=ADDRESS, model="m")
    world = open_world(opened, n_seeds=12, workers=1)
    teacher = Teacher()
    grown = grow(opened, world, ask=teacher, **HOW)
    assert all('"""' not in row.instruction and "def " in row.output for row in world["rows"])
    assert world["rows"][0].instruction in teacher.asks[0].messages[-1][1]
    assert grown.test == world["test"] and {p.depth for p in grown.train} == {1}
    assert {row.generator for row in grown.rows} == {"m"}


def test_families_of_a_file_are_held_out_whole(stage, tmp_path):
    store.write(tmp_path / "rows.jsonl", _rows())
    opened = stage(engine=ADDRESS, model="m", problems=str(tmp_path / "rows.jsonl"))
    world = open_world(opened, n_seeds=24, workers=1)
    grown = grow(opened, world, ask=Teacher(), **HOW)
    sets = (grown.train, grown.validation, grown.test)
    assert all(sets) and sum(map(len, sets)) == 48 and len(grown.evolved) == 24
    family = {row.task_id: row.seed_id for row in grown.rows}
    homes = [{family.get(p.task_id, p.task_id) for p in problems} for problems in sets]
    assert not (homes[0] & homes[1] or homes[0] & homes[2] or homes[1] & homes[2])
    assert str(tmp_path / "rows.jsonl") in opened.inputs


def test_a_problem_becomes_an_instruction_and_stays_the_same_function(add_problem):
    row = instruction_of(add_problem)
    assert row.instruction.startswith("Return the sum.") and row.seed_id == "toy/add"
    assert seeds.as_problem(row).entry_point == "add"
    prose = instruction_of(Problem("a/1", "Add two numbers.", "", ""))
    assert prose.instruction == "Add two numbers."


@pytest.mark.slow
def test_the_notebook_runs_through_an_endpoint_by_its_parameters_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_HOME", str(tmp_path / "home"))
    store.write(tmp_path / "rows.jsonl", _rows())
    teacher = Teacher()
    monkeypatch.setattr(endpoint, "ask", lambda asks, **_: teacher(asks))
    changed = {"profile": "smoke", "problems": str(tmp_path / "rows.jsonl"), "rounds": 1}
    changed |= {"engine": ADDRESS, "model": "m", "n_seeds": 24, "workers": 1}
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for cell in store.cells(config.home() / "notebooks" / "01_evolve.ipynb"):
            if cell["cell_type"] == "code":
                exec(store.text(cell), names)
            if cell["id"] == "parameters":
                names |= changed
    folder = config.run_dir("smoke") / "01_evolve"
    rows = store.read(folder / "families.jsonl", Instruction)
    assert len(rows) == 24 and all(row.generator == "m" for row in rows)
    assert store.read(folder / "train.jsonl", Problem) and (folder / "manifest.json").exists()
    assert "Turn the programming task below" in said.getvalue()
