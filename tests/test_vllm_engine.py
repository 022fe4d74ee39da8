"""The engine vllm against a double of its server; the real one was not at hand (see the double)."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import drawn
from scripted_vllm import ScriptedVllm, letters

from rrtf import engines
from rrtf.engines import vllm

DOUBLE = Path(__file__).with_name("scripted_vllm.py")
SAMPLED = {"n": 3, "temperature": 0.8, "top_p": 0.9, "max_new_tokens": 40, "stops": (), "seed": 5}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("VLLM_API_KEY", "OPENAI_API_KEY", "RRTF_VLLM", "RRTF_VLLM_OPTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    """A `vllm` command in an environment of its own, which $RRTF_VLLM names."""
    path = tmp_path / "environment" / "bin" / "vllm"
    path.parent.mkdir(parents=True)
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {DOUBLE} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("RRTF_VLLM", str(path))
    return path


def wait_until(done, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether the process runs (one that ended but was not waited for does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def logged(log: Path) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in log.read_text().splitlines() if " " in line)


# --- pointed to --------------------------------------------------------------------------------


def test_the_samples_of_a_prompt_come_in_one_request_with_all_that_decides_them(tmp_path):
    with ScriptedVllm() as server:
        engine = engines.open_engine(f"vllm@{server.url}", "m", replies=tmp_path)
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
        engine = engines.open_engine(f"vllm@{server.url}", "m", replies=tmp_path)
        whole = engine.generate(["a"], **drawn(**SAMPLED))[0][0]
        assert (whole.n_tokens, whole.finish_reason) == (len(whole.text), "stop")
        cut = engine.generate(["a"], **drawn(**SAMPLED | {"stops": [whole.text[3]]}))[0][0]
        before = whole.text.partition(whole.text[3])[0]
        assert (cut.text, cut.n_tokens, cut.finish_reason) == (before, len(before) + 1, "stop")
        short = engine.generate(["a"], **drawn(**SAMPLED | {"max_new_tokens": 4}))[0][0]
        assert (short.text, short.n_tokens, short.finish_reason) == (whole.text[:4], 4, "length")


def test_a_message_goes_to_the_chat_endpoint_and_a_text_does_not(tmp_path):
    with ScriptedVllm() as server:
        engine = engines.open_engine(f"vllm@{server.url}", "m", replies=tmp_path)
        engine.generate([engines.Message("a"), "a"], **drawn(**SAMPLED))
    said = {path: request.get("messages") for path, request in server.requests}
    message = [{"role": "user", "content": "a"}]
    assert said == {"/v1/chat/completions": message, "/v1/completions": None}


def test_what_a_killed_run_has_is_not_asked_for_again_and_replays_without_the_server(tmp_path):
    with ScriptedVllm() as server:
        engine = engines.open_engine(f"vllm@{server.url}", "m", replies=tmp_path)
        rows = engine.generate(["a", "b"], **drawn(**SAMPLED))
        (journal,) = tmp_path.rglob("replies.jsonl")
        journal.write_text("".join(journal.read_text().splitlines(True)[:4]))
        before = len(server.requests)
        again = engines.open_engine(f"vllm@{server.url}", "m", replies=tmp_path)
        assert again.generate(["a", "b"], **drawn(**SAMPLED)) == rows
        assert [request["n"] for _, request in server.requests[before:]] == [2]
    replay = engines.open_engine(f"replay@{tmp_path}", "m")
    assert replay.generate(["b", "a"], **drawn(**SAMPLED)) == rows[::-1]


def test_scores_are_those_of_the_answers_own_tokens(tmp_path):
    with ScriptedVllm() as server:
        engine = engines.open_engine(f"vllm@{server.url}", "m", replies=tmp_path)
        scores = engine.score(["ab", "c"], ["de", ""])
    assert scores == [(pytest.approx(-(ord("d") + ord("e")) / 100), 2), (0.0, 0)]
    request = next(request for path, request in server.requests if "completions" in path)
    assert request["prompt"] == [256, *b"abde"], "a first token before the prompt alone"


def test_a_model_that_is_not_served_is_an_error_that_names_those_which_are(tmp_path):
    with ScriptedVllm(model="starcoder") as server:
        engine = engines.open_engine(f"vllm@{server.url}", "m", replies=tmp_path)
        for ask in (
            lambda: engine.generate(["a"], **drawn(**SAMPLED)),
            lambda: engine.score(["a"], ["b"]),
        ):
            with pytest.raises(FileNotFoundError, match=r"no model 'm' there"):
                ask()
        with pytest.raises(FileNotFoundError, match=r"it serves starcoder"):
            engine.generate(["a"], **drawn(**SAMPLED))


# --- started here ------------------------------------------------------------------------------


def test_a_server_of_ours_gets_its_options_its_own_environment_and_ends_with_the_engine(
    program, tmp_path, monkeypatch
):
    monkeypatch.setenv("RRTF_VLLM_OPTIONS", "--max-model-len 4096")
    monkeypatch.setenv("PYTHONPATH", "ours")
    engine = engines.open_engine("vllm", "owner/name", replies=tmp_path, tensor_parallel=2)
    (row,) = engine.generate(["a"], **drawn(**SAMPLED))
    assert len({one.text for one in row}) == 3 and engine.name == "vllm-owner/name"
    lines = logged(tmp_path / "vllm.log")
    told = json.loads(lines["told"])
    assert (told["model"], told["served_model_name"]) == ("owner/name", "owner/name")
    assert (told["host"], told["tensor_parallel_size"]) == ("127.0.0.1", 2)
    assert told["enable_prefix_caching"] is True and told["max_model_len"] == 4096
    seen = json.loads(lines["environment"])
    assert "PYTHONPATH" not in seen and seen["PATH"].startswith(f"{program.parent}:")
    pids = [int(pid) for pid in lines["pids"].split()]
    assert all(map(alive, pids))
    del engine
    wait_until(lambda: not any(map(alive, pids)))


CHILD = """
import sys, threading
from pathlib import Path
from rrtf import engines
opened = []
def work():
    opened.append(engines.open_engine("vllm", "m", replies=Path(sys.argv[1])))
thread = threading.Thread(target=work)
thread.start(); thread.join()
print("up", flush=True)
how = sys.argv[2]
if how == "exit": sys.exit(0)
if how == "error": raise RuntimeError
threading.Event().wait()
"""


@pytest.mark.parametrize("how", ["exit", "error", "kill -9", "Ctrl-C", "SIGTERM"])
def test_the_server_and_its_workers_end_with_our_process_however_that_ends(program, tmp_path, how):
    command = [sys.executable, "-c", CHILD, str(tmp_path), how]
    root = str(Path(__file__).resolve().parent.parent)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "up\n"
        pids = [int(pid) for pid in logged(tmp_path / "vllm.log")["pids"].split()]
        sent = {"kill -9": signal.SIGKILL, "Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}
        if how in sent:
            time.sleep(0.5)  # the thread that started the server is gone, and it goes on
            assert all(map(alive, pids))
            process.send_signal(sent[how])
    wait_until(lambda: not any(map(alive, pids)))


def test_the_server_ends_too_when_its_keeper_is_killed(program, tmp_path):
    server = vllm.Server("m", log=tmp_path / "log")
    main = int(logged(tmp_path / "log")["pids"].split()[0])
    server._process.kill()
    wait_until(lambda: not alive(main))
    os.kill(int(logged(tmp_path / "log")["pids"].split()[1]), signal.SIGKILL)  # vLLM's own do this


def test_a_server_that_ends_while_it_loads_is_an_error_with_the_end_of_its_log(
    program, tmp_path, monkeypatch
):
    monkeypatch.setenv("BROKEN", "while loading")
    with pytest.raises(OSError, match=r"(?s)exit code 1\).*vllm\.log.*No available memory"):
        engines.open_engine("vllm", "m", replies=tmp_path)


def test_a_server_that_ends_while_it_serves_is_an_error_with_the_end_of_its_log(
    program, tmp_path, monkeypatch
):
    monkeypatch.setenv("BROKEN", "while serving")
    server = vllm.Server("m", log=tmp_path / "log")
    engine = vllm.VllmEngine(server.place, replies=tmp_path, server=server, attempts=1)
    with pytest.raises(OSError, match=r"(?s)exit code 3\).*illegal memory access"):
        engine.generate(["a"], **drawn(**SAMPLED))


def test_a_server_that_does_not_come_up_in_time_is_ended_and_progress_is_told(
    program, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LOAD", "600")
    monkeypatch.setattr(vllm, "TELL", 0.5)
    with pytest.raises(OSError, match=r"vllm: m is not up after 4 s; the last lines"):
        vllm.Server("m", log=tmp_path / "log", start_seconds=4)
    assert "vllm: loading m, " in capsys.readouterr().err
    pids = [int(pid) for pid in logged(tmp_path / "log")["pids"].split()]
    wait_until(lambda: not any(map(alive, pids)))


def test_a_port_that_is_taken_is_an_error_that_names_the_way_out(program, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"port {port} of .* in use.*vllm@http"):
            engines.open_engine("vllm", "m", replies=tmp_path, port=port)


@pytest.mark.parametrize("value", [None, "", "/nowhere/bin/vllm"])
def test_without_its_environment_the_error_says_how_to_make_one(tmp_path, monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("RRTF_VLLM", value)
    with pytest.raises(FileNotFoundError, match=r"RRTF_VLLM.*pip install vllm.*vllm@http"):
        engines.open_engine("vllm", "m", replies=tmp_path)


def test_a_python_is_asked_for_its_vllm(program, monkeypatch):
    assert vllm.command() == [str(program), "serve"]
    monkeypatch.setenv("RRTF_VLLM", sys.executable)
    assert vllm.command()[1:] == ["-m", "vllm.entrypoints.cli.main", "serve"]


def test_a_folder_is_served_under_a_name_that_changes_with_its_content(tiny_model, tmp_path):
    import shutil

    folder = tmp_path / tiny_model.name
    shutil.copytree(tiny_model, folder)
    name = engines.served_name("vllm", folder)
    assert name == engines.served_name("replay@x", tiny_model) and name.startswith("model-")
    (folder / "config.json").write_text("{}")
    assert engines.served_name("vllm", folder) != name
    assert engines.served_name("vllm", "owner/name") == "owner/name"
