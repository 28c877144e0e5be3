"""The stage report."""

from pathlib import Path

from routerr1.config import Params
from routerr1.files import digest
from routerr1.progress import working
from routerr1.stages.places import EVALUATION, POOL, QUESTIONS, REPORT


def report(params: Params) -> None:
    """Tables, plots and trajectories into data/report."""
    with working("report"):
        _write_report(params)


def _write_report(params: Params) -> None:
    from routerr1.report.page import read_sources, write_report

    facts = {
        "preset": params.preset,
        "training seeds": ", ".join(map(str, params.seeds)),
        "questions (SHA-256)": digest(QUESTIONS)[:16],
        "cards (SHA-256)": digest(POOL / "cards.json")[:16],
        "evaluation rows (SHA-256)": digest(EVALUATION / "rows.parquet")[:16],
    }
    simulated = params.pool.kind == "simulated"
    write_report(REPORT, read_sources(Path("data"), simulated=simulated, facts=facts))
