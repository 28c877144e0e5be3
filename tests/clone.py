"""The working tree as a repository of its own, so that the whole chain can run and be disturbed in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def make_clone(folder: Path) -> Path:
    """Copy what git knows or would take in, set to the ci preset, and commit it; gives `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode().split("\0")  # fmt: skip
    for name in filter(None, listed):
        # A lock of another preset's run is no state of this one.
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    replace(folder / "params.yaml", "preset: embedded", "preset: ci")
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    commit(folder, "start")
    return folder


def commit(folder: Path, message: str) -> None:
    """Commit everything in `folder`."""
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *who, "commit", "-qm", message], cwd=folder, check=True)


def replace(path: Path, old: str, new: str) -> None:
    """The first `old` in a file becomes `new`; it must be there."""
    text = path.read_text()
    assert old in text, f"{path} does not hold {old!r}"
    path.write_text(text.replace(old, new, 1))


def environment(folder: Path) -> dict[str, str]:
    """Variables with which commands run the clone's own code and tools of this environment."""
    tools = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "PYTHONWARNINGS": "ignore",
    }


def processes_in(
    folder: Path, chosen: Callable[[list[str]], bool] = lambda _: True
) -> list[psutil.Process]:
    """Live processes that work in `folder`, this one aside, whose command line is `chosen`."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.pid != os.getpid()
                and Path(process.cwd()) == folder
                and process.status() != psutil.STATUS_ZOMBIE
                and chosen(process.cmdline())
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def is_stage(name: str) -> Callable[[list[str]], bool]:
    """Chooses the processes of `routerr1 NAME`, by their command line."""

    def chosen(words: list[str]) -> bool:
        programs = [Path(word).name for word in words]
        return "routerr1" in programs and words[-1] == name and "dvc" not in programs

    return chosen
