"""What happens in a rollout, told while it happens: around the generator and the pool of any router."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from routerr1.notation import named
from routerr1.pool.base import Call, Pool, PoolWrapper
from routerr1.pool.client import HttpPool
from routerr1.rollout.generate import Generator, Session
from routerr1.types import Generation, Reply


@dataclass(frozen=True, slots=True)
class Thought:
    """The policy wrote a stretch of text, with the tags of the protocol."""

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Called:
    """A candidate is being asked."""

    number: int
    candidate: str
    query: str


@dataclass(frozen=True, slots=True)
class Replied:
    """A candidate replied, or failed."""

    number: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Wrote:
    """A candidate wrote words that are certain to be in its reply."""

    number: int
    text: str


NOT_ALLOWED = "not allowed for this key"
_BY_HANDLE = re.compile(r"<search>\s*(m[1-9][0-9]*)\s*:")
Event = Thought | Called | Wrote | Replied


@dataclass
class Heard:
    """One request while it is answered.

    Attributes:
        scope: of its calls; see `pool.base.Call`.
        allowed: names of the candidates that may be asked; None for all.
        tell: called with each event, from whatever thread.
        live: the words of an answer are told while a candidate writes them, where the pool is a live one.
        is_answer: the reply to the next call is the answer, whatever it says.
        replies: of its calls so far.
        session: the last one of the policy.
        generation_s: seconds in which the policy wrote or waited for its turn to write.
        call_s: seconds in which at least one call was under way.
    """

    scope: str
    allowed: frozenset[str] | None = None
    tell: Callable[[Event], None] | None = None
    live: bool = False
    is_answer: bool = True
    replies: list[Reply] = field(default_factory=list)
    session: Session | None = None
    generation_s: float = 0.0
    call_s: float = 0.0
    _held: Thought | None = None

    def event(self, event: Event) -> None:
        """Tell of an event if it is asked for.

        A thought before a call by handle waits for the call, which says what the handle stands for.
        """
        if self.tell is None:
            return
        self.flush(event)
        if isinstance(event, Thought) and _BY_HANDLE.search(event.text):
            self._held = event
        else:
            self.tell(event)

    def flush(self, following: Event | None = None) -> None:
        """Tell of a thought that waits; with the candidate's name if its call is what follows."""
        held, self._held = self._held, None
        if held is None or self.tell is None:
            return
        asked = _BY_HANDLE.search(held.text)
        if asked is not None and isinstance(following, Called):
            # A small policy leaves out the blank between a percentage and a handle.
            text = named(held.text.replace("%m", "% m"), {asked[1]: following.candidate})
            held = replace(held, text=text)
        self.tell(held)


class HearingPool(PoolWrapper):
    """The pool of one request: its calls are told, counted towards the request, and limited to its candidates."""

    def __init__(self, inner: Pool, heard: Heard) -> None:
        super().__init__(inner)
        self._heard = heard
        if heard.allowed is not None:
            self.cards = tuple(card for card in inner.cards if card.name in heard.allowed)

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        heard = self._heard
        number = len(heard.replies) + 1
        heard.event(Called(number, call.candidate, call.query))
        began = time.perf_counter()
        if heard.allowed is not None and call.candidate not in heard.allowed:
            reply = Reply(call.candidate, "", failure="unavailable", note=NOT_ALLOWED)
        elif heard.live and heard.is_answer and isinstance(self.inner, HttpPool):
            reply = await self.inner.listen(
                replace(call, scope=heard.scope), lambda text: heard.event(Wrote(number, text))
            )
        else:
            reply = await self.inner.ask(replace(call, scope=heard.scope))
        heard.call_s += time.perf_counter() - began
        heard.replies.append(reply)
        heard.event(Replied(number, reply))
        return reply

    async def aclose(self) -> None:
        """Do nothing: the inner pool outlives the request."""


class HearingGenerator:
    """A generator whose sessions tell what they write."""

    def __init__(self, inner: Generator, heard: Heard) -> None:
        self._inner = inner
        self._heard = heard

    def start(self, prompt: str, *, seed: int) -> Session:
        """See `Generator.start`."""
        session = _HearingSession(self._inner.start(prompt, seed=seed), self._heard)
        self._heard.session = session
        return session


class _HearingSession:
    def __init__(self, inner: Session, heard: Heard) -> None:
        self._inner = inner
        self._heard = heard

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self._inner.prompt_ids

    async def generate(self, *, max_new_tokens: int, temperature: float) -> Generation:
        began = time.perf_counter()
        said = await self._inner.generate(max_new_tokens=max_new_tokens, temperature=temperature)
        seconds = time.perf_counter() - began
        self._heard.generation_s += seconds
        self._heard.event(Thought(said.text, seconds))
        return said

    def truncate(self, text: str, max_tokens: int) -> str:
        return self._inner.truncate(text, max_tokens)

    def insert(self, text: str) -> tuple[int, ...]:
        return self._inner.insert(text)

    def close(self) -> None:
        self._inner.close()
