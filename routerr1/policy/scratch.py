"""A small policy made from scratch: a trained byte-level tokenizer and a Llama with a head start.

The tokenizer is byte-level BPE (nothing is ever unknown), trained until every word of the embedded
questions is one token, so that naming an entity is one decision. The starting weights of the model hold
heads that look one and two tokens back, and heads that copy what followed an earlier occurrence (induction
heads, arXiv 2209.11895) or what stood two back (the answer, before a reply's closing tag); without them most
of a small training budget goes into finding these circuits, and with some seeds one is never found.
"""

from collections.abc import Iterable
from math import cos, sin, sqrt
from typing import Any

import torch
from torch import Tensor

from routerr1.config import ModelParams
from routerr1.protocol import TAGS

PAD, EOS = "<|pad|>", "<|end|>"
MAX_POSITIONS = 1024
_ROPE_THETA = 10_000.0


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Byte-level BPE over `texts`, with the protocol's tags as single tokens.

    Words are cut before an inner capital, so that a name never seen is made of pieces that were: a token
    that is nobody's target in training cannot be said afterwards.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    inner_capitals = pre_tokenizers.Split(Regex("(?<=[a-z])(?=[A-Z])"), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [inner_capitals, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    marks = [PAD, EOS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2 * len(TAGS),
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    # Not special: decoding keeps them, and the policy is meant to write them.
    tags = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")]
    core.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
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
        _plant_heads(model, torch.Generator().manual_seed(seed + 1))
    return model


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
    # Head 1 says the token two back; where it should look is left to be learnt.
    rows = slice(head, 2 * head)
    second.v_proj.weight[rows] = marks[1]
    second.o_proj.weight[:, rows] = reads[1].T * (2 * written)


def _look_back(attention: Any, rows: slice, back: int, frequency: Tensor) -> None:
    """Attend `back` tokens back, whatever stands there: biases that rotary position turns into a peak."""
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
