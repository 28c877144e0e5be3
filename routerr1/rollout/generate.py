"""The interface of a policy: start a session on a prompt, generate, insert, generate again."""

from collections.abc import Callable, Sequence
from typing import Protocol

from routerr1.types import Generation


class Session(Protocol):
    """The policy's state for one trajectory: the tokens that it has read and written."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Token ids of the prompt; empty for a remote policy, which counts its own tokens."""
        ...

    async def generate(self, *, max_new_tokens: int, temperature: float) -> Generation:
        """Generate up to a closing search or answer tag, the end token, or `max_new_tokens`.

        Temperature 0 takes the likeliest token.
        """
        ...

    def truncate(self, text: str, max_tokens: int) -> str:
        """Longest prefix of `text` that `insert` encodes to at most `max_tokens` tokens."""
        ...

    def insert(self, text: str) -> tuple[int, ...]:
        """Append text that the policy did not write; returns its token ids.

        No part of it becomes a special token of the policy's tokenizer.
        """
        ...

    def close(self) -> None:
        """Free the session, which is not used again."""
        ...


class Generator(Protocol):
    """A policy that can hold many sessions at once."""

    def start(self, prompt: str, *, seed: int) -> Session:
        """Start a session; `seed` alone decides its samples."""
        ...


class ScriptedGenerator:
    """A policy that follows a script, for tests and for routers that are programs.

    Args:
        script: either the generations in order, the same for every prompt, or a function from
            (prompt, what was inserted so far) to the next generation.
    """

    def __init__(self, script: Sequence[str] | Callable[[str, Sequence[str]], str]) -> None:
        self._script = script

    def start(self, prompt: str, *, seed: int) -> "ScriptedSession":  # noqa: ARG002 - nothing is sampled
        """See `Generator.start`."""
        return ScriptedSession(prompt, self._script)


class ScriptedSession:
    """See `ScriptedGenerator`. Tokens are UTF-8 bytes, so that masks and lengths can be tested."""

    def __init__(
        self, prompt: str, script: Sequence[str] | Callable[[str, Sequence[str]], str]
    ) -> None:
        self._prompt = prompt
        self._script = script
        self._said = 0
        self.inserted: list[str] = []

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt's bytes."""
        return tuple(self._prompt.encode())

    async def generate(self, *, max_new_tokens: int, temperature: float) -> Generation:  # noqa: ARG002 - a script has no limits
        """The next line of the script; "" with finish "eos" once it is used up."""
        if callable(self._script):
            text = self._script(self._prompt, self.inserted)
        elif self._said < len(self._script):
            text = self._script[self._said]
        else:
            text = ""
        self._said += 1
        ids = tuple(text.encode())
        return Generation(text, ids, (0.0,) * len(ids), "stop" if text else "eos")

    def truncate(self, text: str, max_tokens: int) -> str:
        """See `Session.truncate`."""
        return text.encode()[:max_tokens].decode(errors="ignore")

    def insert(self, text: str) -> tuple[int, ...]:
        """Keep the text for the script to read."""
        self.inserted.append(text)
        return tuple(text.encode())

    def close(self) -> None:
        """Nothing to free."""
