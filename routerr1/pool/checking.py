"""First contact with candidates: one small call to each, and what it shows."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from routerr1.errors import PoolError
from routerr1.matching import contains
from routerr1.pool.base import Call
from routerr1.pool.client import HttpPool
from routerr1.pool.pool_file import CandidateRow, PoolFile
from routerr1.protocol import escape
from routerr1.types import Reply

QUESTION, ANSWER = "What is the capital of France?", "Paris"
_SHOWN = 40  # characters of a reply
_SLOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Checked:
    """One candidate after its call.

    Attributes:
        key: the variable that holds the key, or that none is needed.
        problem: why there is no reply; "" if there is one.
    """

    candidate: str
    key: str
    reply: Reply
    problem: str = ""

    @property
    def shown(self) -> str:
        """The beginning of the reply, on one line."""
        text = " ".join(escape(self.reply.text).split())
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


async def check_pool(file: PoolFile, environ: Mapping[str, str]) -> list[Checked]:
    """Call every candidate once, without retries and fallbacks; in the order of the file."""
    return list(await asyncio.gather(*(_check(file, row, environ) for row in file.candidates)))


async def _check(file: PoolFile, row: CandidateRow, environ: Mapping[str, str]) -> Checked:
    endpoint = file.endpoints[row.endpoint]
    key = f"${endpoint.key_env}" if endpoint.key_env else "not needed"
    alone = replace(
        file,
        candidates=(row.model_copy(update={"fallback": None}),),
        endpoints={row.endpoint: endpoint.model_copy(update={"max_tries": 1})},
    )
    try:
        pool = HttpPool(alone, alone.keys(environ), max_concurrency=1, environ=environ)
    except PoolError as error:
        return Checked(row.name, key, Reply(row.name, ""), str(error))
    try:
        reply = await pool.ask(Call(row.name, QUESTION))
    finally:
        await pool.aclose()
    if reply.failure is None:
        return Checked(row.name, key, reply)
    problem = f"{reply.note or reply.failure}, at {endpoint.base_url}"
    return Checked(row.name, key, reply, problem)


def remarks(file: PoolFile, found: Sequence[Checked]) -> Iterator[str]:
    """What is wrong or may go wrong later: failures first, then prices, thoughts, slow and unexpected replies."""
    failed = [each for each in found if each.problem]
    for each in failed:
        yield (
            each.problem
            if each.problem.startswith(each.candidate)
            else f"{each.candidate}: {each.problem}"
        )
    if failed:
        yield "the profile stage stops at a candidate that never answers"
    yield from file.odd_prices
    answered = [each for each in found if not each.problem]
    other = [each.candidate for each in answered if not contains(each.reply.text, [ANSWER])]
    if other:
        ends = ("does", "it") if len(other) == 1 else ("do", "they")
        yield (
            f"{', '.join(other)}: {ends[0]} not name {ANSWER} as the capital of France; "
            f"{'is' if len(other) == 1 else 'are'} {ends[1]} what you mean? (Made-up and small models may not know it.)"
        )
    for each in answered:
        reply = each.reply
        if reply.note:
            yield f"{each.candidate}: {reply.note}"
        if reply.thoughts or reply.reasoning_tokens:
            yield f"{each.candidate}: thinks before it replies; its thoughts are paid and dropped"
        if reply.latency_s > _SLOW_S:
            yield f"{each.candidate}: took {reply.latency_s:.0f} s; training makes thousands of calls"
