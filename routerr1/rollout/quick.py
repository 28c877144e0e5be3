"""A small policy played with NumPy alone: `ask` starts in a second, because nothing imports torch.

It plays the Llamas that `policy/scratch.py` makes, one session at a time, as `LocalGenerator` does:
equal tokens, and log-probabilities equal up to rounding. For many sessions at once, `LocalGenerator`
is faster.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routerr1.policy.tokens import encode_text, truncate
from routerr1.rollout.engine.stops import StopRules, text_of
from routerr1.types import Generation

Array = NDArray[np.float32]

_LARGEST_BYTES = 40_000_000  # of weights; larger ones are better read by torch
_PLAYED: Mapping[str, Any] = {  # what the forward pass below computes
    "model_type": "llama", "hidden_act": "silu", "mlp_bias": False, "tie_word_embeddings": True,
}  # fmt: skip


class QuickTokenizer:
    """The tokenizer of a small policy, with the methods that rollouts use of transformers' tokenizers."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._core = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._core.encode_special_tokens = True  # what looks like a special token is plain text
        ends = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.eos_token_id = int(self._core.token_to_id(ends["eos_token"]) or 0)

    def __len__(self) -> int:
        return int(self._core.get_vocab_size())

    def __call__(self, text: str, **_: bool) -> dict[str, Any]:
        found = self._core.encode(text, add_special_tokens=False)
        return {"input_ids": found.ids, "offset_mapping": found.offsets}

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids."""
        return str(self._core.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]:
        """The tokens of ids."""
        return [self._core.id_to_token(number) for number in ids]


class QuickGenerator:
    """A `Generator` for a policy that `is_quick` accepts."""

    def __init__(self, folder: Path, *, max_length: int | None = None) -> None:
        from safetensors.numpy import load_file

        self.config: dict[str, Any] = _config(folder)
        limit = int(self.config["max_position_embeddings"])
        self.max_length = min(max_length or limit, limit)
        self.weights = load_file(folder / "model.safetensors")
        self.tokenizer = QuickTokenizer(folder)
        self.stops = StopRules(self.tokenizer, frozenset({self.tokenizer.eos_token_id}))

    def start(self, prompt: str, *, seed: int) -> "QuickSession":
        """See `Generator.start`."""
        return QuickSession(self, encode_text(self.tokenizer, prompt), seed)


class QuickSession:
    """See `Session`."""

    def __init__(self, owner: QuickGenerator, prompt_ids: Sequence[int], seed: int) -> None:
        self._owner = owner
        self._prompt_ids = tuple(prompt_ids)
        self._unread = list(prompt_ids)
        self._random = Random(seed)
        self._model = _Llama(owner.config, owner.weights, owner.max_length)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self._prompt_ids

    async def generate(self, *, max_new_tokens: int, temperature: float) -> Generation:
        room = self._owner.max_length - self._model.read - len(self._unread)
        if room <= 0:
            return Generation("", finish="length")
        ids: list[int] = []
        logprobs: list[float] = []
        while True:
            logits = self._model.read_tokens(self._unread)
            token, logprob = _sampled(logits, temperature, self._random.random())
            ids.append(token)
            logprobs.append(logprob)
            self._unread = [token]
            finish = self._owner.stops.finish(ids, min(max_new_tokens, room))
            if finish is not None:
                text = text_of(self._owner.tokenizer, ids, finish)
                return Generation(text, tuple(ids), tuple(logprobs), finish)

    def truncate(self, text: str, max_tokens: int) -> str:
        return truncate(self._owner.tokenizer, text, max_tokens)

    def insert(self, text: str) -> tuple[int, ...]:
        ids = encode_text(self._owner.tokenizer, text)
        self._unread.extend(ids)
        return tuple(ids)

    def close(self) -> None:
        """Nothing is held."""


def is_quick(folder: Path) -> bool:
    """Whether `folder` holds a small Llama as `policy/scratch.py` makes it."""
    weights = folder / "model.safetensors"
    if not (weights.is_file() and weights.stat().st_size <= _LARGEST_BYTES):
        return False
    if not ((folder / "tokenizer.json").is_file() and (folder / "config.json").is_file()):
        return False
    config = _config(folder)
    rope = config.get("rope_parameters") or {}
    return rope.get("rope_type") == "default" and all(
        config.get(key) == value for key, value in _PLAYED.items()
    )


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def _sampled(logits: Array, temperature: float, draw: float) -> tuple[int, float]:
    """A token and its log-probability; see `engine.sampling.sample`."""
    scaled = logits / (temperature or 1.0)
    logprobs = scaled - scaled.max()
    logprobs -= np.log(np.exp(logprobs).sum())
    if temperature:
        mass = np.exp(logprobs).cumsum()
        token = min(int(np.searchsorted(mass, draw * mass[-1], side="right")), len(logits) - 1)
    else:
        token = int(logits.argmax())
    return token, float(logprobs[token])


class _Llama:
    """The forward pass of one sequence, with its keys and values.

    Attributes:
        read: number of tokens that were read.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, Array], length: int
    ) -> None:
        self._weights = weights
        self._layers = int(config["num_hidden_layers"])
        self._heads = int(config["num_attention_heads"])
        self._groups = self._heads // int(config["num_key_value_heads"])
        self._epsilon = float(config["rms_norm_eps"])
        size = config.get("head_dim") or config["hidden_size"] // self._heads
        steps = np.arange(0, size, 2, dtype=np.float32) / size
        turns = np.outer(np.arange(length), config["rope_parameters"]["rope_theta"] ** -steps)
        turns = np.concatenate([turns, turns], axis=1).astype(np.float32)
        self._cos, self._sin = np.cos(turns), np.sin(turns)
        kept = (self._layers, self._heads // self._groups, length, size)
        self._keys = np.zeros(kept, np.float32)
        self._values = np.zeros(kept, np.float32)
        self.read = 0

    def read_tokens(self, ids: Sequence[int]) -> Array:
        """Read tokens after those read before; gives the logits that follow the last, (vocabulary,)."""
        embeddings = self._weights["model.embed_tokens.weight"]
        states: Array = embeddings[list(ids)]
        for layer in range(self._layers):
            name = f"model.layers.{layer}."
            states = states + self._attention(
                self._norm(states, f"{name}input_layernorm"), f"{name}self_attn.", layer
            )
            states = states + self._mlp(
                self._norm(states, f"{name}post_attention_layernorm"), f"{name}mlp."
            )
        self.read += len(ids)
        last: Array = self._norm(states[-1:], "model.norm")[0]
        return embeddings @ last

    def _attention(self, states: Array, name: str, layer: int) -> Array:
        first, end = self.read, self.read + len(states)
        queries, keys, values = (
            self._linear(states, f"{name}{part}_proj").reshape(
                len(states), -1, self._keys.shape[-1]
            )
            for part in "qkv"
        )
        self._keys[layer, :, first:end] = self._rotated(keys, first).swapaxes(0, 1)
        self._values[layer, :, first:end] = values.swapaxes(0, 1)
        seen_keys = np.repeat(self._keys[layer, :, :end], self._groups, axis=0)
        seen_values = np.repeat(self._values[layer, :, :end], self._groups, axis=0)
        asked = self._rotated(queries, first).swapaxes(0, 1)
        scores = asked @ seen_keys.swapaxes(1, 2) / np.sqrt(np.float32(asked.shape[-1]))
        later = np.arange(end)[None, :] > np.arange(first, end)[:, None]
        scores = np.where(later, np.float32(-np.inf), scores)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ seen_values
        return self._linear(mixed.swapaxes(0, 1).reshape(len(states), -1), f"{name}o_proj")

    def _rotated(self, vectors: Array, first: int) -> Array:
        """Rotary positions (arXiv 2104.09864) from `first` on; vectors are (tokens, heads, size)."""
        half = vectors.shape[-1] // 2
        turned = np.concatenate([-vectors[..., half:], vectors[..., :half]], axis=-1)
        at = slice(first, first + len(vectors))
        rotated: Array = vectors * self._cos[at, None] + turned * self._sin[at, None]
        return rotated

    def _mlp(self, states: Array, name: str) -> Array:
        gate = self._linear(states, f"{name}gate_proj")
        gate = gate / (1 + np.exp(-gate))
        return self._linear(gate * self._linear(states, f"{name}up_proj"), f"{name}down_proj")

    def _norm(self, states: Array, name: str) -> Array:
        scale = np.sqrt((states * states).mean(-1, keepdims=True) + self._epsilon)
        normed: Array = states / scale * self._weights[f"{name}.weight"]
        return normed

    def _linear(self, states: Array, name: str) -> Array:
        found: Array = states @ self._weights[f"{name}.weight"].T
        bias = self._weights.get(f"{name}.bias")
        return found if bias is None else found + bias
