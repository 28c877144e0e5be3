"""The paper's Table 1 as routers, ready to be played beside the policy and its controls."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from routerr1.baselines import prompted
from routerr1.baselines.cascade import Cascade, frugal
from routerr1.baselines.contrastive import router_dc
from routerr1.baselines.embed import embedder
from routerr1.baselines.encoder import bert
from routerr1.baselines.few_probes import (
    AGAIN,
    FEW,
    PROMPTED,
    SPEND,
    asking_again,
    few_cards,
    from_few_probes,
    frugal_knn,
    observed,
)
from routerr1.baselines.graph import graph_router
from routerr1.baselines.learned import Chooser, ScoredChooser, knn, mlp
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.retrieval import NAME as RETRIEVER
from routerr1.baselines.retrieval import RetrieverPool
from routerr1.baselines.script import play_calls, play_once
from routerr1.config import BaselineParams
from routerr1.evaluate.controls import Play, Policy, Router
from routerr1.evaluate.routers import RouterId
from routerr1.pool.base import Pool
from routerr1.rollout.lazy import Lazy, LazyGenerator
from routerr1.types import Ask, Question, Trajectory

FittedModels = Mapping[str, Lazy[Any]]
"""What routers learn, by name: a `Chooser` for each of CHOOSERS, a `Cascade` for `frugal`, for `sft` a generator,
and for each of PROMPTED the probes that it has seen."""

LEARNED = ("knn", "mlp", "bert", "router_dc", "graph_router")
PER_PART = (*FEW, *SPEND)  # beside a policy they choose for each sub-question, as `knn_multi_turn`
CHOOSERS = (*LEARNED, *PER_PART)
SINGLE = (
    *LEARNED,
    "largest",
    "frugal",
)  # whose answer rests on one candidate's reply to the whole question


@dataclass(frozen=True, slots=True)
class BaselineContext:
    """What baselines are made of.

    Attributes:
        base: the policy before reinforcement learning; it writes the final answers.
        searcher: `base` as it plays Search-R1.
        retriever: for RAG and Search-R1; None where neither is played.
    """

    base: Policy
    searcher: Policy
    pool: Pool
    fitted: FittedModels
    retriever: RetrieverPool | None


def fitted_models(
    matrix: Matrix,
    params: BaselineParams,
    *,
    seed: int,
    descriptions: Mapping[str, str] | None = None,
) -> dict[str, Lazy[Any]]:
    """What there is to learn from the matrix; nothing is trained before it is asked for."""
    vectors = Lazy(partial(embedder, params.embedder, seed))
    neighbours = params.neighbours
    makers: dict[str, Callable[[], Chooser | Cascade | Matrix]] = {
        "knn": lambda: knn(matrix, vectors(), neighbours=neighbours),
        "mlp": lambda: mlp(matrix, vectors(), seed=seed),
        "bert": lambda: bert(matrix, seed=seed, pretrained=params.encoder),
        "router_dc": lambda: router_dc(matrix, vectors(), seed=seed, pretrained=params.encoder),
        "graph_router": lambda: graph_router(
            matrix, vectors(), seed=seed, descriptions=descriptions
        ),
        "frugal": lambda: frugal(matrix, seed=seed),
    }
    for name, which in FEW.items():
        makers[name] = partial(
            lambda which: from_few_probes(
                matrix, vectors(), which, neighbours=neighbours, seed=seed
            ),
            which,
        )
    for name, level in SPEND.items():
        makers[name] = partial(
            lambda level: frugal_knn(matrix, vectors(), level=level, neighbours=neighbours), level
        )
    for rule in AGAIN:
        makers[rule] = partial(lambda rule: asking_again(matrix, vectors(), rule), rule)
    makers |= {
        name: partial(observed, matrix, count, seed=seed) for name, count in PROMPTED.items()
    }
    return {name: Lazy(maker) for name, maker in makers.items()}


def baseline_routers(
    context: BaselineContext, params: BaselineParams, *, pool_name: str, seed: int
) -> list[Router]:
    """Every router that `params.include` names, in its order."""
    plays = _prompted(context, seed) | _learned(context, seed)
    pools: dict[str, Pool] = {}
    if context.retriever is not None:
        plays |= _retrieval(context.retriever, context, seed)
        pools = dict.fromkeys(("rag", "search_r1"), context.retriever)
    return [
        Router(
            str(RouterId("baseline", name)), context.base.seed, pool_name,
            pools.get(name, context.pool), plays[name], _needs(name, context.fitted),
        )
        for name in params.include
    ]  # fmt: skip


def whole_routers(base: Policy, pool: Pool, *, pool_name: str, seed: int) -> list[Router]:
    """Each candidate asked every question whole, as single-round routers ask the one they choose."""
    return [
        Router(
            f"whole/{card.name}", base.seed, pool_name, pool,
            partial(play_once, name=card.name, writer=base, pool=pool, seed=seed),
        )
        for card in pool.cards
    ]  # fmt: skip


def _needs(name: str, fitted: FittedModels) -> tuple[str, Lazy[Any]] | None:
    model = "knn" if name == "knn_multi_turn" else name
    return (model, fitted[model]) if model in fitted else None


def _learned(context: BaselineContext, seed: int) -> dict[str, Play]:
    base, pool, known = context.base, context.pool, context.fitted
    plays = {name: _single(known[name], base, pool, seed) for name in LEARNED}
    plays["knn_multi_turn"] = _decomposed(known["knn"], base, pool, seed)
    plays |= {name: _decomposed(known[name], base, pool, seed) for name in PER_PART}
    plays |= {name: _asking_again(known[name], base, pool, seed) for name in AGAIN}
    plays["frugal"] = _cascade(known["frugal"], base, pool, seed)
    return plays


def _prompted(context: BaselineContext, seed: int) -> dict[str, Play]:
    base, pool = context.base, context.pool
    plays: dict[str, Play] = {
        **{name: _with_few_cards(context.fitted[name], base, pool, seed) for name in PROMPTED},
        "direct": partial(prompted.direct, base=base, pool=pool, seed=seed),
        "cot": partial(prompted.chain_of_thought, base=base, pool=pool, seed=seed),
        "prompted": partial(prompted.prompted_choice, base=base, pool=pool, seed=seed),
        "policy_before_rl": partial(base.play, pool=pool, seed=seed),
        "largest": partial(
            play_once, name=prompted.largest(pool.cards), writer=base, pool=pool, seed=seed
        ),
    }
    if (tuned := context.fitted.get("sft")) is not None:  # serving fine-tunes none
        writer = replace(base, generator=LazyGenerator(tuned))
        plays["sft"] = partial(prompted.direct, base=writer, pool=pool, seed=seed)
    return plays


def _single(chooser: Lazy[Chooser], base: Policy, pool: Pool, seed: int) -> Play:
    async def play(question: Question, *, player: str) -> Trajectory:
        name = chooser().choose(question.question)
        return await play_once(question, name, base, pool, seed=seed, player=player)

    return play


def _decomposed(chooser: Lazy[Chooser], base: Policy, pool: Pool, seed: int) -> Play:
    """The base policy breaks the question up and reads the replies; the router chooses for each part."""

    def reroute(ask: Ask) -> str:
        return chooser().choose(ask.query)

    async def play(question: Question, *, player: str) -> Trajectory:
        return await base.play(question, pool, seed=seed, player=player, reroute=reroute)

    return play


def _asking_again(chooser: Lazy[ScoredChooser], base: Policy, pool: Pool, seed: int) -> Play:
    """As `_decomposed`, and each time the base policy asks a part again the next best candidate gets it."""

    async def play(question: Question, *, player: str) -> Trajectory:
        asked: dict[str, set[str]] = defaultdict(set)

        def reroute(ask: Ask) -> str:
            name = chooser().next_best(ask.query, asked[ask.query])
            asked[ask.query].add(name)
            return name

        return await base.play(question, pool, seed=seed, player=player, reroute=reroute)

    return play


def _with_few_cards(seen: Lazy[Matrix], base: Policy, pool: Pool, seed: int) -> Play:
    """The prompted choice; the cards hold what the few probes in `seen` showed."""
    showing = Lazy(lambda: base.showing(few_cards(pool.cards, seen())))

    async def play(question: Question, *, player: str) -> Trajectory:
        return await prompted.prompted_choice(question, showing(), pool, seed=seed, player=player)

    return play


def _cascade(cascade: Lazy[Cascade], base: Policy, pool: Pool, seed: int) -> Play:
    async def play(question: Question, *, player: str) -> Trajectory:
        next_call = partial(cascade().next_call, question.question)
        return await play_calls(
            question, next_call, base, pool, seed=seed, player=player, read_all=False
        )

    return play


def _retrieval(retriever: RetrieverPool, context: BaselineContext, seed: int) -> dict[str, Play]:
    writer, searcher = context.base, context.searcher

    async def search(question: Question, *, player: str) -> Trajectory:
        return await searcher.play(
            question, retriever, seed=seed, player=player, reroute=lambda _: RETRIEVER
        )

    return {
        "rag": partial(play_once, name=RETRIEVER, writer=writer, pool=retriever, seed=seed),
        "search_r1": search,
    }
