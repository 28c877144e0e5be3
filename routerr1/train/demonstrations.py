"""Trajectories to imitate, and how they become tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from routerr1.policy.tokens import encode_prompt, encode_text
from routerr1.train.packing import Example
from routerr1.types import Trajectory

Demonstration = tuple[str, Trajectory]
"""A prompt and the trajectory that follows it."""


class Piece(NamedTuple):
    """A part of what the policy wrote in a turn, split between words.

    Attributes:
        imitated: whether a loss is taken of it.
        alternatives: words of which any will do in its place, itself among them; empty for it alone.
    """

    text: str
    imitated: bool = True
    alternatives: tuple[str, ...] = ()


class Demonstrations(Protocol):
    """A source of trajectories with a valid format, for the warm start and for rehearsal."""

    def draw(self, seed: int, count: int) -> Iterator[Demonstration]:
        """`count` demonstrations; equal arguments give equal ones."""
        ...

    def vocabulary(self) -> Iterator[str]:
        """Words that a policy may meet later, for a tokenizer that is trained on demonstrations."""
        ...


def imitate_all(trajectory: Trajectory) -> list[list[Piece]]:
    """All of every turn, in one piece."""
    return [[Piece(turn.generation.text)] for turn in trajectory.turns]


def encode(
    prompt: str,
    trajectory: Trajectory,
    tokenizer: Any,
    *,
    chat: bool = False,
    pieces: Callable[[Trajectory], Sequence[Sequence[Piece]]] = imitate_all,
) -> Example:
    """Encode piece by piece, as a rollout does: no token spans an insertion.

    Args:
        pieces: of every turn. Alternatives are for tokenizers that know each as one token; with others no loss
            is taken of such a piece.
    """
    ids: list[int] = []
    mask: list[int] = []
    alternatives: dict[int, tuple[int, ...]] = {}
    for turn, parts in zip(trajectory.turns, pieces(trajectory), strict=True):
        for part in (*parts, Piece(turn.inserted, imitated=False)):
            own = encode_text(tokenizer, part.text)
            others = [encode_text(tokenizer, text) for text in part.alternatives]
            single = all(len(each) == 1 for each in others)
            if others and single:
                alternatives[len(ids)] = tuple(each[0] for each in others)
            ids += own
            mask += [int(part.imitated and single)] * len(own)
    prompt_ids = tuple(encode_prompt(tokenizer, prompt, chat=chat))
    return Example(prompt_ids, tuple(ids), tuple(mask), alternatives)
