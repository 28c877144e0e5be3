"""Which sessions read and which decode in the next step.

All open sessions share one cache with a row each. A step decodes one token for every generating session,
or prefills the sessions that have several unread tokens: a prompt, or an inserted reply. Equal prompts
are read once and copied. The last session takes the row of one that closes, so rows in use stay
contiguous and decoding needs no gather.
"""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

from routerr1.rollout.engine.forward import ModelRunner
from routerr1.rollout.engine.sampling import sample
from routerr1.rollout.engine.stops import StopRules, end_tokens, text_of
from routerr1.types import Generation


class Request:
    """One generation that a session waits for."""

    def __init__(self, max_new_tokens: int, temperature: float) -> None:
        self.done: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.ids: list[int] = []
        self.logprobs: list[float] = []


class Slot:
    """What the engine holds of a session.

    Attributes:
        random: draws what the session samples.
        row: row of the cache; -1 before the first prefill.
        read: number of tokens that the cache holds.
        unread: tokens that the next step reads.
    """

    def __init__(self, prompt_ids: Sequence[int], seed: int) -> None:
        self.random = Random(seed)
        self.row = -1
        self.read = 0
        self.unread = list(prompt_ids)
        self.request: Request | None = None

    @property
    def decodes(self) -> bool:
        """Whether only the session's own last token is unread."""
        return self.row >= 0 and len(self.unread) == 1


class Scheduler:
    """Moves all generations that wait, step by step, on the event loop.

    Args:
        max_length: tokens that a session may hold, prompt included.
        lockstep: no session continues until every active session has its reply.
    """

    def __init__(
        self, runner: ModelRunner, tokenizer: Any, *, max_length: int, lockstep: bool
    ) -> None:
        self.max_length = max_length
        self.rows: list[Slot] = []
        self._runner = runner
        self._tokenizer = tokenizer
        self._lockstep = lockstep
        self._stops = StopRules(tokenizer, end_tokens(runner.model, tokenizer))
        self._generating: dict[Slot, None] = {}  # an ordered set
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, slot: Slot, max_new_tokens: int, temperature: float) -> Generation:
        """Queue a generation and wait for it; a session without room generates nothing."""
        room = self.max_length - slot.read - len(slot.unread)
        if room <= 0:
            return Generation("", finish="length")
        request = Request(min(max_new_tokens, room), temperature)
        slot.request = request
        self._generating[slot] = None
        self._wake()
        return await request.done

    def release(self, slot: Slot) -> None:
        """Give the session's row to the last session."""
        self._generating.pop(slot, None)
        if slot.row < 0:
            return
        last = self.rows.pop()
        if last is not slot:
            if last.read:  # a session may have failed before it read anything
                self._runner.cache.copy_row(last.row, slot.row, last.read)
            last.row = slot.row
            self.rows[last.row] = last
        slot.row = -1
        self._wake()  # in lockstep the others may have waited for this session only

    def _wake(self) -> None:
        if self._may_step() and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._work())

    def _may_step(self) -> bool:
        if not self._lockstep:
            return bool(self._generating)
        decoding = any(slot.decodes for slot in self._generating)
        return decoding or (
            bool(self._generating) and all(slot.request is not None for slot in self.rows)
        )

    async def _work(self) -> None:
        try:
            while self._may_step():
                self._step()
                await asyncio.sleep(0)  # finished sessions call the pool and come back
        except BaseException as error:
            for slot in list(self._generating):
                self._fail(slot, error)
            raise

    def _fail(self, slot: Slot, error: BaseException) -> None:
        del self._generating[slot]
        if slot.request and not slot.request.done.done():
            slot.request.done.set_exception(error)

    def _step(self) -> None:
        unread = [slot for slot in self._generating if not slot.decodes]
        decoding = [slot for slot in self._generating if slot.decodes]
        if self._lockstep:
            if decoding:
                self._decode(sorted(decoding, key=_row))
            else:
                self._prefill(sorted(unread, key=_row))
        # A prefill waits for company, so that prefills are few; it never waits if none decodes.
        elif unread and (not decoding or 4 * len(unread) >= len(self._generating)):
            self._prefill(unread)
        else:
            self._decode(decoding)

    @torch.no_grad()
    def _prefill(self, slots: list[Slot]) -> None:
        new = [slot for slot in slots if slot.row < 0]
        for slot in new:
            slot.row = len(self.rows)
            self.rows.append(slot)
        first: dict[tuple[int, ...], Slot] = {}
        for slot in new:
            first.setdefault(tuple(slot.unread), slot)
        computed = [s for s in slots if s not in new or first[tuple(s.unread)] is s]
        states = self._read(computed)
        hidden = dict(zip(computed, states, strict=True))
        cache = self._runner.cache
        for slot in new:
            source = first[tuple(slot.unread)]
            if source is not slot:
                hidden[slot] = hidden[source]
                cache.reserve(len(self.rows), len(slot.unread))
                cache.copy_row(source.row, slot.row, len(slot.unread))
        for slot in slots:
            slot.read += len(slot.unread)
            slot.unread = []
        self._sample(slots, torch.stack([hidden[slot] for slot in slots]))

    @torch.no_grad()
    def _decode(self, slots: list[Slot]) -> None:
        # Rows that wait read a dummy token, overwritten by their next token: this costs less than
        # gathering the cache of the others.
        ready = set(slots)
        tokens = [slot.unread[0] if slot in ready else 0 for slot in self.rows]
        starts = [slot.read for slot in self.rows]
        at = [slot.row for slot in slots]
        states = self._runner.replay(tokens, starts)
        if states is not None:
            hidden = states[at]
        elif 2 * len(slots) < len(self.rows):
            hidden = self._read(slots)
        else:
            count = len(self.rows)
            read = self._runner.read(range(count), starts, [[token] for token in tokens], count)
            hidden = read[at]
        for slot in slots:
            slot.read += 1
            slot.unread = []
        self._sample(slots, hidden)

    def _read(self, slots: Sequence[Slot]) -> Tensor:
        """Read what each session has not read; see `ModelRunner.read`."""
        return self._runner.read(
            [slot.row for slot in slots],
            [slot.read for slot in slots],
            [slot.unread for slot in slots],
            len(self.rows),
        )

    def _sample(self, slots: Sequence[Slot], hidden: Tensor) -> None:
        logits = self._runner.logits(hidden)
        requests = [slot.request for slot in slots]
        temperatures = [request.temperature if request else 0.0 for request in requests]
        ids, logprobs = sample(
            logits,
            torch.tensor(temperatures, device=logits.device),
            torch.tensor([slot.random.random() for slot in slots], device=logits.device),
        )
        for slot, token, logprob in zip(slots, ids.tolist(), logprobs.tolist(), strict=True):
            self._take(slot, token, logprob)

    def _take(self, slot: Slot, token: int, logprob: float) -> None:
        request = slot.request
        if request is None:
            raise RuntimeError("a session without a request was sampled")
        slot.unread.append(token)
        request.ids.append(token)
        request.logprobs.append(logprob)
        finish = self._stops.finish(request.ids, request.max_new_tokens)
        if finish is None:
            return
        slot.request = None
        del self._generating[slot]
        if request.done.done():  # cancelled, and its session is not closed yet
            return
        text = text_of(self._tokenizer, request.ids, finish)
        request.done.set_result(
            Generation(text, tuple(request.ids), tuple(request.logprobs), finish)
        )


def _row(slot: Slot) -> int:
    return slot.row
