"""The study of routers on recorded replies, as Markdown."""

from collections.abc import Iterable, Mapping

from routerr1.baselines.replay_study import Metric, ReplayResult, ReplayStudy, is_learned, is_single
from routerr1.report import markdown
from routerr1.report.formatting import estimate, gap, number, p_text
from routerr1.report.glossary import label
from routerr1.report.sections import Cell, Line, Section, Table, table_of


def studies_text(found: Mapping[Metric, ReplayStudy]) -> str:
    """One table for each metric, then the ranking of all routers under each."""
    sections = [_study_section(metric, study) for metric, study in found.items()]
    return markdown.render([*sections, _rankings(found)])


def study_text(title: str, study: ReplayStudy) -> str:
    """One table."""
    return markdown.render([_study_section(title, study)])


def _study_section(title: str, study: ReplayStudy) -> Section:
    heads = (
        "Router",
        "Quality",
        "sd over repetitions",
        "USD per 1,000",
        "Minus best single model",
        "p",
        "MDE",
    )
    note = (
        f"n = {study.n} questions, {study.repetitions} x 2 folds; {round(100 * study.confidence)} % bootstrap "
        f"intervals over questions and repetitions ({study.resamples} draws). The best single model is chosen "
        "on the learning half. p is Holm-corrected. MDE: the smallest true difference that four of five such "
        "studies find."
    )
    if study.left_out:
        votes = ", ".join(map(label, study.left_out))
        note += f" Left out, because no reply has an answer tag: {votes}."
    if study.pareto_area_singles is not None and study.pareto_area_with_learned is not None:
        note += (
            " Area under the Pareto front up to the most expensive model: "
            f"{study.pareto_area_singles:.4f} with the single models, {study.pareto_area_with_learned:.4f} "
            "with the learned routers too."
        )
    lines = tuple(Line(tuple(_cells(result))) for result in _ranked(study.routers))
    return Section(title, note, Table(heads, lines))


def _cells(result: ReplayResult) -> list[Cell]:
    difference = result.difference
    cells = [Cell(label(result.router)), estimate(result.quality, 3)]
    cells += [
        Cell(number(result.per_repetition.sd, 3)),
        Cell(number(result.cost_usd.mean, 4, 1000)),
    ]
    if difference.p_holm is None:
        return [*cells, Cell("reference"), Cell(""), Cell("")]
    return [*cells, gap(difference, 3), Cell(p_text(difference)), Cell(number(difference.mde, 3))]


def _ranked(results: Iterable[ReplayResult]) -> list[ReplayResult]:
    return sorted(results, key=lambda result: (-result.quality.mean, result.router))


def _rankings(found: Mapping[Metric, ReplayStudy]) -> Section:
    """Learned routers and single models from best to worst, apart."""
    rows = []
    for metric, study in found.items():
        for kind, belongs in (("single models", is_single), ("learned routers", is_learned)):
            ranked = _ranked(filter(belongs, study.routers))
            best_first = ", ".join(f"{label(r.router)} {r.quality.mean:.3f}" for r in ranked)
            rows.append((metric, kind, best_first))
    return Section("Rankings", table=table_of(("Metric", "Kind", "From best to worst"), rows))
