"""Trajectories to imitate, and how they become tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from routerr1.policy.tokens import encode_prompt, encode_text
from routerr1.train.packing import Example
from routerr1.types import Trajectory

Demonstration = tuple[str, Trajectory]
"""A prompt and the trajectory that follows it."""

Pieces = Sequence[tuple[str, int]]
"""What the policy wrote in a turn, split between words, with the mask of each piece."""


class Demonstrations(Protocol):
    """A source of trajectories with a valid format, for the warm start and for rehearsal."""

    def draw(self, seed: int, count: int) -> Iterator[Demonstration]:
        """`count` demonstrations; equal arguments give equal ones."""
        ...

    def vocabulary(self) -> Iterator[str]:
        """Words that a policy may meet later, for a tokenizer that is trained on demonstrations."""
        ...


def imitate_all(trajectory: Trajectory) -> list[Pieces]:
    """All of every turn, in one piece."""
    return [[(turn.generation.text, 1)] for turn in trajectory.turns]


def encode(
    prompt: str,
    trajectory: Trajectory,
    tokenizer: Any,
    *,
    chat: bool = False,
    imitated: Callable[[Trajectory], Sequence[Pieces]] = imitate_all,
) -> Example:
    """Encode piece by piece, as a rollout does: no token spans an insertion.

    Args:
        imitated: the pieces of every turn.
    """
    ids: list[int] = []
    mask: list[int] = []
    for turn, pieces in zip(trajectory.turns, imitated(trajectory), strict=True):
        for text, weight in (*pieces, (turn.inserted, 0)):
            piece = encode_text(tokenizer, text)
            ids += piece
            mask += [weight] * len(piece)
    return Example(tuple(encode_prompt(tokenizer, prompt, chat=chat)), tuple(ids), tuple(mask))
