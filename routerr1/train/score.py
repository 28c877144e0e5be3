"""The reward of a trajectory, and figures of a batch that give early warning of a collapse."""

from collections.abc import Sequence
from dataclasses import dataclass

from routerr1 import protocol
from routerr1.config import RewardParams
from routerr1.matching import token_f1
from routerr1.metrics import routing_metrics
from routerr1.notation import answers_with_reply, spend_of
from routerr1.pool.base import Pool, is_best
from routerr1.pool.grading import how_right
from routerr1.protocol import IN_KEY, fit_names
from routerr1.reward import FrozenCostScale, alpha_at, components
from routerr1.types import Ask, Card, Trajectory


@dataclass(frozen=True, slots=True)
class Score:
    """One trajectory's reward and its parts.

    Attributes:
        answer: the part the reward uses: exact match or F1.
        cost: micro-dollars on the reward's basis.
        cost_score: in [0, 1]; 0 if a call failed, which is never cheap.
        parts: what format, answer and cost add to the reward.
    """

    format_valid: bool
    em: float
    f1: float
    answer: float
    cost: float
    cost_score: float
    parts: tuple[float, float, float]

    @property
    def reward(self) -> float:
        """The sum of the parts (`reward.hierarchical`)."""
        return sum(self.parts)


def score(
    trajectory: Trajectory, cards: Sequence[Card], scale: FrozenCostScale, params: RewardParams
) -> Score:
    """Score one trajectory; pure, so a stored one can be scored again."""
    format_valid = protocol.check(trajectory.text, protocol.names_of(cards, trajectory.handles))
    golds, said = trajectory.question.golden_answers, trajectory.answer
    rule = trajectory.question.matching
    whole = answers_with_reply(trajectory)
    question, grade = trajectory.question, trajectory.grade
    em = how_right(question, said, grade, whole_reply=whole) if said is not None else 0.0
    # A right choice or number may be written in other words than the reference.
    f1 = max(em, token_f1(said, golds, rule)) if said is not None else 0.0
    cost = micro_usd(trajectory, cards, params.cost_basis)
    cost_score = 0.0 if trajectory.ledger.failures else scale.score(cost)
    answer = em if params.answer == "em" else f1
    alpha = alpha_at(spend_of(trajectory.question), params.cost_weight, params.frugal_weight)
    parts = components(format_valid, answer, cost_score, alpha)
    return Score(format_valid, em, f1, answer, cost, cost_score, parts)


def micro_usd(trajectory: Trajectory, cards: Sequence[Card], basis: str) -> float:
    """Cost in micro-dollars: of reply tokens alone (`completion`, the paper) or of all that was billed."""
    if basis == "all":
        return trajectory.ledger.cost_usd * 1e6
    price = {card.name: card.completion_usd_per_mtok for card in cards}
    return sum(
        turn.reply.completion_tokens * price.get(turn.reply.model, 0.0)
        for turn in trajectory.turns
        if turn.reply is not None
    )


def called(trajectory: Trajectory) -> list[str]:
    """Names of the candidates that were asked, in order."""
    return [turn.reply.model for turn in trajectory.turns if turn.reply and turn.reply.model]


def best_model_share(played: Sequence[tuple[Trajectory, Pool]]) -> float | None:
    """Share of calls that went to the best candidate for their topic; None without ground truth."""
    judged = [
        is_best(pool, turn.reply.model, turn.action.query)
        for trajectory, pool in played
        for turn in trajectory.turns
        if isinstance(turn.action, Ask) and turn.reply
    ]
    known = [verdict for verdict in judged if verdict is not None]
    return sum(known) / len(known) if known else None


def batch_figures(
    trajectories: Sequence[Trajectory], scores: Sequence[Score], names: Sequence[str]
) -> dict[str, float]:
    """Means over a batch, by the names that log.csv and the report use. Shares are of all calls.

    Where the batch holds several data sets, each one's figures follow as `data set/figure`.
    """
    figures = _figures(trajectories, scores, names)
    datasets = fit_names(sorted({t.question.dataset for t in trajectories}), IN_KEY)
    for dataset, key in datasets.items() if len(datasets) > 1 else ():
        mine = [i for i, t in enumerate(trajectories) if t.question.dataset == dataset]
        own = _figures([trajectories[i] for i in mine], [scores[i] for i in mine], names)
        figures |= {f"{key}/{name}": value for name, value in own.items()}
    return figures


def zero_variance(rollouts: Sequence[tuple[str, Score]], size: int) -> dict[str, float]:
    """Share of groups whose rewards are all equal, which teach nothing; for each data set too.

    Args:
        rollouts: data set and score of each, the `size` rollouts of a question side by side.
    """
    groups = [rollouts[i : i + size] for i in range(0, len(rollouts), size)]
    flat: dict[str, list[float]] = {}
    for group in groups:
        rewards = [scored.reward for _, scored in group]
        flat.setdefault(group[0][0], []).append(float(max(rewards) - min(rewards) < 1e-9))
    found = {"zero_variance_groups": _mean([each for values in flat.values() for each in values])}
    if len(flat) > 1:
        keys = fit_names(sorted(flat), IN_KEY)
        found |= {f"{key}/zero_variance_groups": _mean(flat[name]) for name, key in keys.items()}
    return found


def _figures(
    trajectories: Sequence[Trajectory], scores: Sequence[Score], names: Sequence[str]
) -> dict[str, float]:
    count = len(trajectories)
    routing = routing_metrics([called(trajectory) for trajectory in trajectories])
    figures = {
        "reward": _mean([s.reward for s in scores]),
        "em": _mean([s.em for s in scores]),
        "f1": _mean([s.f1 for s in scores]),
        "format_valid": _mean([float(s.format_valid) for s in scores]),
        "cost_score": _mean([s.cost_score for s in scores]),
        **{
            f"reward_{part}": _mean([s.parts[place] for s in scores])
            for place, part in enumerate(("format", "answer", "cost"))
        },
        "cost_usd": _mean([t.ledger.cost_usd for t in trajectories]),
        "calls": routing.num_calls / count,
        "no_call_rate": routing.no_call_rate,
        "policy_tokens": _mean([float(t.ledger.policy_tokens) for t in trajectories]),
        "top_model_share": routing.top_model_share,
        "call_entropy": routing.call_entropy,
    }
    for name, key in fit_names(names, IN_KEY).items():
        figures[f"share/{key}"] = routing.call_share.get(name, 0.0)
    for hops in sorted({t.question.hops for t in trajectories if t.question.hops}):
        mine = [i for i, t in enumerate(trajectories) if t.question.hops == hops]
        figures[f"em_{hops}hop"] = _mean([scores[i].em for i in mine])
        figures[f"calls_{hops}hop"] = _mean([float(trajectories[i].ledger.calls) for i in mine])
    return figures


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
