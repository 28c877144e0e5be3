"""Engines from what a user names: a folder with a policy, a registered version, or an evaluated router."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from routerr1.baselines.build import CHOOSERS, BaselineContext, baseline_routers, fitted_models
from routerr1.baselines.cascade import Cascade
from routerr1.baselines.few_probes import AGAIN
from routerr1.baselines.learned import Chooser
from routerr1.baselines.likeness import open_known, topics_of
from routerr1.baselines.matrix import read_matrix
from routerr1.baselines.prompted import largest
from routerr1.baselines.replies import Always, answer_with_reply, next_call_of
from routerr1.baselines.saved import (
    ROUTER,
    SavedRouter,
    as_evaluated,
    fit_router,
    load_router,
    router_name,
)
from routerr1.config import Baseline, Params
from routerr1.errors import ConfigError
from routerr1.evaluate.controls import BEST_SINGLE, Policy, Router, fixed_router, policy_router
from routerr1.evaluate.routers import RouterId, spelled_out
from routerr1.files import read_json
from routerr1.lineage import PATHS, hash_of
from routerr1.pool.base import Pool
from routerr1.pool.budget import Budget, Limits
from routerr1.pool.build import asked_live, budget_file
from routerr1.pool.cards import read_cards
from routerr1.prompt import Renderer
from routerr1.registry.served import MATRIX, as_served, known_topics
from routerr1.registry.versions import Version, version_files
from routerr1.rollout.generate import Generator
from routerr1.rollout.lazy import Lazy
from routerr1.rollout.vllm import ServerGenerator
from routerr1.serve.allowed import among, best_first
from routerr1.serve.engine import Engine, Identity, Route
from routerr1.serve.hearing import Heard, HearingGenerator
from routerr1.serve.topics import Topics
from routerr1.train.checkpoint import MANIFEST, read_manifest
from routerr1.types import Ask, Question, Reply, Trajectory
from routerr1.workspace import Workspace

_LARGEST = str(RouterId("baseline", "largest"))
_MOST_SETS = 64  # of candidates that keys may ask, whose routers are held
SERVED = "served"  # pool and data set of what is played here
_READ_SPEND = ("policy", "baseline/policy_before_rl")
_BASELINES = (
    *CHOOSERS,
    *AGAIN,
    "largest",
    "frugal",
    "prompted",
    "policy_before_rl",
    "knn_multi_turn",
)


@dataclass(frozen=True, slots=True)
class Choices:
    """What the person who starts the gateway decides.

    Attributes:
        demo: simulated candidates may answer.
        live: candidates of a recorded pool are asked at their endpoints.
        pool_file: takes the place of the pool file of parameters or version.
        generator_url: of a vLLM server that generates for the policy; see `GeneratorParams`.
        topics: name the topic of each question.
        database: holds the budgets, for gateways on several machines; see `ServeParams.database`.
    """

    demo: bool = False
    live: bool = False
    pool_file: Path | None = None
    database: str | None = None
    generator_url: str | None = None
    topics: bool = True


def policy_engine(folder: Path, params: Params, choices: Choices) -> Engine:
    """The policy in a folder, with the pool and the cards of the working directory.

    Raises: CheckpointError, ConfigError, PoolError.
    """
    params = _as_chosen(params, choices)
    workspace = Workspace(params)
    ours = (folder / MANIFEST).is_file()
    digest = hash_of(read_manifest(folder)["files"]) if ours else ""
    version = folder.name if not digest else digest[:12]
    opened = _Opened(workspace, params, choices)
    try:
        if choices.generator_url is not None:
            generator: Generator = opened.remote_generator(folder, version)
        else:
            generator = workspace.load(folder) if ours else workspace.load_unchecked(folder)
        route = policy_route(generator, workspace.renderer, params)
        return opened.engine(version, "policy", route, digest)
    except BaseException:
        opened.give_up()
        raise


def version_engine(version: Version, choices: Choices) -> Engine:
    """A registered version, with its own cards and parameters.

    Raises: RegistryError, CheckpointError if its files were changed; PoolError naming the cards that the
        pool lacks; ConfigError if it was made for simulated models.
    """
    with version_files(version) as (checkpoint, context):
        trained = Params.model_validate(read_json(context / "params.json"))
        params = as_served(
            trained,
            pool=choices.pool_file,
            packed=context / "pool.yaml",
            prompt=context / "prompt.txt",
            budget={},
        )
        params = _as_chosen(params, replace(choices, pool_file=None))
        workspace = Workspace(params, matrix=context / MATRIX)
        known = known_topics(context)
        opened = _Opened(workspace, params, choices, context / "cards.json", known)
        try:
            manifest = read_manifest(checkpoint)
            if (checkpoint / ROUTER).is_file():
                router = str(manifest["router"])
                fitted = load_router(checkpoint)
                opened.answers_with_reply = True
                route = reply_route(fitted, router, params)
            else:
                router = "policy"
                workspace.load_figures()  # the folder of a version does not stay
                generator: Generator
                if choices.generator_url is not None:
                    generator = opened.remote_generator(checkpoint, str(version.number))
                else:
                    generator = workspace.load(checkpoint)
                route = policy_route(generator, workspace.renderer, params)
            digest = hash_of(manifest["files"])
            return opened.engine(str(version.number), router, route, digest)
        except BaseException:
            opened.give_up()
            raise


def router_engine(name: str, params: Params, choices: Choices) -> Engine:
    """An evaluated router by its name in the table: `policy`, `fixed/NAME` or `baseline/NAME`.

    `fixed/` and `baseline/` may be left out.

    Without a policy (`model.init: none`) the chosen candidate's reply is the answer, as in evaluation.

    Raises: ConfigError for a router that is not served; DataError if what it learns from is missing.
    """
    params = _as_chosen(params, choices)
    workspace = Workspace(params)
    if name == "policy":
        return policy_engine(PATHS.policy, params, choices)
    if not params.has_policy or params.looks_up_questions:
        seed, candidates = params.seeds[0], [card.name for card in workspace.cards]
        name = router_name(name, candidates)
        evaluated = as_evaluated(name, PATHS.evaluate / "table.json", seed, candidates)
        what = SavedRouter(router=evaluated, seed=seed, baselines=params.baselines)
        fitted = fit_router(what, PATHS.matrix, PATHS.cards)
        if name == BEST_SINGLE and not isinstance(fitted, Cascade):
            fitted = best_first(fitted.choose(""), read_matrix(PATHS.matrix))
        opened = _Opened(workspace, params, choices)
        opened.answers_with_reply = True
        return opened.engine(name, name, reply_route(fitted, name, params), "")
    served = [*(str(RouterId("baseline", each)) for each in _BASELINES)]
    served += [str(RouterId("fixed", card.name)) for card in workspace.cards]
    kind, router = RouterId.parse(spelled_out(name, served) or name)
    name = str(RouterId(kind, router))
    if kind == "baseline" and router in _BASELINES:
        route = _baseline_route(router, workspace)
    elif kind == "fixed":
        route = _fixed_route(router, workspace)
    else:
        known = ", ".join(f"baseline/{each}" for each in _BASELINES)
        raise ConfigError(
            f"--router {name}: is not served (there are: policy, fixed/NAME, {known})"
        )
    opened = _Opened(workspace, params, choices)
    if kind == "fixed" and router not in {card.name for card in opened.pool.cards}:
        opened.give_up()
        raise ConfigError(f"--router {name}: the pool has no candidate {router!r}")
    return opened.engine(name, name, route, "")


def policy_route(generator: Generator, renderer: Renderer, params: Params) -> Route:
    """A policy as it is evaluated."""
    policy = _policy_of(generator, renderer, params)

    def route(pool: Pool, heard: Heard) -> Router:
        hearing = replace(policy, generator=HearingGenerator(generator, heard))
        return policy_router(hearing, pool, SERVED, params.evaluate.seed)

    return route


def reply_route(fitted: Chooser | Cascade, name: str, params: Params) -> Route:
    """A router without a policy: a candidate's reply is the answer.

    For a key that may ask some candidates only, it chooses among those.
    """
    left_of = lru_cache(_MOST_SETS)(partial(among, fitted))

    def route(pool: Pool, heard: Heard) -> Router:
        chooser = fitted
        if heard.allowed is not None:
            left = pool.cards if name == _LARGEST else ()
            chooser = Always(largest(left)) if left else left_of(heard.allowed)
        ask_next = next_call_of(chooser)

        def next_call(query: str, replies: Sequence[Reply]) -> Ask | None:
            if isinstance(chooser, Cascade):  # which takes the reply of its last candidate as it is
                heard.is_answer = len(replies) + 1 == len(chooser.order)
            return ask_next(query, replies)

        async def play(question: Question, *, player: str) -> Trajectory:
            seed = params.evaluate.seed
            return await answer_with_reply(question, next_call, pool, seed=seed, player=player)

        return Router(name, params.seeds[0], SERVED, pool, play, whole_reply=True)

    return route


def _fixed_route(name: str, workspace: Workspace) -> Route:
    params = workspace.params
    generator = workspace.load(PATHS.policy)
    policy = _policy_of(generator, workspace.renderer, params)

    def route(pool: Pool, heard: Heard) -> Router:
        hearing = replace(policy, generator=HearingGenerator(generator, heard))
        return fixed_router(hearing, pool, name, SERVED, params.evaluate.seed)

    return route


def _baseline_route(name: str, workspace: Workspace) -> Route:
    """A router of the literature, which learns from the matrix now; the warm start writes its answers."""
    params = workspace.params
    seed = params.seeds[0]
    section = params.baselines.replace(include=(_baseline(name),))
    described = {card.name: card.description for card in workspace.cards}
    known = fitted_models(read_matrix(PATHS.matrix), section, seed=seed, descriptions=described)
    fitted = "knn" if name == "knn_multi_turn" else name
    if fitted in known:
        known[fitted]()
    generator = workspace.load(workspace.warmstart_folder(seed))
    policy = _policy_of(generator, workspace.renderer, params)

    def route(pool: Pool, heard: Heard) -> Router:
        hearing = replace(policy, generator=HearingGenerator(generator, heard))
        own = dict(known)
        if heard.allowed is not None and fitted in known:
            own[fitted] = Lazy(partial(among, known[fitted](), heard.allowed))
        context = BaselineContext(hearing, hearing, pool, own, None)
        (router,) = baseline_routers(context, section, pool_name=SERVED, seed=seed)
        return router

    return route


def _baseline(name: str) -> Baseline:
    found: Baseline = name  # type: ignore[assignment]  # `replace` validates it
    return found


def _policy_of(generator: Generator, renderer: Renderer, params: Params) -> Policy:
    section = params.evaluate
    return Policy(params.seeds[0], generator, renderer, params.rollout, section.temperature)


def _as_chosen(params: Params, choices: Choices) -> Params:
    """The parameters with the pool that was chosen. Recorded calls become live: `serve.keep` decides.

    Raises: ConfigError if candidates are simulated, and that was not asked for.
    """
    pool = params.pool
    if choices.pool_file is not None:
        pool = pool.replace(
            kind="http", file=choices.pool_file, calls="live", store=None, redraw=0.0
        )
    elif choices.live and pool.kind == "recorded":
        pool = asked_live(pool)
    if pool.calls == "record":
        pool = pool.replace(calls="live", store=None)
    if pool.kind == "simulated" and not choices.demo:
        raise ConfigError(
            "the candidates are simulated: their answers are made up; serve another policy or pool, or "
            "say --demo"
        )
    return params.replace(pool=pool)


class _Opened:
    """Pool and budget of an engine that is being built."""

    def __init__(
        self,
        workspace: Workspace,
        params: Params,
        choices: Choices,
        cards: Path | None = None,
        topics: Mapping[str, str] | None = None,
    ) -> None:
        self._params = params
        self._url = choices.generator_url
        self._remote: ServerGenerator | None = None
        self._topics = topics
        self._tells_topics = choices.topics
        self.answers_with_reply = False
        limits = params.pool.budget
        run = f"serving {uuid.uuid4().hex}"
        self._kind = params.pool.kind
        self._name = params.registry.model
        self._budget = Budget(
            choices.database or limits.database or budget_file(),
            Limits(limits.question_usd, limits.run_usd, limits.month_usd),
            run=run,
        )
        try:
            shown = workspace.cards if cards is None else read_cards(cards)
            self.pool = workspace.open_pool(shown, run=run, budget=self._budget)
        except BaseException:
            self._budget.close()
            raise

    def engine(self, version: str, router: str, route: Route, digest: str) -> Engine:
        reads_spend = self._params.prompt.reads_spend and router in _READ_SPEND
        identity = Identity(self._name, version, router, self._kind, digest, reads_spend)
        engine = Engine(
            identity, route, self.pool, self._budget, self._remote,
            answers_with_reply=self.answers_with_reply, topics=self._open_topics(),
        )  # fmt: skip
        engine.open()
        return engine

    def _open_topics(self) -> Topics | None:
        if not self._tells_topics:
            return None
        known = self._topics
        if known is None:
            known = topics_of(PATHS.matrix) if PATHS.matrix.is_file() else {}
        found = open_known(known, self._params.baselines, self._params.seeds[0])
        return Topics(found) if found is not None else None

    def remote_generator(self, folder: Path, version: str) -> ServerGenerator:
        """A generator on the vLLM server of a version, with the tokenizer of its folder."""
        from transformers import AutoTokenizer

        assert self._url is not None  # or the policy is loaded here
        self._remote = ServerGenerator(
            self._url.format(version=version),
            AutoTokenizer.from_pretrained(folder),
            max_length=self._params.rollout.max_tokens,
            chat=self._params.prompt.chat,
        )
        return self._remote

    def give_up(self) -> None:
        """Close what was opened for an engine that cannot be built."""
        self._budget.close()
