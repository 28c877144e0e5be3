"""params.yaml, with a preset laid over it, as frozen typed sections.

A function takes the section it needs, so that dvc.yaml can name the same section as a dependency.
Secrets are not here: they come from the environment.
"""

import difflib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from routerr1.errors import ConfigError, DataError
from routerr1.files import read_yaml

_UNKNOWN = "unknown_key"  # type of the error that Section raises


class Section(BaseModel):
    """One block of params.yaml; a misspelt key is an error, and so is `.inf` or `.nan`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        """Forbid unknown keys as pydantic does, and name the nearest known one."""
        for key in values if isinstance(values, Mapping) else ():
            if key not in cls.model_fields:
                (near,) = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.0)
                raise PydanticCustomError(
                    _UNKNOWN, "unknown key {key}; did you mean {near}?", {"key": key, "near": near}
                )
        return values

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, validated as a whole; `model_copy(update=...)` validates nothing.

        Raises: ValidationError if the values do not fit together.
        """
        return self.model_validate({**dict(self), **changes})


class EmbeddedParams(Section):
    """Size of the embedded benchmark; see `data/embedded.py`."""

    countries: int = Field(ge=4)
    airports: int = Field(ge=4)
    elements: int = Field(ge=4)
    test_share: float = Field(gt=0, lt=1)
    validation_share: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _leave_some(self) -> "EmbeddedParams":
        if self.test_share + self.validation_share >= 1:
            raise ValueError("test_share and validation_share leave nothing to train on")
        return self


class ColumnsParams(Section):
    """Columns of a source; None if it lacks one.

    Attributes:
        separator: text between several answers in one cell; None for a JSON list, or one answer.
        options: columns of the options to choose from, in the order of their letters.
        task: how answers are verified, see `verifiers`; None: `short`, or `choice` with options.
        tolerance: relative, of numbers.
        marker: text before the answer, of which the last counts, as `####` in GSM8K; None for none.
    """

    id: str | None = "id"
    question: str = "question"
    golden_answers: str = "golden_answers"
    hops: str | None = None
    topic: str | None = None
    options: tuple[str, ...] = ()
    task: str | None = None
    tolerance: float | None = Field(default=None, ge=0)
    metadata: str | None = "metadata"
    separator: str | None = None
    marker: str | None = None


class DrawParams(Section):
    """Rows drawn from a split of the source; None takes all of them."""

    source: str
    rows: int | None = Field(ge=1)


class BenchmarkParams(Section):
    """What one data set contributes to each split; None for nothing."""

    train: DrawParams | None = None
    validation: DrawParams | None = None
    test: DrawParams | None = None


class BenchmarksParams(Section):
    """The seven benchmarks, from the hub at a pinned revision or from a folder of the same layout."""

    folder: Path | None
    repo: str
    revision: str = Field(pattern="^[0-9a-f]{40}$")
    columns: ColumnsParams = ColumnsParams()
    sets: dict[str, BenchmarkParams]


class DatasetParams(Section):
    """Where questions come from, and how they are split.

    Attributes:
        imported: files written by `routerr1 data import`, used in addition to the source.
    """

    source: Literal["embedded", "benchmarks", "imported"]
    seed: int
    near_duplicate: float = Field(gt=0, le=1)
    embedded: EmbeddedParams
    benchmarks: BenchmarksParams
    imported: tuple[Path, ...]


class ChecksParams(Section):
    """What must hold of the questions."""

    max_question_chars: int = Field(ge=1)
    max_leakage: float = Field(ge=0, le=1)
    max_leakage_by_set: dict[str, float]
    max_drift: float = Field(ge=0, le=1)
    accepted: Path | None


class BudgetParams(Section):
    """Most US dollars to spend; null for no limit. All processes of this folder share it.

    Attributes:
        database: SQLAlchemy address, for processes of several machines; None is runs/budget.sqlite.
    """

    question_usd: float | None = Field(default=None, ge=0)
    run_usd: float | None = Field(default=None, ge=0)
    month_usd: float | None = Field(default=None, ge=0)
    database: str | None = None


def _pool_file(path: Path, info: ValidationInfo) -> Path:
    """The rule is for params.yaml alone: a registered version is served with a pool file of its own."""
    if not info.context:
        return path
    if path.parts[:1] != ("pools",) or ".." in path.parts:
        raise ValueError(
            f"{path}: a pool file's place is pools/, a dependency of the stages that read it; elsewhere DVC "
            "would not see it change"
        )
    return path


PoolFilePath = Annotated[Path, AfterValidator(_pool_file)]


class PoolParams(Section):
    """Which candidates answer, whether calls are recorded, and what they may cost.

    Attributes:
        kind: `recorded` answers from `store` with what the candidates of `file` said once; see docs/how-to/pool.md.
        calls: `live` asks, and forgets once a stage is done; `record` also writes every call to `store` and
            answers a repeated one from there; `replay` answers from `store` alone, without a network or a key.
        redraw: share of training questions that come with a new pool each, simulated or drawn from the recorded
            candidates, so that the policy has to read the cards. An http pool has none.
        candidates: of a simulated pool: `specialists` are as cheap as others, in `tiers` skill has its price, of
            `middling` the best of a topic knows .6 to .8.
    """

    kind: Literal["simulated", "http", "recorded"]
    file: PoolFilePath | None
    seed: int
    max_reply_tokens: int = Field(ge=1)
    max_concurrency: int = Field(ge=1)
    calls: Literal["live", "record", "replay"] = "live"
    store: Path | None = None
    budget: BudgetParams = BudgetParams()
    redraw: float = Field(default=0.0, ge=0, le=1)
    candidates: Literal["specialists", "tiers", "middling"] = "specialists"

    @property
    def drawn_share(self) -> float:
        """`redraw`, and 0 for an http pool: its candidates cannot be shown as others."""
        return 0.0 if self.kind == "http" else self.redraw

    @model_validator(mode="after")
    def _parts_fit(self) -> "PoolParams":
        if self.kind != "simulated" and self.file is None:
            raise ValueError(f"kind {self.kind} needs a pool file in `file`")
        if self.kind == "recorded" and (self.store is None or self.calls != "live"):
            raise ValueError("kind recorded needs its replies in `store`, and calls: live")
        if self.calls != "live" and self.store is None:
            raise ValueError(f"calls {self.calls} needs a file in `store`")
        if self.store is not None and Path("data/pool") in self.store.parents:
            raise ValueError(
                f"{self.store}: data/pool is an output of the profile stage, which DVC empties before a run; "
                "keep the file elsewhere, e.g. in data/calls/"
            )
        return self


class JudgeParams(Section):
    """The model that says whether an answer is right, for the task `judge`.

    Attributes:
        candidate: of the pool file.
        rubric: what makes an answer right; None: that it says what was asked for, and nothing wrong.
        budget_usd: of all its calls from this folder.
        calls: as of `pool`.
    """

    file: PoolFilePath
    candidate: str = Field(min_length=1)
    budget_usd: float = Field(ge=0)
    rubric: str | None = None
    max_reply_tokens: int = Field(default=200, ge=1)
    calls: Literal["live", "record", "replay"] = "record"
    store: Path = Path("data/calls/judge.jsonl")


class CodeParams(Section):
    """Leave to run code that candidates wrote, for the task `code`.

    Attributes:
        confined: without network and files; false where the whole machine is there for nothing else.
    """

    time_s: int = Field(default=5, ge=1, le=300)
    memory_mb: int = Field(default=256, ge=32)
    confined: bool = True


class VerifyParams(Section):
    """Tasks whose answers take more than a comparison.

    Attributes:
        long_at_least: score from which an answer of the task `long` is right.
    """

    long_at_least: float = Field(default=0.6, ge=0, le=1)
    code: CodeParams | None = None
    judge: JudgeParams | None = None


class ProfilePoolParams(Section):
    """The probe questions behind the cards' example performance."""

    split: Literal["train", "validation"]
    probes: int = Field(ge=1)
    seed: int


class PromptParams(Section):
    """How cards and question are shown to the policy; see `prompt.py`.

    Attributes:
        file: the wording of template `file`.
        chat: render the prompt as a user's turn in the policy's chat template.
    """

    template: Literal["compact", "full", "file"]
    file: Path | None = None
    chat: bool = False

    @model_validator(mode="after")
    def _file_for_file(self) -> "PromptParams":
        if (self.template == "file") != (self.file is not None):
            raise ValueError("template file needs a file in `file`, and the others have none")
        return self

    @property
    def reads_spend(self) -> bool:
        """True if a policy is shown the candidates that the spend level allows."""
        return self.template == "compact"


class RolloutParams(Section):
    """Limits of one trajectory; `temperature` is that of sampling in training.

    Attributes:
        max_reply_tokens: length to which a reply is cut, in tokens of the policy. A candidate is asked for
            `pool.max_reply_tokens`, which it may ignore.
        max_tokens: length of prompt, generations and replies together; None for the model's context.
    """

    max_rounds: int = Field(ge=1)
    max_new_tokens: int = Field(ge=4)
    max_reply_tokens: int = Field(default=600, ge=1)
    temperature: float = Field(gt=0)
    max_tokens: int | None = Field(default=None, ge=64)


class ModelParams(Section):
    """The policy, made from scratch with these sizes or loaded; a loaded one ignores the sizes.

    Attributes:
        init: `scratch`, `none`, or a folder or hub name. With `none` no policy is trained: the routers that
            need none are evaluated, with the chosen candidate's reply as the answer.
        heads: at least two, each of an even size; they attend to the tokens just before.
        device: `auto` uses a GPU if there is one.
        dtype: precision of the computation; `auto` is bfloat16 on a GPU. Trained weights stay float32.
    """

    init: str
    hidden_size: int = Field(ge=16)
    layers: int = Field(ge=2)
    heads: int = Field(ge=2)
    vocab_size: int = Field(ge=300)
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _heads_fit(self) -> "ModelParams":
        if self.init == "scratch" and self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} does not part into {self.heads} heads of an even size"
            )
        return self


class WarmstartParams(Section):
    """Supervised steps on demonstrations with random routing."""

    steps: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    stop_probability: float = Field(gt=0, le=1)


SpendLevel = Annotated[int, Field(ge=0, le=10)]


class RewardParams(Section):
    """See `reward.hierarchical` and `reward.alpha_at`.

    Attributes:
        cost_weight: alpha at the highest spend level, which is that of a question without one.
        frugal_weight: alpha at level 0; between the levels it is linear. None: `cost_weight` at every level.
    """

    answer: Literal["em", "f1"]
    cost_weight: float = Field(ge=0, le=1)
    frugal_weight: float | None = Field(default=None, ge=0, le=1)
    cost_basis: Literal["completion", "all"]
    cost_window: int = Field(ge=1)


class LoraParams(Section):
    """Low-rank adapters (arXiv 2106.09685) on every linear layer, in place of full fine-tuning."""

    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class VllmParams(Section):
    """Rollouts by vLLM, in the trainer's own process or on a server at `url`.

    Attributes:
        group_port: over which TRL sends new weights to the server.
        gpu_memory: share of the GPU's memory that vLLM may hold; `colocate` only.
    """

    mode: Literal["colocate", "server"]
    url: str = "http://127.0.0.1:8000"
    group_port: int = Field(default=51216, ge=1, le=65535)
    gpu_memory: float = Field(default=0.3, gt=0, lt=1)


class TrainParams(Section):
    """GRPO (arXiv 2402.03300) through TRL.

    Attributes:
        steps: 0 keeps the starting policy, for checkpoints trained elsewhere.
        scale_rewards: an advantage is a reward minus its group's mean, divided by the standard deviation of
            the `group`, of the `batch`, or by nothing. Divided by its group's, a small difference in cost
            between right answers counts as much as right against wrong.
        multi_objective_aggregation: advantages from the rewards' sum, or from the sum of format, answer and
            cost each normalised within its group (GDPO, arXiv 2601.05242).
        rehearsal_weight: weight of the warm start's loss, computed on `rehearsal_batch` demonstrations a
            step if there was a warm start; see `train/rehearsal.py`. For one process.
        single_share: share of the training questions that are drawn from those of one fact.
        spend_levels: each training question has one of these, drawn; the compact prompt shows it.
        rollouts_per_pass: rollouts in one forward pass of a process, whose gradients accumulate; None for
            all of its share.
    """

    steps: int = Field(ge=0)
    questions_per_step: int = Field(ge=1)
    rollouts_per_question: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    kl_weight: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    adam_beta2: float = Field(gt=0, lt=1)
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"]
    scale_rewards: Literal["group", "batch", "none"]
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"]
    checkpoint_every: int = Field(ge=1)
    validate_every: int = Field(ge=1)
    validation_questions: int = Field(ge=1)
    patience: int | None = Field(ge=1)
    rehearsal_weight: float = Field(default=0.0, ge=0)
    rehearsal_batch: int = Field(default=16, ge=1)
    single_share: float = Field(default=0.0, ge=0, le=1)
    spend_levels: tuple[SpendLevel, ...] = Field(default=(10,), min_length=1)
    rollouts_per_pass: int | None = Field(default=None, ge=1)
    gradient_checkpointing: bool = False
    lora: LoraParams | None = None
    vllm: VllmParams | None = None

    @model_validator(mode="after")
    def _passes_fit(self) -> "TrainParams":
        rollouts = self.questions_per_step * self.rollouts_per_question
        if self.rollouts_per_pass and rollouts % self.rollouts_per_pass:
            raise ValueError(
                f"{rollouts} rollouts a step do not part into passes of {self.rollouts_per_pass} (rollouts_per_pass)"
            )
        return self


class EvaluateParams(Section):
    """Which questions are evaluated, and how intervals are computed.

    Attributes:
        spend: the level that every question comes with.
        processes: of this machine, with the executor `local`; None is one for each core, at most 8, where calls
            are free and the policy is made from scratch, and else one.
    """

    split: Literal["train", "validation", "test"]
    max_questions: int | None = Field(ge=1)
    spend: SpendLevel = 10
    temperature: float = Field(ge=0)
    bootstrap: int = Field(ge=100)
    confidence: float = Field(gt=0, lt=1)
    seed: int
    concurrency: int = Field(ge=1)
    executor: Literal["local", "ray"]
    shards: int = Field(ge=1)
    processes: int | None = Field(default=None, ge=1)


Baseline = Literal[
    "direct", "cot", "sft", "rag", "search_r1", "prompted", "largest", "knn", "mlp", "bert",
    "router_dc", "graph_router", "policy_before_rl", "knn_multi_turn", "frugal",
    "best_8", "best_40", "beta_8", "beta_40", "thompson_8", "thompson_40", "knn_8", "knn_40",
    "prompted_8", "prompted_40", "ask_again", "ask_sure_first", "knn_spend_0", "knn_spend_1", "knn_spend_2", "knn_spend_3",
    "knn_spend_4", "knn_spend_5", "knn_spend_6", "knn_spend_7", "knn_spend_8", "knn_spend_9",
]  # fmt: skip


RENAMED_BASELINES = {"prompted_star": "policy_before_rl", "knn_star": "knn_multi_turn"}


class BaselineParams(Section):
    """What is evaluated beside the policy: the rows of the paper's Table 1, and routers that learn from few probes.

    See `baselines/`.
    """

    include: tuple[Baseline, ...]

    @field_validator("include", mode="before")
    @classmethod
    def _renamed(cls, names: Any) -> Any:
        for name in names if isinstance(names, list | tuple) else ():
            if name in RENAMED_BASELINES:
                raise ValueError(f"{name} is now {RENAMED_BASELINES[name]}; rename it")
            if name not in (known := get_args(Baseline)):
                (near,) = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
                raise ValueError(f"there is no baseline {name!r}; did you mean {near}?")
        return names

    embedder: str = Field(min_length=1)
    encoder: str | None
    neighbours: int = Field(ge=1)
    passages: int = Field(ge=1)
    corpus: Path | None
    sft_steps: int = Field(ge=0)
    sft_learning_rate: float = Field(gt=0)

    @model_validator(mode="after")
    def _each_once(self) -> "BaselineParams":
        if len(set(self.include)) != len(self.include):
            raise ValueError("include names a baseline twice")
        return self


class GeneralizeParams(Section):
    """Models that training never saw.

    Attributes:
        pool_seed: draws the models of a simulated pool.
        file: pool file with the added models of an http pool.
    """

    pool_seed: int
    file: PoolFilePath | None = None
    added_models: int = Field(ge=1)
    max_questions: int | None = Field(ge=1)


class ShadowGateParams(Section):
    """What the gate asks of a shadow beside the champion; see docs/how-to/serve.md.

    Attributes:
        margin_verdict: the verdict's lower end, from -1 to 1, may be this much below 0.
    """

    min_pairs: int = Field(default=200, ge=2)
    margin_verdict: float = Field(default=0.1, ge=0, le=1)


class GateParams(Section):
    """Limits that a challenger must meet; see `registry/gate.py`. The call entropy is in bits.

    Attributes:
        margin_unseen_em: as `margin_em`, on pools of new models.
        margin_task_em: below the champion, of the interval's upper bound in each task where questions are of
            several; None asks for none.
        min_unseen_em: None asks for no such plays.
        min_worst_change: of exact match over that of best-on-cards, on the worst changed pool; None asks for none.
        margin_best_single, margin_best_learned: as `margin_em`, below other routers of the same evaluation;
            None asks for none.
        max_cost_ratio: of the champion's cost, beyond which it has to be better than the champion.
        max_rival_cost_ratio: of their cost, beyond which it has to be better than they are.
        allow_simulated: a version judged on simulated candidates may be champion where real ones are served.
        shadow: None asks for none.
    """

    margin_em: float = Field(ge=0)
    margin_task_em: float | None = Field(default=0.0, ge=0)
    margin_unseen_em: float = Field(ge=0)
    max_cost_ratio: float = Field(gt=0)
    max_cost_usd: float | None = Field(gt=0)
    min_format_valid: float = Field(ge=0, le=1)
    min_em: float = Field(ge=0, le=1)
    max_top_model_share: float = Field(ge=0, le=1)
    max_no_call_rate: float = Field(ge=0, le=1)
    min_call_entropy: float = Field(ge=0)
    min_unseen_em: float | None = Field(ge=0, le=1)
    min_worst_change: float | None = Field(default=None, ge=0)
    margin_best_single: float | None = Field(default=None, ge=0)
    margin_best_learned: float | None = Field(default=None, ge=0)
    max_rival_cost_ratio: float = Field(default=1.5, gt=0)
    allow_simulated: bool = False
    shadow: ShadowGateParams | None = None


class PromoteParams(Section):
    """Approval of a promotion by a person, and where a refusal is sent.

    Attributes:
        approval_timeout_s: seconds to wait for an answer; then the flow fails and the champion stays.
        notify: name of a Prefect notification block, e.g. slack-webhook/ops; None sends nothing.
        gateways: addresses that learn of a new champion at once; see `registry/announce.py`.
    """

    require_approval: bool
    approval_timeout_s: int = Field(ge=1)
    notify: str | None
    gateways: tuple[str, ...] = ()


class WatchParams(Section):
    """When the champion or a candidate counts as drifted; see `flows/drift.py`."""

    max_questions: int = Field(ge=1)
    probes: int = Field(ge=1)
    max_latency_ratio: float = Field(gt=1)
    cooldown_s: int = Field(ge=0)


class TraceParams(Section):
    """How many played questions become MLflow traces; each costs some hundredths of a second.

    Attributes:
        evaluate: of the questions that the evaluate stage puts to the policy; None: all of them. Of those
            that generalize asks again on other pools none is traced.
        train: number of traces of a training run, each from another step.
    """

    evaluate: int | None = Field(ge=0)
    train: int = Field(ge=0)


class RegistryParams(Section):
    """Names in MLflow; the server is MLFLOW_TRACKING_URI or sqlite:///mlflow.db."""

    model: str
    experiment: str


NumberOrAlias = Annotated[str, Field(coerce_numbers_to_str=True)]


class ShadowParams(Section):
    """A version that answers a share of requests a second time, for comparison; clients never see it.

    Attributes:
        version: number or alias.
        budget_usd: of all its calls, over all gateways; then it stops.
        judge: candidate that compares two answers that differ; None leaves them unjudged.
    """

    version: NumberOrAlias
    share: float = Field(gt=0, le=1)
    budget_usd: float = Field(ge=0)
    judge: str | None = None


class CanaryParams(Section):
    """A version that answers a share of users, until it does worse than the champion.

    Attributes:
        version: number or alias.
        min_requests: of the canary, before it is judged.
        max_latency_ratio: of median seconds, beyond which it returns; the intervals must be apart.
        judge: candidate that compares its answers with the champion's; None judges none.
        judged: share of its answers that the champion gives too, for the judge.
        budget_usd: of the champion's answers and the judge, over all gateways; then nothing more is judged.
    """

    version: NumberOrAlias
    share: float = Field(gt=0, lt=1)
    min_requests: int = Field(default=50, ge=10)
    max_latency_ratio: float = Field(default=1.5, gt=1)
    judge: str | None = None
    judged: float = Field(default=0.2, gt=0, le=1)
    budget_usd: float = Field(default=1.0, ge=0)


class GeneratorParams(Section):
    """A vLLM server that generates for the policy; the gateway then needs no GPU.

    Attributes:
        url: its address; `{version}` stands for the number of the version, so that each has a server.
    """

    url: str = Field(min_length=1)


class ServeParams(Section):
    """The gateway; see docs/how-to/serve.md.

    Attributes:
        database: SQLAlchemy address of keys, limits, requests and feedback; None is runs/serve.sqlite.
        candidates: that clients may ask by name; `all` of the pool's, or a list of names.
        keep: of each request nothing, its figures, or its texts too.
        trace: share of requests that become MLflow traces; with their texts if `keep` is `full`.
        topics: say what each question is about, and whether it is unlike those that the router learned from.
        max_question_usd: ceiling of what one request may spend; a request can only lower it.
        timeout_s: for a whole answer.
        watch_s: between looks at the champion's alias.
        drain_s: that requests under way have when a version or the process ends.
        cors: origins of web pages that may ask.
        max_requests: under way at once; more meet status 503. Idle connections do not count.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65535)
    database: str | None = None
    candidates: Literal["all"] | tuple[str, ...] = ()
    keep: Literal["none", "metadata", "full"] = "metadata"
    trace: float = Field(default=0.1, ge=0, le=1)
    topics: bool = True
    spend: float = Field(default=10.0, ge=0, le=10)
    max_question_usd: float | None = Field(default=None, ge=0)
    timeout_s: float = Field(default=120.0, gt=0)
    watch_s: float = Field(default=10.0, gt=0)
    drain_s: float = Field(default=30.0, ge=0)
    max_question_chars: int = Field(default=16_000, ge=100)
    max_body_bytes: int = Field(default=1_000_000, ge=1000)
    max_header_bytes: int = Field(default=16_384, ge=1000)
    header_s: float = Field(default=10.0, gt=0)
    max_requests: int = Field(default=1024, ge=1)
    cors: tuple[str, ...] = ()
    generator: GeneratorParams | None = None
    shadow: ShadowParams | None = None
    canary: CanaryParams | None = None


RENAMED_KEYS = {"profile": "preset", "gate.min_format_validity": "gate.min_format_valid"}
"""Old keys of params.yaml, each with the key that took its place."""
REMOVED_KEYS = {
    "train.initial_cost_weight": "reward.cost_weight holds for the whole run; delete the key",
    "train.cost_weight_steps": "reward.cost_weight holds for the whole run; delete the key",
    "pool.nearest": "a replay answers recorded questions only; delete the key, and record the missing calls",
    "pool.hide": "pools vary by pool.redraw alone; delete the key",
}
"""Old keys of params.yaml without successor, each with what holds now and what to do."""


class Params(Section):
    """All of params.yaml, with the preset laid over it.

    Attributes:
        max_rejected: share of a stage's trajectories, or of a file's stored calls, that may be put aside in
            runs/rejected because they break a contract; 0 stops at the first.
    """

    preset: str
    seeds: tuple[int, ...] = Field(min_length=1)
    max_rejected: float = Field(ge=0, le=1)
    dataset: DatasetParams
    checks: ChecksParams
    pool: PoolParams
    verify: VerifyParams = VerifyParams()
    profile_pool: ProfilePoolParams
    prompt: PromptParams
    rollout: RolloutParams
    model: ModelParams
    warmstart: WarmstartParams
    reward: RewardParams
    train: TrainParams
    evaluate: EvaluateParams
    baselines: BaselineParams
    generalize: GeneralizeParams
    gate: GateParams
    promote: PromoteParams
    watch: WatchParams
    trace: TraceParams
    registry: RegistryParams
    serve: ServeParams = ServeParams()

    @property
    def has_policy(self) -> bool:
        """False if only routers without a policy are trained."""
        return self.model.init != "none"

    @property
    def shares_nothing(self) -> bool:
        """Whether processes can evaluate side by side: calls are free, and a small policy computes on one thread."""
        return (
            self.model.init in ("scratch", "none")
            and self.pool.kind != "http"
            and self.pool.calls == "live"
            and self.pool.budget == BudgetParams()
            and self.verify.judge is None
        )

    @property
    def needs_demonstrations(self) -> bool:
        """False if no policy is trained, or a pretrained one without a warm start."""
        return self.has_policy and (self.model.init == "scratch" or self.warmstart.steps > 0)

    @property
    def looks_up_questions(self) -> bool:
        """Whether the policy looks up the question itself: for other questions than the embedded no topic is known.

        Its demonstrations and training pools are then made from the probes of the profile stage.
        """
        return (
            self.has_policy
            and self.dataset.source != "embedded"
            and self.prompt.template == "compact"
        )

    def require_demonstrations(self) -> None:
        """Refuse a warm start that has nothing to learn from, before anything is paid.

        Raises: ConfigError.
        """
        embedded = self.dataset.source == "embedded"
        if self.needs_demonstrations and not embedded and not self.looks_up_questions:
            raise ConfigError(
                "params.yaml: warmstart: demonstrations are written for prompt.template compact; set that, or name a "
                "pretrained model in model.init and set warmstart.steps to 0, or set model.init to none"
            )

    @model_validator(mode="after")
    def _seeds_differ(self) -> "Params":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ from each other")
        return self

    @model_validator(mode="after")
    def _one_writes(self) -> "Params":
        recorded = (self.pool.kind, self.pool.calls) == ("simulated", "record")
        if self.evaluate.executor == "ray" and recorded:
            raise ValueError(
                "evaluate.executor ray asks a simulated pool in several processes, and pool.calls record "
                "lets one write; use one of them, or replay"
            )
        if (self.evaluate.processes or 1) > 1 and not self.shares_nothing:
            raise ValueError(
                f"evaluate.processes {self.evaluate.processes} is for free calls (pool.kind recorded or simulated, calls "
                "live, no budget, no judge) and a policy from scratch; leave it null"
            )
        return self


def load_params(
    path: Path = Path("params.yaml"), edited: Mapping[Path, str] | None = None
) -> Params:
    """Read `path`, lay presets/<preset>.yaml beside it over it, and validate.

    Args:
        edited: text of files, in place of what they hold.

    Raises: ConfigError naming the file, the key and, for an unknown key, the nearest known one.
    """
    edited = edited or {}
    if path not in edited and not path.is_file():
        raise ConfigError(
            f"{path}: not found, so this is no workspace; change to its folder, or make one with "
            "`routerr1 init FOLDER`"
        )
    base = _read_mapping(path, edited)
    name = base.get("preset", "embedded")
    overlay_path = path.parent / "presets" / f"{name}.yaml"
    if not overlay_path.is_file():
        known = ", ".join(sorted(p.stem for p in overlay_path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(
            f"{path}: preset {name!r} has no file {overlay_path} (there are: {known})"
        )
    overlay = _read_mapping(overlay_path, edited)
    _refuse_overruled(path, base, overlay_path, overlay)
    try:
        return Params.model_validate(_merge(base, overlay), context=path)
    except ValidationError as error:
        loc, message = explain(error)
        source = overlay_path if loc and _holds(overlay, loc) else path
        raise ConfigError(f"{source}: {message}") from None


def explain(error: ValidationError) -> tuple[tuple[int | str, ...], str]:
    """Where the first error lies, and a line that names the key and, for an unknown one, the nearest known."""
    # A misspelt key often causes other errors, so it comes first.
    first = min(error.errors(), key=lambda each: each["type"] != _UNKNOWN)
    unknown = first["type"] == _UNKNOWN
    loc = (*first["loc"], *([first["ctx"]["key"]] if unknown else []))
    key = ".".join(map(str, loc))
    if not unknown:
        message = first["msg"].removeprefix("Value error, ")
        return loc, f"{key}: {message}" if key else message
    if key in RENAMED_KEYS:
        return loc, f"{key} is now {RENAMED_KEYS[key]}; rename the key"
    if key in REMOVED_KEYS:
        return loc, f"{key} is gone: {REMOVED_KEYS[key]}"
    near = ".".join(map(str, (*loc[:-1], first["ctx"]["near"])))
    return loc, f"unknown key {key}; did you mean {near}?"


def _refuse_overruled(
    path: Path, base: Mapping[str, Any], overlay_path: Path, overlay: Mapping[str, Any]
) -> None:
    """In a DVC experiment, refuse a changed value that the preset overrules: it would have no effect.

    Raises: ConfigError naming the key and the option of `dvc exp run` that works.
    """
    if (baseline := os.environ.get("DVC_EXP_BASELINE_REV")) is None:
        return
    command = ["git", "show", f"{baseline}:./{path.name}"]
    shown = subprocess.run(
        command, cwd=path.parent, capture_output=True, text=True, encoding="utf-8", check=False
    )
    before = flatten(yaml.safe_load(shown.stdout) or {}) if shown.returncode == 0 else {}
    set_by_preset = flatten(overlay)
    for key, value in flatten(base).items():
        if key in before and before[key] != value and set_by_preset.get(key, value) != value:
            raise ConfigError(
                f"{path}: {key}: {value} has no effect, because {overlay_path} sets {set_by_preset[key]}; "
                f"use `dvc exp run -S {overlay_path.as_posix()}:{key}={value}`"
            )


def flatten(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one level, keys joined by dots.

    >>> flatten({"train": {"steps": 3}, "preset": "ci"})
    {'train.steps': 3, 'preset': 'ci'}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat


def _read_mapping(path: Path, edited: Mapping[Path, str]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(edited[path]) if path in edited else read_yaml(path)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines at the top")
    return values


def _merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _merge(below, value)
        merged[key] = value
    return merged


def _holds(values: Mapping[str, Any], loc: tuple[int | str, ...]) -> bool:
    here: Any = values
    for part in loc:
        if not isinstance(here, Mapping) or part not in here:
            return False
        here = here[part]
    return True
