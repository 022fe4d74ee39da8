"""A double of vLLM's server: what its documented API says, with answers of our choosing.

Written after vLLM's documentation and the protocol classes of its version 0.32.0, which took our
requests for texts, chats and scores, and whose answers our client took; the server itself was never
run with this package. `n` answers with the seeds `seed`, `seed`
+ 1, ..., cut at a stop sequence that `stop_reason` names, `token_ids` with the end token where
asked for, `prompt_logprobs` by token, `/tokenize` beside `/v1`. In a test: `with
ScriptedVllm(answer) as server`.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# (prompt or message, whether chat, seed, request) ->
# (text, number of tokens, whether it ended by itself, the stop sequence that ended it)
Answer = Callable[[str, bool, int, dict], tuple[str, int, bool, str | None]]


def letters(prompt: str, chat: bool, seed: int, request: dict) -> tuple[str, int, bool, str | None]:
    """A token per letter; the text tells whose answer it is."""
    drawn = seed if request["temperature"] else 0
    whole = hashlib.sha256(f"{prompt}/{drawn}/{chat}".encode()).hexdigest()[:12]
    text = whole[: request["max_tokens"]]
    found = [(text.find(stop), stop) for stop in request.get("stop", []) if stop in text]
    if found:
        at, stop = min(found)
        return text[:at], at + len(stop), False, stop
    return text, len(text), len(whole) < request["max_tokens"], None


class ScriptedVllm:
    """The server in threads of this process; `requests` are the (path, body) that came."""

    def __init__(self, answer: Answer = letters, *, model: str = "m"):
        self.answer, self.model = answer, model
        self.requests: list[tuple[str, dict]] = []
        handler = type("Handler", (_Handler,), {"double": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> "ScriptedVllm":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def reply(self, path: str, request: dict) -> tuple[int, dict]:
        self.requests.append((path, request))
        if request["model"] != self.model:
            return 404, {"error": {"message": f"The model `{request['model']}` does not exist."}}
        if path == "/tokenize":
            tokens = [256] * request["add_special_tokens"] + list(request["prompt"].encode())
            return 200, {"tokens": tokens, "count": len(tokens)}
        chat = path == "/v1/chat/completions"
        prompt = request["messages"][-1]["content"] if chat else request["prompt"]
        if request.get("prompt_logprobs") is not None:
            choice = {"index": 0, "text": "?", "finish_reason": "length"}
            choice["prompt_logprobs"] = [None, *map(_ranked, prompt[1:])]
            return 200, _response([choice], len(prompt), 1)
        every = [self._choice(prompt, chat, k, request) for k in range(request["n"])]
        return 200, _response(every, len(prompt), sum(len(one["token_ids"]) for one in every))

    def _choice(self, prompt: str, chat: bool, k: int, request: dict) -> dict:
        text, count, ended, stop = self.answer(prompt, chat, request["seed"] + k, request)
        choice = {"index": k, "token_ids": [7] * count + [0] * ended, "stop_reason": stop}
        choice["finish_reason"] = "stop" if ended or stop else "length"
        content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return choice | content


def _ranked(token: int) -> dict:
    """The token's own log-probability, minus its number, beside the likeliest one."""
    return {str(token): {"logprob": -token / 100, "rank": 9}, "999": {"logprob": -0.1, "rank": 1}}


def _response(choices: list[dict], read: int, written: int) -> dict:
    return {"choices": choices, "usage": {"prompt_tokens": read, "completion_tokens": written}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: ScriptedVllm

    def _send(self, status: int, answer: dict) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": self.double.model}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(*self.double.reply(self.path, request))

    def log_message(self, *_: object) -> None:
        pass
