"""What a run of the chain will cost, before it is started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.table import Table

from routerr1.config import Params
from routerr1.errors import PoolError
from routerr1.files import read_json
from routerr1.pool.cards import read_cards
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.pricing import TEMPLATE_TOKENS, cost_usd
from routerr1.types import Card, Split

# No token of a usual tokenizer stands for more bytes of ordinary text.
_BYTES_PER_POLICY_TOKEN = 32
_BYTES_PER_CHAR = 4  # UTF-8's longest
_POOL_CHANGES = 7  # variants of the pool in the generalize stage, beside the pool itself


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """US dollars; `expected_usd` is None without a profile."""

    stage: str
    most_calls: int
    most_usd: float
    expected_calls: float
    expected_usd: float | None


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
        expected = [stage.expected_usd for stage in self.stages]
        return None if None in expected else sum(usd for usd in expected if usd is not None)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an estimate reads besides the parameters.

    Attributes:
        tries: of one call at most, each of which may be billed.
        mean_call_usd: per candidate, from the profile; empty before it.
        questions: rows of each split; empty before the dataset stage.
        calls_per_question: from the last evaluation; None before one.
    """

    cards: Sequence[Card]
    tries: int
    mean_call_usd: Mapping[str, float]
    questions: Mapping[Split, int]
    calls_per_question: float | None


def read_inputs(params: Params, data: Path = Path("data")) -> Inputs:
    """Gather what is there.

    Raises: PoolError if neither a pool file nor profiled cards tell the prices.
    """
    from routerr1.pool.simulated import SimulatedPool, default_candidates

    tries = 1
    cards: Sequence[Card]
    if params.pool.file is not None:
        file = read_pool_file(params.pool.file, max_reply_tokens=params.pool.max_reply_tokens)
        cards, tries = file.cards, max(each.max_tries for each in file.endpoints.values())
    elif (data / "pool/cards.json").exists():
        cards = read_cards(data / "pool/cards.json")
    else:
        cards = SimulatedPool(default_candidates(), {}, seed=0).cards
    profile = data / "pool/profile.json"
    means = (
        {name: float(entry["cost_usd"]) for name, entry in read_json(profile).items()}
        if profile.exists()
        else {}
    )
    return Inputs(cards, tries, means, _rows_per_split(data / "questions"), _calls(data / "eval"))


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
    asked_bytes = params.rollout.max_new_tokens * _BYTES_PER_POLICY_TOKEN
    likely = min(
        inputs.calls_per_question if inputs.calls_per_question is not None else 2.0, rounds
    )
    dearest = _dearest_call(params, inputs, asked_bytes)
    mean = _mean_call(inputs)
    stages = [_profile(params, inputs)]
    for stage, trajectories in _trajectories(params, inputs).items():
        expected = trajectories * likely
        stages.append(
            StageEstimate(
                stage,
                trajectories * rounds,
                trajectories * rounds * dearest,
                expected,
                None if mean is None else expected * mean,
            )
        )
    return Estimate(tuple(stages), _assumptions(params, inputs, likely, rounds))


def _profile(params: Params, inputs: Inputs) -> StageEstimate:
    probes, names = params.profile_pool.probes, [card.name for card in inputs.cards]
    most = sum(
        _worst(card, params.checks.max_question_chars * _BYTES_PER_CHAR, params, inputs)
        for card in inputs.cards
    )
    known = bool(inputs.mean_call_usd)
    expected = (
        probes * sum(inputs.mean_call_usd.get(name, 0.0) for name in names) if known else None
    )
    calls = probes * len(names)
    return StageEstimate("profile", calls, probes * most, calls, expected)


def _trajectories(params: Params, inputs: Inputs) -> dict[str, int]:
    """How many questions each stage plays with calls."""
    train, seeds, candidates = params.train, len(params.seeds), len(inputs.cards)
    split, held = (
        _played(params, inputs, params.evaluate.split),
        _played(params, inputs, "validation"),
    )
    # The policy, random and each candidate forced; oracle only where the pool is simulated; baselines, some
    # of which ask nobody, as if each asked.
    routers = 2 + candidates + (params.pool.kind == "simulated") + len(params.baselines.include)
    validations = (train.steps // train.validate_every + 2) * train.validation_questions
    played = train.steps * train.questions_per_step * train.rollouts_per_question
    away = params.generalize.max_questions or inputs.questions[params.evaluate.split]
    return {
        "train": seeds * (played + validations),
        "evaluate": seeds * (split * routers + held * candidates),
        "generalize": seeds * away * (1 + _POOL_CHANGES),
    }


def _played(params: Params, inputs: Inputs, split: Split) -> int:
    if split not in inputs.questions:
        raise PoolError(
            f"data/questions/{split}.parquet: not found; an estimate needs the number of questions, "
            "run `routerr1 dataset` first (it makes no call)"
        )
    rows = inputs.questions[split]
    return min(rows, params.evaluate.max_questions or rows)


def _dearest_call(params: Params, inputs: Inputs, query_bytes: int) -> float:
    return max(_worst(card, query_bytes, params, inputs) for card in inputs.cards)


def _worst(card: Card, query_bytes: int, params: Params, inputs: Inputs) -> float:
    # A token of any tokenizer is at least a byte.
    prompt_tokens = query_bytes + TEMPLATE_TOKENS
    return inputs.tries * cost_usd(card, prompt_tokens, params.pool.max_reply_tokens)


def _mean_call(inputs: Inputs) -> float | None:
    return fmean(inputs.mean_call_usd.values()) if inputs.mean_call_usd else None


def _assumptions(params: Params, inputs: Inputs, likely: float, rounds: int) -> tuple[str, ...]:
    measured = (
        "as the policy did in data/eval" if inputs.calls_per_question is not None else "a guess"
    )
    lines = [
        f"at most: {rounds} calls a question to the dearest candidate, {params.pool.max_reply_tokens} reply "
        f"tokens each, {inputs.tries} billed tries a call",
        f"expected: {likely:.2f} calls a question ({measured}), candidates called equally often",
        "warmstart asks no candidate: it imitates made-up routing",
    ]
    if not inputs.mean_call_usd:
        lines.append("no expectation: data/pool/profile.json is not there; run `routerr1 profile`")
    if params.pool.kind == "simulated":
        lines.append("the pool is simulated: its prices are made up and nothing is paid")
    return tuple(lines)


def table(found: Estimate) -> Table:
    """For the terminal."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("stage")
    for column in ("calls at most", "USD at most", "calls expected", "USD expected"):
        shown.add_column(column, justify="right")
    for stage in found.stages:
        expected = "" if stage.expected_usd is None else f"{stage.expected_usd:.4f}"
        shown.add_row(
            stage.stage,
            f"{stage.most_calls:,}",
            f"{stage.most_usd:.4f}",
            f"{stage.expected_calls:,.0f}",
            expected,
        )
    total = "" if found.expected_usd is None else f"{found.expected_usd:.4f}"
    shown.add_row("all", "", f"{found.most_usd:.4f}", "", total)
    return shown
