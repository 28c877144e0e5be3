"""What questions are about, found in their embeddings: topics, and questions that ask the same.

Topics are clusters (k-means); their number is the one with the highest silhouette within bounds, and none
if no number separates the questions. Clusters with centres close together are one topic. A topic is named by the words that set it apart.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from routerr1.data.text import comparable
from routerr1.matching import Rule, normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

MOST_TOPICS = 12
_LEAST_ROWS = 10  # questions of a topic, on average
_LEAST_SILHOUETTE = 0.03  # below this, clusters are no topics
_ONE_TOPIC = (
    0.8  # cosine of two centres from which they are one topic: a template with other names in it
)
_SAMPLE = 2000  # questions on which silhouettes are computed
_SAME = 0.7  # cosine from which questions with a shared answer ask the same
_LARGEST_GROUP = 0.1  # share of the questions; beyond it the cosine is too low for these questions
_WORD = re.compile(r"[^\W\d_]{3,}")
_WORDS_OF_NAME = 2
# Words that ask, and say nothing of what is asked.
_ASKING = frozenset(
    [
        "about",
        "and",
        "are",
        "can",
        "could",
        "did",
        "does",
        "for",
        "from",
        "give",
        "had",
        "has",
        "have",
        "how",
        "into",
        "its",
        "many",
        "much",
        "name",
        "not",
        "please",
        "should",
        "tell",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "was",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "whom",
        "whose",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
        "auf",
        "aus",
        "bei",
        "das",
        "dem",
        "den",
        "der",
        "des",
        "die",
        "ein",
        "eine",
        "einen",
        "einer",
        "für",
        "ich",
        "ist",
        "mein",
        "meine",
        "mit",
        "sich",
        "sind",
        "und",
        "von",
        "aber",
        "auch",
        "damit",
        "davon",
        "dort",
        "einem",
        "einmal",
        "haben",
        "ihr",
        "ihre",
        "kann",
        "können",
        "mir",
        "muss",
        "müssen",
        "nach",
        "nicht",
        "noch",
        "oder",
        "sie",
        "soll",
        "über",
        "viel",
        "viele",
        "vom",
        "wenn",
        "wem",
        "welchem",
        "welchen",
        "wohin",
        "womit",
        "worauf",
        "wofür",
        "wozu",
        "wann",
        "warum",
        "was",
        "welche",
        "welcher",
        "welches",
        "wer",
        "werden",
        "wie",
        "wird",
        "wo",
        "zu",
        "zum",
        "zur",
        "avec",
        "combien",
        "comment",
        "dans",
        "des",
        "est",
        "les",
        "pour",
        "pourquoi",
        "quand",
        "que",
        "quel",
        "quelle",
        "quels",
        "qui",
        "sont",
        "une",
        "como",
        "con",
        "cual",
        "cuando",
        "cuantos",
        "cuál",
        "cuándo",
        "cuántos",
        "cómo",
        "del",
        "donde",
        "dónde",
        "las",
        "los",
        "para",
        "por",
        "que",
        "qué",
        "quien",
        "quién",
        "son",
        "una",
    ]
)
_TELLING = 0.1  # a word that is as frequent elsewhere has 0, one of all of a topic's questions alone has 4.6
_COMMON = 0.3  # share of a topic's questions that hold a word of its name


def find_topics(
    questions: Sequence[str], vectors: "Vectors", *, seed: int, most: int = MOST_TOPICS
) -> list[str] | None:
    """The topic of each question; None if there are too few questions, or one topic only.

    Args:
        vectors: unit vectors of the questions.
        most: upper bound of the number of topics.
    """
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    bound = min(most, len(questions) // _LEAST_ROWS)
    best: tuple[float, NDArray[np.int32]] | None = None
    with threadpool_limits(1):  # on several threads sums round otherwise
        for count in range(2, bound + 1):
            clusters = KMeans(count, n_init=5, random_state=seed).fit(vectors).labels_
            quality = float(
                silhouette_score(
                    vectors, clusters, metric="cosine", random_state=seed,
                    sample_size=_SAMPLE if len(questions) > _SAMPLE else None,
                )
            )  # fmt: skip
            if best is None or quality > best[0] + 1e-6:
                best = (quality, clusters)
    if best is None or best[0] < _LEAST_SILHOUETTE:
        return None
    clusters = _merged(vectors, best[1].tolist())
    if len(set(clusters)) < 2:
        return None
    names = _names(questions, clusters)
    return [names[cluster] for cluster in clusters]


def _merged(vectors: "Vectors", clusters: list[int]) -> list[int]:
    """The clusters, with the closest two made one while their centres are close."""
    import numpy as np

    while len(kinds := sorted(set(clusters))) > 1:
        labels = np.asarray(clusters)
        centres = np.stack([vectors[labels == kind].mean(axis=0) for kind in kinds])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        close = np.triu(centres @ centres.T, k=1)
        first, second = divmod(int(close.argmax()), len(kinds))
        if close[first, second] < _ONE_TOPIC:
            break
        clusters = [kinds[first] if each == kinds[second] else each for each in clusters]
    return clusters


def _names(questions: Sequence[str], clusters: Sequence[int]) -> dict[int, str]:
    """Each cluster by its most telling words: frequent in it, and rare elsewhere."""
    words = [{*_WORD.findall(comparable(question))} - _ASKING for question in questions]
    sizes = Counter(clusters)
    inside: dict[int, Counter[str]] = {cluster: Counter() for cluster in sizes}
    for cluster, found in zip(clusters, words, strict=True):
        inside[cluster].update(found)
    everywhere = sum(inside.values(), Counter[str]())
    names: dict[int, str] = {}
    for cluster in sorted(sizes):
        rest = max(len(questions) - sizes[cluster], 1)

        def telling(word: str, cluster: int = cluster, rest: int = rest) -> float:
            here = inside[cluster][word] / sizes[cluster]
            elsewhere = (everywhere[word] - inside[cluster][word]) / rest
            return round(here * math.log((here + 0.01) / (elsewhere + 0.01)), 6)

        ranked = sorted(inside[cluster], key=lambda word: (-telling(word), -len(word), word))
        common = [
            word
            for word in ranked
            if inside[cluster][word] >= _COMMON * sizes[cluster] and telling(word) > _TELLING
        ]
        ranked = common or ranked[:1]
        name = " ".join(ranked[:_WORDS_OF_NAME]) or f"topic {cluster + 1}"
        names[cluster] = name if name not in names.values() else f"{name} {cluster + 1}"
    return names


def same_meaning(
    vectors: "Vectors", answers: Sequence[Sequence[str]], rules: Sequence[Rule]
) -> list[int]:
    """The group of each question, as the place of its first member.

    Two questions are of one group if they share a reference answer and have similar vectors, and so are
    questions that are linked by a third. If a group grows beyond a tenth of the questions, similarity must
    be higher: these questions are all alike, such as those of one template.

    Args:
        answers: reference answers of each question.
        rules: how answers of each question are compared.
    """
    by_answer: dict[str, list[int]] = {}
    for place, (golds, rule) in enumerate(zip(answers, rules, strict=True)):
        for gold in dict.fromkeys(normalise(gold, rule) for gold in golds):
            by_answer.setdefault(gold, []).append(place)
    cosine = _SAME
    while True:
        groups = _linked(vectors, by_answer, cosine)
        largest = max(Counter(groups).values(), default=0)
        if largest <= max(5, _LARGEST_GROUP * len(groups)) or cosine >= 0.95:
            return groups
        cosine += 0.05


def _linked(vectors: "Vectors", by_answer: dict[str, list[int]], cosine: float) -> list[int]:
    parents = list(range(len(vectors)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for places in by_answer.values():
        near = vectors[places] @ vectors[places].T >= cosine
        for first, row in enumerate(near):
            for second in row.nonzero()[0]:
                if second > first:
                    one, other = root(places[first]), root(places[int(second)])
                    parents[max(one, other)] = min(one, other)
    return [root(place) for place in range(len(vectors))]
