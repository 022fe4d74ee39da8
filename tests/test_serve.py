"""A real server on this machine: `transformers serve` with the small student."""

from pathlib import Path

import pytest
from conftest import drawn
from serving import chat_copy, transformers_serve
from typer.testing import CliRunner

from rrtf import config, engines, prompts, store
from rrtf.__main__ import app
from rrtf.engines import endpoint
from rrtf.engines.endpoint import Ask, Endpoint, Reply

pytestmark = pytest.mark.slow

PROMPTS = (
    'def double(n):\n    """Return two times n."""\n',
    'def shout(text):\n    """Return the text in upper case."""\n',
    'def total(numbers):\n    """Return the sum of the numbers."""\n',
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(the running process, its address, the folder of the model); ended with the module."""
    folder = chat_copy(config.home() / "data" / "nano" / "models" / "student", tmp_path_factory)
    with transformers_serve(folder) as (process, url):
        yield process, url, folder


def asks() -> list[Ask]:
    return [Ask((("user", prompt),), max_tokens=20) for prompt in (*PROMPTS, PROMPTS[0])]


@pytest.fixture(scope="module")
def replies(served, tmp_path_factory) -> tuple[list[Reply], Path]:
    """The greedy replies of the server, and the folder that they are saved in."""
    folder = tmp_path_factory.mktemp("replies")
    place = Endpoint(served[1], "student")
    return endpoint.ask(asks(), endpoint=place, replies=folder, concurrency=2), folder


def test_a_real_server_gives_the_text_of_the_model_that_it_serves(served, replies):
    engine = engines.open_engine("transformers", served[2])
    greedy = {
        "n": 1, "temperature": 0.0, "top_p": 1.0, "seed": 0, "stops": (), "max_new_tokens": 20,
    }  # fmt: skip
    own = engine.generate(PROMPTS, **drawn(**greedy))
    found, _ = replies
    assert [reply.text for reply in found[:3]] == [one.text for (one,) in own]
    with_end = [one.n_tokens + (one.finish_reason == "stop") for (one,) in own]
    assert [reply.completion_tokens for reply in found[:3]] == with_end
    counts = [len(prompts.prompt_ids(engine.tokenizer, prompt)) for prompt in PROMPTS]
    assert [reply.prompt_tokens for reply in found[:3]] == counts
    assert [reply.finish_reason for reply in found[:3]] == [one.finish_reason for (one,) in own]
    assert found[3] == found[0]


def test_a_model_that_the_server_does_not_have_is_said_so(served, tmp_path):
    place = Endpoint(served[1], "teacher")
    (reply,) = endpoint.ask(asks()[:1], endpoint=place, replies=tmp_path, concurrency=2)
    assert reply.error == "HTTP 400: Server is pinned to 'student'; requested 'teacher'."


def test_rows_are_evolved_through_a_real_server_and_every_one_is_accounted_for(served, tmp_path):
    code = "```python\ndef total(xs):\n    return sum(xs)\n```"
    tasks = ("Add up the numbers of a list.", "Compute what all items of a basket cost together.")
    store.write(tmp_path / "rows.jsonl", [{"instruction": t, "output": code} for t in tasks])
    out, dropped = tmp_path / "out.jsonl", tmp_path / "dropped.jsonl"
    asked = ["--engine", served[1], "--model", "student", "--max-new-tokens", "24"]
    command = ["evolve", tmp_path / "rows.jsonl", *asked, "--out", out, "--dropped", dropped]
    done = CliRunner().invoke(app, [*map(str, command), "--rounds", "1"])
    assert done.exit_code == 0, done.output
    kept = [row for _, row in store.read_rows(out)]
    gone = [row for _, row in store.read_rows(dropped)]
    assert {row["depth"] for row in kept if not row["parent_id"]} == {0}
    assert len(kept) + len(gone) == 4, "two seeds and what became of each"
    assert all(row["reason"] for row in gone)


def test_when_the_server_is_gone_its_replies_remain(served, replies):
    process, url, _ = served
    process.kill()
    process.wait()
    found, folder = replies
    place = Endpoint(url, "student")
    assert endpoint.ask(asks(), endpoint=place, replies=folder, concurrency=2) == found
    with pytest.raises(ConnectionError, match="no connection in 2 attempts"):
        options = {"attempts": 2, "concurrency": 2}
        endpoint.ask([Ask((("user", "new"),))], endpoint=place, replies=folder, **options)
