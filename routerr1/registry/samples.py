"""Questions as the gate sees them: samples of an evaluation, paired by content."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from routerr1.config import EvaluateParams
from routerr1.evaluate.controls import POLICY

if TYPE_CHECKING:
    from routerr1.evaluate.stats import Difference, Interval

Bounds = tuple[float, float]
SIMULATED = "simulated"  # a kind of pool


@dataclass(frozen=True, slots=True)
class EvalSample:
    """One question as the gate sees it.

    Attributes:
        question_id: "data set/id".
        content: digest of data set, text and reference answers. Samples are paired by it, because an id may
            be the number of a line.
        pool: name of the pool.
        em: exact match, 0 or 1.
        called: canonical names of the called candidates, in order.
        matching: the rule by which answers are compared.
        task: of the question; "" in evidence that is older than this field.
    """

    question_id: str
    content: str
    pool: str
    group: str
    em: float
    cost_usd: float
    format_valid: bool
    called: tuple[str, ...]
    matching: str = "squad"
    task: str = ""


class Rival(NamedTuple):
    """Another router of the same evaluation, which a champion must not be worse than."""

    router: str
    samples: Sequence[EvalSample]


class Evidence(NamedTuple):
    """What a version is judged by.

    Attributes:
        samples: on its own pool.
        unseen: on pools with models that training never saw; may be empty.
        pool: digest of the cards of its own pool: candidates, prices, measured skill.
        unseen_pool: digest of everything that decides the pools of `unseen`.
        router: the router that was evaluated, as in the rows.
        worst_change: smallest ratio of exact match to best-on-cards over the changed pools; None if not measured.
        rivals: by role, `best_single` and `best_learned`; a role that was not evaluated is missing. None for a
            version that is older than rivals.
        simulated: its candidates were simulated; None for a version that is older than this field.
        odd_prices: prices of its candidates that hardly any model has and that the pool file does not
            confirm, in words.
        whole_replies: its answers are whole replies of candidates; None for a version that is older than this field.
    """

    samples: Sequence[EvalSample]
    unseen: Sequence[EvalSample]
    pool: str
    unseen_pool: str
    router: str = POLICY
    worst_change: float | None = None
    rivals: Mapping[str, Rival] | None = MappingProxyType({})
    simulated: bool | None = False
    odd_prices: tuple[str, ...] = ()
    whole_replies: bool | None = None

    @property
    def judged_by_replies(self) -> bool:
        """Whether an answer is right if it contains the reference answer, and need not equal it."""
        return self.router != POLICY if self.whole_replies is None else self.whole_replies


class Sampling(NamedTuple):
    """How intervals are computed; see `evaluate.stats`."""

    resamples: int
    confidence: float
    seed: int


def sampling_of(params: EvaluateParams) -> Sampling:
    """The sampling of the evaluation."""
    return Sampling(params.bootstrap, params.confidence, params.seed)


def bounds_of(found: "Interval") -> Bounds | None:
    """The interval, or None for a single group of questions."""
    return None if found.low is None or found.high is None else (found.low, found.high)


def paired(
    new: Sequence[EvalSample], old: Sequence[EvalSample], key: Callable[[EvalSample], Hashable]
) -> list[tuple[EvalSample, EvalSample]]:
    """The samples of both with the same key, in the order of `new`."""
    known = {key(play): play for play in old}
    return [(play, known[key(play)]) for play in new if key(play) in known]


def em_difference(
    pairs: Sequence[tuple[EvalSample, EvalSample]], sampling: Sampling
) -> "Difference | None":
    """Exact match, new minus old; None without a pair, or if a value is not finite."""
    from routerr1.evaluate.stats import paired_difference

    if not pairs or not all(math.isfinite(play.em) for pair in pairs for play in pair):
        return None
    return paired_difference(
        [new.em for new, _ in pairs],
        [old.em for _, old in pairs],
        [new.group for new, _ in pairs],
        **sampling._asdict(),
    )


def cost_ratio(
    pairs: Sequence[tuple[EvalSample, EvalSample]], sampling: Sampling
) -> tuple[float | None, Bounds | None]:
    """USD of new over USD of old, with its interval; infinite if only the old ones were free."""
    from routerr1.evaluate.stats import ratio_interval

    costs = [(new.cost_usd, old.cost_usd) for new, old in pairs]
    if not costs or not all(math.isfinite(cost) for pair in costs for cost in pair):
        return None, None
    new, old = zip(*costs, strict=True)
    found = ratio_interval(new, old, [play.group for play, _ in pairs], **sampling._asdict())
    if found is None:  # a free champion asks for a free challenger
        return (1.0 if sum(new) <= 0 else math.inf), None
    return found.mean, bounds_of(found)
