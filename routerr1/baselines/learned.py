"""Routers that learn candidates' skills from the matrix: kNN, MLP, and the majority they must beat."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from routerr1.baselines.embed import Embedder
from routerr1.baselines.matrix import Matrix, cheapest_best
from routerr1.baselines.threads import one_thread, torch_on_one_thread

if TYPE_CHECKING:
    from torch import Tensor, nn


class Chooser(Protocol):
    """Picks the candidate for a question or a sub-question."""

    def choose(self, query: str) -> str:
        """A candidate's name."""
        ...


class Majority:
    """Always the candidate that was right most often; the cheaper on ties. It reads no question."""

    def __init__(self, matrix: Matrix) -> None:
        means = dict(zip(matrix.candidates, matrix.quality.mean(axis=0).tolist(), strict=True))
        self._name = cheapest_best(means, _costs(matrix))

    def choose(self, query: str) -> str:  # noqa: ARG002 - of the interface
        """See `Chooser.choose`."""
        return self._name


@dataclass
class ScoredChooser:
    """Picks the highest of M predicted qualities; the cheaper on ties.

    Attributes:
        predict: a question to M scores.
    """

    matrix: Matrix
    predict: Callable[[str], NDArray[np.float64]]

    def choose(self, query: str) -> str:
        """See `Chooser.choose`."""
        return self.next_best(query, ())

    def next_best(self, query: str, asked: Collection[str]) -> str:
        """The choice among the candidates that were not asked yet; among all, if each was."""
        scores = self.scores(query)
        left = {name: score for name, score in scores.items() if name not in asked}
        return cheapest_best(left or scores, _costs(self.matrix))

    def scores(self, query: str) -> dict[str, float]:
        """What is predicted of each candidate, the same on any number of threads."""
        with torch_on_one_thread():
            found = self.predict(query).tolist()
        return dict(zip(self.matrix.candidates, found, strict=True))


@one_thread()
def knn(matrix: Matrix, embedder: Embedder, *, neighbours: int = 10) -> ScoredChooser:
    """Mean quality over the nearest training questions by cosine (as RouterBench, arXiv 2403.12031)."""
    fitted = embedder.fit(matrix.questions)
    known_Q_D = fitted.embed(matrix.questions)
    count = min(neighbours, len(matrix.questions))

    def predict(query: str) -> NDArray[np.float64]:
        # Not `@`: that splits its sums over threads.
        near_Q = np.einsum("qd,d->q", known_Q_D, fitted.embed([query])[0])
        places = np.argsort(-near_Q, kind="stable")[:count]
        return np.asarray(matrix.quality[places].mean(axis=0), dtype=np.float64)

    return ScoredChooser(matrix, predict)


@one_thread()
def mlp(
    matrix: Matrix, embedder: Embedder, *, seed: int, hidden: int = 64, steps: int = 300
) -> ScoredChooser:
    """One hidden layer from embedding to the chance that each candidate is right."""
    from torch import nn

    fitted = embedder.fit(matrix.questions)
    known_Q_D = fitted.embed(matrix.questions)

    def build() -> "nn.Module":
        return nn.Sequential(
            nn.Linear(known_Q_D.shape[1], hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, len(matrix.candidates)),
        )

    network = fit_scores(build, known_Q_D, matrix.quality, seed=seed, steps=steps)
    return ScoredChooser(matrix, lambda query: scores(network, fitted.embed([query]))[0])


def fit_scores(
    build: Callable[[], "nn.Module"],
    inputs: Any,
    quality_Q_M: NDArray[np.float64],
    *,
    seed: int,
    steps: int,
    learning_rate: float = 5e-3,
    batch: int = 64,
) -> "nn.Module":
    """Train logits towards qualities in [0, 1]; the global random state is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        given = torch.as_tensor(inputs)
        wanted = torch.as_tensor(quality_Q_M, dtype=torch.float32)
        optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
        network.train()
        for _ in range(steps):
            drawn = torch.randint(len(given), (min(batch, len(given)),))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                network(given[drawn]), wanted[drawn]
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
            optimiser.step()
    return network.eval()


def scores(network: "nn.Module", inputs: Any) -> NDArray[np.float64]:
    """Logits for inputs, without gradients."""
    import torch

    with torch.no_grad():
        found: Tensor = network(torch.as_tensor(inputs))
    return np.asarray(found.double().numpy(), dtype=np.float64)


def _costs(matrix: Matrix) -> dict[str, float]:
    return dict(zip(matrix.candidates, matrix.mean_cost.tolist(), strict=True))
