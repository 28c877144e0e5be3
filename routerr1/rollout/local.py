"""A transformers model as a Generator.

Runs are equal to the byte if events come in the same order (in-process pools), or if sessions move in
lockstep (HTTP pools). Otherwise a session depends on its neighbours through rounding in batched matrix
products.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from routerr1.policy.load import CPU_FLOAT32, LoadOptions, load_model
from routerr1.policy.tokens import encode_prompt, encode_text, truncate
from routerr1.rollout.engine.cuda_graph import Capture, captured
from routerr1.rollout.engine.fidelity import position_limit, require_fidelity
from routerr1.rollout.engine.forward import ModelRunner
from routerr1.rollout.engine.scheduler import Scheduler, Slot
from routerr1.types import Generation

_NO_LIMIT = 1 << 20  # of a model that names none, such as one with relative positions


class LocalSession:
    """See `Session`."""

    def __init__(self, owner: "LocalGenerator", prompt_ids: Sequence[int], seed: int) -> None:
        self._owner = owner
        self._prompt_ids = tuple(prompt_ids)
        self._slot = Slot(prompt_ids, seed)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self._prompt_ids

    async def generate(self, *, max_new_tokens: int, temperature: float) -> Generation:
        return await self._owner.scheduler.submit(self._slot, max_new_tokens, temperature)

    def truncate(self, text: str, max_tokens: int) -> str:
        return truncate(self._owner.tokenizer, text, max_tokens)

    def insert(self, text: str) -> tuple[int, ...]:
        ids = self._owner.encode(text)
        self._slot.unread.extend(ids)
        return tuple(ids)

    def close(self) -> None:
        self._owner.scheduler.release(self._slot)


class LocalGenerator:
    """Any causal language model with full attention as the policy.

    Args:
        max_length: tokens that a session may hold, prompt included. A generation that would exceed it
            ends with finish "length". The default is the model's own limit.
        lockstep: no session continues until every active session has its reply, so that samples do not
            depend on when replies come. Slower over a network by the wait for each round's last reply.
        chat: see `encode_prompt`.
        autocast: type of the computation where the weights have another one.
        capture: makes CUDA graphs of decoding steps; None launches kernels one by one.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        lockstep: bool = False,
        chat: bool = False,
        autocast: torch.dtype | None = None,
        capture: Capture | None = None,
    ) -> None:
        limit = position_limit(model) or max_length or _NO_LIMIT
        self.model = model
        self.tokenizer = tokenizer
        self.chat = chat
        self.capture = capture
        self.autocast = autocast
        self.max_length = min(max_length or limit, limit)
        self.runner = ModelRunner(model, autocast=autocast, capture=capture)
        self.scheduler = Scheduler(
            self.runner, tokenizer, max_length=self.max_length, lockstep=lockstep
        )

    @classmethod
    def load(
        cls,
        source: Path | str,
        options: LoadOptions = CPU_FLOAT32,
        *,
        lockstep: bool = False,
        trained: bool = False,
    ) -> "LocalGenerator":
        """A saved policy, or any checkpoint that transformers loads.

        Args:
            trained: see `load_model`; computation stays in `options.dtype`.

        Raises: CheckpointError naming `source` if it cannot be loaded, or if the engine would not
            play it as it was made.
        """
        model, tokenizer = load_model(source, options, trained=trained)
        generator = cls(
            model,
            tokenizer,
            max_length=options.max_length,
            lockstep=lockstep,
            chat=options.chat,
            autocast=torch.bfloat16 if options.dtype == "bfloat16" and trained else None,
            capture=captured if options.device.startswith("cuda") else None,
        )
        require_fidelity(source, model, generator.max_length)
        return generator

    def start(self, prompt: str, *, seed: int) -> LocalSession:
        """See `Generator.start`."""
        return LocalSession(self, encode_prompt(self.tokenizer, prompt, chat=self.chat), seed)

    def encode(self, text: str) -> list[int]:
        """See `encode_text`."""
        return encode_text(self.tokenizer, text)
