"""Several examples in one row behind the prompt they share, so that the prompt is computed once.

Each example attends to the shared part and to itself, at the positions it would have alone. The result
equals that of separate rows, up to rounding. Two to a row, a long one beside a short one, leave little
padding; more only make attention dearer, now that prompts are short.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one trajectory; `mask` is 1 where the policy wrote the token, over `ids`."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    mask: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """Examples in rows.

    Attributes:
        ids, positions: (rows, length).
        owner: 0 for a row's shared part, n for its n-th example, -1 for padding; (rows, length).
        sources: flat places whose hidden state predicts `targets`: the tokens with mask 1, in the
            examples' order.
    """

    ids: Tensor
    positions: Tensor
    owner: Tensor
    sources: Tensor
    targets: Tensor

    def attention(self, dtype: torch.dtype) -> Tensor:
        """Additive (rows, 1, length, length): a token sees the shared part and its own example so far."""
        length, owner = self.owner.shape[1], self.owner
        same = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        # Padding sees itself: a row of the mask that hides everything gives NaN in some kernels.
        visible = (same & causal) | torch.eye(length, dtype=torch.bool)
        return torch.zeros(visible.shape, dtype=dtype).masked_fill(
            ~visible, torch.finfo(dtype).min
        )[:, None]

    def logits(self, model: Any) -> Tensor:
        """What `model` predicts for `targets`, (targets, vocabulary), in float32."""
        device = model.device.type
        casts = torch.is_autocast_enabled(device)
        hidden = model.get_decoder()(
            input_ids=self.ids,
            position_ids=self.positions,
            attention_mask=self.attention(
                torch.get_autocast_dtype(device) if casts else model.dtype
            ),
            use_cache=False,
        ).last_hidden_state
        scores: Tensor = model.get_output_embeddings()(hidden.flatten(0, 1)[self.sources])
        return scores.float()


def pack(examples: Sequence[Example], per_row: int) -> Packed:
    """Examples in their order, `per_row` to a row; neighbours should have prompts that begin alike."""
    rows = [examples[i : i + per_row] for i in range(0, len(examples), per_row)]
    shared = [_common_prefix([example.prompt_ids for example in row]) for row in rows]
    length = max(
        prefix + sum(len(e.prompt_ids) - prefix + len(e.ids) for e in row)
        for prefix, row in zip(shared, rows, strict=True)
    )
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions, owner = torch.zeros_like(ids), torch.full_like(ids, -1)
    sources: list[int] = []
    targets: list[int] = []
    for r, (prefix, row) in enumerate(zip(shared, rows, strict=True)):
        ids[r, :prefix] = torch.tensor(row[0].prompt_ids[:prefix])
        positions[r, :prefix] = torch.arange(prefix)
        owner[r, :prefix] = 0
        at = prefix
        for n, example in enumerate(row, start=1):
            tail = example.prompt_ids[prefix:]
            end = at + len(tail) + len(example.ids)
            ids[r, at:end] = torch.tensor((*tail, *example.ids))
            positions[r, at:end] = torch.arange(prefix, prefix + end - at)
            owner[r, at:end] = n
            before = r * length + at + len(tail) - 1
            written = [i for i, weight in enumerate(example.mask) if weight]
            sources += [before + i for i in written]
            targets += [example.ids[i] for i in written]
            at = end
    return Packed(
        ids,
        positions,
        owner,
        torch.tensor(sources, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long),
    )


def balanced(examples: Sequence[Example]) -> list[int]:
    """An order for rows of two: the longest example beside the shortest, so that rows are about equally long."""
    order = sorted(range(len(examples)), key=lambda i: (_length(examples[i]), i))
    half = len(order) // 2
    pairs = zip(order[:half], reversed(order[len(order) - half :]), strict=True)
    middle = order[half : len(order) - half]
    return [place for pair in pairs for place in pair] + middle


def _length(example: Example) -> int:
    return len(example.prompt_ids) + len(example.ids)


def _common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix, but short of every prompt's last token."""
    most = min(map(len, prompts)) - 1
    for place in range(most):
        if len({prompt[place] for prompt in prompts}) > 1:
            return place
    return most


def packed_logps(
    model: Any, input_ids: Tensor, visible: Tensor, written: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of what the policy wrote; 0 elsewhere in a completion.

    Args:
        input_ids, visible: ids of padded prompts and completions, and 1 where there is a token; (rollouts,
            length).
        written: 1 where the policy wrote the token; (rollouts, width) of the completions, the last part of
            `input_ids`.

    Returns: (rollouts, width) each.
    """
    width = written.shape[1]
    start = input_ids.shape[1] - width
    shown = visible.bool()
    examples = [
        Example(
            tuple(ids[:start][seen[:start]].tolist()),
            tuple(ids[start:][seen[start:]].tolist()),
            tuple(wrote[seen[start:]].tolist()),
        )
        for ids, seen, wrote in zip(input_ids, shown, written, strict=True)
    ]
    order = balanced(examples)
    packed = pack([examples[i] for i in order], 2)
    logps = torch.log_softmax(packed.logits(model) / temperature, dim=-1)
    scored = (written.bool() & shown[:, start:]).nonzero(as_tuple=True)
    rank = torch.empty(len(examples), dtype=torch.long)
    rank[order] = torch.arange(len(examples))
    by_order = torch.argsort(rank[scored[0]], stable=True)
    rows, columns = (part[by_order] for part in scored)

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(len(examples), width).index_put((rows, columns), values)

    chosen = logps.gather(1, packed.targets[:, None])[:, 0]
    return spread(chosen), spread(-(logps.exp() * logps).sum(-1))
