"""Sections made of one result each: routers, pairs, data sets, seeds, fronts, calls, perturbed pools."""

from collections.abc import Iterable, Sequence

from routerr1.evaluate.pareto import Fronts
from routerr1.evaluate.results import (
    EvaluationTable,
    Generalization,
    Measure,
    PairTable,
    PoolResult,
    Quality,
    Ratio,
    RouterResult,
    RouterTable,
    Routing,
    SeedTable,
)
from routerr1.metrics import metric
from routerr1.report.formatting import (
    NOTHING,
    estimate,
    gap,
    measured,
    number,
    p_text,
    share,
    shown,
)
from routerr1.report.glossary import TERMS, label
from routerr1.report.sections import Cell, Line, Plot, Section, Table, table_of

_USAGE: tuple[Measure, ...] = (
    "f1", "format_valid", "latency_s", "policy_tokens", "prompt_tokens", "completion_tokens",
)  # fmt: skip
_USAGE_OF_REPLIES: tuple[Measure, ...] = ("latency_s", "prompt_tokens", "completion_tokens")
_BY_DATASET: tuple[Measure, ...] = ("em", "f1", "cost_usd")
WORST_SEED = "Means over training seeds; in brackets the worst seed."


def by_em(entries: Iterable[RouterResult]) -> list[RouterResult]:
    """Routers with the highest EM first; the cheaper on ties."""
    return sorted(entries, key=lambda entry: (-entry.em.mean, entry.cost_usd.mean, entry.router))


def how_to_read(table: RouterTable) -> Section:
    """What the figures of every table mean."""
    seeds = table.has_several_seeds
    over = "groups and, with Student's t, over training seeds (Hillis 2007)" if seeds else "groups"
    points = [
        f"n = {table.n} questions in {table.groups} independent groups. Questions of one group ask the same "
        "thing in other words.",
        f"Intervals have {round(100 * table.confidence)} % confidence: a bootstrap over {over}, "
        f"{table.resamples} draws. Where every answer is right, or none, the rule of three bounds them.",
        "All routers answer the same questions, so differences are paired.",
    ]
    if table.comparisons:
        points.append(
            f"Tables against {label(table.reference)} correct p over {table.comparisons} comparisons; the "
            f"first step has the level {1 - table.confidence:.2g} / {table.comparisons}."
        )
    points += [f"{term}: {meaning}." for term, meaning in TERMS if term != "sd" or seeds]
    points.append(
        "Green and red mark differences whose interval excludes zero. – stands for no value."
    )
    return Section("How to read the tables", points=tuple(points), folded=True)


def routers_table(table: RouterTable) -> Table:
    """Quality, cost, what learning cost, and the difference to the reference; the best router first."""
    several = table.has_several_seeds
    learned = any(entry.learning is not None for entry in table.routers)
    against = f"EM: {label(table.reference)} minus it"
    heads = ["Router", "EM", "USD per 1,000", "Calls", *["sd"] * several]
    heads += [*["Learning: calls", "Learning: USD"] * learned, against, "p", "MDE"]
    lines = []
    for entry in by_em(table.routers):
        cells = [Cell(label(entry.router)), measured(entry.em, "em")]
        cells += [measured(entry.cost_usd, "cost_usd"), measured(entry.calls, "calls")]
        cells += [_sd(entry)] * several
        cells += _learning(entry) if learned else []
        em = entry.difference.get("em")
        cells += [gap(em, 3), Cell(p_text(em)), Cell(number(em.mde, 3))] if em else _reference()
        lines.append(Line(tuple(cells), marked=entry.router == table.reference))
    return Table(tuple(heads), tuple(lines))


def _learning(entry: RouterResult) -> list[Cell]:
    cost = entry.learning
    if cost is None:
        return [Cell(NOTHING), Cell(NOTHING)]
    return [Cell(f"{cost.calls:,.0f}"), Cell(number(cost.cost_usd, 4))]


def _reference() -> list[Cell]:
    return [Cell("reference"), Cell(""), Cell("")]


def _sd(entry: Quality, measure: Measure = "em") -> Cell:
    return Cell(shown(measure, entry.per_seed[measure].sd))


def usage_section(table: RouterTable) -> Section:
    """What each router uses beside money."""
    shown = _USAGE if table.has_policy else _USAGE_OF_REPLIES
    heads = ["Router", *(metric(what).label for what in shown)]
    lines = [
        Line(
            (Cell(label(e.router)), *(measured(e.estimate(what), what) for what in shown)),
            marked=e.router == table.reference,
        )
        for e in by_em(table.routers)
    ]
    title, without = "F1, format, time and tokens", ", without the policy's time"
    return Section(
        title if table.has_policy else "Time and tokens",
        f"Reply time is the sum of the replies' own seconds{without if table.has_policy else ''}. It holds for as "
        "many calls at once as the stages make (max_concurrency of endpoint and pool); a server of few at once "
        "answers sooner when it is asked alone.",
        Table(tuple(heads), tuple(lines)),
        folded=True,
    )


def pairs_section(pairs: PairTable) -> Section | None:
    """Differences in EM as a square; None without two routers."""
    names = pairs.names
    if not names:
        return None
    lines = []
    for a in names:
        cells = [Cell(label(a))]
        for b in names:
            if a == b:
                cells.append(Cell(""))
                continue
            found = pairs.between(a, b).difference["em"]
            clear = pairs.is_significant(found)
            cells.append(
                Cell(
                    number(found.mean, 3, signed=True) + "*" * clear,
                    tone=("better" if found.mean > 0 else "worse") if clear else "",
                    hint=f"{label(a)} minus {label(b)}: {number(found.low, 3, signed=True)} to "
                    f"{number(found.high, 3, signed=True)}, p {p_text(found)}, "
                    f"MDE {number(found.mde, 3)}",
                )
            )
        lines.append(Line(tuple(cells)))
    return Section(
        "Any two routers",
        f"EM of the row's router minus that of the column's. p is corrected over all {pairs.comparisons} pairs "
        f"({pairs.resamples} draws); * marks p below {1 - pairs.confidence:.2g}. `routerr1 compare A B` shows "
        "every measure of two routers.",
        Table(("EM", *map(label, names)), tuple(lines)),
        folded=True,
    )


def datasets_section(table: EvaluationTable) -> Section | None:
    """Each router on each data set, as in the paper's Table 1; None for a single data set."""
    if not table.by_dataset:
        return None
    return Section(
        "Data sets",
        "The macro-average gives every data set the same weight; the tables above give it to every question.",
        parts=tuple(_dataset_section(table, what) for what in _BY_DATASET),
    )


def _dataset_section(table: EvaluationTable, what: Measure) -> Section:
    sizes = [f"{name} (n = {own.n})" for name, own in table.by_dataset.items()]
    several = table.has_several_seeds
    found = {
        name: {entry.router: entry for entry in own.routers}
        for name, own in table.by_dataset.items()
    }
    lines = []
    for macro in sorted(table.macro, key=lambda entry: (-entry.em.mean, entry.cost_usd.mean)):
        own = [routers[macro.router] for routers in found.values()]
        cells = [measured(each.estimate(what), what) for each in (*own, macro)]
        cells += [_sd(macro, what)] * several
        lines.append(
            Line((Cell(label(macro.router)), *cells), marked=macro.router == table.reference)
        )
    heads = ("Router", *sizes, "Macro-average", *["sd"] * several)
    return Section(
        f"{metric(what).label} by data set", table=Table(heads, tuple(lines)), folded=what != "em"
    )


_SEED_FIGURES = (
    ("em", "EM"),
    ("em_of_oracle", "EM over the oracle's"),
    ("over_best_fixed", "EM above the best single model"),
    ("best_model_share", "Share of calls to the topic's best model"),
)


def seeds_section(found: SeedTable) -> Section:
    """A column for each training seed, one for all of them, one for their standard deviation."""
    together = found.seeds[-1]
    heads = ["Figure", *("all" if e.seed is None else f"seed {e.seed}" for e in found.seeds), "sd"]
    rows: list[list[Cell | str]] = []
    for key, text in _SEED_FIGURES:
        cells: list[Cell | str] = [text]
        for entry in found.seeds:
            value = getattr(entry, key)
            cells.append(
                gap(value, 3) if key == "over_best_fixed" and value else estimate(value, 3)
            )
        rows.append([*cells, Cell(number(together.sd.get(key), 3))])
    for hop in together.by_hops:
        own = [entry.by_hops[hop] for entry in found.seeds]
        rows.append([f"EM, {hop} hop", *(Cell(number(each.em, 3)) for each in own), Cell("")])
        ratios = [Cell(number(each.em_of_oracle, 3)) for each in own]
        rows.append([f"EM over the oracle's, {hop} hop", *ratios, Cell("")])
    best = [Cell(entry.best_fixed or "–") for entry in found.seeds]
    rows.append(["Best single model", *best, Cell("")])
    for key in ("top_model_share", "format_valid"):
        cells = [metric(key).label, *(Cell(shown(key, getattr(e, key))) for e in found.seeds)]
        rows.append([*cells, Cell(shown(key, together.sd.get(key)))])
    return Section(
        "Training seeds",
        "Each seed's policy has its own bounds. “all” is the mean over seeds, with intervals over questions "
        "and seeds; sd is the standard deviation over seeds.",
        table_of(heads, rows),
    )


def fronts_section(title: str, found: Fronts, ours: str, *, folded: bool = False) -> Section:
    """Every other router beside our front, at equal quality and at equal cost."""
    rows = [
        (
            label(row.router),
            Cell(number(row.em, 3)),
            Cell(number(row.cost_usd, 4, 1000)),
            Cell("not reached" if row.our_cost_usd is None else number(row.our_cost_usd, 4, 1000)),
            Cell(number(row.our_em, 3)),
        )
        for row in sorted(found.equal, key=lambda row: (-row.em, row.cost_usd))
    ]
    note = (
        f"What {ours} costs at another router's EM, and its EM at that router's cost, if it is mixed at random "
        "with not answering. Area under the front up to "
        f"{1000 * found.max_cost_usd:.4f} USD per 1,000 questions (mean EM over costs): {found.area:.3f} with "
        f"{ours}, {found.area_without_us:.3f} without, {found.area_of_us_alone:.3f} of {ours} alone."
    )
    heads = (
        "Router",
        "EM",
        "USD per 1,000",
        f"USD of {ours} at its EM",
        f"EM of {ours} at its USD",
    )
    return Section(title, note, table_of(heads, rows), folded=folded)


def calls_section(table: RouterTable, plots: Sequence[Plot]) -> Section:
    """How every router spreads its calls, by data set."""
    several = table.has_several_seeds
    reference = [entry for entry in table.routers if entry.router == table.reference]
    others = [entry for entry in table.routers if entry.router != table.reference]
    return Section(
        "Calls",
        WORST_SEED if several else "",
        _calls_table(reference, several=several),
        tuple(plots),
        parts=(
            Section(
                "Calls of every other router",
                table=_calls_table(by_em(others), several=several),
                folded=True,
            ),
        )
        if others
        else (),
    )


def _calls_table(entries: Sequence[RouterResult], *, several: bool) -> Table:
    figures = ("top_model_share", "call_entropy", "no_call_rate", "best_model_share")
    heads = (
        "Router",
        "Data set",
        *(metric(key).label for key in figures),
        "Calls by hops",
        "Calls to each model",
    )
    rows: list[list[Cell | str]] = []
    for entry in entries:
        for dataset, found in entry.collapse_by_dataset.items():
            hops = ", ".join(f"{hop}: {calls:.2f}" for hop, calls in found.calls_by_hops.items())
            shares = [_with_worst(found, key, several=several) for key in figures]
            rows.append([label(entry.router), dataset, *shares, hops, call_shares(found)])
    return table_of(heads, rows)


def _with_worst(found: Routing, key: str, *, several: bool) -> Cell:
    mean, worst = getattr(found, key), found.worst.get(key)
    if mean is None:
        return Cell("unknown")
    return Cell(
        shown(key, mean) + (f" ({shown(key, worst)})" if several and worst is not None else "")
    )


def call_shares(found: Routing) -> str:
    """Each candidate with its share of the calls, the largest first."""
    ranked = sorted(found.call_share.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {part:.0%}" for name, part in ranked if part) or "none"


def controls_table(table: RouterTable) -> Table:
    """A short table of routers on a perturbed pool, the best first."""
    several, knows = table.has_several_seeds, table.knows_best
    heads = ["Router", "EM", "USD per 1,000", "Calls", *["sd"] * several]
    heads += [*[metric("best_model_share").label] * knows, f"EM: {label(table.reference)} minus it"]
    lines = []
    for entry in by_em(table.routers):
        em = entry.difference.get("em")
        cells = [Cell(label(entry.router)), measured(entry.em, "em")]
        cells += [measured(entry.cost_usd, "cost_usd"), measured(entry.calls, "calls")]
        cells += [_sd(entry)] * several
        cells += [Cell(shown("best_model_share", entry.collapse.best_model_share))] * knows
        cells.append(gap(em, 3) if em else Cell("reference"))
        lines.append(Line(tuple(cells), marked=entry.router == table.reference))
    return Table(tuple(heads), tuple(lines))


def pools_section(
    found: Generalization, plots: Sequence[Plot] = (), elsewhere: Sequence[str] = ()
) -> Section:
    """The policy on every perturbed pool; controls where they were evaluated.

    Args:
        elsewhere: pools whose controls another section shows.
    """
    training = found.training
    several = len(training.seeds) > 1
    heads = [
        "Pool",
        "EM",
        "Of best-on-cards",
        "EM minus training pool",
        "USD per 1,000",
        "USD minus training pool",
    ]
    heads += [*["sd"] * several, "Calls to target", "Before", "Answers changed"]
    heads += ["Right to wrong", "Wrong to right"]
    home = [Cell("training pool"), measured(training.em, "em"), _ratio(found.training_ratio)]
    home += [Cell("reference")]
    home += [measured(training.cost_usd, "cost_usd"), Cell("")]
    home += [*[_sd(training)] * several, *[Cell("")] * 5]
    pools = sorted(found.pools, key=lambda pool: pool.difference["em"].mean)
    compared = [(pool.ratio.ratio, pool.pool) for pool in found.pools if pool.ratio is not None]
    points = [f"Not made: {name}: {why}." for name, why in found.not_made.items()]
    if compared:
        ratio, name = min(compared)
        points.insert(0, f"Worst change: {ratio:.2f} of best-on-cards on “{name}”.")
    lines = [Line(tuple(home), marked=True)]
    lines += [Line(tuple(_pool_cells(pool, several=several))) for pool in pools]
    controls = tuple(
        Section(f"Pool “{pool.pool}” with controls", table=controls_table(pool.table))
        for pool in found.pools
        if pool.table and pool.pool not in elsewhere
    )
    return Section(
        "Perturbed pools",
        f"The trained policy, not retrained, on the same n = {found.n} questions; the largest loss first. "
        "Target: the new or changed models. “drawn” has only models that training never saw; “added” puts some "
        "of them beside the training pool. “Of best-on-cards”: exact match over that of the same text with every call "
        "sent to the available candidate that is best by card on the topic, in the worst training seed.",
        Table(tuple(heads), tuple(lines)),
        tuple(plots),
        points=tuple(points),
        parts=controls,
    )


def _ratio(found: Ratio | None) -> Cell:
    return Cell("" if found is None else f"{found.ratio:.2f}")


def _pool_cells(pool: PoolResult, *, several: bool) -> list[Cell]:
    before = share(pool.target_share_before) if pool.target else Cell("")
    cost = pool.difference["cost_usd"]
    return [
        Cell(pool.pool),
        measured(pool.policy.em, "em"),
        _ratio(pool.ratio),
        gap(pool.difference["em"], 3),
        measured(pool.policy.cost_usd, "cost_usd"),
        gap(cost, 4, 1000, good="low"),
        *[_sd(pool.policy)] * several,
        share(pool.target_share) if pool.target else Cell("no target"),
        before,
        share(pool.flipped.answer),
        share(pool.flipped.right_to_wrong),
        share(pool.flipped.wrong_to_right),
    ]


def evaluation_sections(table: EvaluationTable) -> list[Section]:
    """The sections of table.md."""
    parts = [usage_section(table), how_to_read(table)]
    sections = [Section("Routers", table=routers_table(table), parts=tuple(parts))]
    datasets = datasets_section(table)
    return [*sections, datasets] if datasets else sections
