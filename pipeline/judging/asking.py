"""Asks a model about pairs: at most so many at once, each once, within a budget of money."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from pydantic import Field

from pipeline.errors import ModelError
from pipeline.judging.answers import AnswerError, Answers, read
from pipeline.judging.endpoint import EndpointDownError
from pipeline.judging.replies import Replies, Reply
from pipeline.settings.fields import Table

GIVE_UP = 3
"""Pairs in a row for which the endpoint does not answer. Then it is not asked again in this run."""

OVER_BUDGET, DOWN = "over_budget", "endpoint_down"
"""Why a pair was not asked about. Other causes are those of replies."""


class Price(Table):
    """What a million tokens cost, in any currency."""

    prompt: float = Field(0.0, ge=0, description="of a million tokens of prompts, pictures included")
    reply: float = Field(0.0, ge=0, description="of a million tokens of replies")

    def of(self, tokens: tuple[int, int]) -> float:
        """What these tokens of prompts and replies cost."""
        return (tokens[0] * self.prompt + tokens[1] * self.reply) / 1_000_000


@dataclass(frozen=True)
class Found:
    """The values of the answers by column, or the `cause` why there are none."""

    values: dict[str, bool | int | float | str]
    cause: str | None = None


@dataclass
class Asking:
    """Asks `ask` (a JPEG and a prompt), which `stop` ends, unless `replies` has the reply, and within `budget`.

    Requests that are under way when the budget is reached are finished, at most `at_once`. `attempt` is the number up
    to which a pair without an answer was asked about before.
    """

    ask: Callable[[bytes, str], Reply]
    stop: Callable[[], None]
    answers: Answers
    replies: Replies
    attempt: int
    at_once: int
    price: Price
    budget: float | None
    _failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def all(self, keys: Sequence[str], pictures: Sequence[bytes], prompts: Sequence[str]) -> list[Found]:
        """What was found of each pair. Pairs with the same key are asked about once.

        Raises ModelError for what fails every request, and for a budget without tokens to count.
        An error or Ctrl-C does not wait for requests that are under way: their threads end with the process.
        """
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        waiting, done = SimpleQueue[str](), SimpleQueue[tuple[str, Found | Exception]]()
        for key in sorted(first, key=first.__getitem__):
            waiting.put(key)

        def work() -> None:
            with contextlib.suppress(Empty):
                while True:
                    key = waiting.get_nowait()
                    try:
                        done.put((key, self._one(key, pictures[first[key]], prompts[first[key]])))
                    except Exception as error:  # noqa: BLE001 - raised by the thread that waits
                        done.put((key, error))

        for _ in range(min(self.at_once, len(first))):
            threading.Thread(target=work, name="judge", daemon=True).start()
        found: dict[str, Found] = {}
        try:
            while len(found) < len(first):
                key, each = done.get()
                if isinstance(each, Exception):
                    raise each
                found[key] = each
        except BaseException:
            self._failures = GIVE_UP  # nothing that waits is asked
            self.stop()
            raise
        return [found[key] for key in keys]

    def _one(self, key: str, picture: bytes, prompt: str) -> Found:
        known = self.replies.get(key)
        if known:
            attempt, reply = known
            found = self._read(reply)
            if found.cause is None or attempt >= self.attempt:
                return found
        if self._failures >= GIVE_UP:
            return Found({}, DOWN)
        if self.budget is not None and self.price.of(self.replies.tokens()) >= self.budget:
            return Found({}, OVER_BUDGET)
        try:
            reply = self.ask(picture, prompt)
        except EndpointDownError:
            with self._lock:
                self._failures += 1
            return Found({}, DOWN)
        with self._lock:
            self._failures = 0
        self.replies.add(key, self.attempt, reply)
        if self.budget is not None and reply.fault is None and self.replies.tokens() == (0, 0):
            raise ModelError("the endpoint reports no tokens, so that no budget can be kept: remove budget")
        return self._read(reply)

    def _read(self, reply: Reply) -> Found:
        if reply.fault:
            return Found({}, reply.fault)
        try:
            return Found(dict(read(reply.text, self.answers)))
        except AnswerError as error:
            return Found({}, str(error))
