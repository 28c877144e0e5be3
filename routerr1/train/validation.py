"""Greedy figures of the policy on the validation questions."""

from routerr1.reward import CostScale, FrozenCostScale
from routerr1.train.context import TrainingContext
from routerr1.train.processes import gathered, own_share
from routerr1.train.rollouts import Generation, RolloutWorker, score_batch
from routerr1.train.score import micro_usd


def validate(
    context: TrainingContext,
    worker: RolloutWorker,
    generation: Generation,
    scale: FrozenCostScale | None,
) -> tuple[dict[str, float], FrozenCostScale]:
    """Figures on the validation tasks, by their names in log.csv, and the cost scale behind them.

    Args:
        scale: of the first validation; None if this is the first, whose own costs make the scale.
            Training's scale is not used: it moves with the policy, and a cheaper policy would look
            more expensive on it.
    """
    tasks = context.validation
    first, end = own_share(len(tasks))
    own = worker.run(tasks[first:end], generation, seed=context.seed, temperature=0.0, first=first)
    trajectories = gathered(own)
    if scale is None:
        costs = [
            micro_usd(trajectory, task.pool.cards, context.reward.cost_basis)
            for task, trajectory in zip(tasks, trajectories, strict=True)
        ]
        scale = CostScale(max(1, len(costs)), costs).freeze()
    return score_batch(context, tasks, trajectories, scale).figures(context.names), scale
