"""The trained policy on pools it was not trained on: new models, and every change of `changes.py`."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from routerr1.config import EvaluateParams, GeneralizeParams, RolloutParams
from routerr1.errors import DataError
from routerr1.evaluate import controls
from routerr1.evaluate.changes import DRAWN, Changes, Variant, mean_performance, pool_changes
from routerr1.evaluate.controls import POLICY, Policy, Router
from routerr1.evaluate.formatting import bounded, lines_of, number, percent
from routerr1.evaluate.grid import Grid
from routerr1.evaluate.redrawn import BEFORE
from routerr1.evaluate.rows import Row
from routerr1.evaluate.run import (
    TRAINING_POOL,
    Job,
    Progress,
    choose_questions,
    derived_rows,
    play_all,
    policies_of,
)
from routerr1.evaluate.stats import (
    SHARE,
    Interval,
    interval,
    paired_difference,
    ratio_interval,
)
from routerr1.evaluate.store import Store
from routerr1.evaluate.table import (
    entry_of,
    range_of_difference,
    several_seeds,
    shorten,
    summarise,
)
from routerr1.matching import normalise
from routerr1.pool.interface import Pool
from routerr1.prompt import Renderer
from routerr1.rollout.generate import Generator
from routerr1.types import Question

_Place = tuple[int, str, str]  # seed, data set, question
_Rows = Mapping[_Place, Row]


async def generalize(
    generators: Mapping[int, Generator],
    pool: Pool,
    new_models: Changes,
    questions: Sequence[Question],
    *,
    render: Renderer,
    rollout: RolloutParams,
    params: EvaluateParams,
    limits: GeneralizeParams,
    store: Store | None = None,
    progress: Progress | None = None,
) -> tuple[list[Row], Changes]:
    """Play each policy on the training pool, then with new models and on every change of the pool.

    Returns: the rows, `pool` naming the variant, and all changes in order.
    Raises: DataError without questions; PoolError if the pool is too small to be changed.
    """
    chosen = choose_questions(questions, limits.max_questions, params.seed)
    policies = policies_of(generators, render=render, rollout=rollout, params=params)
    home = [controls.policy_router(policy, pool, TRAINING_POOL, params.seed) for policy in policies]
    base = await play_all(_jobs(home, chosen), concurrency=params.concurrency, store=store)
    changes = new_models + pool_changes(pool, favourite(base, pool), params.seed, render)
    away = [job for each in changes.made for job in _jobs_on(each, policies, chosen, params.seed)]
    rows = await play_all(away, concurrency=params.concurrency, store=store, progress=progress)
    for variant in changes.made:
        if variant.controls and not variant.redraw:
            best = _best_on_cards(variant.pool)
            for policy in policies:
                rows += derived_rows(rows, variant.name, policy.seed, best)
    return [*base, *rows], changes


def _jobs_on(
    variant: Variant, policies: Sequence[Policy], questions: Sequence[Question], seed: int
) -> list[Job]:
    def routers(pool: Pool) -> list[Router]:
        found: list[Router] = []
        for policy in policies:
            found.append(controls.policy_router(policy, pool, variant.name, seed))
            if variant.controls:
                found += variant.controls(policy, pool, variant.name, seed)
        return found

    if variant.redraw:
        drawn = [(routers(variant.redraw(question)), question) for question in questions]
        return [(router, question) for mine, question in drawn for router in mine]
    return _jobs(routers(variant.pool), questions)


def _best_on_cards(pool: Pool) -> str:
    """The candidate with the highest mean performance in profiling; the cheaper on ties."""
    best = min(
        pool.cards,
        key=lambda card: (-mean_performance(card), card.completion_usd_per_mtok, card.name),
    )
    return best.name


def _jobs(routers: Iterable[Router], questions: Sequence[Question]) -> list[Job]:
    return [(router, question) for router in routers for question in questions]


def favourite(rows: Iterable[Row], pool: Pool) -> str:
    """The candidate called most; the first of the pool if nobody is called."""
    counts = Counter(name for row in rows for name in row.called)
    order = [card.name for card in pool.cards]
    return max(order, key=lambda name: (counts[name], -order.index(name)))


def compare_pools(rows: Sequence[Row], changes: Changes, params: EvaluateParams) -> dict[str, Any]:
    """For every variant: how the policy does there against the training pool, on the same questions.

    Returns: `training` (the policy's line), and `pools`, one entry each: the policy's line, the paired
        `difference` to the training pool in EM and cost, `watched` with the `watched_share` of calls,
        `flipped` (share of questions with another answer, of those right before and wrong now, and the
        reverse), each with its interval, and the `table` with controls where played; and `not_made`, the
        changes that this pool does not allow, with the reason.
    """
    base = [row for row in rows if row.pool == TRAINING_POOL]
    training = entry_of(summarise(base, params), POLICY)
    return {
        "confidence": params.confidence,
        "n": len({(row.dataset, row.question_id) for row in base}),
        "groups": len({row.group for row in base}),
        "training": training,
        "pools": [_compare(variant, base, rows, params) for variant in changes.made],
        "not_made": dict(changes.not_made),
    }


def _compare(
    variant: Variant, base: Sequence[Row], rows: Sequence[Row], params: EvaluateParams
) -> dict[str, Any]:
    here = [row for row in rows if row.pool == variant.name]
    table = summarise(here, params)
    before = {_place(row): row for row in base}
    after = {_place(row): row for row in here if row.router == POLICY}
    if before.keys() != after.keys():
        raise DataError(f"pool {variant.name}: the policy was not played on the same questions")
    return {
        "pool": variant.name,
        "policy": entry_of(table, POLICY),
        "difference": {
            measure: _paired(measure, before, after, params) for measure in ("em", "f1", "cost_usd")
        },
        "watched": list(variant.watched),
        "watched_share": _watched_share(after.values(), variant.watched, params),
        "watched_share_before": _watched_share(base, variant.watched, params),
        "flipped": {
            "answer": _share(before, after, _answers_differ, params),
            "right_to_wrong": _share(before, after, lambda a, b: a.em > b.em, params),
            "wrong_to_right": _share(before, after, lambda a, b: a.em < b.em, params),
        },
        "table": table if variant.controls else None,
    }


def _place(row: Row) -> _Place:
    return (row.seed, row.dataset, row.question_id)


def _watched_share(
    rows: Iterable[Row], watched: Sequence[str], params: EvaluateParams
) -> dict[str, float | None] | None:
    """Share of calls that go to `watched`; None if there is nobody to watch, or no call."""
    grid = Grid(list(rows))
    found = ratio_interval(
        grid.map(lambda row: sum(name in watched for name in row.called)),
        grid.map(lambda row: len(row.called)),
        grid.groups,
        within=SHARE,
        **_sampling(params),
    )
    return _shown(found) if found and watched else None


def _answers_differ(one: Row, other: Row) -> bool:
    return normalise(one.answer or "") != normalise(other.answer or "")


def _share(
    before: _Rows, after: _Rows, differs: Callable[[Row, Row], bool], params: EvaluateParams
) -> dict[str, float | None]:
    """Share of questions that differ."""
    grid = Grid(list(before.values()))
    changed = grid.map(lambda row: differs(row, after[_place(row)]))
    return _shown(interval(changed, grid.groups, within=SHARE, **_sampling(params)))


def _shown(found: Interval) -> dict[str, float | None]:
    return dict(shorten({"mean": found.mean, "low": found.low, "high": found.high}))


def _sampling(params: EvaluateParams) -> dict[str, Any]:
    return {
        "resamples": params.bootstrap, "confidence": params.confidence, "seed": params.seed,
    }  # fmt: skip


def _paired(
    measure: str,
    before: _Rows,
    after: _Rows,
    params: EvaluateParams,
) -> dict[str, Any]:
    """Variant minus training pool, on the same questions and seeds."""
    here, home = Grid(list(after.values())), Grid(list(before.values()))
    found = paired_difference(
        here.values(measure),
        home.values(measure),
        home.groups,
        within=range_of_difference(measure),
        **_sampling(params),
    )
    return dict(shorten(asdict(found)))


def generalize_metrics(compared: Mapping[str, Any]) -> dict[str, float]:
    """Flat figures for `dvc metrics`; `unseen_*` is the pool of new models only."""
    found: dict[str, float] = {
        "n": float(compared["n"]),
        "training_em": compared["training"]["em"]["mean"],
    }
    for entry in compared["pools"]:
        name = "unseen" if entry["pool"] == DRAWN else entry["pool"]
        found[f"{name}_em"] = entry["policy"]["em"]["mean"]
        found[f"{name}_em_delta"] = entry["difference"]["em"]["mean"]
        found[f"{name}_cost_usd"] = entry["policy"]["cost_usd"]["mean"]
        found[f"{name}_flipped"] = entry["flipped"]["answer"]["mean"]
        if entry["watched_share"]:
            found[f"{name}_watched_share"] = entry["watched_share"]["mean"]
        if entry["table"]:
            for router in ("random", "oracle", BEFORE):
                known = {line["router"]: line for line in entry["table"]["routers"]}
                if router in known:
                    found[f"{name}_{router}_em"] = known[router]["em"]["mean"]
            share = entry["policy"]["collapse"]["best_model_share"]
            if share is not None:
                found[f"{name}_best_model_share"] = share
    return dict(shorten(found))


def generalize_markdown(compared: Mapping[str, Any], elsewhere: Container[str] = ()) -> str:
    """The pool changes for people, and every router on the pools that were played with controls.

    Args:
        elsewhere: pools whose controls are told of in another place.
    """
    training = compared["training"]
    several = len(training["seeds"]) > 1
    heads = ["pool", "EM", *["sd"] * several, "EM against training pool", "USD per 1000"]
    heads += ["USD against training pool", "calls to watched (before)", "answers changed"]
    heads += ["right to wrong", "wrong to right"]
    home = ["training", *_em(training, several=several), "reference"]
    home += [bounded(training["cost_usd"], 4, 1000), *[""] * 5]
    changed = [_changed(entry, several=several) for entry in compared["pools"]]
    lines = [how_to_read(compared), "", *lines_of(heads, [home, *changed])]
    not_made = compared["not_made"]
    lines += [""] * bool(not_made) + [f"Not made: {name}: {why}." for name, why in not_made.items()]
    for entry in compared["pools"]:
        if entry["table"] and entry["pool"] not in elsewhere:
            lines += ["", f"Pool “{entry['pool']}” with its controls:", ""]
            lines += controls_lines(entry["table"])
    return "\n".join(lines) + "\n"


def how_to_read(compared: Mapping[str, Any]) -> str:
    """What the table of changed pools says."""
    seeds = compared["training"]["seeds"]
    over = "groups and training seeds (sd: of EM over seeds)" if len(seeds) > 1 else "groups"
    return (
        f"The trained policy, nothing retrained, on the same n = {compared['n']} questions in "
        f"{compared['groups']} groups; {round(100 * compared['confidence'])} % intervals over {over}. "
        "Watched: the new or changed models. “drawn” holds only models never seen in training, “added” puts "
        "some of them beside the training pool."
    )


def _changed(entry: Mapping[str, Any], *, several: bool) -> list[str]:
    was = entry["watched_share_before"]
    watched = _percent(entry["watched_share"]) if entry["watched"] else "none to watch"
    watched += f" ({was['mean']:.0%})" if was else ""
    gap = entry["difference"]
    return [
        entry["pool"],
        *_em(entry["policy"], several=several),
        bounded(gap["em"], 3, signed=True),
        bounded(entry["policy"]["cost_usd"], 4, 1000),
        bounded(gap["cost_usd"], 4, 1000, signed=True),
        watched,
        *(_percent(entry["flipped"][kind]) for kind in entry["flipped"]),
    ]


def controls_lines(found: Mapping[str, Any]) -> list[str]:
    """The routers of a table of `summarise`, as lines of a Markdown table."""
    several, knows = several_seeds(found), knows_best(found)
    heads = ["router", "EM", *["sd"] * several, "USD per 1000", "calls"]
    heads += [*["calls to best, %"] * knows, "EM: policy minus it"]
    rows = []
    for line in found["routers"]:
        gap = line["difference"].get("em")
        cells = [line["router"], *_em(line, several=several)]
        cells += [bounded(line["cost_usd"], 4, 1000), bounded(line["calls"], 2)]
        cells += [number(line["collapse"]["best_model_share"], 0, 100)] * knows
        rows.append([*cells, bounded(gap, 3, signed=True) if gap else "reference"])
    return lines_of(heads, rows)


def knows_best(found: Mapping[str, Any]) -> bool:
    """Is it known of any router's calls whether they went to the best candidate? Real pools cannot tell."""
    return any(line["collapse"]["best_model_share"] is not None for line in found["routers"])


def _em(entry: Mapping[str, Any], *, several: bool) -> list[str]:
    return [bounded(entry["em"], 3), *[number(entry["per_seed"]["em"]["sd"], 3)] * several]


def _percent(found: Mapping[str, Any] | None) -> str:
    return "no call" if found is None else percent(found)
