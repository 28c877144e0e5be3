"""A candidate's own response on its way back: with our id, its name, and its price."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from routerr1.pool.forward import Forwarded
from routerr1.serve import chat
from routerr1.serve.answers import AboutBody, about_of, call_body
from routerr1.serve.asked import Asked
from routerr1.serve.gateway import Gateway


def forwarded_body(asked: Asked, found: Forwarded) -> dict[str, Any]:
    """A candidate's response with our id, its name, and its price."""
    about, usage = _about(asked, found).model_dump(), _usage(found)
    if found.content:
        body: dict[str, Any] = json.loads(found.content)
        return {
            **body,
            "id": asked.id,
            "model": asked.request.model,
            "usage": usage,
            "routerr1": about,
        }
    message = {"role": "assistant", "content": found.reply.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {
        "id": asked.id,
        "object": "chat.completion",
        "created": chat.now(),
        "model": asked.request.model,
        "choices": [choice],
        "usage": usage,
        "routerr1": about,
    }


def _usage(found: Forwarded) -> dict[str, Any]:
    call = call_body(found.reply)
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "total_tokens": call.prompt_tokens + call.completion_tokens,
        "cost": call.cost,
        "prompt_tokens_details": {"cached_tokens": found.reply.cached_prompt_tokens},
        "completion_tokens_details": {"reasoning_tokens": found.reply.reasoning_tokens},
    }


async def forwarded_events(
    gateway: Gateway, asked: Asked, body: dict[str, Any]
) -> AsyncIterator[bytes]:
    """A candidate's own stream; its last chunk is replaced by one with the price."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def done() -> Forwarded:
        try:
            return await gateway.forward(
                asked, body, lambda piece: chat.put_threadsafe(loop, heard, piece)
            )
        finally:
            # After all pieces, which come from another thread.
            loop.call_soon_threadsafe(heard.put_nowait, None)

    task = asyncio.ensure_future(done())
    last: dict[str, Any] = {"id": asked.id, "object": "chat.completion.chunk", "choices": []}
    try:
        passed = False
        while (piece := await heard.get()) is not None:
            chunk = _parsed(piece)
            if chunk is None or not chunk.get("choices"):
                continue
            asked.answered()
            passed = True
            yield chat.event({**chunk, "id": asked.id, "model": asked.request.model, "usage": None})
        found = await task
        if not passed:  # a pool that does not stream
            for choice in ({"role": "assistant", "content": found.reply.text}, {}):
                finish = None if choice else "stop"
                yield chat.event(
                    {
                        **last,
                        "created": chat.now(),
                        "model": asked.request.model,
                        "choices": [{"index": 0, "delta": choice, "finish_reason": finish}],
                    }
                )
        options = asked.request.stream_options
        if options is not None and options.include_usage:
            yield chat.event(
                {
                    **last,
                    "created": chat.now(),
                    "model": asked.request.model,
                    "usage": _usage(found),
                    "routerr1": _about(asked, found).model_dump(),
                }
            )
        yield chat.DONE
    finally:
        task.cancel()
        await asyncio.wait({task})


def _parsed(piece: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(piece)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _about(asked: Asked, found: Forwarded) -> AboutBody:
    return about_of(
        [found.reply],
        asked.engine.identity,
        spend=None,
        policy_tokens=0,
        seconds=time.perf_counter() - asked.began,
        trace_id=asked.trace_id,
    )
