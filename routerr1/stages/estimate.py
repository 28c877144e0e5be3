"""What a run of the chain will cost, before it is started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, pstdev

from rich.table import Table

from routerr1.baselines.build import SINGLE
from routerr1.config import Params
from routerr1.data.rewording import WORDINGS
from routerr1.errors import PoolError
from routerr1.files import digest, read_json
from routerr1.lineage import PATHS
from routerr1.pool.cards import read_cards
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.pricing import TEMPLATE_TOKENS, cost_usd
from routerr1.pool.profile import read_probes
from routerr1.train.checkpoint import MANIFEST
from routerr1.types import Card, Split

# No token of a usual tokenizer encodes more bytes of ordinary text.
_BYTES_PER_POLICY_TOKEN = 32
_BYTES_PER_CHAR = 4  # UTF-8's longest
_Z = 1.645  # one-sided 95 %
# Of a call, before the profile has measured any.
_ASSUMED_PROMPT_TOKENS, _ASSUMED_REPLY_TOKENS = 80, 150
# Changes of the pool in the generalize stage, each played by the policy and by best-on-cards.
_POOL_CHANGES = 14
_CHANGES_BY_NEW_MODELS = 6  # of them two have all controls
# Routers on pools drawn for each question: the policy, the one before it, at random, by the cards, the oracle.
_REDRAWN = 5


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """US dollars.

    Attributes:
        most_usd: the theoretical maximum: every call as expensive as one can be.
        expected_usd: None without a profile.
        bound_usd: at 95 %, what the stage costs at most; None without a profile.
    """

    stage: str
    most_calls: int
    most_usd: float
    expected_calls: float
    expected_usd: float | None
    bound_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Every stage that makes calls, and what the figures rest on."""

    stages: tuple[StageEstimate, ...]
    assumptions: tuple[str, ...]

    @property
    def most_usd(self) -> float:
        """All stages at most."""
        return sum(stage.most_usd for stage in self.stages)

    @property
    def expected_usd(self) -> float | None:
        """All stages in expectation; None without a profile."""
        return _sum([stage.expected_usd for stage in self.stages])

    @property
    def bound_usd(self) -> float | None:
        """The 95 % bounds of all stages together, which is above the 95 % bound of the sum."""
        return _sum([stage.bound_usd for stage in self.stages])


def _sum(parts: Sequence[float | None]) -> float | None:
    return None if None in parts else sum(usd for usd in parts if usd is not None)


@dataclass(frozen=True, slots=True)
class Link:
    """One candidate that a call may reach: the one asked, or a fallback.

    Attributes:
        tries: at most, each of which may be billed.
    """

    card: Card
    tries: int
    reply_tokens: int


Chains = Mapping[str, Sequence[Link]]
"""By candidate: the chain of candidates that a call may reach through fallbacks."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an estimate reads besides the parameters.

    Attributes:
        chains: of the training pool.
        new: of the models that only the generalize stage asks.
        mean_call_usd: per candidate, from the profile; empty before it.
        sd_call_usd: standard deviation of the calls, likewise.
        questions: rows of each split; empty before the dataset stage.
        profiled: the costs of calls are measured, not assumed.
        calls_per_question: from the last evaluation; None before one.
        trained_for: the candidates of the policy that there is; empty without one, or if its cards are gone.
    """

    chains: Chains
    new: Chains
    mean_call_usd: Mapping[str, float]
    sd_call_usd: Mapping[str, float]
    questions: Mapping[Split, int]
    calls_per_question: float | None
    profiled: bool = True
    trained_for: frozenset[str] = frozenset()


def read_inputs(params: Params, data: Path = Path("data"), policy: Path = PATHS.policy) -> Inputs:
    """Gather what is there.

    Raises: PoolError if neither a pool file nor profiled cards tell the prices.
    """
    chains, new = _simulated(params, data) if params.pool.file is None else _from_files(params)
    profile = data / "pool/profile.json"
    if profile.exists():
        means = {name: float(entry["cost_usd"]) for name, entry in read_json(profile).items()}
        deviations = _deviations(data / "pool/matrix.parquet")
    else:
        means = {
            name: cost_usd(chain[0].card, _ASSUMED_PROMPT_TOKENS, _ASSUMED_REPLY_TOKENS)
            for name, chain in chains.items()
        }
        deviations = means  # as replies whose lengths are exponential
    rows, calls = _rows_per_split(data / "questions"), _calls(data / "eval")
    trained_for = _trained_for(data / "pool/cards.json", policy)
    return Inputs(chains, new, means, deviations, rows, calls, profile.exists(), trained_for)


def _trained_for(cards: Path, policy: Path) -> frozenset[str]:
    """The candidates of a trained policy, which knows its cards by their digest."""
    manifest = policy / MANIFEST
    if not cards.is_file() or not manifest.is_file():
        return frozenset()
    if read_json(manifest).get("cards") != digest(cards):
        return frozenset()
    return frozenset(card.name for card in read_cards(cards))


def _deviations(matrix: Path) -> dict[str, float]:
    """The standard deviation of each candidate's calls; empty before the profile."""
    if not matrix.exists():
        return {}
    costs: dict[str, list[float]] = {}
    for row in read_probes(matrix):
        costs.setdefault(row["candidate"], []).append(row["cost_usd"])
    return {name: pstdev(values) for name, values in costs.items()}


def _simulated(params: Params, data: Path) -> tuple[Chains, Chains]:
    from routerr1.simulation.candidates import candidates_of, drawn_candidates
    from routerr1.simulation.pool import SimulatedPool

    def chains(cards: Sequence[Card]) -> Chains:
        return {card.name: [Link(card, 1, params.pool.max_reply_tokens)] for card in cards}

    profiled = data / "pool/cards.json"
    trained = SimulatedPool(candidates_of(params.pool.candidates), {}, seed=0).cards
    drawn = SimulatedPool(drawn_candidates(params.generalize.pool_seed), {}, seed=0).cards
    return chains(read_cards(profiled) if profiled.exists() else trained), chains(drawn)


def _from_files(params: Params) -> tuple[Chains, Chains]:
    def chains(path: Path | None) -> Chains:
        if path is None:
            return {}
        file = read_pool_file(path, max_reply_tokens=params.pool.max_reply_tokens)
        cards = {card.name: card for card in file.cards}
        return {
            name: [
                Link(
                    cards[row.name], file.endpoints[row.endpoint].max_tries, file.reply_tokens(row)
                )
                for row in file.chain(name)
            ]
            for name in cards
        }

    return chains(params.pool.file), chains(params.generalize.file)


def _rows_per_split(folder: Path) -> dict[Split, int]:
    import pyarrow.parquet as pq

    splits: tuple[Split, ...] = ("train", "validation", "test")
    return {
        split: int(pq.read_metadata(path).num_rows)
        for split in splits
        if (path := folder / f"{split}.parquet").exists()
    }


def _calls(folder: Path) -> float | None:
    import pyarrow.parquet as pq

    path = folder / "rows.parquet"
    if not path.exists():
        return None
    rows = pq.read_table(path, columns=["router", "calls"]).to_pylist()
    calls = [float(row["calls"]) for row in rows if row["router"] == "policy"]
    return fmean(calls) if calls else None


def estimate(params: Params, inputs: Inputs) -> Estimate:
    """Price every stage: at most, and in expectation from the profile.

    Raises: PoolError if the number of questions is needed and not known yet.
    """
    rounds = params.rollout.max_rounds
    # Baselines put the question itself, the policy what it writes.
    asked_bytes = max(
        params.rollout.max_new_tokens * _BYTES_PER_POLICY_TOKEN, _question_bytes(params)
    )
    likely = min(
        inputs.calls_per_question if inputs.calls_per_question is not None else 2.0, rounds
    )
    mean = fmean(inputs.mean_call_usd.values()) if inputs.mean_call_usd else None
    stages = [_profile(params, inputs)]
    if not params.has_policy:
        stages.append(
            _asked_once("evaluate", params, inputs, (params.evaluate.split, "validation"))
        )
        return _estimate(stages, _assumptions(params, inputs, likely, rounds), params)
    if params.looks_up_questions and params.pool.calls == "record":
        # Training plays the probes; the changed pools of generalize get what evaluate asked.
        stages.append(_asked_once("train", params, inputs, ("validation",)))
        stages.append(_asked_once("evaluate", params, inputs, (params.evaluate.split,)))
        return _estimate(stages, _assumptions(params, inputs, likely, rounds), params)
    highest_mean = max(inputs.mean_call_usd.values(), default=0.0)
    widest = max(inputs.sd_call_usd.values(), default=0.0)
    for plays in _plays(params, inputs):
        reached = [*inputs.chains.values(), *(inputs.new.values() if plays.new_models else ())]
        highest = max(_worst(chain, asked_bytes) for chain in reached)
        expected = plays.trajectories * likely + plays.single_calls
        most = plays.most_calls + plays.single_calls
        stages.append(
            StageEstimate(
                plays.stage,
                most,
                most * highest,
                expected,
                None if mean is None else expected * mean,
                None if mean is None else _bound(expected, highest_mean, widest, params),
            )
        )
    return _estimate(stages, _assumptions(params, inputs, likely, rounds), params)


def _estimate(
    stages: Sequence[StageEstimate], assumptions: Sequence[str], params: Params
) -> Estimate:
    """The estimate, with a word on a limit that ends the run before it costs what it may in theory."""
    limit = params.pool.budget.run_usd
    most = sum(stage.most_usd for stage in stages)
    if params.pool.kind != "simulated" and limit is not None and most > limit:
        assumptions = [
            *assumptions,
            f"pool.budget.run_usd = {limit:g} ends a run that would cost more, which in theory it may; raise the limit "
            "only if the cost expected or at 95 % is above it",
        ]
    return Estimate(tuple(stages), tuple(assumptions))


def _bound(calls: float, mean: float, sd: float, params: Params) -> float:
    """Upper 95 % bound of the cost of `calls` calls, from their spread and that of the profiled mean."""
    return calls * mean + _Z * sd * sqrt(calls + calls**2 / params.profile_pool.probes)


def _every_candidate(questions: int, params: Params, inputs: Inputs) -> tuple[float, float] | None:
    """Expected cost and its 95 % bound if every candidate is asked `questions`; None without a profile."""
    if not inputs.mean_call_usd:
        return None
    names = list(inputs.chains)
    expected = questions * sum(inputs.mean_call_usd.get(name, 0.0) for name in names)
    noise = sqrt(sum(inputs.sd_call_usd.get(name, 0.0) ** 2 for name in names))
    return expected, _bound(questions, expected / max(questions, 1), noise, params)


def _asked_once(
    stage: str, params: Params, inputs: Inputs, splits: Sequence[Split]
) -> StageEstimate:
    """Every candidate gets every question of `splits` once; whatever asks the same again pays nothing."""
    asked = sum(_played(inputs, split, params.evaluate.max_questions) for split in splits)
    worst = sum(_worst(chain, _question_bytes(params)) for chain in inputs.chains.values())
    calls = asked * len(inputs.chains)
    expected, bound = _every_candidate(asked, params, inputs) or (None, None)
    return StageEstimate(stage, calls, asked * worst, calls, expected, bound)


def _profile(params: Params, inputs: Inputs) -> StageEstimate:
    probes = min(
        params.profile_pool.probes,
        inputs.questions.get(params.profile_pool.split, params.profile_pool.probes),
    )
    most = sum(_worst(chain, _question_bytes(params)) for chain in inputs.chains.values())
    calls = probes * len(inputs.chains)
    expected, bound = _every_candidate(probes, params, inputs) or (None, None)
    return StageEstimate("profile", calls, probes * most, calls, expected, bound)


@dataclass(frozen=True, slots=True)
class _Plays:
    """What a stage plays with calls, and the calls that are made alone."""

    stage: str
    trajectories: int
    most_calls: int
    single_calls: int = 0
    new_models: bool = False


def _plays(params: Params, inputs: Inputs) -> tuple[_Plays, ...]:
    train, seeds, candidates = params.train, len(params.seeds), len(inputs.chains)
    rounds, baselines = params.rollout.max_rounds, len(params.baselines.include)
    split = _played(inputs, params.evaluate.split, params.evaluate.max_questions)
    held = _played(inputs, "validation", params.evaluate.max_questions)
    away = _played(inputs, params.evaluate.split, params.generalize.max_questions)
    # Random routing and each candidate forced; an oracle is played only where the pool is simulated.
    controls = 1 + (params.pool.kind == "simulated") + candidates
    trained = train.steps * train.questions_per_step * train.rollouts_per_question
    validated = (train.steps // train.validate_every + 2) * train.validation_questions
    training = seeds * (trained + validated)
    ours = seeds * (split * (1 + controls) + held * candidates)
    # As if each baseline asked one candidate, and a cascade all of them.
    others = seeds * split * baselines
    # Where a baseline asks one candidate the whole question, all are asked it, to know the best.
    wholes = seeds * split * candidates * bool({*SINGLE} & {*params.baselines.include})
    redrawn = _REDRAWN * (params.pool.kind == "simulated")
    few_probes = 2 * (params.pool.kind != "http")
    worded = len(WORDINGS) * (params.dataset.source == "embedded")
    pools = 2 + 2 * _POOL_CHANGES + few_probes + worded + redrawn
    pools += _on_new_models(params, inputs, controls)
    changed = seeds * away * pools
    return (
        _Plays("train", training, training * rounds),
        _Plays(
            "evaluate",
            ours + others,
            ours * rounds + others * max(rounds, candidates),
            single_calls=wholes,
        ),
        _Plays(
            "generalize",
            changed,
            changed * rounds,
            single_calls=params.profile_pool.probes * len(inputs.new),
            new_models=True,
        ),
    )


def _on_new_models(params: Params, inputs: Inputs, controls: int) -> int:
    """Routers played where there are new models: policy and controls on them alone, and beside the old."""
    if not inputs.new:
        return 0
    added = min(params.generalize.added_models, len(inputs.new))
    alone = 1 + (controls - len(inputs.chains)) + len(inputs.new)
    return alone + 1 + controls + added + 2 + 2 * (_CHANGES_BY_NEW_MODELS - 2)


def _played(inputs: Inputs, split: Split, limit: int | None) -> int:
    if split not in inputs.questions:
        raise PoolError(
            f"data/questions/{split}.parquet: not found; an estimate needs the number of questions, "
            "run `routerr1 dataset` first (it makes no call)"
        )
    rows = inputs.questions[split]
    return min(rows, limit or rows)


def _question_bytes(params: Params) -> int:
    return params.checks.max_question_chars * _BYTES_PER_CHAR


def _worst(chain: Sequence[Link], query_bytes: int) -> float:
    # A token of any tokenizer is at least a byte.
    prompt_tokens = query_bytes + TEMPLATE_TOKENS
    return sum(link.tries * cost_usd(link.card, prompt_tokens, link.reply_tokens) for link in chain)


def _assumptions(params: Params, inputs: Inputs, likely: float, rounds: int) -> tuple[str, ...]:
    lines = []
    if not inputs.profiled:
        lines.append(
            f"before the profile: a call is assumed to have {_ASSUMED_PROMPT_TOKENS} tokens and a reply of "
            f"{_ASSUMED_REPLY_TOKENS}; models that think write more"
        )
    if params.looks_up_questions and params.pool.calls == "record":
        lines.append(
            "every candidate is asked every probe, validation and test question once at most; pool.store answers "
            "whatever asks the same again"
        )
    elif params.has_policy:
        measured = (
            "as the policy did in data/eval" if inputs.calls_per_question is not None else "a guess"
        )
        lines += [
            f"expected: {likely:.2f} calls a question ({measured}), candidates called equally often; routers that "
            "ask the same of the same share a call, which is not known before and left out",
            "at 95 %: all calls of a policy go to the candidate that is most expensive on average",
            "warmstart asks no candidate: it imitates random routing",
        ]
    else:
        lines.append("every candidate is asked every probe, validation and test question once")
    lines.append(
        f"in theory: {rounds} calls a question to the most expensive candidate, the longest question and reply, every "
        "try that the pool file allows billed, its fallbacks' too"
    )
    if params.pool.kind == "simulated":
        lines.append("the pool is simulated: its prices are made up and nothing is paid")
    lines += [f"later: {line}" for line in foreseen(params, inputs)]
    return tuple(lines)


_FEW = 20  # questions of a split, below which nothing can be concluded


def foreseen(params: Params, inputs: Inputs) -> list[str]:
    """What will fail or say nothing later, known before anything is paid."""
    found = []
    simulated, embedded = params.pool.kind == "simulated", params.dataset.source == "embedded"
    if simulated and not embedded:
        found.append("pool.kind simulated answers embedded questions only")
    if not embedded and params.needs_demonstrations and not params.looks_up_questions:
        found.append(
            "warmstart writes demonstrations for prompt.template compact; set that, or name a pretrained model.init "
            "and set warmstart.steps to 0, or set model.init to none"
        )
    if params.looks_up_questions and params.profile_pool.split != "train":
        found.append("warmstart learns from probes; set profile_pool.split to train")
    section = params.baselines
    searches = {"rag", "search_r1"} & {*section.include}
    replies_alone = not params.has_policy or params.looks_up_questions
    if not replies_alone and searches and not embedded and section.corpus is None:
        found.append(
            "evaluate needs baselines.corpus for rag and search_r1; name one, or leave them out"
        )
    for split, rows in inputs.questions.items():
        if rows < _FEW:
            found.append(f"{split} holds {rows} questions, too few to tell routers apart")
    if len(inputs.chains) < 2:
        unplayed = ", and generalize plays nothing" if params.has_policy else ""
        found.append(f"the pool has one candidate, so there is nothing to route{unplayed}")
    if params.has_policy and inputs.trained_for and inputs.trained_for != inputs.chains.keys():
        found.append(
            f"{PATHS.policy} was trained for {', '.join(sorted(inputs.trained_for))}, and the pool now holds "
            f"{', '.join(sorted(inputs.chains))}: profile asks all of these, and training begins again"
        )
    return found


def headline(found: Estimate) -> str:
    """What a run costs, in one sentence."""
    if found.expected_usd is None:
        return f"A run costs at most ${found.most_usd:,.2f} in theory; `routerr1 profile` measures what it costs really."
    return f"A run is expected to cost ${found.expected_usd:,.4f}, and at 95 % at most ${found.bound_usd:,.4f}."


def table(found: Estimate) -> Table:
    """For the terminal."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("stage")
    for column in ("calls", "USD expected", "95 % at most", "calls at most", "USD in theory"):
        shown.add_column(column, justify="right")
    for stage in found.stages:
        shown.add_row(
            stage.stage,
            f"{stage.expected_calls:,.0f}",
            _usd(stage.expected_usd),
            _usd(stage.bound_usd),
            f"{stage.most_calls:,}",
            f"{stage.most_usd:.2f}",
        )
    shown.add_row(
        "all", "", _usd(found.expected_usd), _usd(found.bound_usd), "", f"{found.most_usd:.2f}"
    )
    return shown


def _usd(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
