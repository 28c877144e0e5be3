"""What the warm start taught, kept alive while rewards are learnt from.

Reinforcement learning meets other entities than the test: the weights that copy a name from a reply drift,
and nothing in training tells. So each step also imitates a few of the warm start's trajectories, as language
models are kept at their pretraining data (PPO-ptx, arXiv 2203.02155). Where a trajectory decides, on what to
do next and on whom to call, nothing is imitated: that is for rewards to teach.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.prompt import Renderer
from routerr1.rollout.loop import stream_seed
from routerr1.simulation.pool import known_facts
from routerr1.train.demonstrations import imitated
from routerr1.train.packing import Example
from routerr1.train.warmstart import encode, imitate_all
from routerr1.types import Card, Question

Rehearsal = Callable[[int, Any], Sequence[Example]]
"""(step, tokenizer) -> what is imitated in it; the same every time."""

# A thought's first word says whether to go on and on what; whom to call stands behind its colon.
_THOUGHT = re.compile(r"(<think>)( \S+)(?:(.*:)( [^<]+))?(</think>.*)", re.DOTALL)


def rehearsal(
    questions: Sequence[Question],
    world: World,
    cards_of: Callable[[int], Sequence[Card]],
    params: Params,
    seed: int,
    *,
    render: Renderer,
) -> Rehearsal:
    """Trajectories of the warm start's kind, others for each step and training seed.

    Args:
        cards_of: the cards of the n-th example of the run.
    """
    known, count = known_facts(world), params.train.rehearsal_batch

    def of_step(step: int, tokenizer: Any) -> list[Example]:
        pairs = imitated(
            questions, world, known, lambda place: cards_of(step * count + place),
            render=render, params=params.rollout, seed=stream_seed(seed, step), count=count,
            stop_probability=params.warmstart.stop_probability,
        )  # fmt: skip
        return [
            encode(prompt, trajectory, tokenizer, chat=params.prompt.chat, pieces=undecided)
            for prompt, trajectory in pairs
        ]

    return of_step


def undecided(said: str) -> list[tuple[str, int]]:
    """See `warmstart.Pieces`: mask 0 where the policy decides.

    >>> undecided("<think> money 95 A 40 B: A</think><search> A: what?</search>")[:4]
    [('<think>', 1), (' money', 0), (' 95 A 40 B:', 1), (' A', 0)]
    """
    found = _THOUGHT.fullmatch(said)
    if found is None:
        return imitate_all(said)
    weights = (1, 0, 1, 0, 1)
    return [(text, weight) for text, weight in zip(found.groups(), weights, strict=True) if text]
