"""Scripted trajectories on the probes of the profile stage: valid format, real replies, random routing.

A scripted policy looks its question up. It draws one of the shown candidates, and names a figure to which that
candidate's is the nearest (`notation.aimed_at`). It asks the question as it is, and answers with the reply it
got. Where the reply is a refusal or the call failed, it usually looks again and asks another candidate, if
one is shown. Pools and names are drawn, so the figures are all that tells candidates apart. A policy can
learn the protocol, to call the candidate nearest to a figure, to refer to replies, and what a refusal looks
like in the language of its questions. It cannot learn that a higher figure is better.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from routerr1.answers.short_answer import is_unsure
from routerr1.config import RolloutParams
from routerr1.matching import normalise
from routerr1.notation import SPEND_LEVELS, THE_QUESTION, aimed_at, with_spend
from routerr1.pool.base import Pool
from routerr1.pool.profile import ProbeRow
from routerr1.prompt import Renderer
from routerr1.protocol import LOOK_UP
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import FAILED, rollout
from routerr1.train.demonstrations import Demonstration
from routerr1.types import Question

NEXT, DONE = "ask", "done"
_FEWEST_REFUSED = 3  # questions with the same wrong reply, from which on it counts as a refusal
_REPLY = re.compile(r"<information> @[0-9]+ (.*)</information>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ProbedDemonstrations:
    """See `Demonstrations`.

    Attributes:
        questions: whose replies are recorded.
        others: further questions, whose words a tokenizer should know.
        draw_pool: seed -> a pool of recorded replies.
        refusals: normalised replies that hold no answer; see `refusals_of`.
    """

    questions: Sequence[Question]
    others: Sequence[Question]
    draw_pool: Callable[[int], Pool]
    refusals: frozenset[str]
    render: Renderer
    rollout: RolloutParams
    stop_probability: float

    def draw(self, seed: int, count: int) -> Iterator[Demonstration]:
        """See `Demonstrations.draw`."""
        rng = Random(f"imitated/{seed}")
        for _ in range(count):
            question = with_spend(rng.choice(self.questions), rng.randint(0, SPEND_LEVELS))
            pool = self.draw_pool(rng.getrandbits(32))
            script = ScriptedGenerator(self._script(Random(rng.random())))
            trajectory = rollout(
                question, script, pool, render=self.render, params=self.rollout,
                seed=rng.getrandbits(32),
            )  # fmt: skip
            yield self.render(question, pool.cards), asyncio.run(trajectory)

    def vocabulary(self) -> Iterator[str]:
        """See `Demonstrations.vocabulary`."""
        return (f" {question.question}" for question in (*self.questions, *self.others))

    def _script(self, rng: Random) -> Callable[[str, Sequence[str]], str]:
        """The next generation from what was inserted so far."""
        replies, last = 0, 0  # number of replies, and of the one to answer with
        looking = False
        asked: set[str] = set()

        def say(_: str, inserted: Sequence[str]) -> str:
            nonlocal replies, last, looking
            if looking:
                looking = False
                aim = aimed_at(inserted[-1], rng, asked)
                if aim is None:
                    return done()
                percent, handle = aim
                asked.add(handle)
                call = f"<search> {handle}: {THE_QUESTION}</search>"
                return f"<think> {percent}% {handle}</think>{call}"
            answered = False
            if inserted:
                replies += 1
                answered = not self._is_refusal(inserted[-1])
                last = replies if answered or not last else last
            stop = self.stop_probability if answered else 1 - self.stop_probability
            if replies >= self.rollout.max_rounds or (inserted and rng.random() < stop):
                return done()
            looking = True
            return f"<think> {NEXT}</think><search> {LOOK_UP}: {THE_QUESTION}</search>"

        def done() -> str:
            return f"<think> {DONE}</think><answer> @{last}</answer>"

        return say

    def _is_refusal(self, inserted: str) -> bool:
        found = _REPLY.fullmatch(inserted.strip())
        said = found[1].strip() if found else ""
        if is_unsure(said) or said in FAILED.values():
            return True
        read = normalise(said, "text")  # long replies are cut
        return bool(read) and any(refusal.startswith(read) for refusal in self.refusals)


def refusals_of(rows: Sequence[ProbeRow]) -> frozenset[str]:
    """Normalised replies that hold no answer, in any language: the same for several questions, and never right.

    >>> said = [("a", "Weiß nicht.", 0.0), ("b", "weiß nicht", 0.0), ("c", "Weiß nicht!", 0.0), ("d", "Bonn", 1.0)]
    >>> sorted(refusals_of([{"question": q, "answer": a, "correct": right} for q, a, right in said]))
    ['weiss nicht']
    """
    right: dict[str, bool] = {}
    asked: dict[str, set[str]] = {}
    for row in rows:
        said = normalise(row["answer"] or "", "text")
        right[said] = right.get(said, False) or row["correct"] > 0
        asked.setdefault(said, set()).add(row["question"])
    return frozenset(
        said
        for said, questions in asked.items()
        if len(questions) >= _FEWEST_REFUSED and not right[said]
    )
