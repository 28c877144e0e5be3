"""What the warm start taught, kept alive during reinforcement learning.

Training meets other entities than the test. The weights that copy a name from a reply drift, and no
training figure shows it. So each step also imitates a few demonstrations, as language models are kept at
their pretraining data (PPO-ptx, arXiv 2203.02155). Of decisions only how a question is split is imitated:
rewards teach which candidate to call, whether to ask again, and when to stop.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from routerr1.rollout.loop import stream_seed
from routerr1.train.demonstrations import Demonstrations, Pieces, encode
from routerr1.train.packing import Example
from routerr1.types import LookUp, Trajectory

Rehearsal = Callable[[int, Any], Sequence[Example]]
"""(step, tokenizer) -> what that step imitates; equal at every call."""

# The first word of a thought says whether to continue and on what, or names the figure that a call aims at.
_DECISION = re.compile(r"(<think>)( ?[^<\s]+)(.*)", re.DOTALL)


def rehearsal(demonstrations: Demonstrations, seed: int, count: int, *, chat: bool) -> Rehearsal:
    """`count` demonstrations for each step; other ones for each step and training seed.

    Args:
        chat: see `encode_prompt`.
    """

    def of_step(step: int, tokenizer: Any) -> list[Example]:
        pairs = demonstrations.draw(stream_seed(seed, step), count)
        return [
            encode(prompt, trajectory, tokenizer, chat=chat, imitated=undecided)
            for prompt, trajectory in pairs
        ]

    return of_step


def undecided(trajectory: Trajectory) -> list[Pieces]:
    """See `demonstrations.Pieces`: mask 0 where the policy decides, but 1 for the first look-up of each topic.

    That look-up begins a part of the question. Where rewards alone taught it, some trainings took every
    question of one kind for a question of one fact, and never found back.
    """
    begun: set[str] = set()
    pieces: list[Pieces] = []
    for turn in trajectory.turns:
        begins = isinstance(turn.action, LookUp) and turn.action.topic not in begun
        if isinstance(turn.action, LookUp):
            begun.add(turn.action.topic)
        pieces.append(_masked(turn.generation.text, decision=int(begins)))
    return pieces


def _masked(text: str, *, decision: int) -> Pieces:
    """The text in pieces, its decision with the given mask.

    >>> _masked("<think> money</think><search> cards: money</search>", decision=0)
    [('<think>', 1), (' money', 0), ('</think><search> cards: money</search>', 1)]
    >>> _masked("<think> 95% m4</think><search> m4: @question</search>", decision=0)
    [('<think>', 1), (' 95%', 0), (' m4</think><search> m4: @question</search>', 1)]
    """
    found = _DECISION.fullmatch(text)
    if found is None:
        return [(text, 1)]
    return list(zip(found.groups(), (1, decision, 1), strict=True))
