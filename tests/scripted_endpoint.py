"""A double of an OpenAI-compatible endpoint that misbehaves on schedule, and counts.

In a test: `with ScriptedEndpoint(script) as server`, where `script(prompt, number)` names what the
`number`th request (from 1) with this prompt gets: one of `BEHAVIOURS`, a refusal of fields that it
has (`takes no seed, max_tokens`), or a good reply (`ok`; with
the connection closed after it: `closing`, and `hanging up` without a word). As a program it serves
good replies after a fixed time (`--service SECONDS`) and prints its port; `GET /v1/times` then
tells when each request was received and answered.
"""

import argparse
import asyncio
import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

JSON = "application/json"
KEY_ECHOED = "the key you sent is wrong:"


def reply_text(prompt: str, seed: int = 0) -> str:
    """The good reply, which tells what it replies to."""
    return f"reply {hashlib.sha256(f'{prompt}/{seed}'.encode()).hexdigest()[:12]} naïve ✓"


Words = Callable[[str, int], str]  # of a prompt and a seed


def good(prompt: str, seed: int = 0, words: Words = reply_text) -> dict:
    """The body of a good reply: 10 prompt tokens, 5 of completion."""
    message = {"role": "assistant", "content": words(prompt, seed)}
    return {
        "id": "1",
        "object": "chat.completion",
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


def http(status: int, body: bytes, kind: str = JSON, more: str = "", length: int = -1) -> bytes:
    """A whole HTTP answer; `length` is what it claims to have."""
    size = len(body) if length < 0 else length
    head = f"HTTP/1.1 {status} Word\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n{more}\r\n"
    return head.encode() + body


def error(status: int, text: str, more: str = "") -> bytes:
    return http(status, json.dumps({"error": {"message": text}}).encode(), more=more)


async def _endless(writer: asyncio.StreamWriter, head: bytes, piece: bytes) -> None:
    writer.write(head)
    while True:
        writer.write(piece)
        await writer.drain()


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    """One byte at a time, so that no single wait is long and the answer never ends."""
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)
    await asyncio.sleep(3600)


async def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


CHUNKED = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
EVENTS = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
CUT = "closes the connection"


def bad(fields: dict) -> bytes:
    return http(200, json.dumps(good("x") | fields).encode())


# What is sent instead of a good reply. Bytes that say less than they claim end the connection.
BEHAVIOURS: dict[str, bytes | Callable] = {
    "500": error(500, "out of luck"),
    "503": error(503, "loading"),
    "429": error(429, "too fast"),
    "429 after 1 s": error(429, "too fast", "Retry-After: 1\r\n"),
    "429 for a moment": error(429, "too fast", "Retry-After: 0.01\r\n"),
    "429 after nonsense": error(429, "too fast", "Retry-After: soon\r\n"),
    "truncated JSON": http(200, json.dumps(good("x")).encode()[:-20]),
    "JSON of another kind": http(200, b"[1, 2, 3]"),
    "deep JSON": http(200, b"[" * 100_000),
    "an error with status 200": http(200, b'{"error": {"message": "overloaded", "code": 502}}'),
    "no choices": bad({"choices": []}),
    "no usage": bad({"usage": None}),
    "no finish reason": bad({"choices": [{"message": {"content": "x"}, "finish_reason": None}]}),
    "a refusal": error(422, "not such a text"),
    "counts that are words": bad({"usage": {"prompt_tokens": "1", "completion_tokens": True}}),
    "empty body": http(200, b""),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "wrong content type": http(200, b"<html>please log in</html>", "text/html"),
    "event stream": http(200, EVENTS, "text/event-stream"),
    "compressed": http(200, b"\x1f\x8b", more="Content-Encoding: gzip\r\n"),
    "cut stream": http(200, json.dumps(good("x")).encode()[:40], length=400) + CUT.encode(),
    "cut chunk": CHUNKED + b"400\r\n{" + CUT.encode(),
    "no answer": CUT.encode(),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n" + CUT.encode(),
    "a length beyond memory": http(200, b"{", length=10**15),
    "a chunk beyond memory": CHUNKED + b"FFFFFFFFFFFF\r\n{" + CUT.encode(),
    "reset": _reset,
    "slow": lambda writer: asyncio.sleep(3600),
    "dripping body": lambda writer: _drip(writer, http(200, b" " * 9000)),
    "endless body": lambda writer: _endless(writer, CHUNKED, b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "unasked bytes": http(200, json.dumps(good("x")).encode()) + b"HTTP/1.1 200 OK\r\n",
    "400": error(400, "the prompt is too long"),
    "401": error(401, KEY_ECHOED),
    "404": error(404, "no such model"),
    "308": http(308, b"", more="Location: https://elsewhere.example/v1\r\n"),
    "come back tomorrow": error(429, "daily limit", "Retry-After: 86400\r\n"),
}


class ScriptedEndpoint:
    """The server in a thread of its own. `requests` has (prompt, start, end, headers) of each.

    `bodies` are what was sent, `asked` counts requests by prompt and seed; `most` is the most
    requests at a time. A good reply is `words(prompt, seed)`.
    """

    def __init__(
        self,
        script: Callable[[str, int], str] | None = None,
        *,
        service: float = 0.0,
        words: Words = reply_text,
    ):
        self.script, self.service = script or (lambda prompt, number: "ok"), service
        self.words = words
        self.requests: list[tuple[str, float, float, str]] = []
        self.bodies: list[dict] = []
        self.asked: Counter[tuple[str, int]] = Counter()
        self.here = self.most = self.connections = 0

    def __enter__(self) -> "ScriptedEndpoint":
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self, started: threading.Event) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            with suppress(asyncio.CancelledError):
                runner.run(self.serve(started.set))

    async def serve(self, ready: Callable[[], None], port: int = 0) -> None:
        self._task = asyncio.current_task()
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while await self._answer(reader, writer):
                    pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((line for line in head.lower().split("\r\n") if "content-length" in line), "")
        body = await reader.readexactly(int(length.partition(":")[2] or 0))
        if head.startswith("GET"):
            writer.write(http(200, json.dumps(self._told(head.split()[1])).encode()))
            return True
        self.here += 1
        self.most = max(self.most, self.here)
        try:
            return await self._reply(head, json.loads(body), writer)
        finally:
            self.here -= 1

    def _told(self, path: str) -> object:
        if path == "/v1/models":
            return {"data": [{"id": "scripted"}, {"id": "scripted-large"}]}
        return [(start, end) for _, start, end, _ in self.requests]

    async def _reply(self, head: str, request: dict, writer: asyncio.StreamWriter) -> bool:
        start = time.monotonic()
        prompt = request.get("prompt") or request["messages"][-1]["content"]
        name = prompt, request.get("seed", 0)
        self.bodies.append(request)
        self.asked[name] += 1
        behaviour = self.script(prompt, self.asked[name])
        if self.service:
            await asyncio.sleep(self.service)
        self.requests.append((prompt, start, time.monotonic(), head))
        more = "Connection: close\r\n" if behaviour == "closing" else ""
        answer = good(*name, self.words)
        if "prompt" in request:
            answer["choices"][0]["text"] = answer["choices"][0].pop("message")["content"]
        done = BEHAVIOURS.get(behaviour, http(200, json.dumps(answer).encode(), more=more))
        for field in behaviour.removeprefix("takes no ").split(", "):
            if behaviour.startswith("takes no ") and field in request:
                done = error(400, f"Unsupported parameter: '{field}'")
        if callable(done):
            await done(writer)
            return False
        if KEY_ECHOED.encode() in done:
            header = next((x for x in head.split("\r\n") if "authorization" in x.lower()), "")
            sent = header.rpartition(" ")[2]
            done = error(401, f"{KEY_ECHOED} {sent}")
        writer.write(done.removesuffix(CUT.encode()))
        await writer.drain()
        return not done.endswith(CUT.encode()) and behaviour not in ("closing", "hanging up")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    server = ScriptedEndpoint(service=options.service)
    with suppress(KeyboardInterrupt):
        asyncio.run(server.serve(lambda: print(server.port, flush=True), options.port))
