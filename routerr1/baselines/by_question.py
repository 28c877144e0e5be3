"""How good it is to ask each candidate a given question, from the probes of the profile stage.

Topics of one's own questions are clusters, and a small policy knows neither them nor the language. It looks
up the question itself: these are the figures that such a look-up shows.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routerr1.baselines.embed import MINILM, Embedder, embedder
from routerr1.notation import asking_index
from routerr1.pool.profile import ProbeRow, passed, read_probes

_NEIGHBOURS = 10
_STRENGTHS = (300.0, 100.0, 30.0, 10.0, 3.0, 0.0)
_TOPIC_STRENGTH = 4.0
_KEPT = 4096  # questions whose figures are kept


class ProbeFigures:
    """Question -> index of each candidate (`notation.asking_index`) from the probes like it; see `notation.Figures`.

    Its two shares, of right replies and of those that say "not sure", are those of the nearest probes by
    cosine. Ten probes say little, so they are drawn towards what their topics say, as by a number of further
    probes that showed it. That number is chosen on the right replies to the probes themselves, each judged by
    the others (Brier score). A topic's own share is drawn towards that of all topics, as by four further
    probes. A probe of the same text or group as the question is left out, so a policy in training sees no
    more of a probe than of a new question.

    Args:
        rows: of the matrix, one for each probe and candidate.
        vectors: embeds questions; see `baselines.embed`.
    """

    def __init__(self, rows: Sequence[ProbeRow], vectors: Embedder) -> None:
        self.candidates = tuple(dict.fromkeys(row["candidate"] for row in rows))
        probes = {(row["dataset"], row["question_id"]): row for row in rows}
        places = {key: place for place, key in enumerate(probes)}
        self._texts = [row["question"] for row in probes.values()]
        self._groups = [row["group"] for row in probes.values()]
        topics = sorted({row["topic"] for row in probes.values()})
        self._topic_Q = np.array([topics.index(row["topic"]) for row in probes.values()])
        self._num_topics = len(topics)
        # 2M columns: right replies, then those that say "not sure".
        self._said_Q_2M = np.zeros((len(probes), 2 * len(self.candidates)))
        columns = {name: place for place, name in enumerate(self.candidates)}
        for row in rows:
            place, column = places[row["dataset"], row["question_id"]], columns[row["candidate"]]
            self._said_Q_2M[place, column] = row["correct"]
            self._said_Q_2M[place, len(columns) + column] = passed(row)
        self._vectors = vectors.fit(self._texts)
        self._figures = lru_cache(_KEPT)(self._figures_of)

    @classmethod
    def of(cls, matrix: Path) -> "ProbeFigures":
        """The figures of a matrix.parquet.

        Raises: DataError naming the file.
        """
        return cls(read_probes(matrix), embedder(MINILM, 0))

    def __call__(self, question: str) -> Mapping[str, float]:
        """Candidate -> index, in [0, 1]."""
        return self._figures(question)

    def _figures_of(self, question: str) -> dict[str, float]:
        own = {
            group for text, group in zip(self._texts, self._groups, strict=True) if text == question
        }
        # Not `@`: that splits its sums over threads.
        near_Q = np.einsum("qd,d->q", self._known, self._vectors.embed([question])[0])
        near_2M, topics_2M = self._evidence(near_Q, own)
        count = min(_NEIGHBOURS, len(self._texts))
        mixed_2M = (count * near_2M + self.strength * topics_2M) / (count + self.strength)
        right_M, unsure_M = map(np.ndarray.tolist, np.split(mixed_2M, 2))
        return dict(zip(self.candidates, map(asking_index, right_M, unsure_M), strict=True))

    def _evidence(
        self, near_Q: NDArray[np.float32], own: set[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shares of the nearest probes, and those that their topics say, without the groups `own`."""
        order = np.argsort(-near_Q, kind="stable")
        kept = np.array([group not in own for group in self._groups])
        if not kept.any():
            kept[:] = True
        nearest = [place for place in order if kept[place]][:_NEIGHBOURS]
        overall_2M = self._said_Q_2M[kept].mean(axis=0)
        in_topic_T_Q = (self._topic_Q == np.arange(self._num_topics)[:, None]) & kept
        counts_T = in_topic_T_Q.sum(axis=1)
        sums_T_2M = in_topic_T_Q.astype(float) @ self._said_Q_2M
        weights_T = counts_T + _TOPIC_STRENGTH
        by_topic_T_2M = (sums_T_2M + _TOPIC_STRENGTH * overall_2M) / weights_T[:, None]
        near_2M = self._said_Q_2M[nearest].mean(axis=0)
        return near_2M, by_topic_T_2M[self._topic_Q[nearest]].mean(axis=0)

    @cached_property
    def strength(self) -> float:
        """Probes that the topics count for; the highest of those that predict the probes equally well."""
        near_Q_Q = np.einsum("qd,pd->qp", self._known, self._known)
        found = [
            self._evidence(near_Q_Q[place], {group}) for place, group in enumerate(self._groups)
        ]
        right = slice(len(self.candidates))
        near_Q_M = np.array([near[right] for near, _ in found])
        topics_Q_M = np.array([topics[right] for _, topics in found])

        def error(strength: float) -> float:
            weight = strength / (strength + _NEIGHBOURS)
            shares = (1 - weight) * near_Q_M + weight * topics_Q_M
            return round(float(((shares - self._said_Q_2M[:, right]) ** 2).mean()), 6)

        return min(_STRENGTHS, key=error)

    @cached_property
    def _known(self) -> NDArray[np.float32]:
        """Q x D, the probes embedded."""
        return self._vectors.embed(self._texts)
