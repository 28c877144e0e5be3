"""RouterDC (arXiv 2409.19886): questions near the candidates that answer them, by two contrastive losses.

Departure: the paper trains a mDeBERTa encoder; here a projection is trained on top of the embedder.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from routerr1.baselines.embed import Embedder
from routerr1.baselines.learned import ScoredChooser
from routerr1.baselines.matrix import Matrix

if TYPE_CHECKING:
    from torch import Tensor

_TEMPERATURE = 0.2


def router_dc(
    matrix: Matrix,
    embedder: Embedder,
    *,
    seed: int,
    size: int = 64,
    steps: int = 300,
    positives: int = 3,
    clusters: int = 5,
    sample_weight: float = 1.0,
) -> ScoredChooser:
    """Learn a projection of questions and an embedding for each candidate.

    Args:
        positives: how many of the best candidates of a question count as good for it.
        clusters: groups of like questions; those of one are drawn together.
        sample_weight: of the loss between questions (lambda in the paper).
    """
    import torch
    from sklearn.cluster import KMeans
    from torch import nn
    from torch.nn.functional import normalize

    fitted = embedder.fit(matrix.questions)
    known_Q_D = fitted.embed(matrix.questions)
    num_clusters = min(clusters, len(matrix.questions))
    cluster_Q = KMeans(num_clusters, n_init=4, random_state=seed).fit_predict(known_Q_D)
    good_Q_M, bad_Q_M = _sides(matrix, positives)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        project = nn.Sequential(
            nn.Linear(known_Q_D.shape[1], size), nn.Tanh(), nn.Linear(size, size)
        )
        candidates_M_H = nn.Parameter(torch.randn(len(matrix.candidates), size))
        optimiser = torch.optim.AdamW([*project.parameters(), candidates_M_H], lr=5e-3)
        given, label_Q = torch.from_numpy(known_Q_D), torch.from_numpy(cluster_Q).long()
        good, bad = torch.from_numpy(good_Q_M), torch.from_numpy(bad_Q_M)
        for _ in range(steps):
            drawn = torch.randint(len(given), (min(64, len(given)),))
            hidden_N_H = normalize(project(given[drawn]), dim=1)
            near_N_M = hidden_N_H @ normalize(candidates_M_H, dim=1).T / _TEMPERATURE
            loss = _sample_candidate(near_N_M, good[drawn], bad[drawn])
            loss = loss + sample_weight * _sample_sample(hidden_N_H, label_Q[drawn])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    project.eval()

    def predict(query: str) -> NDArray[np.float64]:
        with torch.no_grad():
            hidden = normalize(project(torch.from_numpy(fitted.embed([query]))), dim=1)
            near = hidden @ normalize(candidates_M_H, dim=1).T
        return np.asarray(near[0].double().numpy(), dtype=np.float64)

    return ScoredChooser(matrix, predict)


def _sides(matrix: Matrix, positives: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Who is good for each question (among its best, and right at all) and who is bad (under one half)."""
    quality = matrix.quality
    rank = np.argsort(np.argsort(-quality, axis=1, kind="stable"), axis=1)
    good = (rank < positives) & (quality >= 0.5)
    return good, quality < 0.5


def _sample_candidate(near_N_M: "Tensor", good_N_M: "Tensor", bad_N_M: "Tensor") -> "Tensor":
    """Each good candidate against all bad ones; questions without both say nothing."""
    import torch

    hidden = near_N_M.masked_fill(~bad_N_M, -torch.inf)
    against = torch.logaddexp(near_N_M, torch.logsumexp(hidden, dim=1, keepdim=True))
    told = good_N_M & bad_N_M.any(dim=1, keepdim=True)
    return ((against - near_N_M) * told).sum() / told.sum().clamp(min=1)


def _sample_sample(hidden_N_H: "Tensor", label_N: "Tensor") -> "Tensor":
    """Each question against the rest of the batch, those of its own cluster being right."""
    import torch

    same = (label_N[:, None] == label_N[None]) & ~torch.eye(len(label_N), dtype=torch.bool)
    near = hidden_N_H @ hidden_N_H.T / _TEMPERATURE
    near = near.masked_fill(torch.eye(len(label_N), dtype=torch.bool), -1e9)
    log_share = near - torch.logsumexp(near, dim=1, keepdim=True)
    return -(log_share * same).sum() / same.sum().clamp(min=1)
