"""Which recorded question is most like this one."""

from collections.abc import Sequence

from routerr1.matching import normalise


class QuestionIndex:
    """Similarity of questions: the cosine of TF-IDF vectors of normalised words and word pairs, in [0, 1].

    Words no recorded question holds count too, with the highest weight: otherwise a question about an
    unknown city would look exactly like one about a known city.
    """

    def __init__(self, questions: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        self._questions = list(questions)
        self._hashing = HashingVectorizer(
            preprocessor=normalise, ngram_range=(1, 2), norm=None, alternate_sign=False
        )
        counts = self._hashing.transform(self._questions)
        self._tfidf = TfidfTransformer().fit(counts)
        self._vectors = self._tfidf.transform(counts)

    def nearest(self, question: str) -> tuple[str, float]:
        """The most similar question and its similarity; of equals, the one given first."""
        vector = self._tfidf.transform(self._hashing.transform([question]))
        scores = (self._vectors @ vector.T).toarray().ravel()
        best = int(scores.argmax())
        return self._questions[best], float(scores[best])
