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

# The first word of a thought says whether to continue and on what, or quotes the figure of a candidate.
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


def undecided(text: str) -> list[tuple[str, int]]:
    """See `demonstrations.Pieces`: mask 0 where the policy decides.

    >>> undecided("<think> money</think><search> cards: money</search>")
    [('<think>', 1), (' money', 0), ('</think><search> cards: money</search>', 1)]
    >>> undecided("<think> 95% m4</think><search> m4: @question</search>")
    [('<think>', 1), (' 95%', 0), (' m4</think><search> m4: @question</search>', 1)]
    """
    found = _DECISION.fullmatch(text)
    if found is None:
        return imitate_all(text)
    return list(zip(found.groups(), (1, 0, 1), strict=True))
