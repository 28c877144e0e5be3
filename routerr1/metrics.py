"""Every metric by its one name, and how calls are spread over the candidates.

Training logs, evaluation, gate, MLflow, plots and docs/reference/metrics.md use the names of
`METRICS`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

Group = Literal["answer", "reward", "cost", "routing", "optimisation"]
"""A section of the table of metrics."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured, and how a table shows it.

    Attributes:
        name: in logs, files and MLflow; `NAME` or `N` in it is a candidate or a number of hops.
        unit: of the stored value.
        low, high: range of the stored value.
        meaning: one line.
        label: in headings of tables and plots.
        digits: decimals that a table shows.
        scale: what a table multiplies the stored value by.
    """

    group: Group
    name: str
    unit: str
    low: float
    high: float
    meaning: str
    label: str
    digits: int = 3
    scale: float = 1.0


_INF = math.inf
METRICS: tuple[Metric, ...] = (
    Metric("answer", "em", "share", 0, 1, "exact match with the best reference answer after SQuAD normalisation", "EM"),
    Metric("answer", "f1", "share", 0, 1, "token F1 with the best reference answer", "F1"),
    Metric("answer", "format_valid", "share", 0, 1, "rollouts that keep the format (`routerr1.protocol.check`)", "Valid format, %", 0, 100),
    Metric("answer", "rejected", "count", 0, _INF, "trajectories put aside in runs/rejected because they break a contract", "Put aside", 0),
    Metric("answer", "em_Nhop", "share", 0, 1, "exact match over the questions of N hops", "EM by hops"),
    Metric("reward", "reward", "", -1, 1, "what GRPO maximises", "Reward"),
    Metric("reward", "reward_format", "", -1, 0, "its part for the format: −1 if broken, else 0", "Reward for format"),
    Metric("reward", "reward_answer", "", 0, 1, "its part for the answer, weighted", "Reward for answer"),
    Metric("reward", "reward_cost", "", 0, 1, "its part for the cost, weighted", "Reward for cost"),
    Metric("reward", "cost_score", "", 0, 1, "how cheap the calls are on the scale of recent costs; 1 is cheapest", "Cost score"),
    Metric("cost", "cost_usd", "USD", 0, _INF, "price of the pool calls of a question", "USD per 1,000", 4, 1000),
    Metric("cost", "calls", "count", 0, _INF, "pool calls of a question", "Calls", 2),
    Metric("cost", "calls_Nhop", "count", 0, _INF, "pool calls of a question of N hops", "Calls by hops", 2),
    Metric("cost", "latency_s", "s", 0, _INF, "sum of the replies' own seconds; the policy's time is not included", "Reply time, s", 2),
    Metric("cost", "policy_tokens", "tokens", 0, _INF, "tokens that the policy wrote for a question", "Policy tokens", 1),
    Metric("cost", "prompt_tokens", "tokens", 0, _INF, "tokens that the pool read for a question", "Prompt tokens", 1),
    Metric("cost", "completion_tokens", "tokens", 0, _INF, "tokens that the pool wrote for a question", "Reply tokens", 1),
    Metric("routing", "share/NAME", "share", 0, 1, "calls that go to a candidate", "Share of calls, %", 0, 100),
    Metric("routing", "top_model_share", "share", 0, 1, "calls that go to the most called candidate; 0 without calls", "Top model's share, %", 0, 100),
    Metric("routing", "call_entropy", "bits", 0, _INF, "Shannon entropy of the shares of calls; at most log2 of the number of candidates", "Call entropy, bits", 2),
    Metric("routing", "no_call_rate", "share", 0, 1, "questions without a call", "No call, %", 0, 100),
    Metric("routing", "best_model_share", "share", 0, 1, "calls that go to the candidate with the highest true accuracy on the topic; simulated pools only", "Calls to the best, %", 0, 100),
    Metric("optimisation", "loss", "", -_INF, _INF, "loss of the policy gradient", "Loss"),
    Metric("optimisation", "rehearsal_loss", "nats", 0, _INF, "loss of imitating the warm start's demonstrations", "Rehearsal loss"),
    Metric("optimisation", "kl", "nats", -_INF, _INF, "divergence from the warm start, estimated on the sampled tokens", "KL divergence from the warm start"),
    Metric("optimisation", "entropy", "nats per token", 0, _INF, "mean entropy of the policy's next token, over the rollouts that the loss reads", "Entropy of the policy, nats per token"),
    Metric("optimisation", "grad_norm", "", 0, _INF, "norm of the gradient before clipping", "Gradient norm"),
    Metric("optimisation", "learning_rate", "", 0, _INF, "step size of the optimiser", "Learning rate"),
    Metric("optimisation", "zero_variance_groups", "share", 0, 1, "groups whose rollouts all earn the same reward", "Groups without variance, %", 0, 100),
)  # fmt: skip

_BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}


def metric(name: str) -> Metric:
    """The entry of `METRICS` with this name.

    Raises: KeyError if there is none.
    """
    return _BY_NAME[name]


@dataclass(frozen=True, slots=True)
class RoutingMetrics:
    """How the calls of one policy are spread over the candidates.

    Attributes:
        num_calls: over all questions.
        call_share: share of the calls by candidate, in [0, 1]; all 0 without calls.
        top_model_share: share of the most called candidate, in [0, 1]; 0 without calls.
        call_entropy: entropy of the shares in bits; 0 without calls.
        no_call_rate: share of the questions without a call, in [0, 1]; 0 without questions.
    """

    num_calls: int
    call_share: Mapping[str, float]
    top_model_share: float
    call_entropy: float
    no_call_rate: float


def routing_metrics(
    calls_per_question: Sequence[Sequence[str]], names: Sequence[str] = ()
) -> RoutingMetrics:
    """The routing metrics of training, evaluation and gate.

    Args:
        calls_per_question: names of the called candidates, one sequence per question.
        names: candidates that have a share even without a call.

    >>> found = routing_metrics([["a"], ["a", "b"], []], names=["c"])
    >>> found.num_calls, found.call_share["b"], found.call_share["c"], found.no_call_rate
    (3, 0.3333333333333333, 0.0, 0.3333333333333333)
    """
    counts = Counter(dict.fromkeys(names, 0))
    counts.update(name for called in calls_per_question for name in called)
    total = counts.total()
    return RoutingMetrics(
        num_calls=total,
        call_share={name: count / total if total else 0.0 for name, count in counts.items()},
        top_model_share=max(counts.values()) / total if total else 0.0,
        call_entropy=entropy_bits(counts),
        no_call_rate=fmean(not called for called in calls_per_question)
        if calls_per_question
        else 0.0,
    )


def mean_over_seeds(
    by_seed: Mapping[str, Mapping[str, float]], names: Mapping[str, str]
) -> dict[str, float]:
    """Headline values: means over training seeds.

    Args:
        by_seed: the values of each seed.
        names: name of the headline value -> name in `by_seed`; one that a seed lacks is left out.

    >>> mean_over_seeds({"seed_1": {"v/em": 0.5}, "seed_2": {"v/em": 0.7}}, {"em": "v/em", "f1": "v/f1"})
    {'em': 0.6}
    """
    return {
        name: fmean(values[key] for values in by_seed.values())
        for name, key in names.items()
        if by_seed and all(key in values for values in by_seed.values())
    }


def entropy_bits(counts: Mapping[str, int]) -> float:
    """Shannon entropy of the shares in bits: 0 without counts or with one share, log2(n) for n equal ones.

    >>> entropy_bits({"a": 2, "b": 1, "c": 1})
    1.5
    """
    total = sum(counts.values())
    shares = [count / total for count in counts.values() if count]
    return sum((-share * math.log2(share) for share in shares), start=0.0)
