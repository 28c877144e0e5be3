"""GraphRouter (arXiv 2410.03834): tasks, questions and candidates as a graph, its edges to be predicted.

A training question has an edge to its task and one to each candidate, which carries how right and
how expensive the reply was. Nodes start from text: question, task, the candidate's card. Two rounds of
messages run along the edges that are shown; then the edge of a question and a candidate is
predicted from the question with its task, as they started, and the candidate, as the graph has made
it. A new question brings no edge but the one to its task, so its candidates are those of training.

Departures: tasks are clusters of questions and start from their centre, as our sets come without
the paper's task descriptions; a step hides all edges of a question or none, as a new question has
none, where the released code hides single edges; an edge is trained towards how right the reply
was, not towards being the question's single best, since here most best ones are ties.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from routerr1.baselines.embed import Embedder
from routerr1.baselines.learned import ScoredChooser
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor


class Graph(NamedTuple):
    """Q questions of T tasks, M candidates, and the edges between them.

    Attributes:
        questions, tasks, candidates: where the nodes start, each times the embedder's D.
        task_of: place of each question's task.
        edges: Q x M x 2, quality, and cost as a share of the most expensive reply's.
    """

    questions: "Tensor"
    tasks: "Tensor"
    candidates: "Tensor"
    task_of: "Tensor"
    edges: "Tensor"


@one_thread()
def graph_router(
    matrix: Matrix,
    embedder: Embedder,
    *,
    seed: int,
    descriptions: Mapping[str, str] | None = None,
    tasks: int = 6,
    size: int = 32,
    steps: int = 120,
) -> ScoredChooser:
    """Train on hidden edges: each step hides those of half the questions and predicts them.

    Args:
        descriptions: text of a candidate's card, from which its node starts; its name where there
            is none.
        tasks: number of clusters of questions, which represent the tasks.
    """
    import torch
    from sklearn.cluster import KMeans

    described = [(descriptions or {}).get(name, "") or name for name in matrix.candidates]
    fitted = embedder.fit([*matrix.questions, *described])
    known_Q_D = fitted.embed(matrix.questions)
    grouping = KMeans(min(tasks, len(known_Q_D)), n_init=4, random_state=seed).fit(known_Q_D)
    price = matrix.cost / max(float(matrix.cost.max()), 1e-12)
    graph = Graph(
        torch.from_numpy(known_Q_D),
        torch.from_numpy(grouping.cluster_centers_).float(),
        torch.from_numpy(fitted.embed(described)),
        torch.from_numpy(grouping.labels_).long(),
        torch.from_numpy(np.stack([matrix.quality, price], axis=2)).float(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(known_Q_D.shape[1], size)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-2)
        network.train()
        for _ in range(steps):
            shown_Q = torch.rand(len(known_Q_D)) < 0.5
            if shown_Q.all() or not shown_Q.any():
                continue
            found = network.predict(
                network.candidates(graph, shown_Q),
                graph.questions[~shown_Q],
                graph.tasks[graph.task_of[~shown_Q]],
            )
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                found, graph.edges[~shown_Q][:, :, 0]
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
            optimiser.step()
    network.eval()
    with torch.no_grad():
        made_M_H = network.candidates(graph, torch.ones(len(known_Q_D), dtype=torch.bool))

    def predict(query: str) -> NDArray[np.float64]:
        row = fitted.embed([query])
        task = grouping.predict(row.astype(grouping.cluster_centers_.dtype))
        with torch.no_grad():
            found = network.predict(made_M_H, torch.from_numpy(row), graph.tasks[task])
        return np.asarray(found[0].double().numpy(), dtype=np.float64)

    return ScoredChooser(matrix, predict)


def _network(inputs: int, size: int) -> Any:
    import torch
    from torch import Tensor, nn

    class Round(nn.Module):
        """Messages from all neighbours at once; a node becomes a function of itself and their mean."""

        def __init__(self) -> None:
            super().__init__()
            pairs = (
                "question_candidate",
                "candidate_question",
                "question_task",
                "task_question",
            )
            self.message = nn.ModuleDict({pair: nn.Linear(size, size) for pair in pairs})
            self.edge = nn.ModuleDict({pair: nn.Linear(2, size) for pair in pairs[:2]})
            self.update = nn.ModuleDict(
                {
                    "question": nn.Linear(3 * size, size),
                    "task": nn.Linear(2 * size, size),
                    "candidate": nn.Linear(2 * size, size),
                }
            )

        def along(self, pair: str, nodes: Tensor, edges_Q_M_2: Tensor) -> Tensor:
            """Messages over the edges of questions and candidates, Q x M x size."""
            weighed: Tensor = self.edge[pair](edges_Q_M_2) * self.message[pair](nodes)
            return torch.relu(weighed)

        def forward(
            self, q: Tensor, t: Tensor, m: Tensor, task_Q: Tensor, edges_Q_M_2: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            """Questions, tasks and candidates after the round."""
            to_m = self.along("question_candidate", q[:, None], edges_Q_M_2).mean(dim=0)
            to_q = self.along("candidate_question", m[None], edges_Q_M_2).mean(dim=1)
            from_t = torch.relu(self.message["task_question"](t))[task_Q]
            sent = torch.relu(self.message["question_task"](q))
            count = torch.zeros(len(t)).index_add(0, task_Q, torch.ones(len(task_Q)))
            to_t = torch.zeros_like(t).index_add(0, task_Q, sent) / count.clamp(min=1)[:, None]
            return (
                self.update["question"](torch.cat([q, to_q, from_t], dim=1)),
                self.update["task"](torch.cat([t, to_t], dim=1)),
                self.update["candidate"](torch.cat([m, to_m], dim=1)),
            )

    class GraphNetwork(nn.Module):
        """Nodes to one size, two rounds, then a logit for each asked question and candidate."""

        def __init__(self) -> None:
            super().__init__()
            self.start = nn.ModuleDict(
                {kind: nn.Linear(inputs, size) for kind in ("question", "task", "candidate")}
            )
            self.rounds = nn.ModuleList([Round(), Round()])
            self.pair = nn.Sequential(
                nn.Linear(2 * size, size), nn.ReLU(), nn.Linear(size, size + 1)
            )

        def candidates(self, graph: Graph, shown_Q: Tensor) -> Tensor:
            """What the candidates are after both rounds, M x size, from the edges that are shown."""
            q = self.start["question"](graph.questions[shown_Q])
            t = self.start["task"](graph.tasks)
            m = self.start["candidate"](graph.candidates)
            task_Q, edges_Q_M_2 = graph.task_of[shown_Q], graph.edges[shown_Q]
            for each in self.rounds:
                q, t, m = (torch.relu(state) for state in each(q, t, m, task_Q, edges_Q_M_2))
            made: Tensor = m
            return made

        def predict(self, made_M_H: Tensor, asked_N_D: Tensor, task_N_D: Tensor) -> Tensor:
            """Logits of the asked questions' edges, N x M."""
            asked = torch.cat(
                [self.start["question"](asked_N_D), self.start["task"](task_N_D)], dim=1
            )
            found = self.pair(asked)
            logits: Tensor = found[:, :-1] @ made_M_H.T + found[:, -1:]
            return logits

    return GraphNetwork()
