"""What our client adds to the time a server takes: figures beside the plain `openai` client.

    python tests/benchmarks/bench_evolve.py [--rounds 3] [--seconds 15]

A server of its own process answers every request after a fixed service time. The ideal is
requests * service / concurrency, with the service time as the server kept it (`asyncio.sleep`
comes back late on a busy machine). `in flight` is the mean number of requests inside the server
between the first and the last, of the concurrency allowed; `overhead` is wall time over the ideal,
CPU that of the client's process per request. `bare` is the floor: threads around http.client that
check and save nothing; what `rrtf` takes longer is its own, what `bare` takes longer than the ideal
is the machine's. `openai` is AsyncOpenAI under a semaphore, saving nothing, on a fifth of the
requests. The contenders take turns, so that a busy machine slows them alike; a row is the median of
the rounds, with the lowest and highest overhead. At the end: what a journal of 100,000 replies
takes to be written and read again.
"""

import argparse
import asyncio
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from rrtf.engines import endpoint
from rrtf.engines.endpoint import Ask, Endpoint

SERVER = Path(__file__).resolve().parent.parent / "scripted_endpoint.py"
CASES = ((0.05, 8), (0.05, 32), (0.2, 8), (0.2, 32))
PROMPT = "Rewrite the following programming task so that it asks for more: number {}. " * 8


def asks(n: int) -> list[Ask]:
    return [Ask((("user", PROMPT.format(i, *[""] * 7)),), max_tokens=512) for i in range(n)]


def start(service: float) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, str(SERVER), "--service", str(service)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, f"http://127.0.0.1:{int(process.stdout.readline())}/v1"


def ours(url: str, n: int, concurrency: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Endpoint(url, "scripted")
        options = {"replies": Path(folder), "concurrency": concurrency}
        return sum(not reply.error for reply in endpoint.ask(asks(n), endpoint=place, **options))


def bare(url: str, n: int, concurrency: int) -> int:
    """The least that a client in Python does: nothing is checked, bounded, retried or saved."""
    parts = urlsplit(url)
    place = Endpoint(url, "scripted")
    bodies = iter([json.dumps(endpoint.body([ask], place)) for ask in asks(n)])
    taking, answered = threading.Lock(), []

    def work() -> None:
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        while True:
            with taking:
                body = next(bodies, None)
            if body is None:
                return
            connection.request("POST", "/v1/chat/completions", body)
            answered.append(json.loads(connection.getresponse().read()))

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(answered)


def peer(url: str, n: int, concurrency: int) -> int:
    """As its documentation shows it: one client, a semaphore, gather."""
    import openai

    async def everything() -> int:
        direct = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=url, api_key="none", http_client=direct) as client:
            limit = asyncio.Semaphore(concurrency)

            async def one(ask: Ask) -> str:
                said = [{"role": role, "content": text} for role, text in ask.messages]
                async with limit:
                    reply = await client.chat.completions.create(
                        model="scripted", messages=said, max_tokens=512, temperature=0, seed=0
                    )
                return reply.choices[0].message.content

            return len(await asyncio.gather(*map(one, asks(n))))

    return asyncio.run(everything())


def times(url: str) -> list[tuple[float, float]]:
    """(received, answered) of every request, by the server's clock."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url}/times") as answer:
        return json.load(answer)


def measure(send: Callable, service: float, concurrency: int, n: int) -> tuple[float, ...]:
    """(wall s, overhead over the ideal, mean in flight, CPU ms per request) of one run."""
    process, url = start(service)
    try:
        send(url, concurrency, concurrency)  # connections, imports
        known = len(times(url))
        started, used = time.perf_counter(), time.process_time()
        answered = send(url, n, concurrency)
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        spans = times(url)[known:]
    finally:
        process.kill()
        process.wait()
    assert answered == len(spans) == n
    inside = sum(end - start for start, end in spans)
    span = max(end for _, end in spans) - min(start for start, _ in spans)
    return wall, wall * concurrency / inside - 1, inside / span, 1000 * cpu / n


CLIENTS = (("bare", bare, 1), ("rrtf", ours, 1), ("openai", peer, 5))


def throughput(rounds: int, seconds: float) -> None:
    print("service  conc.  client    wall   ideal  overhead (low to high)   in flight   CPU/req")
    for service, concurrency in CASES:
        n = round(seconds * concurrency / service)
        found: dict[str, list] = {name: [] for name, _, _ in CLIENTS}
        for _ in range(rounds):
            for name, send, share in CLIENTS:
                found[name].append(measure(send, service, concurrency, n // share))
        for name, runs in found.items():
            wall, over, inside, cpu = (statistics.median(c) for c in zip(*runs, strict=True))
            low, high = (100 * pick(run[1] for run in runs) for pick in (min, max))
            print(
                f"{1000 * service:4.0f} ms  {concurrency:5}  {name:6} {wall:6.2f} s "
                f"{wall / (1 + over):5.2f} s  {100 * over:5.1f} % ({low:.1f} to {high:.1f})"
                f"  {inside:7.1f} of {concurrency:2}  {cpu:5.2f} ms",
                flush=True,
            )


def saving(n: int = 100_000) -> None:
    row = {"key": "0" * 64, "text": "word " * 300, "finish_reason": "stop", "prompt_tokens": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "replies.jsonl"
        started = time.process_time()
        with endpoint.Journal(path) as file:
            for _ in range(n):
                file.append(row)
        written = time.process_time()
        assert sum(1 for _ in endpoint.read(path)) == n
        read = time.process_time()
        size = path.stat().st_size / 1e6
    print(
        f"journal of {n} replies ({size:.0f} MB): {written - started:.1f} s of CPU to append "
        f"one by one, {read - written:.1f} s to read"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="ideal length of each run")
    given = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    throughput(given.rounds, given.seconds)
    saving()
    print(f"load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
