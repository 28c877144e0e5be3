"""How much a new question is like those that routers learned from: its topic, and whether it is of their kind."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from routerr1.baselines.embed import Embedder, embedder
from routerr1.baselines.threads import torch_on_one_thread
from routerr1.config import BaselineParams
from routerr1.errors import ConfigError
from routerr1.pool.profile import read_probes

_log = logging.getLogger(__name__)
_NEIGHBOURS = 10
_NEAR = 4  # of its nearest: a question may be known in three other wordings
_LOWEST = 5.0  # percentile of the known questions' own similarity to their near ones


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


class KnownQuestions:
    """The questions that routers learned from, for comparing others with them.

    Args:
        topics: known question -> its topic; at least one.
    """

    def __init__(self, topics: Mapping[str, str], embedder: Embedder) -> None:
        known = list(topics)
        self._topics = [topics[each] for each in known]
        self._embedder = embedder.fit(known)
        self._known_Q_D = self._embedder.embed(known)
        self._usual = usual_similarity(self._known_Q_D)
        self._one_at_a_time = Lock()  # more at once are no faster, and set the threads of torch

    def compare(self, question: str) -> Likeness:
        """Where `question` lies among the known ones; from any thread."""
        with self._one_at_a_time, torch_on_one_thread():  # more take longer beside other work
            near_Q = self._known_Q_D @ self._embedder.embed([question])[0]
        nearest = np.argsort(-near_Q, kind="stable")[:_NEIGHBOURS]
        counted = Counter(self._topics[place] for place in nearest)
        topic, count = counted.most_common(1)[0]
        return Likeness(topic, count / len(nearest), float(near_Q[nearest[0]]), self._usual)


def open_known(
    topics: Mapping[str, str], section: BaselineParams, seed: int
) -> KnownQuestions | None:
    """Known questions by the embedder of `section`; None without any, or if this host lacks the embedder.

    Args:
        topics: known question -> its topic.
    """
    if not topics:
        return None
    try:
        chosen = embedder(section.embedder, seed)
    except ConfigError as error:  # answering needs no topics
        _log.warning("answers name no topic: %s", error)
        return None
    return KnownQuestions(topics, chosen)


def topics_of(matrix: Path) -> dict[str, str]:
    """Question -> topic of each question of a matrix.parquet.

    Raises: DataError naming the file.
    """
    return {row["question"]: row["topic"] for row in read_probes(matrix)}


def usual_similarity(known_Q_D: "np.typing.NDArray[np.float32]") -> float:
    """Halfway from the similarity of any two known questions to that of a known question to its near ones.

    Both are of the embedder and the language: an English model puts any two German texts close together.
    The nearest are often the same question in other words, so the fourth nearest counts.
    """
    if len(known_Q_D) < 2:
        return 0.0
    similar = known_Q_D @ known_Q_D.T
    any_two = (similar.sum() - np.trace(similar)) / (similar.size - len(similar))
    np.fill_diagonal(similar, -1.0)
    place = min(_NEAR, len(similar) - 1)
    near = np.percentile(np.sort(similar, axis=1)[:, -place], _LOWEST)
    return float(any_two + near) / 2
