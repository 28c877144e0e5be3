"""Controls that learn from a handful of probes: what reinforcement learning has to beat.

Their probes are those of the profile stage or a part of them, so they cost nothing more. The topic of a question is that of
the nearest probe, because nothing else is known of it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from random import Random
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from routerr1.answers.short_answer import passes
from routerr1.baselines.embed import Embedder
from routerr1.baselines.learned import Chooser, ScoredChooser, knn
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.threads import one_thread
from routerr1.notation import SPEND_LEVELS, asking_index, price_at
from routerr1.types import Card

ChoiceRule = Literal["best", "beta", "thompson", "knn"]
"""How the candidate is chosen; see `from_few_probes`."""

COUNTS = (8, 40)
_RULES: tuple[ChoiceRule, ...] = ("best", "beta", "thompson", "knn")
_PRIOR = 2.0  # observations that a candidate's accuracy over all topics counts for in one topic
_MORE_RIGHT, _MORE_WRONG = 1, 1  # answers by which Laplace's rule keeps an accuracy off 0 and 1
_FREE_USD = 1e-12  # a mean cost below this counts as this, because one divides by the highest
_CARD_DECIMALS = 3  # of a card's performance, as the profile stage writes it


class FewProbes(NamedTuple):
    """A rule, and the number of probe questions that every candidate gets."""

    rule: ChoiceRule
    probes: int


FEW = {f"{rule}_{count}": FewProbes(rule, count) for rule in _RULES for count in COUNTS}
"""Routers that learn from few probes, by name."""

PROMPTED = {f"prompted_{count}": count for count in COUNTS}
"""The prompted choice with cards of few probes: its name and their number."""

SPEND = {f"knn_spend_{level}": level for level in range(SPEND_LEVELS)}
"""kNN that gives up quality for cost: its name and the spend level. Level 10 is kNN itself."""


AgainRule = Literal["ask_again", "ask_sure_first"]
AGAIN: tuple[AgainRule, ...] = ("ask_again", "ask_sure_first")
"""Rules that take the next candidate when the same sub-question is asked again; see `asking_again`."""


def observed(matrix: Matrix, count: int, *, seed: int) -> Matrix:
    """`count` of the probe questions, spread evenly over topics; all of them if there are fewer.

    The 8 of a seed are among its 40.
    """
    rng = Random(f"few-probes/{seed}")
    by_topic: dict[str, list[int]] = defaultdict(list)
    for place, topic in enumerate(matrix.topics):
        by_topic[topic].append(place)
    topics = rng.sample(sorted(by_topic), len(by_topic))
    shuffled = [rng.sample(by_topic[topic], len(by_topic[topic])) for topic in topics]
    depth = max(map(len, shuffled))
    turns = [places[at] for at in range(depth) for places in shuffled if at < len(places)]
    return matrix.rows(sorted(turns[:count]))


@dataclass(frozen=True)
class Competence:
    """What few probes say of every candidate, by topic.

    Attributes:
        right: topic -> M sums of quality.
        total: topic -> number of its probes.
        overall: M accuracies over all topics, after one right and one wrong answer more (Laplace's rule).
    """

    right: dict[str, NDArray[np.float64]]
    total: dict[str, int]
    overall: NDArray[np.float64]

    @classmethod
    def of(cls, matrix: Matrix) -> "Competence":
        """Count."""
        places = {
            topic: [at for at, each in enumerate(matrix.topics) if each == topic]
            for topic in matrix.topics
        }
        return cls(
            {topic: matrix.quality[at].sum(axis=0) for topic, at in places.items()},
            {topic: len(at) for topic, at in places.items()},
            (matrix.quality.sum(axis=0) + _MORE_RIGHT)
            / (len(matrix.questions) + _MORE_RIGHT + _MORE_WRONG),
        )

    def accuracy(self, topic: str) -> NDArray[np.float64]:
        """M shares of right answers on the topic."""
        return np.asarray(self.right[topic] / self.total[topic], dtype=np.float64)

    def beta(self, topic: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """M pairs of parameters of the posterior Beta distribution of the accuracy on the topic.

        The prior is the candidate's accuracy over all topics, with the weight of two observations.
        """
        right, total = self.right[topic], self.total[topic]
        return _PRIOR * self.overall + right, _PRIOR * (1 - self.overall) + total - right


@one_thread()
def from_few_probes(
    matrix: Matrix, embedder: Embedder, which: FewProbes, *, neighbours: int, seed: int
) -> Chooser:
    """A router that has seen `which.probes` probe questions only.

    `best` takes the candidate with the highest accuracy on the topic. `beta` takes the highest mean of the
    posterior, and `thompson` the highest draw from it. `knn` takes the highest mean quality over the
    nearest probes, at most the square root of their number. The cheaper is taken on ties.

    Args:
        seed: of the choice of the probes, and of Thompson's draws, which the question decides beside it.
    """
    seen = observed(matrix, which.probes, seed=seed)
    if which.rule == "knn":
        few = max(1, isqrt(len(seen.questions)))
        return knn(seen, embedder, neighbours=min(neighbours, few))
    competence = Competence.of(seen)
    topic_of = _nearest_topic(seen, embedder)

    def accuracy(query: str) -> NDArray[np.float64]:
        return competence.accuracy(topic_of(query))

    def mean(query: str) -> NDArray[np.float64]:
        a, b = competence.beta(topic_of(query))
        return a / (a + b)

    def draw(query: str) -> NDArray[np.float64]:
        rng = Random(f"thompson/{seed}/{query}")
        pairs = zip(*competence.beta(topic_of(query)), strict=True)
        return np.array([rng.betavariate(float(a), float(b)) for a, b in pairs])

    rules = {"best": accuracy, "beta": mean, "thompson": draw}
    return ScoredChooser(seen, rules[which.rule])


def _nearest_topic(matrix: Matrix, embedder: Embedder) -> Callable[[str], str]:
    fitted = embedder.fit(matrix.questions)
    known_Q_D = fitted.embed(matrix.questions)

    def topic_of(query: str) -> str:
        # Not `@`: that splits its sums over threads.
        near_Q = np.einsum("qd,d->q", known_Q_D, fitted.embed([query])[0])
        return matrix.topics[int(np.argmax(near_Q))]

    return topic_of


@one_thread()
def asking_again(matrix: Matrix, embedder: Embedder, rule: AgainRule) -> ScoredChooser:
    """What to expect of every candidate on the topic of a question, from all probes.

    `ask_again` expects the share of right answers, `ask_sure_first` the index that look-ups show
    (`notation.asking_index`): where a candidate says that it is not sure, another can be asked.
    """
    topic_of = _nearest_topic(matrix, embedder)
    competence = Competence.of(matrix)
    if rule == "ask_again":
        return ScoredChooser(matrix, lambda query: competence.accuracy(topic_of(query)))
    unsure = Competence.of(replace(matrix, quality=_unsure(matrix)))

    def indices(query: str) -> NDArray[np.float64]:
        topic = topic_of(query)
        pairs = zip(competence.accuracy(topic), unsure.accuracy(topic), strict=True)
        return np.array([asking_index(float(right), float(silent)) for right, silent in pairs])

    return ScoredChooser(matrix, indices)


def frugal_knn(matrix: Matrix, embedder: Embedder, *, level: int, neighbours: int) -> ScoredChooser:
    """kNN less a price on cost; see `with_price`."""
    return with_price(knn(matrix, embedder, neighbours=neighbours), level)


def with_price(chooser: ScoredChooser, level: int) -> ScoredChooser:
    """The chooser less a price on cost.

    Args:
        level: of spend, 0 to 10; a call to the most expensive candidate costs `price_at(level)`.
    """
    cost = chooser.matrix.mean_cost
    penalty = price_at(level) * cost / max(float(cost.max()), _FREE_USD)
    return ScoredChooser(chooser.matrix, lambda query: chooser.predict(query) - penalty)


def few_cards(cards: Sequence[Card], seen: Matrix) -> tuple[Card, ...]:
    """The cards that the probes in `seen` would have given; a topic without a probe is on none."""
    competence = Competence.of(seen)
    unsure = Competence.of(replace(seen, quality=_unsure(seen)))
    place = {name: at for at, name in enumerate(seen.candidates)}

    def shares(found: Competence, name: str) -> dict[str, float]:
        return {
            topic: round(float(found.accuracy(topic)[place[name]]), _CARD_DECIMALS)
            for topic in sorted(found.total)
        }

    return tuple(
        replace(
            card,
            performance=shares(competence, card.name),
            unsure=shares(unsure, card.name),
        )
        for card in cards
    )


def _unsure(matrix: Matrix) -> NDArray[np.float64]:
    """(Q, M): 1 where a candidate says that it is not sure, or says nothing."""
    pairs = zip(matrix.replies, matrix.quality > 0, strict=True)
    return np.array(
        [
            [float(passes(said, right=bool(right))) for said, right in zip(*line, strict=True)]
            for line in pairs
        ]
    )
