"""MkDocs hook: pages that are generated from the code at build time, so that they cannot be out of date.

`reference/params.md` comes from the pydantic models of `routerr1.config` and the comments of
params.yaml, `reference/pool-file.md` from those of `routerr1.pool.pool_file`, `reference/cli.md` from
the Typer application, `reference/metrics.md` from `routerr1.metrics.METRICS`, `reference/http.md` from
the gateway's OpenAPI description. In the tables of every page an interval stays on one line.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic_core import PydanticUndefinedType
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

ROOT = Path(__file__).parents[1]
WIDE = 9  # bars of a row: more than eight columns
INTERVAL = re.compile(r"(\[[-+−]?[\d.]+,) ([-+−]?[\d.]+\])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    pages = {
        "params": params_page(),
        "pool-file": pool_file_page(),
        "cli": cli_page(),
        "metrics": metrics_page(),
        "http": http_page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Keep the ends of an interval in a table together; give a wide table the room of the contents."""
    lines = markdown.splitlines()
    if any(line.startswith("|") and line.count("|") > WIDE for line in lines):
        page.meta.setdefault("hide", ["toc"])
    return "\n".join(
        INTERVAL.sub(r"\1&nbsp;\2", line) if line.startswith("|") else line for line in lines
    )


def params_page() -> str:
    """Every key of params.yaml: type, allowed values, shipped value and meaning."""
    from routerr1.config import Params

    shipped = YAML().load(ROOT / "params.yaml")
    lines = [
        "# Parameters",
        "",
        "`params.yaml` holds every choice. A misspelt key is an error that names the nearest key.",
        "The column *shipped* has the value of `params.yaml` as it is committed.",
        "",
        *_table(Params, shipped),
    ]
    for name, section in _sections(Params):
        lines += _section(name, section, shipped.get(name))
    return "\n".join(lines) + "\n"


def http_page() -> str:
    """Every path of the gateway, and every object that is sent or received."""
    from routerr1.config import ServeParams
    from routerr1.serve.app import build_app
    from routerr1.serve.webpage import json_type

    found = build_app(cast("Any", SimpleNamespace(params=ServeParams()))).openapi()
    lines = [
        "# HTTP interface",
        "",
        "The paths of `routerr1 serve`. The gateway describes them itself at `/openapi.json`.",
        "",
        "| path | what it does |",
        "|---|---|",
    ]
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            about = operation.get("description") or operation["summary"]
            lines.append(f"| `{method.upper()} {path}` | {' '.join(about.split())} |")
    for name, schema in sorted(found["components"]["schemas"].items()):
        lines += ["", f"## {name}", "", _sentence(schema.get("description", "")), ""]
        if fields := schema.get("properties"):
            lines += ["| field | type |", "|---|---|"]
            lines += [f"| `{field}` | {json_type(value)} |" for field, value in fields.items()]
    return "\n".join(lines) + "\n"


def _sentence(description: str) -> str:
    """The prose of a docstring, without its sections."""
    return description.partition("\n\nAttributes:")[0]


def pool_file_page() -> str:
    """Every key of a pool file."""
    from routerr1.pool.pool_file import CandidateRow, Endpoint, Prices
    from routerr1.pool.servers import Book, Desk, DeskServer, ModelServer

    lines = [
        "# Pool file",
        "",
        "A pool file has the sections `prices`, `endpoints` (by name) and `candidates` (a list). A file",
        "whose servers run on this machine has `servers` too. `held_out` lists the names of candidates",
        "that are kept from training, and `max_reply_bytes` bounds a whole HTTP reply.",
        "[Use your own pool](../how-to/pool.md) has an example.",
    ]
    sections: dict[str, type[BaseModel]] = {
        "prices": Prices, "endpoints.NAME": Endpoint, "candidates[]": CandidateRow,
        "servers.models.NAME": ModelServer, "servers.desks.NAME": DeskServer,
        "servers.desks.NAME.desks.NAME": Desk, "servers.desks.NAME.desks.NAME.book": Book,
    }  # fmt: skip
    for name, section in sections.items():
        lines += ["", f"## {name}", "", _summary(section), ""]
        lines += _table(section, CommentedMap(), "default")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Every command with its options, as `--help` shows them."""
    from typer import Context
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from routerr1.cli import app

    command = get_command(app)
    context = Context(command, info_name="routerr1")
    text: str = get_docs_for_click(obj=command, ctx=context, name="routerr1")
    return text.replace("# `routerr1`\n", "# Command line\n", 1)


def metrics_page() -> str:
    """Every metric by its name: meaning, unit and range."""
    from routerr1.metrics import METRICS

    lines = [
        "# Metrics",
        "",
        "Training logs, evaluation, gate, MLflow and plots use these names. `data/train/log.csv` has a",
        "row per training step and `data/eval/rows.parquet` one per question and router.",
        "`data/*/metrics.json` holds the headline values that `dvc metrics show` prints.",
        "In a name, `NAME` stands for a candidate and `N` for a number of hops.",
        "`validation/...` has the same names for greedy rollouts on the validation questions.",
    ]
    for group in dict.fromkeys(metric.group for metric in METRICS):
        lines += ["", f"## {group.capitalize()}", ""]
        lines += ["| name | meaning | unit | range |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{m.name}` | {m.meaning} | {m.unit or '–'} | {_range(m.low, m.high)} |"
            for m in METRICS
            if m.group == group
        ]
    return "\n".join(lines) + "\n"


def _range(low: float, high: float) -> str:
    if high == float("inf"):
        return "any" if low == -high else f"≥ {low:g}"
    return f"{low:g} to {high:g}".replace("-", "−")


def _section(path: str, section: type[BaseModel], shipped: object, level: int = 2) -> Iterator[str]:
    yield from ("", f"{'#' * level} {path}", "", _summary(section), "")
    values = shipped if isinstance(shipped, CommentedMap) else CommentedMap()
    yield from _table(section, values)
    by_class: dict[type[BaseModel], list[str]] = {}
    for name, inner in _sections(section):
        by_class.setdefault(inner, []).append(name)
    for inner, names in by_class.items():  # keys of one class share a table
        title, values_of_first = ", ".join(names), values.get(names[0])
        yield from _section(f"{path}.{title}", inner, values_of_first, level + 1)


def _table(
    section: type[BaseModel], shipped: CommentedMap, value_column: str = "shipped"
) -> Iterator[str]:
    """A table of the keys of a section that are values and not sections themselves."""
    nested = dict(_sections(section))
    properties: Mapping[str, Any] = section.model_json_schema()["properties"]
    meanings = _attributes(section)
    rows = [name for name in section.model_fields if name not in nested]
    if not rows:
        return
    yield f"| key | type | {value_column} | meaning |"
    yield "| --- | --- | --- | --- |"
    for name in rows:
        meaning = meanings.get(name) or _comment(shipped, name)
        value = _value(shipped.get(name, section.model_fields[name].get_default()))
        cells = (f"`{name}`", _type(properties[name]), value, meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _sections(section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Keys that hold a section (or one or null, or several by name), with its class."""
    for name, field in section.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield name, kind


def _summary(section: type[BaseModel]) -> str:
    parsed = griffe.Docstring(section.__doc__ or "").parse("google")
    return "\n".join(part.value for part in parsed if part.kind is griffe.DocstringSectionKind.text)


def _attributes(section: type[BaseModel]) -> dict[str, str]:
    """The meaning of each attribute that a docstring describes, on one line; a card's are those of `Card`."""
    from routerr1.pool.cards import CardRow
    from routerr1.types import Card

    found: dict[str, str] = {}
    for kind in (*((Card,) if issubclass(section, CardRow) else ()), *reversed(section.__mro__)):
        parsed = griffe.Docstring(inspect.getdoc(kind) or "").parse("google", warnings=False)
        found |= {
            attribute.name: " ".join(attribute.description.split())
            for part in parsed
            if part.kind is griffe.DocstringSectionKind.attributes
            for attribute in part.value
        }
    return found


def _comment(values: CommentedMap, name: str) -> str:
    """The comment at the end of a key's line."""
    tokens = values.ca.items.get(name)
    comment = tokens[2] if tokens else None
    return comment.value.partition("\n")[0].removeprefix("#").strip() if comment else ""


def _value(value: object) -> str:
    match value:
        case None:
            return "`null`"
        case PydanticUndefinedType():
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case dict() | list():
            text = str(_plain(value))
            return f"`{text}`" if len(text) <= 40 else "see the file"
        case _:
            return f"`{value}`"


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    match schema:
        case {"anyOf": kinds}:
            return " or ".join(_type(kind) for kind in kinds)
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"const": value}:
            return f"`{value}`"
        case {"type": "array", "items": inner}:
            return f"list of: {_type(inner)}"
        case {"type": "object", "additionalProperties": dict() as inner}:
            return f"map to: {_type(inner)}"
        case {"type": "null"}:
            return "`null`"
        case {"type": kind}:
            bounds = (
                ("minimum", "≥"), ("exclusiveMinimum", ">"),
                ("maximum", "≤"), ("exclusiveMaximum", "<"),
            )  # fmt: skip
            limits = [f"{sign} {schema[key]:g}" for key, sign in bounds if key in schema]
            return ", ".join([{"string": "text"}.get(kind, kind), *limits])
        case _:
            return "section"
