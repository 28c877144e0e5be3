"""The model card of a version: one Markdown page on what it is, how it does and where it comes from."""

from collections.abc import Mapping, Sequence

from routerr1.config import Params
from routerr1.evaluate.controls import POLICY
from routerr1.metrics import metric
from routerr1.registry.gate import Metrics
from routerr1.types import Card

_METRICS = ("em", "cost_usd", "format_valid", "no_call_rate", "top_model_share", "call_entropy")
_UNSEEN = "exact match on pools with models that training never saw"


def model_card(
    params: Params, cards: Sequence[Card], metrics: Metrics, tags: Mapping[str, str]
) -> str:
    """Purpose, training, results with intervals, candidates, limits and lineage of a version.

    Args:
        metrics: of the policy on the questions of `evaluate.split`.
        tags: of the version; see `contents.tags_of`.
    """
    return "\n".join(
        [
            *_purpose(params, len(cards), metrics.router),
            *_training(params, tags),
            *_results(params, metrics),
            *_candidates(cards),
            *_limits(params),
            *_lineage(tags),
        ]
    )


def _purpose(params: Params, models: int, router: str) -> list[str]:
    if router != POLICY:
        return [
            f"# {params.registry.model}: the router {router} over {models} models",
            "",
            "The router chooses a model for a question. The model gets the whole question, and its reply",
            "is the answer. A reply counts as right (em) if it contains a reference answer.",
            "",
        ]
    return [
        f"# {params.registry.model}: a policy that routes questions over {models} models",
        "",
        "The policy is a small language model. It answers a question by writing thoughts, calling",
        "models of the pool on sub-questions, reading their replies, and writing an answer.",
        "",
    ]


def _training(params: Params, tags: Mapping[str, str]) -> list[str]:
    if not params.has_policy:
        rows = {
            "data": params.dataset.source,
            "probes": "data/pool/matrix.parquet of the profile stage",
        }
        return ["## Training", "", *(f"- {name}: {value}" for name, value in rows.items()), ""]
    base = "from scratch" if params.model.init == "scratch" else f"from {params.model.init}"
    rows = {
        "base model": base,
        "data": params.dataset.source,
        "preset": params.preset,
        "seeds": tags["lineage.seeds"],
        "steps": f"{tags.get('train.steps', '?')}, of which step {tags.get('train.best_step', '?')} was best",
        "reward": f"{params.reward.answer}, cost weight {params.reward.cost_weight}",
        "training calls": f"{tags.get('train.cost_usd', 'unknown')} USD",
        "training time": f"{tags.get('train.hours', 'unknown')} hours",
    }
    return ["## Training", "", *(f"- {name}: {value}" for name, value in rows.items()), ""]


def _results(params: Params, metrics: Metrics) -> list[str]:
    lines = [
        "## Results",
        "",
        f"{metrics.questions} questions of the split `{params.evaluate.split}`, seed {params.seeds[0]}; "
        f"{params.evaluate.confidence:.0%} intervals.",
        "",
        "| metric | value | interval | meaning |",
        "| --- | ---: | --- | --- |",
    ]
    meanings = {name: metric(name).meaning for name in _METRICS} | {"unseen_em": _UNSEEN}
    for name, meaning in meanings.items():
        value, bounds = getattr(metrics, name), metrics.intervals.get(name)
        shown = "not measured" if value is None else f"{value:.4g}"
        interval = "" if bounds is None else f"{bounds[0]:.4g} to {bounds[1]:.4g}"
        lines.append(f"| {name} | {shown} | {interval} | {meaning} |")
    return [*lines, ""]


def _candidates(cards: Sequence[Card]) -> list[str]:
    lines = [
        "## Candidates",
        "",
        "| model | USD per million prompt tokens | USD per million reply tokens |",
        "| --- | ---: | ---: |",
    ]
    lines += [
        f"| {card.name} | {card.prompt_usd_per_mtok:g} | {card.completion_usd_per_mtok:g} |"
        for card in cards
    ]
    return [*lines, ""]


def _limits(params: Params) -> list[str]:
    lines = [
        "- It calls the candidates above by name; loading refuses a pool that lacks one of them.",
        "- The results hold for questions like the evaluated ones, at the prices above.",
        "- A reply is untrusted text: it cannot end a rollout, but a wrong reply can mislead the policy.",
    ]
    if params.pool.kind == "simulated":
        lines.append("- The pool is simulated: its replies, prices and latencies are made up.")
    return ["## Limits", "", *lines, ""]


def _lineage(tags: Mapping[str, str]) -> list[str]:
    own = {key.removeprefix("lineage."): tags[key] for key in tags if key.startswith("lineage.")}
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in own.items()]
    return [
        "## Lineage",
        "",
        *lines,
        "",
        "The software is listed in `sbom.cdx.json` (CycloneDX).",
        "",
    ]
