"""What was asked of the candidates before a router answered its first question, in calls and US dollars."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from routerr1.baselines.build import LEARNED
from routerr1.baselines.few_probes import FEW, PROMPTED, SPEND, observed
from routerr1.baselines.matrix import Matrix
from routerr1.errors import DataError
from routerr1.evaluate.controls import BEST_SINGLE
from routerr1.evaluate.results import NOTHING_ASKED, LearningCost
from routerr1.evaluate.routers import RouterId
from routerr1.evaluate.run import Evaluation

_FROM_ALL_PROBES = {*LEARNED, *SPEND, "frugal", "knn_multi_turn", "prompted", "policy_before_rl"}


def training_cost(log: Path, *, rollouts: int, validated: int) -> LearningCost:
    """What a training run asked, in the mean over its seeds.

    Args:
        log: data/train/seeds.csv.
        rollouts: number of rollouts in each step.
        validated: number of questions in each validation.

    Raises: DataError naming the file, if it is missing or no log of a training.
    """
    try:
        with log.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        seeds = {row["seed"] for row in rows}
        calls, cost_usd = (
            sum(
                float(row.get(column) or 0.0) * count
                for row in rows
                for column, count in ((name, rollouts), (f"validation/{name}", validated))
            )
            for name in ("calls", "cost_usd")
        )
        return LearningCost(calls=calls / len(seeds), cost_usd=cost_usd / len(seeds))
    except (OSError, KeyError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"{log}: cannot be read as a log of training ({error!r}); run the train stage again"
        ) from None


def learning_costs(
    evaluated: Evaluation,
    matrix: Matrix,
    seeds: Sequence[int],
    training: LearningCost | None,
    *,
    trained: bool,
) -> dict[str, LearningCost]:
    """The cost of learning for every router of an evaluation, in the mean over training seeds.

    The policy and its controls have read the cards of all probes and were trained. The best single model is
    chosen on validation. Replies that are recorded or simulated count with their price, though nothing is paid.

    Args:
        training: of the policy; None where it is not known, or without a policy.
        trained: there is a policy. Routers with its text are left out if `training` is None.
    """
    all_probes = _asked(matrix)
    own = NOTHING_ASKED if training is None else all_probes.plus(training)

    def cost(router: str) -> LearningCost:
        kind, name = RouterId.parse(router)
        if kind != "baseline":
            return own.plus(evaluated.validated) if router == BEST_SINGLE else own
        if count := (FEW[name].probes if name in FEW else PROMPTED.get(name)):
            return _mean(_asked(observed(matrix, count, seed=seed)) for seed in seeds)
        return all_probes if name in _FROM_ALL_PROBES else NOTHING_ASKED

    routers = {row.router for row in evaluated.rows}
    if trained and training is None:
        routers = {name for name in routers if RouterId.parse(name).kind == "baseline"}
    return {name: cost(name) for name in routers}


def _asked(matrix: Matrix) -> LearningCost:
    return LearningCost(calls=matrix.cost.size, cost_usd=float(matrix.cost.sum()))


def _mean(costs: Iterable[LearningCost]) -> LearningCost:
    each = list(costs)
    return LearningCost(
        calls=fmean(cost.calls for cost in each), cost_usd=fmean(cost.cost_usd for cost in each)
    )
