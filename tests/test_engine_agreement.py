"""One meaning of the options in every engine that is available, on the shipped student.

`openai` asks a real `transformers serve`; `vllm` a double of vLLM's server that answers with the
student; the others load it. `transformers` in float32 is what all are compared with.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import drawn
from scripted_vllm import ScriptedVllm
from serving import chat_copy, transformers_serve

from rrtf import config, engines, prompts
from rrtf.records import Problem

LOCAL = ("transformers", "ctranslate2", "gptbigcode")
NAMES = [*LOCAL, "vllm", pytest.param("openai", marks=pytest.mark.slow)]
GREEDY = {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 48, "stops": (), "seed": 0}
SAMPLED = GREEDY | {"n": 3, "temperature": 1.0, "top_p": 0.95, "max_new_tokens": 24, "seed": 3}
TASKS = {
    "double": "two times the number n",
    "shout": "the text in upper case",
    "total": "the sum of the numbers",
    "last": "the last item of the list, or None if it is empty",
    "evens": "how many of the numbers are even",
}
PROBLEMS = [
    Problem(name, f'def {name}(x):\n    """Return {words}.\n    """\n', name, ())
    for name, words in TASKS.items()
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return chat_copy(config.home() / "data" / "nano" / "models" / "student", tmp_path_factory)


@pytest.fixture(scope="module")
def engine_of(served, tmp_path_factory):
    """name -> (the spelling, the model it is opened with, the engine), each opened once."""
    opened: dict[str, tuple] = {}
    with ExitStack() as running:

        def open_as(name: str):
            if name not in opened:
                opened[name] = open_anew(name)
            return opened[name]

        def open_anew(name: str):
            if name in LOCAL:
                return name, served, engines.open_engine(name, served, dtype="float32")
            if name == "vllm":
                url = running.enter_context(
                    ScriptedVllm(answers(open_as("gptbigcode")[2], served))
                ).url
                spelled, model = f"vllm@{url}", "m"
            else:
                _, url = running.enter_context(transformers_serve(served))
                spelled, model = f"openai@{url}", served.name
            replies = {"replies": tmp_path_factory.mktemp("replies"), "concurrency": 1}
            return spelled, model, engines.open_engine(spelled, model, **replies)

        yield open_as


def answers(engine: engines.Generator, folder: Path):
    """What a vLLM that serves the model of `folder` would answer."""
    template = engines.chat_template(folder)

    def answer(prompt: str, chat: bool, seed: int, request: dict):
        asked = GREEDY | {name: request[name] for name in ("temperature", "top_p")}
        asked |= {"max_new_tokens": request["max_tokens"], "seed": seed}
        prompt = template(prompt) if chat else prompt
        ((whole,),) = engine.generate([prompt], **drawn(**asked))
        if "stop" not in request:
            return whole.text, whole.n_tokens, whole.finish_reason == "stop", None
        ((cut,),) = engine.generate([prompt], **drawn(**asked | {"stops": request["stop"]}))
        ended = cut == whole and cut.finish_reason == "stop"
        return cut.text, cut.n_tokens, ended, None if cut == whole else "a stop sequence"

    return answer


def texts(style: str, spelled: str, model) -> list[str]:
    ask = engines.asker(model, style, away=engines.remote(spelled))
    return [ask(problem) for problem in PROBLEMS]


@pytest.mark.parametrize("style", ["starcoder", "pangu", "chat"])
@pytest.mark.parametrize("name", NAMES)
def test_greedy_answers_are_the_same_in_every_engine_and_prompt_format(engine_of, name, style):
    spelled, model, engine = engine_of(name)
    asked = GREEDY | {"stops": prompts.stops(PROBLEMS, style)}
    found = engine.generate(texts(style, spelled, model), **drawn(**asked))
    reference = engine_of("transformers")
    expected = reference[2].generate(texts(style, *reference[:2]), **drawn(**asked))
    for (one,), (known,) in zip(found, expected, strict=True):
        assert (one.text, one.finish_reason) == (known.text, known.finish_reason)
        more = one.n_tokens - known.n_tokens
        assert more == 0 or (name == "openai" and more > 0), "such a server counts the end as well"
    assert len({one.text for (one,) in found}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_text_ends_before_the_earliest_of_many_stop_sequences(engine_of, name):
    spelled, model, engine = engine_of(name)
    asked = texts("starcoder", spelled, model)
    whole = engine.generate(asked, **drawn(**GREEDY))
    stops = ["never 1", "never 2", "never 3", "never 4", "n\n", "return"]
    cut = engine.generate(asked, **drawn(**GREEDY | {"stops": stops}))
    for (long,), (short,) in zip(whole, cut, strict=True):
        at = min((at for stop in stops if (at := long.text.find(stop)) >= 0), default=None)
        assert short.text == long.text[:at]
        assert short.finish_reason == ("stop" if at is not None else long.finish_reason)
    assert any(short != long for (short,), (long,) in zip(cut, whole, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_is_cut_by_length_says_so(engine_of, name):
    spelled, model, engine = engine_of(name)
    asked = texts("starcoder", spelled, model)[:1]
    ((short,),) = engine.generate(asked, **drawn(**GREEDY | {"max_new_tokens": 3}))
    assert (short.n_tokens, short.finish_reason) == (3, "length")


@pytest.mark.parametrize("name", NAMES)
def test_seeds_decide_samples_and_the_samples_of_a_prompt_differ(engine_of, name):
    spelled, model, engine = engine_of(name)
    asked = texts("starcoder", spelled, model)
    first = engine.generate(asked, **drawn(**SAMPLED))
    assert [len(row) for row in first] == [3] * len(asked)
    assert len({one.text for row in first for one in row}) > len(asked)
    assert engine.generate(asked, **drawn(**SAMPLED)) == first
    assert engine.generate(asked, **drawn(**SAMPLED | {"seed": 4})) != first


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LOCAL])
def test_a_server_gives_the_same_samples_again_and_the_recording_without_it(
    engine_of, name, tmp_path
):
    spelled, model, engine = engine_of(name)
    asked = texts("starcoder", spelled, model)
    first = engine.generate(asked, **drawn(**SAMPLED))
    anew = engines.open_engine(spelled, model, replies=tmp_path, concurrency=1)
    assert anew.generate(asked, **drawn(**SAMPLED)) == first
    replay = engines.open_engine(f"replay@{tmp_path}", model)
    assert replay.generate(asked, **drawn(**SAMPLED)) == first


@pytest.mark.parametrize("name", NAMES)
def test_options_out_of_range_and_an_empty_prompt_are_named_by_every_engine(engine_of, name):
    for change, words in (
        ({"n": 2}, "n = 2 at temperature 0"),
        ({"top_p": 0.0}, "top_p = 0"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0"),
        ({}, "prompt 1 is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            engine_of(name)[2].generate(["x", ""], **drawn(**GREEDY | change))
