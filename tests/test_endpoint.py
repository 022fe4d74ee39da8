"""Asking an endpoint: what comes back from a server that misbehaves, and what a killed run left."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from scripted_endpoint import BEHAVIOURS, ScriptedEndpoint, good, reply_text

from rrtf.engines import Note
from rrtf.engines import endpoint as client
from rrtf.engines.endpoint import (
    Ask,
    Endpoint,
    Journal,
    Reply,
    SpendLimit,
    check_address,
    is_loopback,
    key,
    parse,
    read,
    retry_after,
)

SECRET = "sk-test-5f1e9c-not-a-key"
FINAL = ("400", "401", "404", "308", "come back tomorrow", "a refusal")
LEAN = ("no usage", "no finish reason")  # replies with less in them
MENDABLE = [name for name in BEHAVIOURS if name not in FINAL + LEAN]


def one(prompt: str, **options) -> Ask:
    return Ask((("user", prompt),), **options)


def send(server: ScriptedEndpoint, asks: list[Ask], folder: Path, **options) -> list[Reply]:
    options = {"timeout": 20.0, "concurrency": 8, **options}
    return client.ask(asks, endpoint=Endpoint(server.url, "m"), replies=folder, **options)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / client.FILE).read_text().splitlines()]


def once(prompt: str, number: int) -> str:
    """The prompt names what the first request gets; every further one is answered."""
    return prompt.partition("/")[0] if number == 1 else "ok"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client, "BACKOFF", 0.02)


@pytest.fixture(scope="module")
def mended(tmp_path_factory):
    """(replies by behaviour, requests by behaviour, saved rows): each went wrong once."""
    folder = tmp_path_factory.mktemp("mended")
    with ScriptedEndpoint(once) as server:
        replies = send(server, [one(name) for name in MENDABLE], folder, timeout=5.0)
    asked = {name: server.asked[name, 0] for name in MENDABLE}
    return dict(zip(MENDABLE, replies, strict=True)), asked, rows(folder)


@pytest.mark.parametrize("behaviour", MENDABLE)
def test_whatever_goes_wrong_once_is_mended_by_the_second_attempt(mended, behaviour):
    replies, asked, saved = mended
    # A connection that its server has just closed may cost another attempt.
    assert asked[behaviour] in ((1,) if behaviour == "unasked bytes" else (2, 3))
    if behaviour != "unasked bytes":  # its first answer is whole, what follows is not looked at
        assert replies[behaviour] == Reply(reply_text(behaviour), "stop", 10, 5)
    name = key(one(behaviour), "m")
    assert [row["text"] for row in saved if row["key"] == name] == [replies[behaviour].text]


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory):
    """(replies by behaviour, the folder): each goes wrong every time."""
    folder, replies = tmp_path_factory.mktemp("hopeless"), {}
    mended = ("unasked bytes", "429 after 1 s", "429 for a moment")
    names = [name for name in MENDABLE if name not in mended]
    with ScriptedEndpoint(lambda prompt, number: prompt) as server:
        for at in range(0, len(names), 12):
            some = names[at : at + 12]
            got = send(server, [one(n) for n in some], folder, attempts=2, timeout=3.0)
            replies |= dict(zip(some, got, strict=True))
    assert all(server.asked[name, 0] == 2 for name in names)
    assert {reply.text for reply in replies.values()} == {""}, "never a text"
    assert all(reply.error for reply in replies.values())
    return replies, folder


@pytest.mark.parametrize(
    "behaviour, words",
    [
        ("500", "HTTP 500: out of luck"), ("429", "HTTP 429: too fast"),
        ("truncated JSON", "not whole JSON"), ("deep JSON", "not whole JSON"),
        ("an error with status 200", 'in place of a reply: {"message": "overloaded"'),
        ("no choices", "JSON without message (dict)"),
        ("counts that are words", "JSON without prompt_tokens (int)"),
        ("wrong content type", "not whole JSON"), ("compressed", "a compressed body"),
        ("cut stream", "peer closed connection"), ("no answer", "without sending a response"),
        ("reset", "ReadError"), ("slow", "no whole answer within 3 s"),
        ("dripping body", "no whole answer within 3 s"),
        ("endless body", "more than 1310720 bytes"),
        ("a length beyond memory", "more than 1310720 bytes"),
        ("a chunk beyond memory", "peer closed connection"),
    ],
)  # fmt: skip
def test_an_ask_without_a_reply_says_why_and_is_not_saved(hopeless, behaviour, words):
    replies, folder = hopeless
    assert replies[behaviour].text == "" and words in replies[behaviour].error
    assert "in 2 attempts" in replies[behaviour].error
    assert rows(folder) == []


def test_an_endless_answer_takes_no_more_memory_than_the_longest_valid_one(tmp_path):
    kinds = ("endless body", "a length beyond memory", "a chunk beyond memory")
    asks = [one(kind, max_tokens=16) for kind in kinds]
    with ScriptedEndpoint(lambda prompt, number: prompt) as server:
        send(server, asks[:1], tmp_path, attempts=1)  # what is loaded once and stays
        tracemalloc.start()
        send(server, asks, tmp_path, attempts=3, timeout=20.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * 3 * ((1 << 20) + 256 * 16)


def test_under_random_trouble_no_reply_is_lost_and_none_comes_twice(tmp_path):
    quick = [n for n in MENDABLE if not any(w in n for w in ("slow", "drip", "1 s", "unasked"))]
    draw = random.Random(0)
    fate = {f"{i}": [draw.choice(quick) for _ in range(draw.randrange(4))] for i in range(150)}

    def script(prompt: str, number: int) -> str:
        return fate[prompt][number - 1] if number <= len(fate[prompt]) else "ok"

    with ScriptedEndpoint(script) as server:
        replies = send(server, [one(n) for n in fate], tmp_path, concurrency=16)
    assert [reply.text for reply in replies] == [reply_text(name) for name in fate]
    assert all(server.asked[name, 0] > len(found) for name, found in fate.items())
    assert sorted(row["text"] for row in rows(tmp_path)) == sorted(reply_text(n) for n in fate)


def test_replies_come_in_the_order_of_the_asks_and_equal_asks_of_a_model_are_sent_once(tmp_path):
    asks = [one("b"), one("a"), one("b"), one("b", seed=7), one("a", temperature=0)]
    with ScriptedEndpoint() as server:
        replies = send(server, asks, tmp_path)
        assert server.asked == {("b", 0): 1, ("a", 0): 1, ("b", 7): 1}
        for model in ("n", "m"):
            place = Endpoint(server.url, model)
            client.ask([one("a")], endpoint=place, replies=tmp_path, concurrency=8)
    assert server.asked["a", 0] == 2, "the other model's"
    texts = [("b",), ("a",), ("b",), ("b", 7), ("a",)]
    assert [reply.text for reply in replies] == [reply_text(*one) for one in texts]


def test_the_request_holds_what_was_asked(tmp_path):
    ask = Ask((("system", "Be brief."), ("user", "hé")), 0.5, 0.9, 77, 3)
    with ScriptedEndpoint() as server:
        send(server, [ask], tmp_path)
    (head,) = (head for *_, head in server.requests)
    assert head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert "authorization" not in head.lower()
    assert server.bodies == [client.body([ask], Endpoint(server.url, "m"))]
    assert server.bodies[0] == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hé"}],
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 77, "seed": 3,
    }  # fmt: skip


def test_no_more_requests_are_under_way_than_allowed_and_as_many_as_allowed(tmp_path):
    with ScriptedEndpoint(service=0.05) as server:
        send(server, [one(str(i)) for i in range(24)], tmp_path, concurrency=6)
    assert server.most == 6 and server.connections == 6


def test_requests_per_minute_counts_retries_too(tmp_path):
    with ScriptedEndpoint(lambda prompt, number: "500" if number == 1 else "ok") as server:
        asks = [one(str(i)) for i in range(4)]
        send(server, asks, tmp_path, requests_per_minute=600, concurrency=4)
    starts = sorted(start for _, start, _, _ in server.requests)
    assert len(starts) == 8
    assert starts[-1] - starts[0] >= 7 * 0.1 - 0.05


@pytest.mark.parametrize("behaviour", ["closing", "hanging up"])
def test_a_server_that_closes_after_every_reply_answers_all_of_them(tmp_path, behaviour):
    with ScriptedEndpoint(lambda prompt, number: behaviour) as server:
        replies = send(server, [one(str(i)) for i in range(20)], tmp_path, concurrency=4)
    assert [reply.text for reply in replies] == [reply_text(str(i)) for i in range(20)]
    assert set(server.asked.values()) <= {1, 2} and server.connections >= 20


def test_attempts_that_the_server_puts_off_do_not_count(tmp_path):
    def script(prompt: str, number: int) -> str:
        return "429 for a moment" if number <= 12 else "ok"

    with ScriptedEndpoint(script) as server:
        (reply,) = send(server, [one("a")], tmp_path, attempts=2)
        assert reply.text == reply_text("a") and server.asked["a", 0] == 13
        server.script = lambda prompt, number: "429 for a moment"
        (reply,) = send(server, [one("b")], tmp_path, attempts=2)
    assert reply.error == "no reply in 20 attempts; the last: HTTP 429: too fast"


def test_a_retry_after_holds_back_all_requests(tmp_path):
    def script(prompt: str, number: int) -> str:
        return "429 after 1 s" if prompt == "0" and number == 1 else "ok"

    with ScriptedEndpoint(script, service=0.3) as server:
        send(server, [one(str(i)) for i in range(9)], tmp_path, concurrency=2)
    told = next(end for prompt, _, end, _ in server.requests if prompt == "0")
    starts = [start - told for _, start, _, _ in server.requests]
    assert max(starts) >= 1.0 and not [start for start in starts if 0.25 < start < 0.95]


@pytest.mark.parametrize(
    "value, seconds",
    [("7", 7), (" 2.5 ", 2.5), ("", 0), ("soon", 0), ("-3", 0), ("inf", 0), ("9" * 40, 0),
     ("Fri, 31 Dec 1999 23:59:59 GMT", 0)],
)  # fmt: skip
def test_a_retry_after_is_a_number_or_a_date(value, seconds):
    assert retry_after(value) == seconds
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=1))
    assert 50 < retry_after(later) <= 60


def test_pauses_double_up_to_a_minute_and_their_jitter_follows_from_the_ask(monkeypatch):
    monkeypatch.setattr(client, "BACKOFF", 1.0)
    pauses = [client.pause("a", number, doubled=number) for number in range(11)]
    assert pauses == [client.pause("a", number, doubled=number) for number in range(11)]
    assert pauses[0] != client.pause("b", 0, doubled=0)
    for number, pause in enumerate(pauses):
        assert 0.5 <= pause / min(60.0, 2.0**number) <= 1


def test_a_second_call_asks_only_for_what_is_missing(tmp_path):
    fails = {"2", "5"}
    with ScriptedEndpoint(lambda prompt, number: "400" if prompt in fails else "ok") as server:
        asks = [one(str(i)) for i in range(8)]
        first = send(server, asks, tmp_path)
        assert [i for i, reply in enumerate(first) if reply.error] == [2, 5]
        assert first[2].error == "HTTP 400: the prompt is too long"
        fails.clear()
        second = send(server, [*asks, one("8")], tmp_path)
    assert [reply.text for reply in second] == [reply_text(str(i)) for i in range(9)]
    assert all(server.asked[str(i), 0] == (2 if i in (2, 5) else 1) for i in range(9))


def test_replies_that_are_all_there_need_no_server_and_no_right_to_write(tmp_path):
    with ScriptedEndpoint() as server:
        first = send(server, [one("a"), one("b")], tmp_path)
    with Journal(tmp_path / client.FILE):  # so that nobody else can open it for writing
        assert send(server, [one("b"), one("a")], tmp_path) == first[::-1]  # the server is gone


def test_a_spend_limit_stops_before_it_is_exceeded_and_a_higher_one_goes_on(tmp_path):
    asks = [one(str(i), max_tokens=5) for i in range(40)]
    with ScriptedEndpoint() as server:
        with pytest.raises(SpendLimit, match=r"of at most 160 tokens .* of 40 asks were not sent"):
            send(server, asks, tmp_path, max_spend_tokens=160)
        came = len(rows(tmp_path))
        assert 15 * came <= 160 and 15 * came + 16 + 1 + 5 > 160 - 15  # no further one would fit
        with pytest.raises(SpendLimit):  # the limit is that of the folder, not of the call
            send(server, asks, tmp_path, max_spend_tokens=160)
        assert len(rows(tmp_path)) == came
        replies = send(server, asks, tmp_path, max_spend_tokens=10_000)
    assert [reply.text for reply in replies] == [reply_text(str(i)) for i in range(40)]
    assert set(server.asked.values()) == {1}


def test_progress_tells_asks_tokens_and_time(tmp_path):
    told = []
    with ScriptedEndpoint(service=0.1) as server:
        asks = [one(str(i)) for i in range(12)]
        send(server, asks, tmp_path, concurrency=2, progress=lambda *numbers: told.append(numbers))
    assert told[-1][:4] == (12, 12, 12 * 15, 0)
    middle = next(numbers for numbers in told if 0 < numbers[0] < 12)
    assert middle[2] == 15 * middle[0] and middle[3] == 15 * (12 - middle[0]) and middle[4] > 0
    assert [numbers[0] for numbers in told] == sorted(numbers[0] for numbers in told)


def test_an_error_of_progress_stops_the_work_and_is_raised(tmp_path):
    def fail(*numbers):
        raise RuntimeError("the bar broke")

    with ScriptedEndpoint(service=0.1) as server, pytest.raises(RuntimeError, match="bar broke"):
        send(server, [one(str(i)) for i in range(50)], tmp_path, concurrency=2, progress=fail)
    assert len(server.requests) < 50


# --- errors that no retry mends ----------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour, kind, words",
    [
        ("401", PermissionError, r"/v1 .*\$RRTF_TEST_KEY was not accepted.*HTTP 401: .*\(key\)"),
        ("404", FileNotFoundError, r"/v1: no model 'm' .*; it serves scripted, scripted-large"),
        ("308", OSError, r"/v1 refers to https://elsewhere.example/v1 \(HTTP 308\)"),
        ("come back tomorrow", OSError, r"/v1 asks to come back in 86400 s \(HTTP 429: daily"),
    ],
)
def test_what_no_retry_mends_is_raised_at_once_and_what_came_is_kept(
    tmp_path, monkeypatch, caplog, capfd, behaviour, kind, words
):
    monkeypatch.setenv("RRTF_TEST_KEY", SECRET)
    caplog.set_level("DEBUG")

    def script(prompt: str, number: int) -> str:
        return behaviour if prompt == "5" and number == 1 else "ok"

    with ScriptedEndpoint(script) as server:
        place = Endpoint(server.url, "m", "RRTF_TEST_KEY")
        asks = [one(str(i)) for i in range(10)]
        with pytest.raises(kind, match=words) as raised:
            client.ask(asks, endpoint=place, replies=tmp_path, concurrency=1)
        assert len(rows(tmp_path)) == 5
        replies = client.ask(asks, endpoint=place, replies=tmp_path, concurrency=8)
    assert [reply.text for reply in replies] == [reply_text(str(i)) for i in range(10)]
    assert all(server.asked[str(i), 0] == (2 if i == 5 else 1) for i in range(10))
    assert f"authorization: bearer {SECRET}" in server.requests[0][3].lower()
    everything = [str(raised.value), repr(raised.value), caplog.text, *capfd.readouterr()]
    everything += [path.read_text() for path in tmp_path.iterdir()]
    assert not [text for text in everything if SECRET in text]


def test_without_a_key_the_error_says_which_variable_to_set(tmp_path):
    told = r"there is no key in \$OPENAI_API_KEY \(set it\)"
    with ScriptedEndpoint(lambda *_: "401") as server, pytest.raises(PermissionError, match=told):
        send(server, [one("a")], tmp_path)


def test_an_address_where_nobody_answers_is_an_error_that_names_it(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ConnectionError, match=rf"{url}: no connection in 3 attempts "):
            client.ask(
                [one(str(i)) for i in range(30)],
                endpoint=Endpoint(url, "m"), replies=tmp_path, attempts=3, concurrency=8,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("behaviour", "good_ones", "words"),
    [("500", 10, "20 asks in a row .*out of luck"),
     ("400", 0, "20 asks in a row .*HTTP 400: the prompt is too long")],
)  # fmt: skip
def test_an_endpoint_that_fails_or_refuses_ask_after_ask_is_given_up(
    tmp_path, behaviour, good_ones, words
):
    def script(prompt: str, number: int) -> str:
        return behaviour if int(prompt) >= good_ones else "ok"

    with ScriptedEndpoint(script) as server:
        asks = [one(str(i)) for i in range(200)]
        with pytest.raises(OSError, match=rf"{server.url}: {words}"):
            send(server, asks, tmp_path, attempts=2, concurrency=4)
    assert len(server.requests) < 80 and len(rows(tmp_path)) == good_ones


def test_prompts_that_are_refused_side_by_side_do_not_stop_the_others(tmp_path):
    def script(prompt: str, number: int) -> str:
        return "ok" if int(prompt) % 50 == 0 else "400"

    with ScriptedEndpoint(script) as server:
        replies = send(server, [one(str(i)) for i in range(120)], tmp_path, concurrency=1)
    assert sum(not reply.error for reply in replies) == 3


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "http://a/v 1", "http://ä/v1", "ftp://a/v1", "http://",
     "http://a:99999999/v1", "http://a/v1?x=1"],
)  # fmt: skip
def test_what_is_no_address_is_said_to_be_none(tmp_path, url):
    with pytest.raises(ValueError, match="address"):
        client.ask([one("a")], endpoint=Endpoint(url, "m"), replies=tmp_path / "new", concurrency=8)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("secret", [f"{SECRET}\nX: y", f"Bearer {SECRET}", "schlüssel"])
def test_a_key_that_no_header_can_carry_and_a_password_in_an_address_are_refused_unshown(
    tmp_path, monkeypatch, secret
):
    with ScriptedEndpoint() as server:
        monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET} ")  # a blank at the end is the shell's
        assert send(server, [one("a")], tmp_path)[0].text
        monkeypatch.setenv("OPENAI_API_KEY", secret)
        with pytest.raises(ValueError, match=r"\$OPENAI_API_KEY holds no key") as raised:
            send(server, [one("b")], tmp_path)
    assert SECRET not in str(raised.value)
    with pytest.raises(ValueError, match="the key belongs in the environment") as raised:
        check_address(f"http://me:{SECRET}@a.example/v1")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "ask, words",
    [
        (Ask(()), "ask 2: expected either messages or a prompt"),
        (Ask((("user", 3),)), "ask 2: messages"),
        (one("a", temperature=float("nan")), "ask 2: temperature = nan"),
        (one("a", top_p=0.0), "ask 2: top_p = 0.0"),
        (one("a", max_tokens=0), "ask 2: max_tokens = 0"),
    ],
)
def test_an_ask_that_nobody_could_answer_is_named(tmp_path, ask, words):
    place = Endpoint("http://127.0.0.1:1/v1", "m")
    with pytest.raises(ValueError, match=words):
        client.ask([one("fine"), ask], endpoint=place, replies=tmp_path, concurrency=8)


@pytest.mark.parametrize(
    "option",
    [{"concurrency": 0}, {"attempts": 0}, {"timeout": 0}, {"max_spend_tokens": -1},
     {"requests_per_minute": -1}],
)  # fmt: skip
def test_options_out_of_range_are_named(tmp_path, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        place = Endpoint("http://a/v1", "m")
        client.ask([], endpoint=place, replies=tmp_path, **{"concurrency": 8} | option)


# --- what a reply may hold ---------------------------------------------------------------------


def test_what_a_reply_holds_is_read_or_said_to_be_missing():
    answer = good("x")
    choice = answer["choices"][0]
    choice["message"]["content"] = "a\ud83d b\ud83d\ude00"
    pairs = parse(json.dumps(answer).encode())[0].text
    assert pairs == "a\N{REPLACEMENT CHARACTER} b😀", "halves of pairs are replaced"
    choice |= {"message": {"content": None}, "finish_reason": "length"}
    assert parse(json.dumps(answer).encode()) == [Reply("", "length", 10, 5)]
    del choice["message"]["content"]
    with pytest.raises(ValueError, match="JSON without content"):
        parse(json.dumps(answer).encode())


def test_replies_without_usage_or_reason_are_replies(tmp_path):
    with ScriptedEndpoint(lambda prompt, number: prompt) as server:
        replies = send(server, [one(name) for name in LEAN], tmp_path)
        assert replies == [Reply(reply_text("x"), "stop", 0, 0), Reply("x", "stop", 10, 5)]
        assert send(server, [one(name) for name in LEAN], tmp_path) == replies
        with pytest.raises(SpendLimit, match="does not tell the tokens of its replies"):
            send(server, [one("no usage", seed=1)], tmp_path / "b", max_spend_tokens=5000)


@pytest.mark.parametrize("field", ["seed", "max_tokens", "temperature"])
def test_a_server_is_asked_again_without_a_field_that_it_does_not_take(tmp_path, field):
    with ScriptedEndpoint(lambda prompt, number: f"takes no {field}") as server:
        asks = [one("a", seed=7, max_tokens=9, temperature=0.5), one("b", seed=7)]
        with pytest.warns(Note, match=rf"is asked without {field}.*Unsupported") as told:
            replies = send(server, asks, tmp_path, concurrency=1)
    assert len(told) == 1 and not any(reply.error for reply in replies)
    assert [field in sent for sent in server.bodies] == [True, False, False]
    both = "takes no seed, max_tokens"
    with ScriptedEndpoint(lambda *_: both) as neither, pytest.warns(Note) as told:
        assert not send(neither, [one("c")], tmp_path)[0].error
    assert len(told) == 2 and len(neither.bodies) == 3, "asked without both"
    named = "max_completion_tokens"
    assert [sent.get(named) for sent in server.bodies[1:]] == (
        [9, 1024] if field == "max_tokens" else [None, None]
    )


@pytest.mark.parametrize(
    "refusal",
    ["temperature: must be between 0 and 2", "max_tokens is too large: 9000", "no such stop"],
)
def test_a_value_that_a_server_refuses_is_the_callers(refusal):
    sent = client.body([one("a")], Endpoint("http://x/v1", "m"))
    assert not client.Dialect("x").learn(f"HTTP 400: {refusal}", sent)


# --- ways to the server ------------------------------------------------------------------------


def test_no_proxy_stands_between_us_and_this_machine(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody answers
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedEndpoint() as server:
        assert send(server, [one("a")], tmp_path)[0].text == reply_text("a")
    assert is_loopback("::1") and is_loopback("localhost") and not is_loopback("models.example")


def test_another_machine_is_asked_through_the_proxy_of_the_environment(tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedEndpoint() as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:word@127.0.0.1:{proxy.port}")
        place = Endpoint("http://models.example:81/v1", "m")
        (reply,) = client.ask([one("a")], endpoint=place, replies=tmp_path, concurrency=8)
    head = proxy.requests[0][3]
    assert reply.text == reply_text("a") and "Host: models.example:81\r\n" in head
    assert head.startswith("POST http://models.example:81/v1/chat/completions HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic bWU6d29yZA==\r\n" in head


# --- ends that nobody chose --------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from rrtf.engines import endpoint
from rrtf.engines.endpoint import Ask, Endpoint, ask
endpoint.BACKOFF = 0.05
url, folder, n = sys.argv[1:]
asks = [Ask((("user", str(i)),)) for i in range(int(n))]
print("asking", flush=True)
replies = ask(asks, endpoint=Endpoint(url, "m"), replies=Path(folder), concurrency=8)
print(sum(not reply.error for reply in replies), flush=True)
"""


def child(server: ScriptedEndpoint, folder: Path, n: int) -> subprocess.Popen:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", CHILD, server.url, str(folder), str(n)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for(server: ScriptedEndpoint, n: int) -> None:
    end = time.monotonic() + 60
    while len(server.requests) < n and time.monotonic() < end:
        time.sleep(0.005)
    assert len(server.requests) >= n


def test_after_kill_9_no_reply_that_was_saved_is_asked_for_again(tmp_path):
    n, kills = 300, 4
    saved_at_kill: dict[str, int] = {}
    keys = {key(one(str(i)), "m"): str(i) for i in range(n)}

    def script(prompt: str, number: int) -> str:
        return "500" if int(prompt) % 10 == 3 and number == 1 else "ok"

    with ScriptedEndpoint(script, service=0.02) as server:
        for kill in range(1, kills + 1):
            with child(server, tmp_path, n) as process:
                wait_for(server, kill * 50)
                process.send_signal(signal.SIGKILL)
            time.sleep(0.1)  # what is under way arrives at nobody
            text = (tmp_path / client.FILE).read_bytes().decode()
            for line in text.splitlines(True)[:-1]:
                name = keys[json.loads(line)["key"]]
                saved_at_kill.setdefault(name, server.asked[name, 0])
        with child(server, tmp_path, n) as process:
            assert process.stdout.read().split() == ["asking", str(n)]
    assert len(saved_at_kill) >= 100
    assert {name: server.asked[name, 0] for name in saved_at_kill} == saved_at_kill
    found = rows(tmp_path)
    assert sorted(row["key"] for row in found) == sorted(keys)
    assert all(row["text"] == reply_text(keys[row["key"]]) for row in found)
    troubled = sum(1 for i in range(n) if i % 10 == 3)
    repeated = sum(server.asked[str(i), 0] for i in range(n)) - n - troubled
    assert repeated <= 8 * kills  # what was under way at a kill, and nothing else


def test_ctrl_c_ends_at_once_and_the_next_call_goes_on(tmp_path):
    with ScriptedEndpoint(lambda prompt, number: "slow" if prompt == "7" else "ok") as server:
        with child(server, tmp_path, 40) as process:
            wait_for(server, 40)
            time.sleep(0.2)
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(60)
        assert time.monotonic() - started < 20 and process.returncode != 0
        assert len(rows(tmp_path)) == 39
        server.script = lambda prompt, number: "ok"
        assert all(reply.text for reply in send(server, [one(str(i)) for i in range(40)], tmp_path))
    assert all(server.asked[str(i), 0] == (2 if i == 7 else 1) for i in range(40))


def test_a_line_torn_by_a_kill_is_cut_off_and_asked_for_again(tmp_path):
    asks = [one(str(i)) for i in range(5)]
    with ScriptedEndpoint() as server:
        send(server, asks, tmp_path, concurrency=1)
        file = tmp_path / client.FILE
        file.write_bytes(file.read_bytes()[:-7])
        replies = send(server, asks, tmp_path)
    assert [r.text for r in replies] == [reply_text(str(i)) for i in range(5)]
    assert [server.asked[str(i), 0] for i in range(5)] == [1, 1, 1, 1, 2]
    assert len(rows(tmp_path)) == 5


def test_two_runs_never_pay_for_the_same_folder_at_once(tmp_path):
    with ScriptedEndpoint(service=0.5) as server:
        first = threading.Thread(target=send, args=(server, [one("a")], tmp_path))
        first.start()
        while not server.here and first.is_alive():
            time.sleep(0.01)
        with pytest.raises(OSError, match=r"replies\.jsonl: another process is writing to it"):
            send(server, [one("a")], tmp_path)
        first.join()
    assert server.asked["a", 0] == 1


def test_replies_that_another_run_brought_meanwhile_are_taken(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    with ScriptedEndpoint() as server:
        send(server, [one("a")], tmp_path / "theirs")
        theirs, opened = (tmp_path / "theirs" / client.FILE).read_bytes(), client.Journal

        def late(path: Path) -> Journal:
            path.write_bytes(theirs)  # they finish between our look and our lock
            return opened(path)

        monkeypatch.setattr(client, "Journal", late)
        assert send(server, [one("a")], tmp_path)[0].text == reply_text("a")
    assert server.asked["a", 0] == 1


def test_a_full_disk_stops_the_work_and_leaves_whole_lines(tmp_path, monkeypatch):
    real = os.write

    def write(file: int, data: memoryview) -> int:
        if b"reply" in bytes(data) and os.fstat(file).st_size > 500:
            real(file, data[:10])
            raise OSError(28, "No space left on device")
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    with ScriptedEndpoint() as server:
        asks = [one(str(i)) for i in range(20)]
        with pytest.raises(OSError, match=r"cannot write .*replies\.jsonl: No space left"):
            send(server, asks, tmp_path, concurrency=2)
        found = rows(tmp_path)
        assert found and all(row["text"].startswith("reply") for row in found)
        monkeypatch.undo()
        assert all(reply.text for reply in send(server, asks, tmp_path))


def test_a_certificate_that_nobody_vouches_for_is_an_error_and_a_known_one_is_none(
    tmp_path, monkeypatch
):
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl program to make a certificate")
    import asyncio
    import ssl

    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out",
         tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    start = asyncio.start_server
    monkeypatch.setattr(asyncio, "start_server", lambda *a, **k: start(*a, ssl=context, **k))
    with ScriptedEndpoint() as server:
        place = Endpoint(f"https://localhost:{server.port}/v1", "m")
        with pytest.raises(OSError, match="its certificate is not trusted"):
            client.ask([one("a")], endpoint=place, replies=tmp_path / "replies", concurrency=8)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        asks = [one(str(i)) for i in range(6)]
        replies = client.ask(asks, endpoint=place, replies=tmp_path / "replies", concurrency=2)
    assert [reply.text for reply in replies] == [reply_text(str(i)) for i in range(6)]


# --- the journal: whole lines after whatever happens, one writer at a time ----------------------


def test_rows_come_back_in_the_order_of_their_coming(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    assert list(read(path)) == []
    for part in range(3):
        with Journal(path) as journal:
            journal.append({"part": part, "text": "naïve\n✓"})
    assert list(read(path)) == [{"part": part, "text": "naïve\n✓"} for part in range(3)]


@pytest.mark.parametrize("lost", range(1, 24))
def test_a_last_line_without_its_end_is_not_read_and_is_cut_off(tmp_path, lost):
    path = tmp_path / "rows.jsonl"
    with Journal(path) as journal:
        journal.append({"a": 1})
        journal.append({"text": "0123456"})
    whole = path.read_bytes()
    assert len(whole.splitlines()[1]) == 19
    path.write_bytes(whole[:-lost])
    rows = [{"a": 1}] if lost <= 20 else []
    assert list(read(path)) == rows
    with Journal(path) as journal:
        journal.append({"b": 2})
    assert list(read(path)) == [*rows, {"b": 2}]


@pytest.mark.parametrize("torn", [b'{"text": "' + b"x" * 200_000, bytes(4096)])  # a power cut
def test_a_torn_line_longer_than_a_look_is_found_to_its_beginning(tmp_path, torn):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn)
    with Journal(path) as journal:
        journal.append({"b": 2})
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'


@pytest.mark.parametrize("line", [b"nonsense", b'{"a": ', b"[1]", b"\x00", b'{"a": "\xff"}'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: .*delete the line to go on"):
        list(read(path))
    (tmp_path / client.FILE).write_text('{"key": "a", "text": "b", "finish_reason": "stop"}\n')
    place = Endpoint("http://127.0.0.1:9/v1", "m")
    with pytest.raises(ValueError, match=r"replies\.jsonl:1: no reply: JSON without prompt_tokens"):
        client.ask([one("a")], endpoint=place, replies=tmp_path, concurrency=8)


def test_a_journal_has_one_writer_and_any_number_of_readers(tmp_path):
    path = tmp_path / "rows.jsonl"
    with Journal(path) as journal:
        journal.append({"a": 1})
        with pytest.raises(OSError, match="another process is writing to it"):
            Journal(path)
        assert list(read(path)) == [{"a": 1}]
    with Journal(path):
        pass
    with pytest.raises(OSError, match=r"rows\.jsonl"):  # a place that cannot be written
        Journal(path / "rows.jsonl")
