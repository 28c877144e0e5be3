"""The paper's Table 1 as routers, ready to be played beside the policy and its controls."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from routerr1.baselines import prompted
from routerr1.baselines.cascade import Cascade, frugal
from routerr1.baselines.contrastive import router_dc
from routerr1.baselines.embed import embedder
from routerr1.baselines.encoder import bert
from routerr1.baselines.graph import graph_router
from routerr1.baselines.learned import Chooser, knn, mlp
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.retrieval import NAME as RETRIEVER
from routerr1.baselines.retrieval import RetrieverPool
from routerr1.baselines.script import play_calls, play_once
from routerr1.config import BaselineParams
from routerr1.evaluate.controls import Policy, Router
from routerr1.pool.interface import Pool
from routerr1.types import Ask, Question, Trajectory

Play = Callable[[Question], Awaitable[Trajectory]]
LEARNED = ("knn", "mlp", "bert", "router_dc", "graph_router")


@dataclass(frozen=True, slots=True)
class Materials:
    """What baselines are made of.

    Attributes:
        base: the policy before reinforcement learning; it writes the final answers.
        tuned: `base` fine-tuned on question and answer pairs; only SFT plays it.
        searcher: `base` as it plays Search-R1.
        matrix: of the profile stage.
        passages: the corpus of RAG and Search-R1.
    """

    base: Policy
    tuned: Policy
    searcher: Policy
    pool: Pool
    matrix: Matrix
    passages: Sequence[str]


def choosers(
    names: Sequence[str],
    matrix: Matrix,
    params: BaselineParams,
    *,
    seed: int,
    descriptions: Mapping[str, str] | None = None,
) -> dict[str, Chooser]:
    """The learned routers among `names`, trained on the matrix."""
    vectors = cache(partial(embedder, params.embedder, seed))  # loaded once, if anybody needs it
    makers: dict[str, Callable[[], Chooser]] = {
        "knn": lambda: knn(matrix, vectors(), neighbours=params.neighbours),
        "mlp": lambda: mlp(matrix, vectors(), seed=seed),
        "bert": lambda: bert(matrix, seed=seed, pretrained=params.encoder),
        "router_dc": lambda: router_dc(matrix, vectors(), seed=seed, pretrained=params.encoder),
        "graph_router": lambda: graph_router(
            matrix, vectors(), seed=seed, descriptions=descriptions
        ),
    }
    return {name: makers[name]() for name in LEARNED if name in names}


def baseline_routers(
    materials: Materials, params: BaselineParams, *, pool_name: str, seed: int
) -> list[Router]:
    """Every router that `params.include` names, in its order."""
    pool, base = materials.pool, materials.base
    wanted = list(params.include)
    needed = {name.removesuffix("_star") for name in wanted}
    learned = choosers(
        sorted(needed), materials.matrix, params, seed=seed,
        descriptions={card.name: card.description for card in pool.cards},
    )  # fmt: skip
    plays = _prompted(materials, seed) | {
        name: _single(chooser, base, pool, seed) for name, chooser in learned.items()
    }
    if "knn" in learned:
        plays["knn_star"] = _decomposed(learned["knn"], base, pool, seed)
    if "frugal" in wanted:
        plays["frugal"] = _cascade(frugal(materials.matrix, seed=seed), base, pool, seed)
    pools: dict[str, Pool] = {}
    if {"rag", "search_r1"} & needed:
        names = [card.name for card in pool.cards]
        retriever = RetrieverPool(materials.passages, count=params.passages, aliases=names)
        plays |= _retrieval(retriever, materials, seed)
        pools = {"rag": retriever, "search_r1": retriever}
    return [
        Router(f"baseline/{name}", base.seed, pool_name, pools.get(name, pool), plays[name])
        for name in wanted
    ]


def _prompted(materials: Materials, seed: int) -> dict[str, Play]:
    base, pool = materials.base, materials.pool
    return {
        "direct": partial(prompted.direct, base=base, pool=pool, seed=seed),
        "cot": partial(prompted.chain_of_thought, base=base, pool=pool, seed=seed),
        "sft": partial(prompted.direct, base=materials.tuned, pool=pool, seed=seed),
        "prompted": partial(prompted.prompted_choice, base=base, pool=pool, seed=seed),
        "prompted_star": partial(base.play, pool=pool, seed=seed),
        "largest": partial(
            play_once, name=prompted.largest(pool.cards), writer=base, pool=pool, seed=seed
        ),
    }


def _single(chooser: Chooser, base: Policy, pool: Pool, seed: int) -> Play:
    async def play(question: Question) -> Trajectory:
        return await play_once(question, chooser.choose(question.question), base, pool, seed=seed)

    return play


def _decomposed(chooser: Chooser, base: Policy, pool: Pool, seed: int) -> Play:
    """The base policy breaks the question up and reads the replies; the router chooses for each part."""

    def reroute(ask: Ask) -> str:
        return chooser.choose(ask.query)

    async def play(question: Question) -> Trajectory:
        return await base.play(question, pool, seed=seed, reroute=reroute)

    return play


def _cascade(cascade: Cascade, base: Policy, pool: Pool, seed: int) -> Play:
    async def play(question: Question) -> Trajectory:
        next_call = partial(cascade.next_call, question.question)
        return await play_calls(question, next_call, base, pool, seed=seed)

    return play


def _retrieval(retriever: RetrieverPool, materials: Materials, seed: int) -> dict[str, Play]:
    writer, searcher = materials.base, materials.searcher

    async def search(question: Question) -> Trajectory:
        return await searcher.play(question, retriever, seed=seed, reroute=lambda _: RETRIEVER)

    return {
        "rag": partial(play_once, name=RETRIEVER, writer=writer, pool=retriever, seed=seed),
        "search_r1": search,
    }
