"""What was asked of the candidates before a router answered its first question, in calls and US dollars."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from routerr1.baselines.build import LEARNED
from routerr1.baselines.few_probes import AGAIN, FEW, PROMPTED, SPEND, observed
from routerr1.baselines.matrix import Matrix
from routerr1.data.splits import first_line
from routerr1.errors import DataError
from routerr1.evaluate.controls import BEST_OF_SINGLES, BEST_SINGLE, POLICY
from routerr1.evaluate.results import NOTHING_ASKED, LearningCost
from routerr1.evaluate.routers import RouterId
from routerr1.evaluate.run import Evaluation
from routerr1.files import read_json

_FROM_ALL_PROBES = {
    *LEARNED,
    *SPEND,
    *AGAIN,
    "frugal",
    "knn_multi_turn",
    "prompted",
    "policy_before_rl",
}


def training_cost(folder: Path, *, rollouts: int, validated: int) -> LearningCost:
    """What a training run asked, in the mean over its seeds; the price is the one that the run states.

    Args:
        folder: data/train.
        rollouts: number of rollouts in each step.
        validated: number of questions in each validation.

    Raises: DataError naming the file that is missing or is none of a training.
    """
    log, results = folder / "seeds.csv", folder / "results.json"
    with _named(log), log.open(encoding="utf-8", newline="") as stream:
        calls = sum(_calls(row, rollouts, validated) for row in csv.DictReader(stream))
    with _named(results):
        found = read_json(results)
        seeds = [value for key, value in found.items() if key.startswith("seed_")]
        calls += sum(float(seed["start/calls"]) for seed in seeds) * validated
        return LearningCost(
            calls=calls / len(seeds), cost_usd=float(found["train_cost_usd"]) / len(seeds)
        )


def _calls(row: Mapping[str, str], rollouts: int, validated: int) -> float:
    """The calls of one step; those of the start, step 0, are in the results."""
    if float(row["step"]) == 0:
        return 0.0
    return float(row["calls"]) * rollouts + float(row["validation/calls"] or 0.0) * validated


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except KeyError as missing:
        raise DataError(f"{path}: has no {missing}; run the train stage again") from None
    except (OSError, AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"{path}: cannot be read as that of a training ({first_line(error)}); run the train stage again"
        ) from None


def learning_costs(
    evaluated: Evaluation,
    matrix: Matrix,
    seeds: Sequence[int],
    training: LearningCost | None,
    *,
    trained: bool,
    on_probes: bool = False,
) -> dict[str, LearningCost]:
    """The cost of learning for every router of an evaluation, in the mean over training seeds.

    The policy and its controls have read the cards of all probes and were trained. The best single model is
    chosen on the probes and on validation. The best of all replies is a bound: it learns nothing. Replies that are recorded or
    simulated count with their price, though nothing is paid.

    Args:
        training: of the policy; None where it is not known, or without a policy.
        trained: there is a policy. Routers with its text are left out if `training` is None.
        on_probes: the policy was trained on the probes, and no other router has its text. Beside the probes its
            training asked the validation questions, at most once each as for the best single model.
    """
    all_probes = _asked(matrix)
    own = NOTHING_ASKED if training is None else all_probes.plus(training)

    def cost(router: str) -> LearningCost:
        if router == BEST_OF_SINGLES:
            return NOTHING_ASKED
        kind, name = RouterId.parse(router)
        if kind != "baseline" and on_probes:
            chosen = router in (POLICY, BEST_SINGLE)
            return evaluated.validated.plus(all_probes) if chosen else NOTHING_ASKED
        if router == BEST_SINGLE:
            return (all_probes if training is None else own).plus(evaluated.validated)
        if kind != "baseline":
            return own
        if count := (FEW[name].probes if name in FEW else PROMPTED.get(name)):
            return _mean(_asked(observed(matrix, count, seed=seed)) for seed in seeds)
        return all_probes if name in _FROM_ALL_PROBES else NOTHING_ASKED

    routers = {row.router for row in evaluated.rows}
    if trained and training is None and not on_probes:
        routers = {
            name
            for name in routers
            if name == BEST_OF_SINGLES or RouterId.parse(name).kind == "baseline"
        }
    return {name: cost(name) for name in routers}


def _asked(matrix: Matrix) -> LearningCost:
    return LearningCost(calls=matrix.cost.size, cost_usd=float(matrix.cost.sum()))


def _mean(costs: Iterable[LearningCost]) -> LearningCost:
    each = list(costs)
    return LearningCost(
        calls=fmean(cost.calls for cost in each), cost_usd=fmean(cost.cost_usd for cost in each)
    )
