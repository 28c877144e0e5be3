"""MiniLM with NumPy alone, for `ask`: importing sentence-transformers takes longer than all else that it does.

Vectors equal those of `SentenceEmbedder` up to rounding. Texts are embedded one by one, so for many of
them `SentenceEmbedder` is faster; vectors of many texts are kept on the disk.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routerr1.baselines.embed import MINILM, in_package
from routerr1.data.conversation import gist
from routerr1.files import atomic_path
from routerr1.lineage import hash_of

Array = NDArray[np.float32]

_LAYERS, _HEADS, _MOST_TOKENS = 6, 12, 256
_EPSILON = 1e-12  # of the layer norms
_FEWEST_KEPT = 8  # texts of one call, from which on their vectors are kept


class QuickMiniLM:
    """The embedder `minilm`; see `Embedder`.

    Args:
        kept: folder for the vectors of many texts; None keeps none.

    Raises: ConfigError if the weights are others.
    """

    def __init__(self, kept: Path | None = None) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        folder = Path(in_package(MINILM))
        self._kept = kept
        self._weights: dict[str, Array] = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MOST_TOKENS)

    def fit(self, texts: Sequence[str]) -> "QuickMiniLM":  # noqa: ARG002 - of the interface
        """Nothing to learn."""
        return self

    def embed(self, texts: Sequence[str]) -> Array:
        """See `Embedder.embed`."""
        texts = [gist(text, self._fits) for text in texts]
        if self._kept is None or len(texts) < _FEWEST_KEPT:
            return np.stack([self._vector(text) for text in texts])
        file = self._kept / f"{hash_of([MINILM, texts])}.npy"
        if file.is_file():
            found: Array = np.load(file)
            return found
        found = np.stack([self._vector(text) for text in texts])
        with atomic_path(file) as aside, aside.open("wb") as opened:
            np.save(opened, found)
        return found

    def _vector(self, text: str) -> Array:
        x_T_D = self._embedded(self._tokenizer.encode(text).ids)
        for layer in range(_LAYERS):
            x_T_D = self._layer(x_T_D, f"encoder.layer.{layer}")
        mean_D = x_T_D.mean(axis=0)
        return np.asarray(mean_D / np.linalg.norm(mean_D), dtype=np.float32)

    def _fits(self, text: str) -> bool:
        return not self._tokenizer.encode(text).overflowing

    def _embedded(self, ids: Sequence[int]) -> Array:
        words, places, types = (
            self._weights[f"embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        )
        return self._norm(words[list(ids)] + places[: len(ids)] + types[0], "embeddings.LayerNorm")

    def _layer(self, x_T_D: Array, name: str) -> Array:
        count, width = x_T_D.shape
        q_H_T_K, k_H_T_K, v_H_T_K = (
            self._linear(x_T_D, f"{name}.attention.self.{part}")
            .reshape(count, _HEADS, width // _HEADS)
            .transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        near_H_T_T = q_H_T_K @ k_H_T_K.transpose(0, 2, 1) / np.float32(math.sqrt(width // _HEADS))
        near_H_T_T = np.exp(near_H_T_T - near_H_T_T.max(axis=-1, keepdims=True))
        near_H_T_T /= near_H_T_T.sum(axis=-1, keepdims=True)
        heard_T_D = (near_H_T_T @ v_H_T_K).transpose(1, 0, 2).reshape(count, width)
        heard_T_D = self._linear(heard_T_D, f"{name}.attention.output.dense")
        x_T_D = self._norm(x_T_D + heard_T_D, f"{name}.attention.output.LayerNorm")
        wide_T_F = _gelu(self._linear(x_T_D, f"{name}.intermediate.dense"))
        back_T_D = self._linear(wide_T_F, f"{name}.output.dense")
        return self._norm(x_T_D + back_T_D, f"{name}.output.LayerNorm")

    def _linear(self, x_T_D: Array, name: str) -> Array:
        return x_T_D @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, x_T_D: Array, name: str) -> Array:
        centred_T_D = x_T_D - x_T_D.mean(axis=-1, keepdims=True)
        spread_T_1 = np.sqrt((centred_T_D**2).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        scaled_T_D: Array = centred_T_D / spread_T_1 * self._weights[f"{name}.weight"]
        return scaled_T_D + self._weights[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    """x times the normal distribution function, by formula 7.1.26 of Abramowitz and Stegun (1.5e-7)."""
    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = np.asarray(1 / (1 + np.float32(0.3275911) * z), dtype=np.float32)
    polynomial: Array = np.full_like(t, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial = polynomial * t + np.float32(factor)
    erf = np.copysign(1 - polynomial * t * np.exp(-z * z), x)
    return np.asarray(x * (1 + erf) / 2, dtype=np.float32)
