"""What the workers share: the asks still to come, when the next may go out, what was spent."""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from rrtf.endpoint.messages import Ask, Reply, most_tokens

FRUITLESS = 20  # requests in a row without a reply after which the endpoint counts as broken


class SpendLimit(OSError):
    """The tokens allowed are spent. What came is saved; with a higher limit it goes on."""


class Gate:
    """Lets one request through at a time, `interval` seconds after the last, none while held."""

    def __init__(self, interval: float):
        self.interval = interval
        self._next = 0.0  # monotonic seconds
        self._lock = threading.Lock()

    def hold(self, seconds: float) -> None:
        """Nobody goes through for so long: the server asked for it."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def through(self, stopped: threading.Event) -> bool:
        """Waits for one's turn; False where `stopped` came first."""
        while not stopped.is_set():
            with self._lock:
                left = self._next - time.monotonic()
                if left <= 0:
                    self._next = time.monotonic() + self.interval
                    return True
            stopped.wait(left)
        return False


class Desk:
    """Asks out and replies in, under one lock; the first error stops all work.

    `asks` by key go to `address`, those whose keys are one of `groups` together; `budget` bounds
    the tokens (0: no bound), of which `spent` are gone already. `replies` and `error` are the
    result.
    """

    def __init__(
        self,
        asks: Mapping[str, Ask],
        groups: Sequence[tuple[str, ...]],
        address: str,
        *,
        budget: int,
        spent: int,
    ):
        self.asks, self.address = asks, address
        self.budget, self.spent, self.before = budget, spent, spent
        self.replies: dict[str, Reply] = {}
        self.error: BaseException | None = None
        self.stopped = threading.Event()
        self._answered = self._fruitless = self._pledged = 0
        self._waiting = deque(groups)
        self._changed = threading.Condition()

    def take(self) -> tuple[str, ...] | None:
        """The keys of the next request; None when none is left or all work has stopped.

        While a request could exceed the budget together with those under way, it waits for them.
        """
        with self._changed:
            while self._waiting and not self.stopped.is_set():
                cost = self._cost(self._waiting[0])
                if not self.budget or self.spent + self._pledged + cost <= self.budget:
                    self._pledged += cost
                    return self._waiting.popleft()
                if not self._pledged:
                    self._stop(self._exhausted(cost))
                else:
                    self._changed.wait()
            return None

    def _cost(self, names: Sequence[str]) -> int:
        return sum(most_tokens(self.asks[name]) for name in names) if self.budget else 0

    def _exhausted(self, cost: int) -> SpendLimit:
        left = f"{sum(map(len, self._waiting))} of {len(self.asks)} asks were not sent"
        return SpendLimit(
            f"{self.address}: {self.spent} of at most {self.budget} tokens are spent and the next "
            f"ask may take {cost}: {left}; what came is saved, and with a higher limit the same "
            "command goes on from there"
        )

    def put(self, replies: Mapping[str, Reply]) -> None:
        """Counts the replies to one request: too many errors in a row stop all work.

        One that the server refuses tells against it only while it has answered nothing: prompts
        that are too long can stand side by side.
        """
        with self._changed:
            self.replies |= replies
            self._pledged -= self._cost(list(replies))
            first = next(iter(replies.values()))
            self.spent += sum(one.prompt_tokens + one.completion_tokens for one in replies.values())
            self._answered += 0 if first.error else len(replies)
            self._fruitless = self._fruitless + 1 if first.error else 0
            known = not first.refused or not self._answered + self.before
            if self._fruitless >= FRUITLESS and known:
                self._stop(self._broken(first.error))
            self._changed.notify_all()

    def _broken(self, last: str) -> OSError:
        return OSError(
            f"{self.address}: {self._fruitless} asks in a row without a reply; the last: {last} "
            "(what came is saved, the same command goes on from there)"
        )

    def stop(self, error: BaseException) -> None:
        """Ends all work after the replies that are under way; `error` tells why."""
        with self._changed:
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        self.error = self.error or error
        self.stopped.set()
        self._changed.notify_all()

    def outlook(self, seconds: float) -> tuple[int, int, int, int, float]:
        """(asks done, asks, tokens, tokens to come, seconds to come) after `seconds` of work."""
        with self._changed:
            done, tokens = len(self.replies), self.spent - self.before
            left = len(self.asks) - done
            to_come = round(tokens / self._answered * left) if self._answered else 0
            return done, len(self.asks), tokens, to_come, seconds / done * left if done else 0.0
