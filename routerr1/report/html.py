"""Sections as one HTML page that needs no other file and no network."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from routerr1.report.sections import Section
from routerr1.report.trajectory_browser import Browsable

_TEMPLATES = Path(__file__).parent / "templates"


def render(
    sections: Sequence[Section],
    plots: Mapping[str, str],
    played: Browsable,
    *,
    notice: str,
    simulated: bool,
    policy: bool,
    facts: Mapping[str, str],
) -> str:
    """The page.

    Args:
        plots: name -> SVG.
        played: what the trajectory browser shows.
        notice: shown at the top; empty for none.
        simulated: the notice begins with it, and the foot says it.
        policy: a policy was trained.
        facts: name and value pairs for the foot.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Everything is escaped except what this package makes: plots, style and script.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        sections=sections,
        plots=plots,
        notice=notice,
        simulated=simulated,
        policy=policy,
        facts=facts,
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=(_TEMPLATES / "report.js").read_text(encoding="utf-8"),
        played=_inert_json(played),
    )


def _inert_json(played: Browsable) -> str:
    """JSON that cannot end its script element: it holds what pool models wrote."""
    values = played.model_dump(mode="json", exclude_none=True)
    dumped = json.dumps(values, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return dumped.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
