"""How much a new question is like those that routers learned from: its topic, and whether it is of their kind."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from routerr1.baselines.embed import Embedder

_NEIGHBOURS = 10
_LOWEST = 5.0  # percentile of the known questions' own similarity to their nearest


@dataclass(frozen=True, slots=True)
class Likeness:
    """A question among the known ones.

    Attributes:
        topic: of most of its nearest.
        share: share of the nearest that have the topic, in [0, 1].
        similarity: cosine to the nearest.
        usual: cosine below which a question is unlike the known ones.
    """

    topic: str
    share: float
    similarity: float
    usual: float

    @property
    def is_unlike(self) -> bool:
        """True if no known question is near: what was measured may not hold for this one."""
        return self.similarity < self.usual

    def lines(self) -> list[str]:
        """Lines for people."""
        if self.is_unlike:
            return [
                f"Unlike the questions that the router learned from: the nearest has a similarity of {self.similarity:.2f}, "
                f"and below {self.usual:.2f} what was measured may not hold."
            ]
        return [f"Topic: {self.topic} ({self.share:.0%} of the nearest questions)"]


def likeness(question: str, topics: Mapping[str, str], embedder: Embedder) -> Likeness:
    """Compare `question` with the known ones.

    Args:
        topics: known question -> its topic; at least one.
    """
    known = list(topics)
    fitted = embedder.fit(known)
    known_Q_D = fitted.embed(known)
    near_Q = known_Q_D @ fitted.embed([question])[0]
    nearest = np.argsort(-near_Q, kind="stable")[:_NEIGHBOURS]
    counted = Counter(topics[known[place]] for place in nearest)
    topic, count = counted.most_common(1)[0]
    return Likeness(topic, count / len(nearest), float(near_Q[nearest[0]]), _usual(known_Q_D))


def _usual(known_Q_D: "np.typing.NDArray[np.float32]") -> float:
    """Halfway from the similarity of any two known questions to that of a known question to its nearest.

    Both are of the embedder and the language: an English model puts any two German texts close together.
    """
    if len(known_Q_D) < 2:
        return 0.0
    similar = known_Q_D @ known_Q_D.T
    any_two = (similar.sum() - np.trace(similar)) / (similar.size - len(similar))
    np.fill_diagonal(similar, -1.0)
    nearest = np.percentile(similar.max(axis=1), _LOWEST)
    return float(any_two + nearest) / 2
