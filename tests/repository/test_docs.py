"""The documentation is as the code: generated pages, pictures, named paths, modules and commands."""

import functools
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from routerr1.cli import app
from routerr1.config import Params, Section
from routerr1.pool.provenance import read_provenance

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHROMIUM = Path("/usr/bin/chromium")
WRITTEN = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in DOCS.rglob("*.md") if "results" not in path.parts),
]


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation; any warning fails."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where a server on loopback serves the site."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def commands(group: TyperGroup, above: str = "routerr1") -> Iterator[str]:
    for name, command in group.commands.items():
        yield f"{above} {name}"
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{above} {name}")


def keys(section: type[Section], above: str = "") -> Iterator[str]:
    """Every key of a section and of the sections in it, with dots between."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from keys(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}"


@pytest.mark.slow
def test_the_readme_begins_with_who_replies_and_when_it_was_recorded():
    found = read_provenance(ROOT / "pools/laptop/replies.jsonl.gz")
    assert found is not None
    first = " ".join((ROOT / "README.md").read_text().split("\n\n")[1].split()).lower()
    assert "replies of the default pool are real" in first
    assert str(found.recorded) in first
    for name in found.model_names:
        sized = re.match(r".*?-[\d.]+[bm]", name.lower())
        assert sized is not None
        assert sized[0] in first, name


def test_parameter_page_has_every_key(site: Path):
    page = (site / "reference" / "params.html").read_text(encoding="utf-8")
    shown, heading = set(), ""
    for title, key in re.findall(r"<h\d[^>]*>([\w., ]+)<|<td><code>(\w+)</code></td>", page):
        heading = f"{title}." if title and title != "Parameters" else "" if title else heading
        if key:
            shown.add(f"{heading}{key}")
    wanted = set(keys(Params))
    sections = {key for key in wanted if any(each.startswith(f"{key}.") for each in shown)}
    assert len(wanted) > 100
    assert wanted <= shown | sections


@pytest.mark.slow
def test_command_page_has_every_command(site: Path):
    page = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for name in commands(group):
        assert f"<code>{name}</code>" in page


def test_committed_pictures_are_as_the_script_draws_them():
    spec = importlib.util.spec_from_file_location("diagrams", ROOT / "scripts" / "diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    diagrams = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(diagrams)
    for name, content in diagrams.pictures().items():
        committed = (DOCS / "assets" / name).read_text(encoding="utf-8")
        assert committed == content, f"run scripts/diagrams.py: {name}"


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")
def test_pages_and_search_ask_nothing_of_other_hosts(address: str):
    from playwright.sync_api import expect, sync_playwright

    asked: list[str] = []
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"], timeout=120_000
        )
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        for name in ("index", "tutorial", "reference/params", "reference/api", "results/index"):
            page.goto(f"{address}/{name}.html", wait_until="networkidle")
        page.set_viewport_size({"width": 1300, "height": 900})
        page.goto(f"{address}/index.html", wait_until="networkidle")
        page.locator("input.md-search__input").click()
        ready = page.locator(".md-search-result__meta")  # says "Initializing search" before
        expect(ready).to_have_text("Type to start searching", timeout=120_000)
        page.locator("input.md-search__input").press_sequentially("challenger")
        found = page.locator(".md-search-result__link").first
        expect(found).to_be_visible(timeout=120_000)
        browser.close()
    assert not problems
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(address).netloc}


@pytest.mark.parametrize("page", WRITTEN, ids=ids)
def test_paths_modules_and_commands_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    tops = "|".join(
        (
            "routerr1",
            "tests",
            "scripts",
            "benchmarks",
            "launch",
            "pools",
            "presets",
            "docs",
            "prompts",
        )
    )
    for named in re.findall(rf"(?<![\w/.])((?:{tops})/[\w./-]+\w/?)", text):
        made = (
            "pools/mine",
            "prompts/mine",
            "prompts/router-r1.txt",
            "pools/laptop/",
        )
        assert named.startswith(made) or (ROOT / named).exists(), named
    for module in re.findall(r"python -m ((?:routerr1|flows)[\w.]*)", text):
        assert importlib.util.find_spec(module), module
    for module in re.findall(r"`(routerr1(?:\.[a-z_0-9]+)+)", text):
        parts = module.split(".")
        # Names of events, of tags and of a group of entry points.
        others = (
            "routerr1.pool.changed",
            "routerr1.data.changed",
            "routerr1.drift",
            "routerr1.training",
            "routerr1.key",
            "routerr1.verifiers",
        )
        known = module in others or importlib.util.find_spec(".".join(parts[:2])) is not None
        assert known, module
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    known_commands = set(commands(group))
    for line in re.findall(r"routerr1 ([a-z]+(?: [a-z][a-z-]*)?)", " ".join(code_of(text))):
        first, _, second = line.partition(" ")
        assert f"routerr1 {first}" in known_commands, line
        nested = any(name.startswith(f"routerr1 {first} ") for name in known_commands)
        assert not nested or not second or f"routerr1 {line}" in known_commands, line


@pytest.mark.parametrize("page", WRITTEN, ids=ids)
def test_command_lines_have_options_that_exist(page: Path):
    for line in code_of(page.read_text(encoding="utf-8")):
        words = shlex.split(re.sub(r"(?<!\")\.\.\.|[|>].*", "", line), comments=True)[1:]
        done = CliRunner().invoke(app, [*words, "--help"])
        assert done.exit_code == 0, f"{line}: {done.output}"


@pytest.mark.parametrize("page", WRITTEN, ids=ids)
def test_parameters_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    first = "|".join(Params.model_fields)
    named = re.findall(rf"`((?:{first})(?:\.[a-z_0-9]+)+)[`:= ]", text)
    named += re.findall(r" -S '?([a-z_.0-9]+)=", text)
    known = set(keys(Params))
    sections = {key[:at] for key in known for at, letter in enumerate(key) if letter == "."}
    for key in named:
        is_file = key.rpartition(".")[2] in {
            "csv",
            "json",
            "jsonl",
            "lock",
            "md",
            "parquet",
            "yaml",
        }
        is_tag = key == "gate.refused_by"
        assert is_file or is_tag or key in known | sections, key


def code_of(text: str) -> list[str]:
    """Lines of fenced blocks and spans of code that begin with `routerr1 `."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [
        *(line for line in lines if line.startswith("routerr1 ")),
        *re.findall(r"`(routerr1 [^`\n]+)`", text),
    ]


@pytest.mark.parametrize("page", WRITTEN[:2], ids=ids)
def test_links_from_files_outside_the_site_lead_to_files(page: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", WRITTEN, ids=ids)
def test_prose_is_wrapped(page: Path):
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.startswith("```")
        prose = not fenced and " " in line.strip() and not line.startswith(("|", "    "))
        assert not prose or len(line) <= 100, f"{page}:{number}: {len(line)} characters"


def test_glossary_is_sorted_and_defines_each_word_once():
    lines = (DOCS / "reference" / "glossary.md").read_text(encoding="utf-8").splitlines()
    words = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert len(words) > 50
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("page", WRITTEN, ids=ids)
def test_sentences_are_short_and_plain(page: Path):
    for sentence in sentences(page.read_text(encoding="utf-8")):
        assert len(sentence.split()) <= 30, sentence
        dialect = re.search(r"\b(whoever|nobody|learnt|anew|dearest|so many)\b", sentence, re.I)
        assert dialect is None, sentence


def sentences(text: str) -> Iterator[str]:
    """Prose only, a clause after a colon or semicolon counting by itself; code counts as one word."""
    text = re.sub(r"^ *```.*?^ *```", "\n\n", text, flags=re.M | re.S)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "    ", "#", "!["))]
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", "\n".join(lines)):
        plain = re.sub(r"\]\([^)]*\)|<[^>]*>|^\s*(?:[-*]|\d+\.)\s+", "", paragraph)
        plain = " ".join(re.sub(r"`[^`]*`", "X", plain).split())
        yield from re.split(r"(?<=[.:?!;])\s+|(?<=[.:?!]\*\*)\s+", plain)
