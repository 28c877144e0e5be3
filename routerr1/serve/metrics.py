"""Counters and histograms of the gateway, as Prometheus reads them."""

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from routerr1.baselines.likeness import Likeness
from routerr1.serve.answers import tokens_read
from routerr1.types import BreakerState, Card, Reply, Trajectory

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_USD = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
_SPACE = "routerr1"
_STATES: Mapping[BreakerState, int] = {"closed": 0, "half-open": 1, "open": 2}


class Metrics:
    """All series of one gateway process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        asked = ("version", "model", "spend")
        self.requests = self._counter("requests", "Requests by outcome.", *asked, "status")
        self.seconds = self._histogram(
            "request_seconds", "Seconds to the whole answer.", _SECONDS, *asked
        )
        self.first_s = self._histogram(
            "first_token_seconds", "Seconds to the first visible token.", _SECONDS, *asked
        )
        self.overhead_s = self._histogram(
            "overhead_seconds", "Seconds beside generation and calls.", _SECONDS, "version"
        )
        self.request_usd = self._histogram("request_usd", "US dollars of a request.", _USD, *asked)
        called = ("version", "spend", "candidate")
        self.usd = self._counter("usd", "US dollars by candidate.", *called)
        self.tokens = self._counter(
            "tokens", "Tokens by candidate, and of the policy.", *called, "kind"
        )
        self.calls = self._counter("calls", "Calls by candidate and outcome.", *called, "outcome")
        self.call_seconds = self._histogram("call_seconds", "Seconds of a call.", _SECONDS, *called)
        self.over_budget = self._counter("over_budget", "Requests that a budget refused.")
        self.questions = self._counter(
            "questions", "Questions by topic, and whether the router knows such.",
            "version", "topic", "unlike",
        )  # fmt: skip
        self.saved_usd = self._counter(
            "saved_usd", "What the best single candidate for everything costs more.", "version"
        )
        self.dearer_usd = self._counter(
            "dearer_usd", "What the best single candidate for everything costs less.", "version"
        )
        self.under_way = self._gauge("requests_under_way", "Requests being answered.")
        self.circuit = self._gauge("circuit_state", "0 closed, 1 half-open, 2 open.", "candidate")
        self.serving = self._gauge(
            "serving", "1 for the version that takes new requests.", "version"
        )
        self.refused_versions = self._counter(
            "refused_versions", "Versions that were not taken into service.", "reason"
        )

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, namespace=_SPACE, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(name, about, labels, namespace=_SPACE, registry=self.registry)

    def _histogram(
        self, name: str, about: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            name, about, labels, namespace=_SPACE, registry=self.registry, buckets=buckets
        )

    def replied(self, version: str, spend: str, replies: Sequence[Reply]) -> None:
        """Count the calls of one request."""
        for reply in replies:
            called = (version, spend, reply.model or "unknown")
            self.calls.labels(*called, reply.failure or "ok").inc()
            self.usd.labels(*called).inc(reply.cost_usd)
            self.tokens.labels(*called, "prompt").inc(reply.prompt_tokens)
            self.tokens.labels(*called, "completion").inc(reply.completion_tokens)
            self.call_seconds.labels(*called).observe(reply.latency_s)

    def wrote(self, version: str, spend: str, trajectory: Trajectory) -> None:
        """Count the tokens that the policy read and wrote for one request."""
        called = (version, spend, "policy")
        self.tokens.labels(*called, "prompt").inc(tokens_read(trajectory))
        self.tokens.labels(*called, "completion").inc(trajectory.ledger.policy_tokens)

    def placed(self, version: str, placed: Likeness) -> None:
        """Count a question by its topic."""
        unlike = str(placed.is_unlike).lower()
        self.questions.labels(version, placed.topic, unlike).inc()

    def saved(self, version: str, usd: float) -> None:
        """Count what a request saved, or cost more if negative."""
        (self.saved_usd if usd >= 0 else self.dearer_usd).labels(version).inc(abs(usd))

    def page(self, states: Callable[[], Mapping[str, BreakerState]] | None = None) -> bytes:
        """All series, in Prometheus' text format."""
        for name, state in (states() if states is not None else {}).items():
            self.circuit.labels(name).set(_STATES[state])
        return generate_latest(self.registry)


def best_single(cards: Sequence[Card]) -> Card | None:
    """The candidate with the highest mean accuracy on its card; the cheaper one on ties.

    None where no card has been measured.
    """
    measured = [card for card in cards if card.performance]
    if not measured:
        return None
    return max(
        measured,
        key=lambda card: (
            sum(card.performance.values()) / len(card.performance),
            -card.completion_usd_per_mtok,
        ),
    )


def single_usd(card: Card, question: str, answer: str) -> float:
    """What the candidate would cost for the whole question, by its card and its mean reply."""
    prompt = len(question) / 4
    completion = card.completion_tokens if card.completion_tokens is not None else len(answer) / 4
    usd = prompt * card.prompt_usd_per_mtok + completion * card.completion_usd_per_mtok
    return usd / 1e6 + card.request_usd
