"""Questions as vectors: TF-IDF by default, which needs no download; sentence-transformers where there is one."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from routerr1.errors import ConfigError


class Embedder(Protocol):
    """Texts to rows of unit length."""

    def fit(self, texts: Sequence[str]) -> "Embedder":
        """An embedder that has learnt a vocabulary from `texts`, if it needs one; this one stays as it is."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row for each text, of length 1 (0 for a text without any known part)."""
        ...


class TfidfEmbedder:
    """Words and pairs of words, weighted by how rare they are, folded to at most `size` dimensions."""

    def __init__(self, size: int = 256, seed: int = 0) -> None:
        self._size = size
        self._seed = seed
        self._pipeline: Any = None
        self._fitted: dict[
            tuple[str, ...], TfidfEmbedder
        ] = {}  # several routers fit the same texts

    def fit(self, texts: Sequence[str]) -> "TfidfEmbedder":
        """See `Embedder.fit`."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        if tuple(texts) in self._fitted:
            return self._fitted[tuple(texts)]
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
        found = words.fit_transform(texts)
        steps = [words]
        size = min(self._size, *(side - 1 for side in found.shape))
        if 0 < size < found.shape[1]:
            steps.append(TruncatedSVD(size, random_state=self._seed).fit(found))
        made = self._fitted[tuple(texts)] = TfidfEmbedder(self._size, self._seed)
        made._pipeline = steps
        return made

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder.embed`.

        Raises: RuntimeError before `fit`.
        """
        from sklearn.preprocessing import normalize

        if self._pipeline is None:
            raise RuntimeError("fit the embedder first")
        found: Any = texts
        for step in self._pipeline:
            found = step.transform(found)
        dense = found.toarray() if hasattr(found, "toarray") else found
        return np.asarray(normalize(dense), dtype=np.float32)


class SentenceEmbedder:
    """A sentence-transformers model, from a folder or the hub.

    Raises: ConfigError if the package is not installed or the model cannot be loaded.
    """

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ConfigError(
                f"baselines.embedder: {model!r} needs `pip install -e '.[sentences]'`; "
                "`tfidf` needs nothing"
            ) from None
        try:
            self._model = SentenceTransformer(model)
        except (OSError, ValueError) as error:
            raise ConfigError(f"baselines.embedder: {model!r} cannot be loaded ({error})") from None

    def fit(self, texts: Sequence[str]) -> "SentenceEmbedder":  # noqa: ARG002 - of the interface
        """Nothing to learn."""
        return self

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder.embed`."""
        return np.asarray(
            self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False),
            dtype=np.float32,
        )


def embedder(name: str, seed: int) -> Embedder:
    """`tfidf`, or the name or folder of a sentence-transformers model."""
    return TfidfEmbedder(seed=seed) if name == "tfidf" else SentenceEmbedder(name)
