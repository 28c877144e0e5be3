"""What evaluations find, as frozen values. They become JSON only when `Result.write` stores them.

Figures keep nine significant digits: further ones depend on the machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from routerr1.errors import DataError
from routerr1.evaluate import stats
from routerr1.files import read_json, write_json

_DIGITS = 9  # significant
_POLICY = "policy"
_CLOSED_BOOK = "closed_book"

Measure = Literal[
    "em",
    "f1",
    "cost_usd",
    "calls",
    "latency_s",
    "policy_tokens",
    "prompt_tokens",
    "completion_tokens",
    "format_valid",
]
"""A column of the rows that has a mean; the names are those of `routerr1.metrics`."""


def round_significant(value: float) -> float:
    """The value with nine significant digits.

    >>> round_significant(2 / 3)
    0.666666667
    """
    return float(f"{value:.{_DIGITS}g}")


Figure = Annotated[float, AfterValidator(round_significant)]


class Result(BaseModel):
    """A frozen value with a fixed set of fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` stored.

        Raises: DataError naming the file and the field that is missing, unknown or of another type.
        """
        if not path.is_file():
            raise DataError(f"{path}: not found; run `dvc repro`, which writes it")
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise DataError(f"{path}: {place}: {first['msg']}; run `dvc repro` again") from None

    def write(self, path: Path) -> None:
        """Store it as canonical JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))


class Estimate(Result):
    """A mean with its interval; `low` and `high` are None for a single group of questions."""

    mean: Figure
    low: Figure | None
    high: Figure | None

    @classmethod
    def of(cls, found: stats.Interval) -> Self:
        """Drop the counts."""
        return cls(mean=found.mean, low=found.low, high=found.high)


class Comparison(Estimate):
    """A paired difference.

    Attributes:
        p: two-sided p-value of "no difference"; None for a single group of questions.
        mde: minimum detectable effect, the smallest true difference that such a comparison finds in
            four of five repetitions; None where there is none.
        p_holm: `p` after Holm's correction; None if it is not corrected.
        p_is_bound: the bootstrap cannot show a smaller p, so it is an upper bound.
    """

    p: Figure | None
    mde: Figure | None
    p_holm: Figure | None = None
    p_is_bound: bool = False

    @classmethod
    def of(cls, found: stats.Interval | stats.Difference) -> Self:
        """Drop the counts; not corrected yet."""
        assert isinstance(found, stats.Difference)
        return cls(mean=found.mean, low=found.low, high=found.high, p=found.p, mde=found.mde)

    @property
    def is_clear(self) -> bool:
        """True if the interval excludes zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


class Spread(Result):
    """How far training seeds (or repetitions) lie apart; `sd` is None for a single one."""

    mean: Figure
    sd: Figure | None
    low: Figure
    high: Figure
    seeds: int

    @classmethod
    def of(cls, found: stats.Spread) -> Self:
        """The same as a result."""
        return cls(mean=found.mean, sd=found.sd, low=found.low, high=found.high, seeds=found.seeds)


class Routing(Result):
    """How a router spreads its calls: means over training seeds, and the worst seed.

    Attributes:
        calls: of all seeds together.
        call_share: by candidate, over the seeds that make calls.
        best_model_share: of the calls whose best candidate is known; None where none is.
        judged_call_share: share of the calls whose best candidate is known.
        calls_by_hops: mean calls of a question by the facts it needs; "unknown" without a count.
        worst: figure -> value of the worst seed.
    """

    questions: int
    calls: int
    call_share: Mapping[str, Figure]
    top_model_share: Figure
    call_entropy: Figure
    no_call_rate: Figure
    best_model_share: Figure | None
    judged_call_share: Figure
    calls_by_hops: Mapping[str, Figure]
    worst: Mapping[str, Figure]


class Quality(Result):
    """Quality and cost of a router on some questions; `per_seed` has the spread of each."""

    router: str
    em: Estimate
    f1: Estimate
    cost_usd: Estimate
    per_seed: Mapping[Measure, Spread]

    def estimate(self, measure: Measure) -> Estimate:
        """The estimate of one measure.

        Raises: AttributeError for a measure that this result does not have.
        """
        found: Estimate = getattr(self, measure)
        return found


class LearningCost(Result):
    """What candidates were asked before a router answers its first question, in the mean over training seeds."""

    calls: Figure
    cost_usd: Figure

    def plus(self, other: "LearningCost") -> "LearningCost":
        """Both together."""
        return LearningCost(calls=self.calls + other.calls, cost_usd=self.cost_usd + other.cost_usd)


NOTHING_ASKED = LearningCost(calls=0.0, cost_usd=0.0)


class RouterResult(Quality):
    """One router of a table.

    Attributes:
        learning: None where it is not known.
        difference: the table's reference minus this router; empty for the reference itself.
        collapse: of all its rows.
        collapse_by_dataset: of each data set's.
    """

    seeds: tuple[int, ...]
    calls: Estimate
    latency_s: Estimate
    policy_tokens: Estimate
    prompt_tokens: Estimate
    completion_tokens: Estimate
    format_valid: Estimate
    difference: Mapping[Measure, Comparison]
    collapse: Routing
    collapse_by_dataset: Mapping[str, Routing]
    learning: LearningCost | None = None


class RouterTable(Result):
    """All routers on the same questions.

    Attributes:
        resamples: bootstrap draws.
        reference: the router that the others are subtracted from.
        comparisons: how many p-values are corrected together.
        n: questions, in `groups` independent groups.
    """

    confidence: float
    resamples: int
    reference: str
    comparisons: int
    n: int
    groups: int
    datasets: tuple[str, ...]
    routers: tuple[RouterResult, ...]

    def router(self, name: str) -> RouterResult:
        """One router's results.

        Raises: DataError if the table has no such router.
        """
        for entry in self.routers:
            if entry.router == name:
                return entry
        known = ", ".join(entry.router for entry in self.routers)
        raise DataError(f"the table has no router {name!r} (it has: {known})")

    @property
    def has_policy(self) -> bool:
        """False if only routers without a policy were evaluated, whose answers are whole replies."""
        return any(entry.router == _POLICY for entry in self.routers)

    @property
    def takes_whole_replies(self) -> bool:
        """True if answers are whole replies: without a policy, and beside one that lends no control its text."""
        return not any(entry.router == _CLOSED_BOOK for entry in self.routers)

    @property
    def has_several_seeds(self) -> bool:
        """True if any router has more than one training seed."""
        return any(len(entry.seeds) > 1 for entry in self.routers)

    @property
    def knows_best(self) -> bool:
        """True if the best candidate of some calls is known; real pools do not know it."""
        return any(entry.collapse.best_model_share is not None for entry in self.routers)


class DatasetResult(Result):
    """Every router on one data set of `n` questions in `groups` groups."""

    n: int
    groups: int
    routers: tuple[Quality, ...]


class Pair(Result):
    """Two routers on the same questions; `difference` is `a` minus `b`."""

    a: str
    b: str
    difference: Mapping[Measure, Comparison]

    def turned(self) -> "Pair":
        """The same pair as `b` minus `a`."""
        return Pair(
            a=self.b, b=self.a, difference={k: _minus(v) for k, v in self.difference.items()}
        )


class PairTable(Result):
    """Every two routers, with p-values corrected over all `comparisons` pairs."""

    resamples: int
    comparisons: int
    confidence: float
    pairs: tuple[Pair, ...]

    def between(self, a: str, b: str) -> Pair:
        """The pair of two routers as `a` minus `b`.

        Raises: KeyError if there is no such pair.
        """
        for pair in self.pairs:
            if (pair.a, pair.b) == (a, b):
                return pair
            if (pair.a, pair.b) == (b, a):
                return pair.turned()
        raise KeyError((a, b))

    @property
    def names(self) -> tuple[str, ...]:
        """The routers, in the order of the tables."""
        if not self.pairs:
            return ()
        first = self.pairs[0].a
        return (first, *(pair.b for pair in self.pairs if pair.a == first))

    def is_significant(self, gap: Comparison) -> bool:
        """True if the corrected p-value lies below the level."""
        return gap.p_holm is not None and gap.p_holm < 1 - self.confidence


class EvaluationTable(RouterTable):
    """data/eval/table.json.

    Attributes:
        by_dataset: empty for a single data set.
        macro: means over data sets, each with the same weight; likewise empty.
        best_single: training seed -> the candidate that is best on probes and validation.
    """

    by_dataset: Mapping[str, DatasetResult]
    macro: tuple[Quality, ...]
    pairs: PairTable
    best_single: Mapping[int, str]


class HopResult(Result):
    """Exact match over questions of one hop count, and its share of the oracle's."""

    em: Figure
    em_of_oracle: Figure | None


class SeedResult(Result):
    """One training seed, or all of them if `seed` is None. What the pool cannot tell is None.

    Attributes:
        em_of_oracle: exact match over the oracle's.
        best_fixed: the best single model on these very questions.
        over_best_fixed: the policy minus that model.
        by_hops: by the number of facts that a question needs.
        sd: standard deviation over seeds of each figure; only for all seeds together.
    """

    seed: int | None
    em: Estimate
    em_of_oracle: Estimate | None
    best_fixed: str | None
    over_best_fixed: Comparison | None
    best_model_share: Estimate | None
    top_model_share: Figure
    format_valid: Figure
    by_hops: Mapping[str, HopResult]
    sd: Mapping[str, Figure | None] = {}


class SeedTable(Result):
    """data/eval/seeds.json: each training seed, then all of them."""

    seeds: tuple[SeedResult, ...]


class Flips(Result):
    """Shares of the questions with another answer than on the training pool."""

    answer: Estimate
    right_to_wrong: Estimate
    wrong_to_right: Estimate


class Ratio(Result):
    """The policy against best-on-cards with the same text.

    Attributes:
        ratio: of their exact match.
        em: of the policy.
        seed: of the training; the one with the smallest ratio.
    """

    ratio: float
    em: float
    seed: int


class PoolResult(Result):
    """The policy on one perturbed pool.

    Attributes:
        difference: perturbed minus training pool, on the same questions and seeds.
        target: candidates that are new or changed.
        target_share: share of the calls that go to them; None without a target or without a call.
        table: with the controls, where they were evaluated.
        ratio: to best-on-cards; None without that control.
    """

    pool: str
    policy: RouterResult
    difference: Mapping[Measure, Comparison]
    target: tuple[str, ...]
    target_share: Estimate | None
    target_share_before: Estimate | None
    flipped: Flips
    table: RouterTable | None
    ratio: Ratio | None = None


class Generalization(Result):
    """data/generalize/pools.json.

    Attributes:
        training: the policy on the training pool.
        not_made: perturbation -> why this pool does not allow it.
    """

    confidence: float
    n: int
    groups: int
    training: RouterResult
    training_ratio: Ratio | None = None
    pools: tuple[PoolResult, ...]
    not_made: Mapping[str, str]


def _minus(gap: Comparison) -> Comparison:
    def minus(value: float | None) -> float | None:
        return None if value is None else 0.0 - value

    return gap.model_copy(
        update={"mean": minus(gap.mean), "low": minus(gap.high), "high": minus(gap.low)}
    )
