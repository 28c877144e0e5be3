"""SFT: the base policy fine-tuned to answer the training questions directly."""

import copy
from collections.abc import Iterator, Sequence
from random import Random

import torch

from routerr1.baselines.prompted import DIRECT
from routerr1.baselines.threads import one_thread
from routerr1.config import WarmstartParams
from routerr1.rollout.local import LocalGenerator
from routerr1.train.packing import Example
from routerr1.train.warmstart import fit
from routerr1.types import Question


@one_thread()
def fine_tune(
    base: LocalGenerator,
    questions: Sequence[Question],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> LocalGenerator:
    """A copy of `base` trained on (question, first gold answer); `base` stays as it was.

    Raises: ValueError without questions.
    """
    if not questions:
        raise ValueError("supervised fine-tuning needs training questions")
    saved = base.model.dtype
    tuned = LocalGenerator(
        copy.deepcopy(base.model).float(),  # small steps are lost in bfloat16
        base.tokenizer,
        max_length=base.max_length,
        chat=base.chat,
        autocast=saved if saved == torch.bfloat16 else base.autocast,
        capture=base.capture,
    )
    if steps:
        limits = WarmstartParams(
            steps=steps, batch_size=batch_size, learning_rate=learning_rate,
            warmup_steps=max(1, steps // 10), stop_probability=1.0,
        )  # fmt: skip
        fit(
            tuned.model, _examples(tuned, questions, seed), limits,
            progress=lambda _: None, autocast=tuned.autocast,
        )  # fmt: skip
    return tuned


def _examples(tuned: LocalGenerator, questions: Sequence[Question], seed: int) -> Iterator[Example]:
    rng = Random(f"sft/{seed}")
    while True:
        question = rng.choice(questions)
        session = tuned.start(DIRECT.format(question.question), seed=0)  # reads it as in evaluation
        opening = tuned.encode("<answer>")
        said = tuned.encode(f" {question.golden_answers[0]}</answer>")
        yield Example(
            session.prompt_ids,
            (*opening, *said),
            (0,) * len(opening) + (1,) * len(said),
        )
