"""The engines that ask a server, replay, and what is said when an engine cannot be had.

vLLM is a double of its server; the real one was not at hand (see `scripted_vllm`).
"""

import json
import shutil
import warnings

import pytest
from conftest import drawn
from scripted_endpoint import ScriptedEndpoint
from scripted_vllm import ScriptedVllm, letters
from serving import chat_copy, transformers_serve
from typer.testing import CliRunner

from rrtf import config, engines, prompts, store
from rrtf.__main__ import app
from rrtf.engines import endpoint
from rrtf.engines.endpoint import AskingEngine, Reply, completion, make_asks
from rrtf.records import Problem

SAMPLED = {"n": 3, "temperature": 0.8, "top_p": 0.9, "max_new_tokens": 40, "stops": (), "seed": 5}
GREEDY = SAMPLED | {"n": 1, "temperature": 0.0}


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    for name in ("OPENAI_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RRTF_HOME", str(tmp_path / "home"))


def opened(server, folder, model="m", **options) -> engines.Generator:
    kind = "vllm" if isinstance(server, ScriptedVllm) else "openai"
    return engines.open_engine(f"{kind}@{server.url}", model, replies=folder, **options)


# --- what is asked -----------------------------------------------------------------------------


def test_every_sample_is_a_request_with_a_seed_of_its_own(tmp_path):
    with ScriptedEndpoint() as server:
        rows = opened(server, tmp_path).generate(["a", "b", "a"], **drawn(**SAMPLED))
    assert len({one.text for row in rows for one in row}) == 9, "a prompt twice: other samples"
    assert len({body["seed"] for body in server.bodies}) == 9
    assert {body["seed"] < 2**31 for body in server.bodies} == {True}


def test_the_seeds_of_a_prompt_do_not_depend_on_the_prompts_beside_it():
    alone = make_asks(["b"], **drawn(**SAMPLED))
    assert make_asks(["a", "b"], **drawn(**SAMPLED))[3:] == alone
    assert make_asks(["b"], **drawn(**SAMPLED | {"n": 5}))[:3] == alone
    assert make_asks(["b"], **drawn(**SAMPLED | {"seed": 6})) != alone


def test_a_greedy_answer_has_no_seed_and_is_asked_for_once(tmp_path):
    with ScriptedEndpoint() as server:
        engine = opened(server, tmp_path)
        first = engine.generate(["a", "a"], **drawn(**GREEDY))
        assert engine.generate(["a", "a"], **drawn(**GREEDY | {"seed": 6})) == first
    assert server.asked == {("a", 0): 1}


def test_a_server_may_read_special_tokens_in_a_prompt_which_is_said(tmp_path):
    with ScriptedEndpoint() as server:
        engine = opened(server, tmp_path)
        with pytest.warns(engines.Note, match="1 of 2 prompts hold what looks like a special"):
            engine.generate(["a", engines.Message("b <|im_end|>")], **drawn(**GREEDY))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            engine.generate(["a | b", "x < y > z"], **drawn(**GREEDY))


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("ab\nc", "length", ("ab", "stop")),
        ("ab\nc", "stop", ("ab", "stop")),
        ("ab", "stop", ("ab", "stop")),
        ("ab", "length", ("ab", "length")),
        ("ab", "content_filter", ("ab", "content_filter")),
    ],
)
def test_a_reply_is_cut_at_the_first_stop_sequence_whatever_the_server_did(text, reason, expected):
    one = completion(Reply(text, reason, 3, 4), ["c", "\n"])
    assert (one.text, one.finish_reason) == expected and one.n_tokens == 4


def test_a_remote_engine_is_given_the_message_and_a_text_as_it_is(tmp_path):
    problem = Problem("t", "def f(x):\n", "f", ())
    spelled = "openai@http://127.0.0.1:1/v1"
    message = engines.asker("nowhere", "chat", away=engines.remote(spelled))(problem)
    raw = engines.asker("nowhere", "starcoder", away=engines.remote(spelled))(problem)
    (chat,), (text,) = make_asks([message], **drawn(**GREEDY)), make_asks([raw], **drawn(**GREEDY))
    assert chat.messages == (("user", str(message)),) and not chat.prompt
    assert text.prompt == "def f(x):" and not text.messages
    with pytest.raises(FileNotFoundError, match="nowhere"):
        engines.asker("nowhere", "chat")


# --- what goes wrong ---------------------------------------------------------------------------


def test_a_server_that_draws_no_samples_is_told_of():
    def same(asks):
        return [Reply(f"of {one.prompt}", "stop", 1, 1) for one in asks]

    asked = list("abcdefgh")
    with pytest.warns(UserWarning, match=r"the 3 samples of every prompt are one text.*do_sample"):
        AskingEngine("openai-m", same).generate(asked, **drawn(**SAMPLED))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AskingEngine("openai-m", same).generate(asked, **drawn(**GREEDY))
        AskingEngine("openai-m", same).generate(asked, **drawn(**SAMPLED | {"temperature": 0.1}))


def test_a_prompt_that_the_server_refuses_has_no_answer_and_the_others_have(tmp_path):
    kinds = {"b": "400", "c": "a refusal"}
    with ScriptedEndpoint(lambda prompt, number: kinds.get(prompt, "ok")) as server:
        engine = opened(server, tmp_path, concurrency=1)
        rows = engine.generate(["a", "b", "c"], **drawn(**GREEDY))
    assert [row[0].finish_reason for row in rows] == [
        "stop", engines.NO_ROOM, "refused: HTTP 422: not such a text",
    ]  # fmt: skip


def test_requests_that_stay_without_reply_are_an_error_that_says_why(tmp_path):
    with ScriptedEndpoint(lambda prompt, number: "500") as server:
        engine = opened(server, tmp_path, attempts=1)
        with pytest.raises(OSError, match=r"no reply to 3 of 3 requests.*HTTP 500: out of luck"):
            engine.generate(["a"], **drawn(**SAMPLED))


def test_a_server_that_does_not_score_names_the_engines_that_do(tmp_path):
    engine = engines.open_engine("openai@http://127.0.0.1:1/v1", "m", replies=tmp_path)
    with pytest.raises(ValueError, match="transformers, ctranslate2, gptbigcode and vllm do"):
        engine.score(["a"], ["b"])


# --- recordings --------------------------------------------------------------------------------


def test_a_recording_answers_without_a_server_and_names_what_it_does_not_have(tmp_path):
    with ScriptedEndpoint() as server:
        rows = opened(server, tmp_path / "a" / "b").generate(["x", "y"], **drawn(**SAMPLED))
    replay = engines.open_engine(f"replay@{tmp_path}", "m", replies=tmp_path / "unused")
    assert replay.generate(["y"], **drawn(**SAMPLED)) == rows[1:]
    assert replay.generate(["y"], **drawn(**SAMPLED | {"n": 2})) == [rows[1][:2]]
    for more in ({"seed": 6}, {"stops": ("x",)}, {"max_new_tokens": 41}, {"n": 4}):
        with pytest.raises(ValueError, match=r"no recorded reply of 'm' to 'y' at temperature 0.8"):
            replay.generate(["y"], **drawn(**SAMPLED | more))
    other = engines.open_engine(f"replay@{tmp_path}", "other")
    with pytest.raises(ValueError, match="no recorded reply of 'other'"):
        other.generate(["y"], **drawn(**SAMPLED))
    with pytest.raises(FileNotFoundError, match="no recorded replies"):
        engines.open_engine(f"replay@{tmp_path / 'nowhere'}", "m")


def test_without_a_folder_of_their_own_replies_go_to_the_users_cache(tmp_path):
    with ScriptedEndpoint() as server:
        rows = engines.open_engine(f"openai@{server.url}", "m").generate(["x"], **drawn(**GREEDY))
    cache = tmp_path / "home" / "cache" / "replies"
    assert engines.open_engine(f"replay@{cache}", "m").generate(["x"], **drawn(**GREEDY)) == rows


# --- vLLM --------------------------------------------------------------------------------------


def test_the_samples_of_a_prompt_come_in_one_request_with_all_that_decides_them(tmp_path):
    with ScriptedVllm() as server:
        engine = opened(server, tmp_path)
        rows = engine.generate(
            ["a", "b"], **drawn(**SAMPLED | {"stops": ["1", "2", "3", "4", "5"]})
        )
    assert [path for path, _ in server.requests] == ["/v1/completions"] * 2
    request = next(request for _, request in server.requests if request["prompt"] == "a")
    seed = request.pop("seed")
    assert request == {
        "model": "m", "prompt": "a", "n": 3, "temperature": 0.8, "top_p": 0.9, "max_tokens": 40,
        "stop": ["1", "2", "3", "4"], "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "return_token_ids": True,
    }  # fmt: skip
    sent = [letters("a", False, seed + k, request)[0] for k in range(3)]
    assert [one.text for one in rows[0]] == [text.partition("5")[0] for text in sent]
    assert len({one.text for one in rows[0]}) == 3


def test_tokens_are_counted_with_the_stop_sequence_and_without_the_end_of_text(tmp_path):
    with ScriptedVllm() as server:
        engine = opened(server, tmp_path)
        whole = engine.generate(["a"], **drawn(**SAMPLED))[0][0]
        assert (whole.n_tokens, whole.finish_reason) == (len(whole.text), "stop")
        cut = engine.generate(["a"], **drawn(**SAMPLED | {"stops": [whole.text[3]]}))[0][0]
        before = whole.text.partition(whole.text[3])[0]
        assert (cut.text, cut.n_tokens, cut.finish_reason) == (before, len(before) + 1, "stop")
        short = engine.generate(["a"], **drawn(**SAMPLED | {"max_new_tokens": 4}))[0][0]
        assert (short.text, short.n_tokens, short.finish_reason) == (whole.text[:4], 4, "length")


def test_a_message_goes_to_the_chat_endpoint_and_a_text_does_not(tmp_path):
    with ScriptedVllm() as server:
        engine = opened(server, tmp_path)
        engine.generate([engines.Message("a"), "a"], **drawn(**SAMPLED))
    said = {path: request.get("messages") for path, request in server.requests}
    message = [{"role": "user", "content": "a"}]
    assert said == {"/v1/chat/completions": message, "/v1/completions": None}


def test_what_a_killed_run_has_is_not_asked_for_again_and_replays_without_the_server(tmp_path):
    with ScriptedVllm() as server:
        engine = opened(server, tmp_path)
        rows = engine.generate(["a", "b"], **drawn(**SAMPLED))
        (journal,) = tmp_path.rglob("replies.jsonl")
        journal.write_text("".join(journal.read_text().splitlines(True)[:4]))
        before = len(server.requests)
        again = opened(server, tmp_path)
        assert again.generate(["a", "b"], **drawn(**SAMPLED)) == rows
        assert [request["n"] for _, request in server.requests[before:]] == [2]
    replay = engines.open_engine(f"replay@{tmp_path}", "m")
    assert replay.generate(["b", "a"], **drawn(**SAMPLED)) == rows[::-1]


def test_scores_are_those_of_the_answers_own_tokens(tmp_path):
    with ScriptedVllm() as server:
        engine = opened(server, tmp_path)
        scores = engine.score(["ab", "c"], ["de", ""])
    assert scores == [(pytest.approx(-(ord("d") + ord("e")) / 100), 2), (0.0, 0)]
    request = next(request for path, request in server.requests if "completions" in path)
    assert request["prompt"] == [256, *b"abde"], "a first token before the prompt alone"
    said = pytest.raises(FileNotFoundError, match=r"no model 'm' there.*it serves starcoder")
    with ScriptedVllm(model="starcoder") as server, said:
        opened(server, tmp_path).score(["a"], ["b"])


def test_a_folder_is_recorded_by_its_content_and_another_in_its_place_is_asked_anew(
    tiny_model, tmp_path
):
    folder, replies = tmp_path / "model", tmp_path / "replies"
    shutil.copytree(tiny_model, folder)
    assert engines.served_name("vllm", folder) == engines.served_name("replay@x", tiny_model)
    assert engines.served_name("vllm", "owner/name") == "owner/name"
    with ScriptedVllm(model=str(folder)) as server:
        engine = opened(server, replies, folder)
        rows = engine.generate(["a"], **drawn(**SAMPLED))
        replay = engines.open_engine(f"replay@{replies}", tiny_model)
        assert replay.generate(["a"], **drawn(**SAMPLED)) == rows
        (folder / "config.json").write_text("{}")
        other = opened(server, replies, folder)
        other.generate(["a"], **drawn(**SAMPLED))
    assert len(server.requests) == 2 and other.name != engine.name


# --- spellings, and engines that cannot --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("openai", r"where\? with a place: openai@http://HOST"),
        ("replay", r"where\?"),
        ("vllm", r"where\? start a server, `vllm serve MODEL --port 8000`.*--engine vllm@http://"),
        ("transformers@here", "transformers runs here"),
        ("vlm@x", "unknown engine 'vlm@x': expected one of auto, .*vllm, openai, replay"),
        ("openai@localhost:8000", "expected an address like http://127.0.0.1:8000/v1"),
    ],
)
def test_an_engine_that_is_misspelt_is_told_how_it_is_spelled(name, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        engines.open_engine(name, "m").generate(["a"], **drawn(**GREEDY))
    with pytest.raises(ValueError, match="no model is named"):
        engines.open_engine("openai@http://127.0.0.1:1/v1", "", replies=tmp_path)


@pytest.mark.parametrize(
    ("engine", "kind", "words"),
    [
        ("gptbigcode", "llama", "engines that can: ctranslate2, transformers; vllm"),
        ("gptbigcode", "starcoder2", "engines that can: transformers; vllm"),
        ("ctranslate2", "starcoder2", "engines that can: transformers; vllm"),
        ("transformers", "t5", "no local engine can; vllm"),
        ("auto", "t5", "no local engine can; vllm"),
    ],
)
def test_an_engine_that_cannot_names_those_that_can(tiny_model, tmp_path, engine, kind, words):
    from transformers import AutoConfig

    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((tiny_model / file).read_bytes())
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind
    with pytest.raises(engines.UnsupportedModel, match=words):
        engines.open_engine(engine, tmp_path)


# --- a real server on this machine: `transformers serve` with the small student -----------------

PROMPTS = (
    'def double(n):\n    """Return two times n."""\n',
    'def shout(text):\n    """Return the text in upper case."""\n',
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(its address, the folder of the model); ended with the module."""
    folder = chat_copy(config.home() / "data" / "nano" / "models" / "student", tmp_path_factory)
    with transformers_serve(folder) as (_, url):
        yield url, folder


@pytest.mark.slow
def test_a_real_server_counts_tokens_as_its_model_does_and_has_no_other_model(served, tmp_path):
    url, folder = served
    asks = [endpoint.Ask((("user", prompt),), max_tokens=20) for prompt in PROMPTS]
    how = {"replies": tmp_path, "concurrency": 2}
    found = endpoint.ask(asks, endpoint=endpoint.Endpoint(url, "student"), **how)
    engine = engines.open_engine("transformers", folder)
    own = engine.generate(PROMPTS, **drawn(**GREEDY | {"top_p": 1.0, "max_new_tokens": 20}))
    with_end = [one.n_tokens + (one.finish_reason == "stop") for (one,) in own]
    assert [reply.completion_tokens for reply in found] == with_end
    counts = [len(prompts.prompt_ids(engine.tokenizer, prompt)) for prompt in PROMPTS]
    assert [reply.prompt_tokens for reply in found] == counts
    (reply,) = endpoint.ask(asks[:1], endpoint=endpoint.Endpoint(url, "teacher"), **how)
    assert reply.error == "HTTP 400: Server is pinned to 'student'; requested 'teacher'."


@pytest.mark.slow
def test_rows_are_evolved_through_a_real_server_and_every_one_is_accounted_for(served, tmp_path):
    code = "```python\ndef total(xs):\n    return sum(xs)\n```"
    tasks = ("Add up the numbers of a list.", "Compute what all items of a basket cost together.")
    store.write(tmp_path / "rows.jsonl", [{"instruction": t, "output": code} for t in tasks])
    out, dropped = tmp_path / "out.jsonl", tmp_path / "dropped.jsonl"
    asked = ["--engine", served[0], "--model", "student", "--max-new-tokens", "24"]
    command = ["evolve", tmp_path / "rows.jsonl", *asked, "--out", out, "--dropped", dropped]
    done = CliRunner().invoke(app, [*map(str, command), "--rounds", "1"])
    assert done.exit_code == 0, done.output
    kept = [row for _, row in store.read_rows(out)]
    gone = [row for _, row in store.read_rows(dropped)]
    assert {row["depth"] for row in kept if not row["parent_id"]} == {0}
    assert len(kept) + len(gone) == 4, "two seeds and what became of each"
    assert all(row["reason"] for row in gone)
