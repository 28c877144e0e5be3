"""The stage report: tables, plots and trajectories on one page."""

from pathlib import Path

from routerr1.config import Params
from routerr1.files import digest
from routerr1.jobs.progress import working
from routerr1.lineage import PATHS
from routerr1.report.page import read_sources, write_report


def report(params: Params) -> None:
    """Write the report of the outputs under data/ to data/report."""
    with working("report"):
        facts = {
            "preset": params.preset,
            "training seeds": ", ".join(map(str, params.seeds)),
            "questions (SHA-256)": digest(PATHS.questions)[:16],
            "cards (SHA-256)": digest(PATHS.cards)[:16],
            "evaluation rows (SHA-256)": digest(PATHS.rows)[:16],
        }
        simulated = params.pool.kind == "simulated"
        sources = read_sources(Path("data"), simulated=simulated, facts=facts, gate=params.gate)
        write_report(PATHS.report, sources)
