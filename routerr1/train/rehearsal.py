"""What the warm start taught, kept alive during reinforcement learning.

Training meets other entities than the test. The weights that copy a name from a reply drift, and no
training figure shows it. So each step also imitates a few demonstrations, as language models are kept at
their pretraining data (PPO-ptx, arXiv 2203.02155). Decisions are not imitated: rewards teach what to do
next and which candidate to call.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from routerr1.rollout.loop import stream_seed
from routerr1.train.demonstrations import Demonstrations, encode, imitate_all
from routerr1.train.packing import Example

Rehearsal = Callable[[int, Any], Sequence[Example]]
"""(step, tokenizer) -> what that step imitates; equal at every call."""

# A thought's first word says whether to continue and on what; the candidate follows its colon.
_THOUGHT = re.compile(r"(<think>)( \S+)(?:(.*:)( [^<]+))?(</think>.*)", re.DOTALL)


def rehearsal(demonstrations: Demonstrations, seed: int, count: int, *, chat: bool) -> Rehearsal:
    """`count` demonstrations for each step; other ones for each step and training seed.

    Args:
        chat: see `encode_prompt`.
    """

    def of_step(step: int, tokenizer: Any) -> list[Example]:
        pairs = demonstrations.draw(stream_seed(seed, step), count, first=step * count)
        return [
            encode(prompt, trajectory, tokenizer, chat=chat, pieces=undecided)
            for prompt, trajectory in pairs
        ]

    return of_step


def undecided(text: str) -> list[tuple[str, int]]:
    """See `demonstrations.Pieces`: mask 0 where the policy decides.

    >>> undecided("<think> money 95 A 40 B: A</think><search> A: what?</search>")[:4]
    [('<think>', 1), (' money', 0), (' 95 A 40 B:', 1), (' A', 0)]
    """
    found = _THOUGHT.fullmatch(text)
    if found is None:
        return imitate_all(text)
    weights = (1, 0, 1, 0, 1)
    return [(part, weight) for part, weight in zip(found.groups(), weights, strict=True) if part]
