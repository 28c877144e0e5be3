"""A policy on the real trainer that says what it is told, in its own tokens."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pytest

from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.local import LocalGenerator
from routerr1.train.player import Player
from routerr1.types import Generation, Trajectory


class Tokenised:
    """Sessions say the scripts in turn; what closes no tag was cut off by its length."""

    def __init__(self, policy: LocalGenerator, scripts: Sequence[Sequence[str]]) -> None:
        self.model = policy.model
        self._policy = policy
        self._scripts = cycle(scripts)

    def start(self, prompt: str, *, seed: int) -> Any:
        script = ScriptedGenerator(next(self._scripts)).start(prompt, seed=seed)
        encode = self._policy.encode

        class Session:
            prompt_ids = tuple(encode(prompt))
            close = script.close
            truncate = script.truncate

            async def generate(self, **limits: Any) -> Generation:
                said = (await script.generate(**limits)).text
                ids = tuple(encode(said))
                finish: Any = "stop" if said.endswith(">") else "length"
                return Generation(said, ids, (0.0,) * len(ids), finish)

            def insert(self, text: str) -> tuple[int, ...]:
                script.insert(text)
                return tuple(encode(text))

        return Session()


def play_scripts(monkeypatch: pytest.MonkeyPatch, scripts: Sequence[Sequence[str]]) -> None:
    """Let training play these instead of what the policy would sample."""
    play = Player.play

    def scripted(self: Any, *args: Any, **kwargs: Any) -> list[Trajectory]:
        policy = self.generator
        self.generator = Tokenised(policy, scripts)
        try:
            return play(self, *args, **kwargs)
        finally:
            self.generator = policy

    monkeypatch.setattr(Player, "play", scripted)
