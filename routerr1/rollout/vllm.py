"""vLLM as a Generator: a server that each trajectory calls by itself, or an engine in this process.

Both take and return token ids, so training sees the tokens that were sampled. A session sends its
whole context each time; vLLM's prefix cache keeps that cheap.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from routerr1.errors import CheckpointError
from routerr1.policy.tokens import encode_prompt, encode_text, truncate
from routerr1.protocol import STOPS
from routerr1.types import Generation

_WAIT_S = 600.0  # for one generation, the server's queue included


class _Owner(Protocol):
    max_length: int
    tokenizer: Any

    async def complete(self, ids: Sequence[int], sampling: dict[str, Any]) -> Generation: ...

    def released(self) -> None: ...


class VllmSession:
    """See `Session`."""

    def __init__(self, owner: _Owner, prompt_ids: Sequence[int], seed: int) -> None:
        self._owner = owner
        self._prompt_ids = tuple(prompt_ids)
        self._ids = list(prompt_ids)
        self._seed = seed

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self._prompt_ids

    async def generate(self, *, max_new_tokens: int, temperature: float) -> Generation:
        room = self._owner.max_length - len(self._ids)
        if room <= 0:
            return Generation("", finish="length")
        # Every setting that generation_config.json could change is explicit: Qwen's file sets top_p to .8.
        sampling = {
            "max_tokens": min(max_new_tokens, room),
            "temperature": temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": (self._seed + len(self._ids)) % 2**63,
            "stop": list(STOPS),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "logprobs": 0,
        }
        said = await self._owner.complete(self._ids, sampling)
        self._ids.extend(said.token_ids)
        return said

    def truncate(self, text: str, max_tokens: int) -> str:
        return truncate(self._owner.tokenizer, text, max_tokens)

    def insert(self, text: str) -> tuple[int, ...]:
        ids = encode_text(self._owner.tokenizer, text)
        self._ids.extend(ids)
        return tuple(ids)

    def close(self) -> None:
        self._owner.released()


class ServerGenerator:
    """The policy behind vLLM's completions API; used as `async with`, inside one event loop.

    Args:
        tokenizer: of the policy; the server is sent ids alone.
        max_length: tokens a session may hold; the server's own limit if that is smaller.
    """

    def __init__(
        self, url: str, tokenizer: Any, *, max_length: int | None = None, chat: bool = False
    ) -> None:
        self.url = url.rstrip("/")
        self.tokenizer = tokenizer
        self.max_length = max_length or 0
        self._chat = chat
        self._client: Any = None
        self._model = ""

    async def __aenter__(self) -> Self:
        """Connect. Raises: CheckpointError if nothing, or no vLLM, answers."""
        from openai import AsyncOpenAI, OpenAIError

        self._client = AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="none", timeout=_WAIT_S, max_retries=4
        )
        try:
            served = (await self._client.with_options(max_retries=0).models.list()).data[0]
        except (OpenAIError, IndexError) as error:
            await self._client.close()
            raise CheckpointError(f"{self.url}: no vLLM server answers ({error})") from None
        self._model = served.id
        holds = int(getattr(served, "max_model_len", None) or self.max_length)
        self.max_length = min(self.max_length or holds, holds)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    def start(self, prompt: str, *, seed: int) -> VllmSession:
        """See `Generator.start`; samples may differ in another batch or on another server."""
        return VllmSession(self, encode_prompt(self.tokenizer, prompt, chat=self._chat), seed)

    async def complete(self, ids: Sequence[int], sampling: dict[str, Any]) -> Generation:
        """Send one request. Raises: CheckpointError naming the server and its message."""
        from openai import OpenAIError

        ours = ("max_tokens", "temperature", "top_p", "seed", "stop", "logprobs")
        try:
            answer = await self._client.completions.create(
                model=self._model,
                prompt=list(ids),
                **{key: sampling[key] for key in ours},
                extra_body={
                    "return_token_ids": True,
                    **{key: value for key, value in sampling.items() if key not in ours},
                },
            )
        except OpenAIError as error:
            raise CheckpointError(f"{self.url}: the policy's server failed ({error})") from None
        choice = answer.choices[0]
        sampled = getattr(choice, "token_ids", None)
        logprobs = choice.logprobs.token_logprobs if choice.logprobs else None
        if sampled is None or logprobs is None or len(sampled) != len(logprobs):
            raise CheckpointError(
                f"{self.url}: answers without token ids and their log-probabilities; serve with vLLM 0.22 to 0.31"
            )
        reason = getattr(choice, "stop_reason", None)
        return _generation(
            self.tokenizer, choice.text, sampled, logprobs, choice.finish_reason, reason
        )

    def released(self) -> None:
        """The server holds nothing for a session."""


class ColocatedGenerator:
    """vLLM's engine in this process: a round of all open trajectories is one batch.

    The engine blocks while it generates, so it starts only when no session waits for the pool.

    Args:
        engine: a `vllm.LLM`.
        sampling_of: `vllm.SamplingParams`.
    """

    def __init__(
        self,
        engine: Any,
        sampling_of: Callable[..., Any],
        tokenizer: Any,
        *,
        max_length: int,
        chat: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._engine = engine
        self._sampling_of = sampling_of
        self._chat = chat
        self._open = 0
        self._waiting: list[tuple[Sequence[int], dict[str, Any], asyncio.Future[Generation]]] = []

    def start(self, prompt: str, *, seed: int) -> VllmSession:
        """See `Generator.start`."""
        ids = encode_prompt(self.tokenizer, prompt, chat=self._chat)
        self._open += 1
        return VllmSession(self, ids, seed)

    async def complete(self, ids: Sequence[int], sampling: dict[str, Any]) -> Generation:
        """Wait for the round's batch."""
        done: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self._waiting.append((tuple(ids), sampling, done))
        # Later in the loop: others may be about to start.
        asyncio.get_running_loop().call_soon(self._step)
        return await done

    def released(self) -> None:
        """Count one open session less."""
        self._open -= 1
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        if not self._waiting or len(self._waiting) < self._open:
            return
        waiting, self._waiting = self._waiting, []
        batch = [each for each in waiting if not each[2].done()]  # others were cancelled
        if not batch:
            return
        try:
            outputs = self._engine.generate(
                [{"prompt_token_ids": list(ids)} for ids, _, _ in batch],
                sampling_params=[self._sampling_of(**sampling) for _, sampling, _ in batch],
                use_tqdm=False,
            )
        except Exception as error:
            for _, _, done in batch:
                done.set_exception(error)
            return
        for (_, _, done), output in zip(batch, outputs, strict=True):
            said = output.outputs[0]
            logprobs = [
                found[token].logprob
                for token, found in zip(said.token_ids, said.logprobs, strict=True)
            ]
            done.set_result(
                _generation(
                    self.tokenizer, said.text, said.token_ids, logprobs,
                    said.finish_reason, said.stop_reason,
                )
            )  # fmt: skip


def _generation(
    tokenizer: Any,
    text: str,
    ids: Sequence[int],
    logprobs: Sequence[float],
    finish: str | None,
    stopped_by: int | str | None,
) -> Generation:
    """vLLM's stop reason: a stop string, or an end token other than the tokenizer's; None for that one."""
    if finish == "length":
        return Generation(text, tuple(ids), tuple(logprobs), "length")
    if isinstance(stopped_by, str):
        return Generation(text, tuple(ids), tuple(logprobs), "stop")
    end = tokenizer.decode(list(ids[-1:]), skip_special_tokens=False)
    return Generation(text.removesuffix(end), tuple(ids), tuple(logprobs), "eos")
