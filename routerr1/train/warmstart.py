"""Supervised warm start: imitate demonstrations whose routing is random, in the policy's own tokens."""

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from routerr1.config import Params, WarmstartParams
from routerr1.errors import DataError
from routerr1.files import atomic_directory
from routerr1.jobs.progress import track
from routerr1.policy.load import LoadOptions, load_options
from routerr1.policy.scratch import new_model, train_tokenizer
from routerr1.pool.base import Pool
from routerr1.pool.grading import Grade, compared, graded_all
from routerr1.prompt import Renderer
from routerr1.reward import FrozenCostScale
from routerr1.rollout.generate import Generator
from routerr1.rollout.local import LocalGenerator
from routerr1.rollout.loop import play
from routerr1.train.checkpoint import write_manifest
from routerr1.train.demonstrations import Demonstration, Demonstrations, encode
from routerr1.train.packing import Example, balanced, pack
from routerr1.train.score import score
from routerr1.types import Question, Trajectory

_DISTINCT = 6000  # demonstrations; more are these again, which costs no figure and saves a minute


def fit(
    model: Any,
    examples: Iterator[Example],
    params: WarmstartParams,
    *,
    progress: Callable[[float], None],
    autocast: torch.dtype | None = None,
) -> list[float]:
    """Take `params.steps` steps of `params.batch_size` examples; returns the loss of each.

    Muon updates matrices, AdamW the rest. The learning rate rises over `warmup_steps`, then falls to 0 as
    half a cosine.

    Args:
        autocast: type of the computation where the weights have another one.

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
    # Otherwise packing would make its tensors on the CPU.
    with nullcontext() if model.device.type == "cpu" else model.device:
        packed = pack([batch[place] for place in balanced(batch)], 2)
        return torch.nn.functional.cross_entropy(packed.logits(model), packed.targets)


def warm_start(
    demonstrations: Demonstrations,
    held: Sequence[Question],
    pool: Pool,
    params: Params,
    seed: int,
    folder: Path,
    *,
    render: Renderer,
    grade: Grade = compared,
) -> dict[str, float]:
    """Make or load a tokenizer and a model, imitate demonstrations, validate, and save to `folder`.

    Args:
        held: validation questions.
        pool: that validation asks.
        grade: of validation's answers to questions whose task takes one.

    Returns: final loss, size, and at the training temperature the share of valid formats and EM; the
        manifest of `folder` holds them too.
    Raises: DataError if there are no validation questions.
    """
    disable_progress_bar()  # a progress bar for a file of one megabyte is noise
    if not held:
        raise DataError("data/questions: has no validation questions, which judge the warm start")
    label = f"warm start, seed {seed}"
    wanted = min(max(params.warmstart.steps * params.warmstart.batch_size, 256), _DISTINCT)
    pairs = _taken(demonstrations.draw(seed, wanted), wanted, f"{label}, examples")
    options = load_options(params)
    if params.model.init == "scratch":
        tokenizer = train_tokenizer(_corpus(pairs, demonstrations), params.model.vocab_size)
        policy = LocalGenerator(
            new_model(params.model, tokenizer, seed), tokenizer, chat=options.chat
        )
        policy.model.to(options.device)
    else:
        policy = LocalGenerator.load(params.model.init, options, trained=True)
        tokenizer = policy.tokenizer
    examples = cycle(
        [encode(prompt, trajectory, tokenizer, chat=options.chat) for prompt, trajectory in pairs]
    )
    with track(label, params.warmstart.steps) as bar:
        losses = fit(
            policy.model, examples, params.warmstart,
            progress=lambda loss: bar.update(note=f"loss {loss:.3f}"), autocast=policy.autocast,
        )  # fmt: skip
    with track(f"{label}, validation", len(held)) as bar:
        sampled = figures(
            policy, held, pool, params, seed, render=render, grade=grade, progress=bar.update
        )
    metrics = {
        "loss": sum(losses[-20:]) / max(1, len(losses[-20:])),
        "parameters": sum(p.numel() for p in policy.model.parameters()),
        "vocabulary": len(tokenizer),
        **sampled,
    }
    _save(policy, folder, metrics)
    return metrics


def figures(
    policy: Generator,
    held: Sequence[Question],
    pool: Pool,
    params: Params,
    seed: int,
    *,
    render: Renderer,
    grade: Grade,
    progress: Callable[[], None] | None = None,
) -> dict[str, float]:
    """What a policy does at the training temperature: share of valid formats and EM."""

    async def playing() -> list[Trajectory]:
        played = await play(
            held, policy, pool, render=render, params=params.rollout, seed=seed, progress=progress
        )
        return await graded_all(played, grade)

    flat = FrozenCostScale(0.0, 0.0)
    scores = [score(each, pool.cards, flat, params.reward) for each in asyncio.run(playing())]
    return {
        "format_valid": sum(s.format_valid for s in scores) / len(scores),
        "em": sum(s.em for s in scores) / len(scores),
    }


def _taken(pairs: Iterator[Demonstration], count: int, label: str) -> list[Demonstration]:
    taken = []
    with track(label, count) as bar:
        for pair in islice(pairs, count):
            taken.append(pair)
            bar.update()
    return taken


def use_pretrained(source: str, folder: Path) -> dict[str, float]:
    """Save a pretrained model as it is, in place of a warm start.

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


def _corpus(pairs: Sequence[Demonstration], demonstrations: Demonstrations) -> Iterator[str]:
    """The tokenizer's training text: what a policy reads and writes, and words that it may meet later."""
    for prompt, trajectory in pairs:
        yield prompt + trajectory.text
    yield from demonstrations.vocabulary()
