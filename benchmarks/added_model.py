"""What a new model gains before any training, by the number of probes that its card rests on.

For every candidate that leads a topic, the held-out ones too, the pool is played without it, and with it
under a card of 0, 8, 40 and 120 probes. A policy reads cards, so nothing is trained again. Played are the test
questions with a part in a topic that the candidate leads by its card of 120 probes.

Run it where the chain has run, on a recorded pool:

    python -m benchmarks.added_model [--policy FOLDER]... [--out STEM]

Prints one JSON object; --out also writes it, with a table as Markdown. Gains are in exact match against the pool
without the candidate, paired by question; intervals resample groups of questions. "First" is the share of
the first calls for a sub-question of such a topic, "all" of all calls for one. A card rests on one draw of probes, so
"ranked first" says for how many of ten draws look-ups show the highest figure of the candidate, in the mean over its
topics: what a policy that calls the best shown would do. For that nothing is played.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import shared
from routerr1.config import Params, load_params
from routerr1.evaluate.controls import policy_router
from routerr1.evaluate.result_matrix import ResultMatrix
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import choose_questions, play_all, policies_of
from routerr1.evaluate.stats import paired_difference
from routerr1.jobs.progress import track
from routerr1.notation import figure_on
from routerr1.pool.build import open_http_pool
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.profile import profile, sample_probes
from routerr1.pool.recorded import answerable
from routerr1.rollout.record import from_row
from routerr1.simulation.facts import topic_in
from routerr1.types import Ask, Card, Question
from routerr1.workspace import Workspace

PROBES = (0, 8, 40, 120)
DRAWS = 10


@dataclass(frozen=True)
class Played:
    """One candidate as the new one.

    Attributes:
        topics: that it leads.
        without: rows on the pool without it.
        by_probes: number of probes -> rows on the pool with it.
        first_in_draws: number of probes -> share of draws and topics in which its figure is the highest.
    """

    name: str
    topics: tuple[str, ...]
    without: list[Row]
    by_probes: Mapping[int, list[Row]]
    first_in_draws: Mapping[int, float]


def main() -> None:
    """Parse, play, print."""
    parser = shared.parser(__doc__)
    shared.add_policy(parser)
    parser.add_argument("--max-questions", type=int, help="of the test split for each candidate")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    given = parser.parse_args()
    params = load_params(Path("params.yaml"))
    found = asyncio.run(measure(params, given.policy, given.max_questions, given.resamples))
    shared.report(found, given.out, page(found))


async def measure(
    params: Params, folders: Sequence[Path] | None, limit: int | None, resamples: int
) -> dict[str, Any]:
    """Figures of every candidate that leads a topic."""
    workspace = Workspace(params)
    generators = shared.generators_of(workspace, folders)
    policies = policies_of(generators, workspace.renderer, params)
    topic_of = partial(topic_in, workspace.facts)
    pool = open_http_pool(params.pool, held_out=True, max_rejected=params.max_rejected)
    models = []
    async with aclosing(pool):
        train = answerable(workspace.questions("train"), pool)
        section = params.profile_pool
        cards = {
            count: {
                card.name: card
                for card in (
                    await profile(sample_probes(train, count, section.seed), pool, store=None)
                ).cards
            }
            for count in PROBES[1:]
        }
        cards[0] = {
            card.name: replace(card, performance={}, unsure={})
            for card in cards[PROBES[-1]].values()
        }
        full = cards[PROBES[-1]]
        drawn = {
            count: [
                {
                    card.name: card
                    for card in (
                        await profile(sample_probes(train, count, draw), pool, store=None)
                    ).cards
                }
                for draw in range(1, DRAWS + 1)
            ]
            for count in PROBES[1:]
        }
        own = [card.name for card in workspace.cards]
        for name in full:
            others = [full[other] for other in own if other != name]
            topics = led_by(full[name], others)
            asked = [
                question
                for question in answerable(workspace.questions("test"), pool)
                if set(question.metadata["topics"]) & set(topics)
            ]
            if not asked:
                continue
            questions = choose_questions(asked, limit, params.evaluate.seed)

            async def play(
                shown: Sequence[Card], what: str, questions: Sequence[Question] = questions
            ) -> list[Row]:
                routers = [
                    policy_router(policy, PerturbedPool(pool, shown), what, 0)
                    for policy in policies
                ]
                jobs = [(router, question) for question in questions for router in routers]
                with track(what, len(jobs)) as bar:
                    return await play_all(
                        jobs, concurrency=params.evaluate.concurrency, progress=bar.update
                    )

            without = await play(others, f"without {name}")
            by_probes = {
                count: await play([*others, cards[count][name]], f"{name}, {count} probes")
                for count in PROBES
            }
            first_in_draws = {
                count: fmean(ranked_first(each[name], others, topics) for each in draws)
                for count, draws in drawn.items()
            }
            models.append(Played(name, topics, without, by_probes, first_in_draws))
    return {
        "seeds": len(generators),
        "max_questions": limit,
        "models": [figures_of(each, own, topic_of, resamples) for each in models],
    }


def led_by(card: Card, others: Sequence[Card]) -> tuple[str, ...]:
    """The topics in which look-ups show a higher figure of the card than of all others."""
    return tuple(
        topic
        for topic in sorted(card.performance)
        if figure_on(card, topic) > max(figure_on(other, topic) for other in others)
    )


def ranked_first(card: Card, others: Sequence[Card], topics: Sequence[str]) -> float:
    """Share of `topics` in which look-ups show no higher figure than that of the card."""
    return fmean(
        figure_on(card, topic) >= max(figure_on(other, topic) for other in others)
        for topic in topics
    )


def figures_of(
    played: Played, own: Sequence[str], topic_of: partial[str | None], resamples: int
) -> dict[str, Any]:
    """One candidate's gains and shares of calls."""
    before = ResultMatrix(played.without)
    curve = []
    for count, rows in played.by_probes.items():
        after = ResultMatrix(rows)
        gap = paired_difference(
            after.values("em"), before.values("em"), before.groups, resamples=resamples
        )
        first, every = shares(rows, played, topic_of)
        curve.append(
            {
                "probes": count,
                "em": float(after.values("em").mean()),
                "gain": {"mean": gap.mean, "low": gap.low, "high": gap.high},
                "first_calls": first,
                "calls": every,
                "ranked_first": played.first_in_draws.get(count),
            }
        )
    return {
        "name": played.name,
        "held_out": played.name not in own,
        "topics": played.topics,
        "n": len({(row.dataset, row.question_id) for row in played.without}),
        "em_without": float(before.values("em").mean()),
        "curve": curve,
    }


def shares(
    rows: Sequence[Row], played: Played, topic_of: partial[str | None]
) -> tuple[float, float]:
    """Share of the first calls, and of all, for sub-questions of the led topics that go to the candidate."""
    firsts: list[bool] = []
    every: list[bool] = []
    for row in rows:
        seen = set()
        for turn in from_row(json.loads(row.trajectory)).turns:
            ask = turn.action
            if isinstance(ask, Ask) and topic_of(ask.query) in played.topics:
                hit = ask.name == played.name
                every.append(hit)
                if ask.query not in seen:
                    firsts.append(hit)
                seen.add(ask.query)
    return sum(firsts) / max(1, len(firsts)), sum(every) / max(1, len(every))


def page(found: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    shown = [at for model in found["models"] for at in model["curve"] if at["probes"]]
    gains = sum((at["gain"]["low"] or 0.0) > 0 for at in shown)
    losses = sum((at["gain"]["high"] or 0.0) < 0 for at in shown)
    most = max(at["first_calls"] for at in shown)
    bare = [at["calls"] for model in found["models"] for at in model["curve"] if not at["probes"]]
    limit = found.get("max_questions")
    seeds = "One training seed" if found["seeds"] == 1 else f"{found['seeds']} training seeds"
    prose = [
        "The policy reads cards, so nothing is trained again when a candidate is added. Each candidate that leads a "
        "topic is left out of the pool and then added, with a card of 0, 8, 40 or 120 probes.",
        f"**Of {len(shown)} cards with probes, {gains} raise exact match, {losses} "
        f"{'lowers' if losses == 1 else 'lower'} it, and {len(shown) - gains - losses} show no difference.** The new "
        f"candidate gets at most {most:.2f} of the first calls on its topics, and more probes do not always bring more. "
        f"Without probes it gets at most {max(bare):.2f} of all calls.",
        f"{seeds}. Gains are exact match minus that of the pool without the candidate, on the same questions, with 95 % "
        "intervals over groups of questions. The probes of a card are one draw, so a difference between two cards may be "
        f"that of their probes. *Ranked first* is the share of {DRAWS} other draws, and of the led topics, in which look-ups "
        "show the highest figure of the new candidate. 8 probes are one or two for each topic.",
        "*First calls* is the share of first calls for a sub-question of the led topics that go to the new candidate; "
        "*all calls* counts repeated ones too.",
    ]  # fmt: skip
    lines = ["# A new candidate, by the probes of its card", ""]
    for paragraph in prose:
        lines += [shared.wrapped(paragraph, hyphens=False), ""]
    options = f" --max-questions {limit}" if limit else ""
    lines += ["```bash", f"python -m benchmarks.added_model{options} --out docs/results/added-model", "```"]  # fmt: skip
    for model in found["models"]:
        held_out = ", kept from training" if model["held_out"] else ""
        lines += [
            "",
            f"## {model['name']}{held_out}",
            "",
            f"Leads {', '.join(model['topics'])}. {model['n']} questions, {model['em_without']:.3f} exact match without it.",
            "",
        ]
        rows = [
            (f"{at['probes']}", f"{at['em']:.3f}", shared.ranged(at["gain"], "+"), f"{at['first_calls']:.2f}", f"{at['calls']:.2f}",
             "" if at["ranked_first"] is None else f"{at['ranked_first']:.2f}")
            for at in model["curve"]
        ]  # fmt: skip
        lines.append(
            shared.table(("probes", "EM", "gain", "first calls", "all calls", "ranked first"), rows)
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
