"""A small policy made from scratch: a trained byte-level tokenizer and a Llama with a head start.

The tokenizer is byte-level BPE (nothing is ever unknown) in lower case, trained until every word of the
embedded questions is one token. Handles, figures, price steps, spend levels and references of the short
form are tokens of their own. The figures, the steps and the levels start as points on an arc in their
order, so that "more" is a direction and not 101 facts to learn. What to do with more is left to training.

The starting weights hold heads that look one and two tokens back, and heads that copy. These copy what
followed an earlier occurrence (induction heads, arXiv 2209.11895), or the token two back (the answer, before
a reply's closing tag). Without them a small training budget goes into finding these circuits, and with some
seeds one is never found.
"""

from collections.abc import Iterable
from math import cos, pi, sin, sqrt
from typing import Any

import torch
from torch import Tensor

from routerr1.config import ModelParams
from routerr1.notation import HANDLES, PRICE_STEPS, SPEND_LEVELS
from routerr1.protocol import TAGS

_ORDERED = ("percent", "price", "spend")
PAD, EOS = "<|pad|>", "<|end|>"
MAX_POSITIONS = 1024
_ROPE_THETA = 10_000.0


def families() -> dict[str, list[str]]:
    """The words of the short form that are one token each, in their order."""
    return {
        "handle": [f"m{number}" for number in range(1, HANDLES + 1)],
        "percent": [f"{figure}%" for figure in range(101)],
        "price": [f"${step}" for step in range(PRICE_STEPS + 1)],
        "spend": [f"spend {level}" for level in range(SPEND_LEVELS + 1)],
        "reference": ["@question", *(f"@{number}" for number in range(1, 10))],
    }


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Byte-level BPE over `texts` in lower case, with the protocol's tags and the short form as single tokens."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    marks = [PAD, EOS]
    tags = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")]
    words = [word for family in families().values() for word in family]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(tags) - len(words),
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    # Not special: decoding keeps them, and the policy is meant to write them.
    core.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    core.add_tokens(
        [
            AddedToken(word, normalized=False, special=False, single_word=True, lstrip=True)
            for word in words
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=EOS, padding_side="left"
    )


def new_model(params: ModelParams, tokenizer: Any, seed: int) -> Any:
    """A Llama of the given size with random weights and the head start described above."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=params.hidden_size,
            intermediate_size=3 * params.hidden_size,
            num_hidden_layers=params.layers,
            num_attention_heads=params.heads,
            num_key_value_heads=params.heads,
            max_position_embeddings=MAX_POSITIONS,
            rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
            tie_word_embeddings=True,
            attention_bias=True,
            initializer_range=0.04,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            attn_implementation="sdpa",
        )
    )
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed + 1)
        _plant_heads(model, generator)
        _order_figures(model.model.embed_tokens.weight, tokenizer, generator)
    return model


def _order_figures(embeddings: Tensor, tokenizer: Any, generator: torch.Generator) -> None:
    """Put the tokens of each ordered family on an arc, a third of a circle, of the usual length."""
    known = families()
    for name in _ORDERED:
        ids = tokenizer.convert_tokens_to_ids(known[name])
        along, across = _orthonormal(2, embeddings.shape[1], generator)
        length = embeddings.norm(dim=-1).mean()
        for place, token in enumerate(ids):
            turn = (2 * place / (len(ids) - 1) - 1) * pi / 3
            own = 0.3 * embeddings[token]
            embeddings[token] = own + length * (sin(turn) * along + cos(turn) * across)


def _plant_heads(model: Any, generator: torch.Generator) -> None:
    """Heads 0 and 1 of layer 0 look one and two tokens back; those of layer 1 use what they found.

    Embeddings are scaled so that what a head writes is as large as what is there.
    """
    config = model.config
    size, head = config.hidden_size, config.hidden_size // config.num_attention_heads
    embedding = 0.1
    model.model.embed_tokens.weight.copy_(
        torch.randn(config.vocab_size, size, generator=generator) * embedding
    )
    written = embedding * sqrt(size) / sqrt(head)
    frequency = 1.0 / (_ROPE_THETA ** (torch.arange(0, head, 2).float() / head))
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    reads = [_orthonormal(head, size, generator) for _ in range(2)]
    marks = [_orthonormal(head, size, generator) for _ in range(2)]
    for place, (read, mark) in enumerate(zip(reads, marks, strict=True)):
        rows = slice(place * head, (place + 1) * head)
        _look_back(first, rows, place + 1, frequency)
        first.v_proj.weight[rows] = read
        first.o_proj.weight[:, rows] = mark.T * written
    # Head 0 copies the token at places whose mark, the token before, is the current token. Only slowly
    # rotating dimensions carry content, so that the match does not depend on distance.
    half = head // 2
    slow = [j for j in range(half) if frequency[j] < 0.012]
    dims = slow + [j + half for j in slow]
    second.q_proj.weight[:head] *= 0.1
    second.k_proj.weight[:head] *= 0.1
    second.q_proj.weight[dims] = 2.0 * reads[0][: len(dims)]
    second.k_proj.weight[dims] = 2.0 * marks[0][: len(dims)]
    copy = _orthonormal(head, size, generator)
    second.v_proj.weight[:head] = copy
    second.o_proj.weight[:, :head] = copy.T * (2 * written)
    # Head 1 says the token two back; where it should look is left to be learned.
    rows = slice(head, 2 * head)
    second.v_proj.weight[rows] = marks[1]
    second.o_proj.weight[:, rows] = reads[1].T * (2 * written)


def _look_back(attention: Any, rows: slice, back: int, frequency: Tensor) -> None:
    """Attend `back` tokens back, whatever is there: biases that rotary position turns into a peak."""
    half = len(frequency)
    scale = 1.4 * 7.0 / sqrt(2.0)
    attention.q_proj.weight[rows] *= 0.1
    attention.k_proj.weight[rows] *= 0.1
    attention.k_proj.bias[rows] = torch.cat([torch.ones(half), torch.zeros(half)]) * scale
    turned = [cos(-back * f) for f in frequency.tolist()] + [
        sin(-back * f) for f in frequency.tolist()
    ]
    attention.q_proj.bias[rows] = torch.tensor(turned) * scale


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    basis: Tensor = torch.linalg.qr(torch.randn(columns, rows, generator=generator))[0]
    return basis.T
