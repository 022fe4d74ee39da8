"""Models behind an OpenAI-compatible address, and the replies that were recorded there.

A server is trusted with little: it may ignore a stop sequence, cut the text at one, or count the
token that ends a text. Texts are cut here; `n_tokens` is what the server generated, behind a stop
sequence too. A finish reason that is neither `stop` nor `length` (`content_filter`, say) is passed
on. Whether samples follow their seeds is the server's affair: the recorded replies are what
repeats.
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rrtf import endpoint
from rrtf.config import derive_seed
from rrtf.endpoint import messages
from rrtf.endpoint.messages import Ask, Endpoint, Reply
from rrtf.engines.answers import Completion, check_sampling, first_stop, prompt_keys
from rrtf.engines.message import Message

SEEDS = 2**30  # every server takes these, and the few above them for further samples
TELLING = 8  # prompts whose samples are all alike before a server counts as one that draws none


def make_asks(
    prompts: Sequence[str],
    *,
    n: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    stops: Sequence[str],
    seed: int,
) -> list[Ask]:
    """The `n` asks of every prompt, prompt by prompt, with consecutive seeds.

    The first seed follows from `seed`, the prompt, and how often it came before; a greedy answer
    has none to depend on. ValueError for options out of range and an empty prompt.
    """
    check_sampling(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
    asks, keys = [], prompt_keys(prompts)
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number} is empty: the model has nothing to continue")
        first = derive_seed(seed, *keys[number]) % SEEDS if temperature else 0
        chat = isinstance(prompt, Message)
        asked = {"messages": (("user", str(prompt)),)} if chat else {"prompt": prompt}
        asked |= {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
        asks += [Ask(seed=first + k, stops=tuple(stops), **asked) for k in range(n)]
    return asks


def completion(reply: Reply, stops: Sequence[str]) -> Completion:
    """A reply as a `Completion`: cut at the first stop sequence, if the server did not."""
    at = first_stop(reply.text, stops)
    if at < 0:
        return Completion(reply.text, reply.completion_tokens, reply.finish_reason)
    return Completion(reply.text[:at], reply.completion_tokens, "stop")


class AskingEngine:
    """An engine that gets its answers by `ask`, from a server or a recording."""

    device = "remote"

    def __init__(self, name: str, ask: Callable[[Sequence[Ask]], list[Reply]]):
        self.name, self.ask = name, ask

    def generate(self, prompts: Sequence[str], *, n: int, **options) -> list[list[Completion]]:
        """As the protocol has it, with the options of `make_asks`.

        ValueError also for a prompt that the server refuses; OSError where no reply came.
        """
        replies = self.ask(make_asks(prompts, n=n, **options))
        rows = [replies[at : at + n] for at in range(0, len(replies), n)]
        self._check(rows)
        found = [[completion(reply, options["stops"]) for reply in row] for row in rows]
        alike = n > 1 and all(len({one.text for one in row}) == 1 for row in found)
        if alike and len(set(prompts)) >= TELLING and options["temperature"] >= 0.5:
            warnings.warn(f"{self.name}: {_UNDRAWN.format(n=n)}", stacklevel=2)
        return found

    def _check(self, rows: Sequence[Sequence[Reply]]) -> None:
        failed = [(k, one) for k, row in enumerate(rows) for one in row if one.error]
        if failed:
            prompt, first = failed[0]
            raise (ValueError if first.refused else OSError)(
                f"{self.name}: no reply to {len(failed)} of {sum(map(len, rows))} requests; the "
                f"first, of prompt {prompt}: {first.error}"
            )

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
        """ValueError: what comes from here has no probabilities of given texts."""
        raise ValueError(
            f"{self.name} does not score given texts; the engines transformers, ctranslate2, "
            "gptbigcode and vllm do"
        )


_UNDRAWN = (
    "the {n} samples of every prompt are one text, so this server seems to draw none "
    "(`transformers serve` draws only where the model's generation_config.json has "
    '"do_sample": true, and "top_k": 0 for no limit of its own)'
)


def saving(place: Endpoint, replies: Path, **options) -> Callable[[Sequence[Ask]], list[Reply]]:
    """`endpoint.ask` with a journal of its own below `replies` for every list of asks.

    What two processes ask at a time is in two files, and none grows with all that came before.
    """

    def saved(asks: Sequence[Ask]) -> list[Reply]:
        names = "".join(messages.key(one, place.model) for one in asks)
        folder = replies / hashlib.sha256(names.encode()).hexdigest()[:16]
        return endpoint.ask(asks, endpoint=place, replies=folder, **options)

    return saved


def open_server(
    address: str,
    model: str,
    *,
    replies: Path,
    api_key_env: str = "OPENAI_API_KEY",
    concurrency: int = 8,
    attempts: int = 6,
    timeout: float = 600.0,
) -> AskingEngine:
    """The engine of `openai@ADDRESS`; no connection is made before the first prompt."""
    place = Endpoint(address, model, api_key_env)
    limits = {"concurrency": concurrency, "attempts": attempts, "timeout": timeout}
    return AskingEngine(f"openai-{model}", saving(place, replies, **limits))


def open_recording(folder: Path, model: str) -> AskingEngine:
    """The engine of `replay@FOLDER`: holds all replies recorded below it, and asks nobody.

    FileNotFoundError where there are none.
    """
    found = endpoint.recorded(folder)
    return AskingEngine(f"replay-{model}", partial(_look_up, found, folder, model))


def _look_up(found: dict[str, Reply], folder: Path, model: str, asks: Sequence[Ask]) -> list[Reply]:
    names = [messages.key(one, model) for one in asks]
    for name, one in zip(names, asks, strict=True):
        if name not in found:
            text = one.prompt or one.messages[-1][1]
            raise ValueError(
                f"{folder}: no recorded reply of {model!r} to {text[:60]!r} at temperature "
                f"{one.temperature:g}, top_p {one.top_p:g}, at most {one.max_tokens} tokens, "
                f"seed {one.seed}: replay@ answers what openai@ or vllm recorded with the very "
                "same model name, prompts and options; record it there first"
            )
    return [found[name] for name in names]
