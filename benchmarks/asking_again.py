"""Does asking again pay? The trained policy against itself with one call, the best on cards, and majorities.

    python -m benchmarks.asking_again [--policy FOLDER]... [--max-questions N] [--out FILE] [--page PAGE]

Run it where the chain has run, on the embedded questions; `preset: middling` is the pool for which the question was
asked. In every row the trained policy writes the sub-questions and the answer. What changes is what a call brings:

- *policy*: what the candidate says that it calls.
- *one call*: the same, but to a sub-question that was asked before, the first reply comes again and costs nothing.
- *best on cards, one call*: the reply of the candidate whose card has the highest share of right replies on the topic.
- *majority of three*: what most of the three best on cards say, for the price of three calls. Of replies that all
  differ the best candidate's counts; one that is not sure does not vote.
- *majority of the three cheapest*: the same with the three that cost least a call.

Two of them in turn, drawn for each question, have any cost between theirs. So "at the policy's cost" is the exact match
of the cheapest such mix of *best on cards, one call* and a majority that costs as much as the policy; where a majority
costs less than the policy, it is the majority's own.

Prints one JSON object; --out also writes it to FILE, and --page the table to PAGE, between the markers.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import shared
from routerr1.answers.short_answer import is_unsure, short_answer
from routerr1.config import Params, load_params
from routerr1.evaluate.controls import policy_router
from routerr1.evaluate.result_matrix import ResultMatrix
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import choose_questions, play_all, policies_of
from routerr1.evaluate.stats import SHARE, interval, paired_difference
from routerr1.jobs.progress import track
from routerr1.matching import normalise
from routerr1.notation import usual_usd
from routerr1.pool.base import Call, Pool, PoolWrapper
from routerr1.simulation.facts import topic_in
from routerr1.types import Card, Reply
from routerr1.workspace import Workspace

MARKS = "<!-- table of asking-again.json -->", "<!-- end of the table -->"
POLICY, ONE_CALL, BEST, MAJORITY, CHEAP = (
    "policy", "one call", "best on cards, one call", "majority of three", "majority of the three cheapest",
)  # fmt: skip


class AskedOnce(PoolWrapper):
    """Repeats the first reply to a sub-question of a rollout, whoever is asked; repeats are free."""

    def __init__(self, inner: Pool) -> None:
        super().__init__(inner)
        self._replies: dict[tuple[str | None, str], Reply] = {}

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        key = call.scope, normalise(call.query)
        if key in self._replies:
            return replace(
                self._replies[key],
                model=call.candidate,
                cost_usd=0.0,
                prompt_tokens=0,
                completion_tokens=0,
            )
        self._replies[key] = await super().ask(call)
        return self._replies[key]


class Chosen(PoolWrapper):
    """Puts each call to `count` candidates that are best on the topic or cheapest, and replies what most of them say.

    Args:
        topic_of: the topic of a sub-question; None leaves the call as it is.
        cheapest: whether the cheapest are asked in place of the best on cards.
    """

    def __init__(
        self, inner: Pool, topic_of: partial[str | None], *, count: int, cheapest: bool = False
    ) -> None:
        super().__init__(inner)
        self._topic_of, self._count, self._cheapest = topic_of, count, cheapest

    async def ask(self, call: Call) -> Reply:
        """See `Pool.ask`."""
        topic = self._topic_of(call.query)
        if topic is None:
            return await super().ask(call)
        chosen = chosen_for(self.cards, topic, self._count, cheapest=self._cheapest)
        replies = [await super(Chosen, self).ask(replace(call, candidate=name)) for name in chosen]
        return replace(
            most_said(call.query, replies),
            model=call.candidate,
            cost_usd=sum(reply.cost_usd for reply in replies),
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
            latency_s=max(reply.latency_s for reply in replies),
        )


def chosen_for(cards: Sequence[Card], topic: str, count: int, *, cheapest: bool) -> list[str]:
    """Names of `count` candidates, the best on the topic by their cards first."""
    kept = sorted(cards, key=usual_usd)[:count] if cheapest else cards
    best = sorted(kept, key=lambda card: (-card.performance.get(topic, 0.0), usual_usd(card)))
    return [card.name for card in best[:count]]


def most_said(query: str, replies: Sequence[Reply]) -> Reply:
    """The first reply whose answer most of the sure replies give; the first reply if none is sure."""
    sure = [reply for reply in replies if reply.failure is None and not is_unsure(reply.text)]
    if not sure:
        return replies[0]
    said = [normalise(short_answer(query, reply.text)) for reply in sure]
    votes = Counter(said)
    return sure[said.index(max(said, key=lambda answer: votes[answer]))]


def main() -> None:
    """Parse, play, print."""
    parser = shared.parser(__doc__)
    shared.add_policy(parser)
    parser.add_argument("--max-questions", type=int)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    params = load_params(Path("params.yaml"))
    found = asyncio.run(measure(params, given.policy, given.max_questions, given.resamples))
    shared.report(found, given.out)
    if given.page:
        shared.fill(given.page, MARKS, table(found["rows"]))


async def measure(
    params: Params, folders: Sequence[Path] | None, limit: int | None, resamples: int
) -> dict[str, Any]:
    """Every row's figures, and its difference from the policy."""
    workspace = Workspace(params)
    generators = shared.generators_of(workspace, folders)
    policies = policies_of(generators, workspace.renderer, params)
    topic_of = partial(topic_in, workspace.facts)
    questions = choose_questions(
        workspace.spending(params.evaluate.split), limit, params.evaluate.seed
    )
    pool = workspace.open_pool(workspace.cards)
    async with aclosing(pool):
        pools: dict[str, Pool] = {
            POLICY: pool,
            ONE_CALL: AskedOnce(pool),
            BEST: AskedOnce(Chosen(pool, topic_of, count=1)),
            MAJORITY: AskedOnce(Chosen(pool, topic_of, count=3)),
            CHEAP: AskedOnce(Chosen(pool, topic_of, count=3, cheapest=True)),
        }
        played: dict[str, list[Row]] = {}
        for name, shown in pools.items():
            routers = [policy_router(policy, shown, name, 0) for policy in policies]
            jobs = [(router, question) for question in questions for router in routers]
            with track(name, len(jobs)) as bar:
                played[name] = await play_all(
                    jobs, concurrency=params.evaluate.concurrency, progress=bar.update
                )
    return {
        "preset": params.preset,
        "seeds": len(generators),
        "n": len(questions),
        "rows": rows_of(played, resamples),
    }


def rows_of(played: Mapping[str, Sequence[Row]], resamples: int) -> list[dict[str, Any]]:
    """A row for each way to ask, and two for majorities at the policy's cost."""
    matrices = {name: ResultMatrix(list(rows)) for name, rows in played.items()}
    groups = matrices[POLICY].groups
    em_Q = {name: matrix.values("em").mean(axis=0) for name, matrix in matrices.items()}
    usd_Q = {name: matrix.values("cost_usd").mean(axis=0) for name, matrix in matrices.items()}
    calls = {
        name: float(np.mean([len(row.called) for row in rows])) for name, rows in played.items()
    }
    for name in (MAJORITY, CHEAP):
        mix = share_of(*(float(usd_Q[each].mean()) for each in (POLICY, BEST, name)))
        mixed = f"{name}, at the policy's cost"
        em_Q[mixed] = (1 - mix) * em_Q[BEST] + mix * em_Q[name]
        usd_Q[mixed] = (1 - mix) * usd_Q[BEST] + mix * usd_Q[name]
    found = []
    for name, values in em_Q.items():
        own = interval(values.tolist(), groups, resamples=resamples, within=SHARE)
        gap = paired_difference(em_Q[POLICY].tolist(), values.tolist(), groups, resamples=resamples)
        found.append(
            {
                "name": name,
                "em": {"mean": own.mean, "low": own.low, "high": own.high},
                "usd_per_1000": float(1000 * usd_Q[name].mean()),
                "policy_calls": calls.get(name),
                "policy_minus": {"mean": gap.mean, "low": gap.low, "high": gap.high},
            }
        )
    return found


def share_of(policy_usd: float, best_usd: float, majority_usd: float) -> float:
    """Share of questions for the majority, so that the mix with one call costs what the policy does."""
    if majority_usd <= policy_usd:
        return 1.0
    return min(1.0, max(0.0, (policy_usd - best_usd) / (majority_usd - best_usd)))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each way to ask."""
    heads = ["What a call brings", "EM", "Policy minus it", "USD per 1,000"]
    lines = [
        [
            row["name"], shared.ranged(row["em"]),
            "" if row["name"] == POLICY else shared.ranged(row["policy_minus"], "+"),
            f"{row['usd_per_1000']:.4f}",
        ]
        for row in rows
    ]  # fmt: skip
    return shared.table(heads, lines)


if __name__ == "__main__":
    main()
