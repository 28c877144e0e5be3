"""RouterDC (arXiv 2409.19886): an encoder of questions and a vector for each candidate, by two contrasts.

Sample and LLM: a question is drawn to the candidates that answer it best, and away from those that fail.
Sample and sample: it is drawn to a question of its own cluster, and away from those of others. The
candidate with the nearest vector by cosine is asked. As in the paper: three positives, three negatives, both losses with
weight 1 and temperature 1, five clusters, three questions of other clusters for each.

Departures: the paper fine-tunes mDeBERTaV3-base; here `baselines.encoder` names what is fine-tuned, and
without a name a small encoder is made from scratch. A text's vector is the mean over its tokens, where the
paper takes the first. Clusters are k-means on the embedder's vectors, without t-SNE before it, whose result
depends on the number of threads.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from routerr1.baselines.embed import Embedder
from routerr1.baselines.encoder import encoding
from routerr1.baselines.learned import ScoredChooser
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor

_POSITIVES = _NEGATIVES = _OUTSIDERS = 3
_CLUSTERS = 5


@one_thread()
def router_dc(
    matrix: Matrix,
    embedder: Embedder,
    *,
    seed: int,
    pretrained: str | None = None,
    steps: int | None = None,
    sample_weight: float = 1.0,
) -> ScoredChooser:
    """Train encoder and candidate vectors on the matrix.

    Args:
        embedder: for the clusters alone.
        steps: by default the paper's 1000 of 64 questions for a pretrained encoder, 100 of 32 for the
            small one.
        sample_weight: of the loss between questions (lambda in the paper).

    Raises: ConfigError if `pretrained` cannot be loaded.
    """
    import torch
    from sklearn.cluster import KMeans
    from torch.nn.functional import normalize

    text = encoding(matrix.questions, pretrained)
    vectors_Q_D = embedder.fit(matrix.questions).embed(matrix.questions)
    grouping = KMeans(min(_CLUSTERS, len(vectors_Q_D)), n_init=4, random_state=seed)
    cluster_Q = torch.from_numpy(grouping.fit_predict(vectors_Q_D)).long()
    ids_Q_T = text.ids(matrix.questions)
    quality_Q_M = torch.from_numpy(matrix.quality).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = text.build()
        candidates_M_H = torch.nn.Parameter(torch.randn(len(matrix.candidates), encoder.size))
        optimiser = torch.optim.AdamW(
            [*encoder.parameters(), candidates_M_H], lr=text.learning_rate, weight_decay=0.01
        )
        encoder.train()
        for _ in range(steps or (1000 if pretrained else 100)):
            drawn = torch.randperm(len(ids_Q_T))[: 64 if pretrained else 32]
            hidden_N_H = normalize(encoder(ids_Q_T[drawn]), dim=1)
            near_N_M = hidden_N_H @ normalize(candidates_M_H, dim=1).T
            loss = sample_llm_loss(near_N_M, quality_Q_M[drawn])
            loss = loss + sample_weight * sample_sample_loss(hidden_N_H, cluster_Q[drawn])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
            optimiser.step()
    encoder.eval()

    def predict(query: str) -> NDArray[np.float64]:
        with torch.no_grad():
            hidden = normalize(encoder(text.ids([query])), dim=1)
            near = hidden @ normalize(candidates_M_H, dim=1).T
        return np.asarray(near[0].double().numpy(), dtype=np.float64)

    return ScoredChooser(matrix, predict)


def sample_llm_loss(near_N_M: "Tensor", quality_N_M: "Tensor") -> "Tensor":
    """Each of the best candidates of a question that is right at all, against its worst that are wrong.

    Right is a quality above 0, wrong one of at most one half; a question without a right one says nothing.
    """
    import torch

    count = near_N_M.shape[1]
    best, best_places = quality_N_M.topk(min(_POSITIVES, count), dim=1)
    worst, worst_places = quality_N_M.topk(min(_NEGATIVES, count), dim=1, largest=False)
    against = near_N_M.gather(1, worst_places).masked_fill(worst > 0.5, -torch.inf)
    right = near_N_M.gather(1, best_places)
    whole = torch.logaddexp(right, torch.logsumexp(against, dim=1, keepdim=True))
    return ((whole - right) * (best > 0)).sum(dim=1).mean()


def sample_sample_loss(hidden_N_H: "Tensor", cluster_N: "Tensor") -> "Tensor":
    """Each question: one other of its cluster against three of other clusters, both drawn from the batch."""
    import torch

    near_N_N = hidden_N_H @ hidden_N_H.T
    same = cluster_N[:, None] == cluster_N[None]
    mates = same & ~torch.eye(len(cluster_N), dtype=torch.bool)
    usable = mates.any(dim=1) & ((~same).sum(dim=1) >= _OUTSIDERS)
    if not usable.any():
        return near_N_N.sum() * 0.0
    mate = torch.multinomial(mates[usable].float(), 1)
    outsiders = torch.multinomial((~same)[usable].float(), _OUTSIDERS)
    near = near_N_N[usable].gather(1, torch.cat([mate, outsiders], dim=1))
    return -torch.log_softmax(near, dim=1)[:, 0].mean()
