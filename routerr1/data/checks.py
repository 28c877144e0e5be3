"""Checks of the questions by Great Expectations, before any call is paid.

Writes checks.json, metrics.json, checks.md and a profile for comparison with later data. The same
data and parameters give the same bytes. Only the Data Docs of Great Expectations contain their time
of creation. Everything is written before a failure is raised, so that the offending rows can be
inspected.
"""

import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from routerr1.config import ChecksParams, DatasetParams
from routerr1.data.build import wanted_rows
from routerr1.data.drift import Profile
from routerr1.data.expectations import NUM_RULES, Rule, rules
from routerr1.data.measure import Measured, Progress, measure_columns, measure_rows
from routerr1.errors import CheckFailed
from routerr1.files import atomic_directory, atomic_write_text, write_json

_SHOWN_ROWS = 5  # offending rows named for each failed expectation
_SHOWN_CHARS = 200  # of a text in the error
_REMEDIES = {
    "question_length": "raise checks.max_question_chars or shorten the questions; ",
    "leakage": "raise checks.max_leakage or leave the questions out; ",
}
_log = logging.getLogger(__name__)


def run_checks(
    folder: Path,
    dataset: DatasetParams,
    params: ChecksParams,
    out: Path,
    *,
    docs: Path | None = None,
    progress: Progress = lambda _done, _total: None,
) -> dict[str, Any]:
    """Check the split files in `folder` and write the findings to the folder `out`.

    Args:
        docs: folder of the Data Docs; None puts them into `out`.
        progress: called with the rows read and their total.

    Returns: what checks.json holds.
    Raises: CheckFailed naming the first expectation that does not hold, with rows that offend;
        DataError if a split file is missing or cannot be read.
    """
    with atomic_directory(out) as aside:
        # Beside the outputs, because it is as large as the questions and /tmp may be small.
        database = aside / "questions.sqlite"
        seen = None
        chosen = rules(params.max_question_chars)
        accepted = Profile.read(params.accepted)
        if measure_columns(folder, database):
            chosen = tuple(rule for rule in chosen if rule.suite == "columns")
        else:
            seen = measure_rows(
                folder,
                database,
                params,
                near_duplicate=dataset.near_duplicate,
                wanted=wanted_rows(dataset),
                accepted=accepted,
                progress=progress,
            )
            seen.profile.write(aside / "profile.json")
        if docs is None:
            results = validate(database, chosen, aside / "docs")
        else:
            with atomic_directory(docs) as pages:
                results = validate(database, chosen, pages)
        database.unlink()
        summary = _summary(results, seen, accepted)
        write_json(aside / "checks.json", summary)
        figures = {
            name: value
            for name, value in summary.items()
            if name not in ("results", "failed", "not_applicable")
        }
        write_json(aside / "metrics.json", figures)
        atomic_write_text(aside / "checks.md", _markdown(summary))
    needless = ", ".join(summary["not_applicable"])
    _log.info(
        "checks: %d of %d expectations hold%s", summary["passed"], summary["expectations"],
        f"; not applicable to these questions: {needless}" if needless else "",
    )  # fmt: skip
    _raise_on_failure(summary, folder, out)
    return summary


def validate(database: Path, chosen: Sequence[Rule], docs: Path) -> list[dict[str, Any]]:
    """Check `chosen` on the tables of `database` and build the Data Docs in `docs`.

    Returns: name, suite, says, success, offending (how many) and rows (the first of them) of each.
    Raises: RuntimeError if an expectation is missing or could not be evaluated. Data cannot cause
        that, but a smaller suite would pass.
    """
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    _add_site(context, docs)
    source = context.data_sources.add_sqlite("scratch", connection_string=f"sqlite:///{database}")
    found: dict[str, dict[str, Any]] = {}
    try:
        checkpoint = _checkpoint(gx, context, source, chosen)
        for run in checkpoint.run().run_results.values():
            for result in run.results:
                found |= _result(result)
        context.build_data_docs()
    finally:
        source.get_engine().dispose()
    if lost := [rule.name for rule in chosen if rule.name not in found]:
        raise RuntimeError(f"expectations were not evaluated: {', '.join(lost)}")
    return [found[rule.name] | {"says": rule.says, "suite": rule.suite} for rule in chosen]


def _great_expectations() -> Any:
    # Before the import, at which the library decides whether to send usage reports.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        # It imports sre_constants and sre_parse, which Python 3.11 deprecates.
        warnings.filterwarnings("ignore", "module 'sre_", DeprecationWarning)
        import great_expectations as gx
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return gx


def _add_site(context: Any, docs: Path) -> None:
    for name in context.get_site_names():
        context.delete_data_docs_site(site_name=name)
    context.add_data_docs_site(
        site_name="docs",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.resolve()),
            },
        },
    )


def _checkpoint(gx: Any, context: Any, source: Any, chosen: Sequence[Rule]) -> Any:
    definitions = []
    for name in dict.fromkeys(rule.suite for rule in chosen):
        suite = context.suites.add(gx.ExpectationSuite(name=name))
        for rule in chosen:
            if rule.suite == name:
                suite.add_expectation(_expectation(gx, rule))
        batch = source.add_table_asset(name, table_name=name).add_batch_definition_whole_table(name)
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        definitions.append(context.validation_definitions.add(definition))
    held = sum(len(definition.suite.expectations) for definition in definitions)
    if held != len(chosen) or (held != NUM_RULES and {r.suite for r in chosen} != {"columns"}):
        raise RuntimeError(f"the suites hold {held} expectations, not {NUM_RULES}")
    # A complete result names the rows that offend; the library fetches 200 of them at most.
    complete = {"result_format": "COMPLETE"}
    return context.checkpoints.add(
        gx.Checkpoint(name="questions", validation_definitions=definitions, result_format=complete)
    )


def _expectation(gx: Any, rule: Rule) -> Any:
    return gx.expectations.UnexpectedRowsExpectation(
        unexpected_rows_query=rule.offending,
        description=f"{rule.name}: {rule.says}",
        meta={"name": rule.name},
    )


def _result(result: Any) -> dict[str, dict[str, Any]]:
    name = result.expectation_config.meta["name"]
    if "details" not in result.result:
        raise RuntimeError(f"{name}: could not be evaluated: {result.exception_info}")
    rows = result.result["details"]["unexpected_rows"]
    return {
        name: {
            "name": name,
            "success": bool(result.success),
            "offending": int(result.result["observed_value"]),
            "rows": [dict(row) for row in rows[:_SHOWN_ROWS]],
        }
    }


def _not_applicable(seen: Measured, accepted: Profile) -> list[str]:
    """Expectations that hold because these questions give them nothing to compare."""
    none = {
        "no_fact_overlap": not seen.num_facts,
        "no_near_overlap": not (seen.num_compared and seen.num_held_out),
        "length_drift": not accepted.lengths,
        "answer_type_drift": not accepted.answers,
        "topic_drift": not (seen.profile.topics and accepted.topics),
    }
    return [name for name, needless in none.items() if needless]


def _summary(
    results: list[dict[str, Any]], seen: Measured | None, accepted: Profile
) -> dict[str, Any]:
    failed = [result["name"] for result in results if not result["success"]]
    summary: dict[str, Any] = {
        "expectations": len(results),
        "passed": len(results) - len(failed),
        "failed": failed,
        "not_applicable": [] if seen is None else _not_applicable(seen, accepted),
        "results": results,
    }
    if seen is not None:
        summary["rows"] = seen.counts
        summary["leaks"] = seen.leaks
        summary["near"] = {
            "compared": seen.num_compared,
            "held_out": seen.num_held_out,
            "found": seen.num_near,
        }
    return summary


def _markdown(summary: Mapping[str, Any]) -> str:
    lines = [
        "# Checks of the questions",
        "",
        f"{summary['passed']} of {summary['expectations']} expectations hold.",
        "",
        "| expectation | holds | offending | what must hold |",
        "| --- | --- | ---: | --- |",
    ]
    for result in summary["results"]:
        holds = "yes" if result["success"] else "**no**"
        if result["name"] in summary["not_applicable"]:
            holds = "not applicable"
        lines.append(f"| {result['name']} | {holds} | {result['offending']} | {result['says']} |")
    for result in summary["results"]:
        if not result["success"]:
            lines += ["", f"## {result['name']}: rows that offend", ""]
            lines += [f"- `{json.dumps(row, ensure_ascii=False)}`" for row in result["rows"]]
    return "\n".join(lines) + "\n"


def _raise_on_failure(summary: Mapping[str, Any], folder: Path, out: Path) -> None:
    failed = [result for result in summary["results"] if not result["success"]]
    if not failed:
        return
    first, others = failed[0], [result["name"] for result in failed[1:]]
    shown = "; ".join(json.dumps(_cut(row), ensure_ascii=False) for row in first["rows"][:2])
    remedy = _REMEDIES.get(first["name"], "")
    also = f" (also: {', '.join(others)})" if others else ""
    raise CheckFailed(
        f"{folder}: expectation {first['name']} does not hold: {first['says']}; "
        f"{first['offending']} offending, e.g. {shown}{also}; {remedy}see {out / 'checks.md'}"
    )


def _cut(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the beginnings of its long texts; checks.md has them whole."""
    return {
        key: f"{value[:_SHOWN_CHARS]} ..."
        if isinstance(value, str) and len(value) > _SHOWN_CHARS
        else value
        for key, value in row.items()
    }
