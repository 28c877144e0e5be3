"""Nothing half written is seen, and nothing of a killed writer stays."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from routerr1 import files
from routerr1.errors import DataError

KILLED = """
import os, signal, sys
from pathlib import Path
from routerr1 import files
from routerr1.errors import DataError
with getattr(files, sys.argv[1])(Path("made")) as aside:
    (aside / "part" if aside.is_dir() else aside).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("writer", ["atomic_path", "atomic_directory"])
def test_what_a_killed_writer_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    monkeypatch.chdir(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, writer], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".tmp")
    Path(".made.elsewhere.1.0123abcd.tmp").mkdir()  # another machine's writer may be alive
    with getattr(files, writer)(Path("made")) as aside:
        with getattr(files, writer)(Path("made")) as beside:  # nor is one that lives disturbed
            (beside / "whole" if beside.is_dir() else beside).write_text("first")
        (aside / "whole" if aside.is_dir() else aside).write_text("second")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"made", ".made.elsewhere.1.0123abcd.tmp"}
    made = Path("made/whole") if Path("made").is_dir() else Path("made")
    assert made.read_text() == "second"


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    with files.atomic_directory(tmp_path / "made") as aside:
        (aside / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), files.atomic_directory(tmp_path / "made") as aside:
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "a"]


def test_json_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(DataError, match=r"deep\.json: is nested too deeply"):
        files.read_json(path)
