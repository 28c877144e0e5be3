"""docs/own-data.md, run from its text: its files, its commands, and what they print."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import free_port, running, until_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
RUN = re.compile(r"<!-- (run|serve) -->\n```bash\n(.*?)```", re.DOTALL)
PRINTED = re.compile(r"```text\n(.*?)```", re.DOTALL)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A new user: another home, no git identity but in variables, the package on the path."""
    tools = tmp_path / "bin"
    tools.mkdir()
    script = tools / "routerr1"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m routerr1.cli "$@"\n')
    script.chmod(0o755)
    who = {
        f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {
        **os.environ, **who, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path),
        "MLFLOW_TRACKING_URI": "", "COLUMNS": "300", "PYTHONWARNINGS": "ignore",
    }  # fmt: skip


def blocks() -> Iterator[tuple[str, str]]:
    """(kind, commands) in the order of the page."""
    for found in RUN.finditer(PAGE):
        yield found[1], found[2]


def test_the_page_runs_and_prints_what_it_shows(tmp_path: Path, environment: dict[str, str]):
    port = str(free_port())
    files = FILE.findall(PAGE)
    assert [name for name, _ in files] == ["tickets.csv", "models.yaml"]
    for name, text in files:
        (tmp_path / name).write_text(text.replace("8399", port))
    kinds = [kind for kind, _ in blocks()]
    assert kinds == ["run", "serve", "run", "run", "run"]

    def run(commands: str, folder: Path) -> str:
        done = subprocess.run(
            ["bash", "-ec", commands], cwd=folder, env=environment, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    commands = [text for kind, text in blocks() if kind == "run"]
    serve = next(text for kind, text in blocks() if kind == "serve")
    printed = run(commands[0], tmp_path)
    workspace = tmp_path / "support"
    words = serve.split("&")[0].split()
    log = tmp_path / "serve.log"
    with running([*words, "--port", port], log, env=environment, cwd=workspace):
        until_answers(f"http://127.0.0.1:{port}/stats", log)
        for each in commands[1:]:
            printed += run(each, workspace)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as page:
            assert b'"requests"' in page.read()
    said = " ".join(printed.split())
    shown = [line for block in PRINTED.findall(PAGE) for line in block.splitlines()]
    assert len(shown) == 10
    assert [line for line in shown if " ".join(line.split()) not in said] == []
