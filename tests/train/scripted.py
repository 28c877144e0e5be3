"""Policies for the real trainer whose text is scripted, or recorded as it is sampled."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from routerr1.rollout.generate import ScriptedGenerator, Session
from routerr1.rollout.local import LocalGenerator
from routerr1.types import Generation


class ScriptedPolicy:
    """Sessions write the scripts in turn, in the policy's tokens; text without a last tag was cut off."""

    def __init__(self, policy: LocalGenerator, scripts: Sequence[Sequence[str]]) -> None:
        self.model = policy.model
        self.tokenizer = policy.tokenizer
        self.max_length = policy.max_length
        self.chat = policy.chat
        self._policy = policy
        self._scripts = cycle(scripts)

    def start(self, prompt: str, *, seed: int) -> Any:
        script = ScriptedGenerator(next(self._scripts)).start(prompt, seed=seed)
        encode = self._policy.encode

        class Scripted:
            prompt_ids = tuple(encode(prompt))
            close = script.close
            truncate = script.truncate

            async def generate(self, **limits: Any) -> Generation:
                text = (await script.generate(**limits)).text
                ids = tuple(encode(text))
                finish: Any = "stop" if text.endswith(">") else "length"
                return Generation(text, ids, (0.0,) * len(ids), finish)

            def insert(self, text: str) -> tuple[int, ...]:
                script.insert(text)
                return tuple(encode(text))

        return Scripted()


class RecordedPolicy:
    """A policy that keeps what each of its sessions generated, in the order of their start."""

    def __init__(self, policy: LocalGenerator) -> None:
        self.model = policy.model
        self.tokenizer = policy.tokenizer
        self.max_length = policy.max_length
        self.chat = policy.chat
        self.sessions: list[tuple[tuple[int, ...], list[Generation]]] = []
        self._policy = policy

    def start(self, prompt: str, *, seed: int) -> Session:
        inner = self._policy.start(prompt, seed=seed)
        generations: list[Generation] = []
        self.sessions.append((inner.prompt_ids, generations))

        class Recorded:
            prompt_ids = inner.prompt_ids
            insert = inner.insert
            close = inner.close
            truncate = inner.truncate

            async def generate(self, *, max_new_tokens: int, temperature: float) -> Generation:
                found = await inner.generate(max_new_tokens=max_new_tokens, temperature=temperature)
                generations.append(found)
                return found

        return Recorded()
