"""Supervised warm start: imitate trajectories whose routing is random, on the policy's own tokens."""

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from routerr1.config import Params, WarmstartParams
from routerr1.data.embedded import World
from routerr1.errors import DataError
from routerr1.files import atomic_directory
from routerr1.policy.load import LoadOptions, load_options
from routerr1.policy.scratch import new_model, train_tokenizer
from routerr1.policy.tokens import encode_prompt, encode_text
from routerr1.progress import track
from routerr1.prompt import renderer
from routerr1.reward import FrozenCostScale
from routerr1.rollout.local import LocalGenerator
from routerr1.rollout.loop import play, stream_seed
from routerr1.simulation.pool import (
    TRAINING_NAMES,
    UNSEEN_NAMES,
    Candidate,
    Fact,
    SimulatedPool,
    candidates_of,
    known_facts,
    training_pool,
)
from routerr1.train.checkpoint import write_manifest
from routerr1.train.demonstrations import imitated
from routerr1.train.packing import Example, pack
from routerr1.train.score import score
from routerr1.types import Card, Question, Trajectory

Pair = tuple[str, Trajectory]  # a prompt and what follows it

_EXAMPLES_PER_ROW = 8
_TOKENIZED_PAIRS = 3000


Pieces = Callable[[str], Sequence[tuple[str, int]]]
"""What the policy wrote in a turn, cut between words, with the mask of each piece."""


def imitate_all(said: str) -> list[tuple[str, int]]:
    """All of it, in one piece."""
    return [(said, 1)]


def encode(
    prompt: str,
    trajectory: Trajectory,
    tokenizer: Any,
    *,
    chat: bool = False,
    pieces: Pieces = imitate_all,
) -> Example:
    """Tokenise piece by piece, as a rollout does: text is never tokenised across an insertion."""
    ids: list[int] = []
    mask: list[int] = []
    for turn in trajectory.turns:
        for text, weight in (*pieces(turn.generation.text), (turn.inserted, 0)):
            piece = encode_text(tokenizer, text)
            ids += piece
            mask += [weight] * len(piece)
    return Example(tuple(encode_prompt(tokenizer, prompt, chat=chat)), tuple(ids), tuple(mask))


def fit(
    model: Any,
    examples: Iterator[Example],
    params: WarmstartParams,
    *,
    progress: Callable[[float], None],
    autocast: torch.dtype | None = None,
) -> list[float]:
    """Take `params.steps` steps of `params.batch_size` examples; returns the loss of each.

    Matrices are updated by Muon, the rest by AdamW; the rate rises over `warmup_steps`, then falls to 0
    as half a cosine. `autocast` is what to compute in where the weights are something else.
    Raises: ValueError if `examples` runs out.
    """
    matrices = [
        p
        for n, p in model.named_parameters()
        if p.ndim == 2 and "embed" not in n and "head" not in n
    ]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=params.learning_rate, weight_decay=0.01,
                         adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=params.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]  # fmt: skip
    model.train()
    losses = []
    for step in range(params.steps):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = params.learning_rate * _schedule(step, params)
        batch = [next(examples, None) for _ in range(params.batch_size)]
        if None in batch:
            raise ValueError(f"examples ran out at step {step}")
        cast = torch.autocast(model.device.type, autocast) if autocast else nullcontext()
        with cast:
            loss = packed_loss(model, [example for example in batch if example is not None])
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        progress(losses[-1])
    model.eval()
    return losses


def _schedule(step: int, params: WarmstartParams) -> float:
    rise = min(1.0, (step + 1) / max(1, params.warmup_steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / params.steps))


def packed_loss(model: Any, batch: Sequence[Example]) -> Tensor:
    """Mean negative log-likelihood of the tokens the policy wrote."""
    # Without it every tensor of the packing would be made on the CPU.
    with nullcontext() if model.device.type == "cpu" else model.device:
        packed = pack(batch, _EXAMPLES_PER_ROW)
        return torch.nn.functional.cross_entropy(packed.logits(model), packed.targets)


def warm_start(
    questions: Sequence[Question],
    world: World,
    cards: Sequence[Card],
    params: Params,
    seed: int,
    folder: Path,
) -> dict[str, float]:
    """Make tokenizer and model, or load them; imitate, play validation questions, and save to `folder`.

    Args:
        questions: of all splits: their names are met here, in sentences that state no fact.

    Returns: final loss, size, and at the training temperature the share of well-formed trajectories and
        EM; they are in the folder's manifest too.
    Raises: DataError if there are no validation questions.
    """
    disable_progress_bar()  # bars for a file of a megabyte only clutter
    held = [question for question in questions if question.split == "validation"]
    if not held:
        raise DataError("the warm start is judged by validation questions, and there are none")
    label = f"warm start, seed {seed}"
    render = renderer(params.prompt.template, params.rollout.max_rounds, params.prompt.file)
    known = known_facts(world)
    wanted = params.warmstart.steps * params.warmstart.batch_size
    pairs = imitated(
        questions, world, known, partial(drawn_cards, names_met(cards, params), known, seed),
        render=render, params=params.rollout,
        stop_probability=params.warmstart.stop_probability, seed=seed, count=max(wanted, 256),
    )  # fmt: skip
    first = _taken(pairs, min(_TOKENIZED_PAIRS, max(wanted, 256)), f"{label}, examples")
    how = load_options(params)
    if params.model.init == "scratch":
        tokenizer = train_tokenizer(_corpus(first, questions, world), params.model.vocab_size)
        policy = LocalGenerator(new_model(params.model, tokenizer, seed), tokenizer, chat=how.chat)
        policy.model.to(how.device)
    else:
        policy = LocalGenerator.load(params.model.init, how, trained=True)
        tokenizer = policy.tokenizer
    examples = (
        encode(prompt, trajectory, tokenizer, chat=how.chat)
        for prompt, trajectory in chain(first, pairs)
    )
    with track(label, params.warmstart.steps) as bar:
        losses = fit(
            policy.model, examples, params.warmstart,
            progress=lambda loss: bar.update(note=f"loss {loss:.3f}"), autocast=policy.autocast,
        )  # fmt: skip
    pool = SimulatedPool(_behind(cards, params), known, seed=params.pool.seed, cards=cards)
    with track(f"{label}, validation", len(held)) as bar:
        played = asyncio.run(
            play(
                held, policy, pool, render=render, params=params.rollout, seed=seed,
                progress=bar.update,
            )
        )  # fmt: skip
    flat = FrozenCostScale(0.0, 0.0)
    scores = [score(trajectory, cards, flat, params.reward) for trajectory in played]
    metrics = {
        "loss": sum(losses[-20:]) / max(1, len(losses[-20:])),
        "parameters": sum(p.numel() for p in policy.model.parameters()),
        "vocabulary": len(tokenizer),
        "format_valid": sum(s.format_valid for s in scores) / len(scores),
        "em": sum(s.em for s in scores) / len(scores),
    }
    _save(policy, folder, metrics)
    return metrics


def _behind(cards: Sequence[Card], params: Params) -> Sequence[Candidate]:
    """Who answers for the cards: their own simulated candidates, or some as good as real ones were measured to be."""
    if params.pool.kind == "simulated":
        return candidates_of(params.pool.candidates)
    return [
        Candidate(
            card.name, card.performance, card.prompt_usd_per_mtok, card.completion_usd_per_mtok, 0.0
        )
        for card in cards
    ]


def _taken(pairs: Iterator[Pair], count: int, label: str) -> list[Pair]:
    taken = []
    with track(label, count) as bar:
        for pair in islice(pairs, count):
            taken.append(pair)
            bar.update()
    return taken


def adopt(source: str, folder: Path) -> dict[str, float]:
    """A pretrained model as it is, in place of a warm start.

    Raises: CheckpointError if it cannot be loaded.
    """
    found = LocalGenerator.load(source, LoadOptions(dtype="auto"))
    metrics = {"parameters": sum(p.numel() for p in found.model.parameters())}
    _save(found, folder, metrics)
    return metrics


def _save(policy: LocalGenerator, folder: Path, metrics: Mapping[str, float]) -> None:
    with atomic_directory(folder) as aside:
        policy.model.save_pretrained(aside)
        policy.tokenizer.save_pretrained(aside)
        write_manifest(aside, {"metrics": metrics})


def names_met(cards: Sequence[Card], params: Params) -> list[str]:
    """Whose names the warm start gets used to: of the pool's candidates, if training will call them."""
    return [card.name for card in cards] if params.pool.redraw < 1 else []


def drawn_cards(
    names: Sequence[str], known: Mapping[str, Fact], seed: int, number: int
) -> Sequence[Card]:
    """The cards of a drawn pool for every row of packed examples; in every fourth they go by `names`, if any.

    What the pool's own cards say is never shown, since what is seen often is recited, and not read. But a name
    that is met nowhere is hardly ever said, and training would begin with a preference among its candidates.
    """
    row = number // _EXAMPLES_PER_ROW
    drawn = training_pool(known, stream_seed(seed, row)).cards
    if row % 4:
        return drawn
    rng = Random(f"names/{seed}/{row}")
    count = len(drawn)
    met = rng.sample(names, len(names))[:count]
    # Names that always came first would be told from the others, which stay, by their places.
    places = range(count) if len(met) == count else rng.sample(range(count), len(met))
    given = dict(zip(places, met, strict=True))
    return [
        replace(card, name=given.get(place, card.name))
        for place, card in enumerate(drawn)
        if place in given or card.name not in names
    ]


def _corpus(pairs: Sequence[Pair], questions: Sequence[Question], world: World) -> Iterator[str]:
    """What the tokenizer is trained on: everything a policy reads or writes, and names it may meet later."""
    for prompt, trajectory in pairs:
        yield prompt + trajectory.text
    for question in questions:
        yield f" {question.question}"
    for names in world.entities.values():
        yield from (f" {name}" for name in names)
    yield from (f" {name}" for name in (*TRAINING_NAMES, *UNSEEN_NAMES))
    yield from (f" {figure}" for figure in range(0, 101, 5))
