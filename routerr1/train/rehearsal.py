"""What the warm start taught, kept alive during reinforcement learning.

Training meets other entities than the test. The weights that copy a name from a reply drift, and no
training figure shows it. So each step also imitates a few demonstrations, as language models are kept at
their pretraining data (PPO-ptx, arXiv 2203.02155). Decisions are not imitated, but for
how a question is split: rewards teach which candidate to call, whether to ask again, and when to stop.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from routerr1.rollout.loop import stream_seed
from routerr1.train.demonstrations import Demonstrations, Piece, encode
from routerr1.train.packing import Example
from routerr1.types import LookUp, Trajectory

Rehearsal = Callable[[int, Any], Sequence[Example]]
"""(step, tokenizer) -> what that step imitates; equal at every call."""

# The first word of a thought says whether to continue and on what, or quotes the figure of a candidate.
_FIGURE = re.compile(r"\b[0-9]{1,3}%")
_DECISION = re.compile(r"(<think>)( ?[^<\s]+)(.*)", re.DOTALL)


def rehearsal(demonstrations: Demonstrations, seed: int, count: int, *, chat: bool) -> Rehearsal:
    """`count` demonstrations for each step; other ones for each step and training seed.

    Args:
        chat: see `encode_prompt`.
    """

    def of_step(step: int, tokenizer: Any) -> list[Example]:
        pairs = demonstrations.draw(stream_seed(seed, step), count)
        return [
            encode(prompt, trajectory, tokenizer, chat=chat, pieces=undecided)
            for prompt, trajectory in pairs
        ]

    return of_step


def undecided(trajectory: Trajectory) -> list[list[Piece]]:
    """What is imitated of every turn: all but its decision, with two exceptions.

    The first look-up of a topic begins a part of the question, and is imitated. Where rewards alone taught
    it, some trainings took every question of one kind for a question of one fact, and never found back. A
    quoted figure is to be one of those that the look-up shows, whichever: rewards alone make high figures
    likely that no card shows, and the handle that follows such a figure is any.
    """
    begun: set[str] = set()
    shown: tuple[str, ...] = ()
    pieces: list[list[Piece]] = []
    for turn in trajectory.turns:
        begins = isinstance(turn.action, LookUp) and turn.action.topic not in begun
        if isinstance(turn.action, LookUp):
            begun.add(turn.action.topic)
        pieces.append(_pieces(turn.generation.text, begins=begins, shown=shown))
        shown = tuple(f" {figure}" for figure in _FIGURE.findall(turn.inserted))
    return pieces


def _pieces(text: str, *, begins: bool, shown: tuple[str, ...]) -> list[Piece]:
    """The text, its decision by itself.

    Args:
        begins: imitate the decision.
        shown: figures of which any will do.

    >>> [piece.imitated for piece in _pieces("<think> money</think><search> cards: money</search>", begins=False, shown=())]
    [True, False, True]
    >>> _pieces("<think> 95% m4</think><search> m4: @question</search>", begins=False, shown=(" 95%", " 40%"))[1]
    Piece(text=' 95%', imitated=True, alternatives=(' 95%', ' 40%'))
    """
    found = _DECISION.fullmatch(text)
    if found is None:
        return [Piece(text)]
    before, decision, after = found.groups()
    alternatives = shown if decision in shown else ()
    return [
        Piece(before),
        Piece(decision, begins or bool(alternatives), alternatives),
        Piece(after),
    ]
