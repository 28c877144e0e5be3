"""GraphRouter (arXiv 2410.03834): questions, tasks and candidates as a graph, its edges to be predicted.

A training question has an edge to each candidate that carries how right and how dear it was. Candidates
gather what their edges say; a question knows only its text and its task, so new questions need no edge.
Tasks are clusters of questions: the sets here come without the paper's task descriptions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routerr1.baselines.embed import Embedder
from routerr1.baselines.learned import ScoredChooser
from routerr1.baselines.matrix import Matrix


def graph_router(
    matrix: Matrix,
    embedder: Embedder,
    *,
    seed: int,
    descriptions: Mapping[str, str] | None = None,
    tasks: int = 6,
    size: int = 64,
    steps: int = 400,
) -> ScoredChooser:
    """Train on hidden edges: each step hides the edges of half the questions and predicts them.

    Args:
        descriptions: text of a candidate's card, from which its node starts.
        tasks: how many clusters of questions stand for the tasks.
    """
    import torch
    from sklearn.cluster import KMeans

    described = [(descriptions or {}).get(name, "") or name for name in matrix.candidates]
    fitted = embedder.fit([*matrix.questions, *described])
    known_Q_D = fitted.embed(matrix.questions)
    grouping = KMeans(min(tasks, len(known_Q_D)), n_init=4, random_state=seed).fit(known_Q_D)
    dear = matrix.cost / max(float(matrix.cost.max()), 1e-12)
    edges_Q_M_2 = torch.from_numpy(np.stack([matrix.quality, dear], axis=2)).float()
    nodes = {
        "question": torch.from_numpy(known_Q_D),
        "task": torch.from_numpy(grouping.cluster_centers_).float(),
        "candidate": torch.from_numpy(fitted.embed(described)),
    }
    task_Q = torch.from_numpy(grouping.labels_).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(known_Q_D.shape[1], size, len(matrix.candidates))
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
        network.train()
        for _ in range(steps):
            hidden = torch.rand(len(known_Q_D)) < 0.5
            if hidden.all() or not hidden.any():
                continue
            found = network(
                nodes["question"][hidden], nodes["task"][task_Q[hidden]], nodes["candidate"],
                nodes["question"][~hidden], edges_Q_M_2[~hidden],
            )  # fmt: skip
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                found, edges_Q_M_2[hidden][:, :, 0]
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    network.eval()

    def predict(query: str) -> NDArray[np.float64]:
        row = fitted.embed([query])
        task = nodes["task"][grouping.predict(row.astype(grouping.cluster_centers_.dtype))]
        with torch.no_grad():
            found = network(
                torch.from_numpy(row), task, nodes["candidate"], nodes["question"], edges_Q_M_2
            )
        return np.asarray(found[0].double().numpy(), dtype=np.float64)

    return ScoredChooser(matrix, predict)


def _network(inputs: int, size: int, num_candidates: int) -> Any:
    import torch
    from torch import Tensor, nn

    class GraphNetwork(nn.Module):
        """One round of messages to the candidates, then a score for each question and candidate."""

        def __init__(self) -> None:
            super().__init__()
            self.question = nn.Linear(2 * inputs, size)
            self.candidate = nn.Linear(inputs, size)
            self.identity = nn.Parameter(0.1 * torch.randn(num_candidates, size))
            self.message = nn.Linear(inputs + 2, size)
            self.gather = nn.Linear(size, size)
            self.attend = nn.Linear(inputs, size, bias=False)
            self.score = nn.Sequential(nn.Linear(3 * size, size), nn.ReLU(), nn.Linear(size, 1))
            self.sharpness = nn.Parameter(torch.tensor(2.0))

        def forward(
            self,
            asked_N_D: Tensor,
            task_N_D: Tensor,
            candidate_M_D: Tensor,
            known_Q_D: Tensor,
            edges_Q_M_2: Tensor,
        ) -> Tensor:
            """Questions asked, with their tasks, against candidates as the known edges show them."""
            count = edges_Q_M_2.shape[1]
            told = torch.cat([known_Q_D[:, None].expand(-1, count, -1), edges_Q_M_2], dim=2)
            messages_Q_M_H = torch.relu(self.message(told))
            # Edges of like questions count more: attention over a candidate's edges by the question.
            near_N_Q = torch.softmax(
                self.sharpness.exp() * (self.attend(asked_N_D) @ self.attend(known_Q_D).T), dim=1
            )
            gathered = self.gather(torch.einsum("nq,qmh->nmh", near_N_Q, messages_Q_M_H))
            mine = torch.relu(self.question(torch.cat([asked_N_D, task_N_D], dim=1)))
            theirs = self.candidate(candidate_M_D) + self.identity
            pairs = torch.cat(
                [
                    mine[:, None].expand(-1, count, -1),
                    theirs[None].expand(len(asked_N_D), -1, -1),
                    gathered,
                ],
                dim=2,
            )
            return self.score(pairs)[:, :, 0]  # type: ignore[no-any-return]

    return GraphNetwork()
