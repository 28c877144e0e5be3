"""Runs code that a model wrote against the tests of its task, apart from the rest of the machine.

A run has a folder of its own, no network, its own process numbers (namespaces of the kernel), and reads no
file but the standard library's (Landlock). CPU, memory, files and processes are bounded, and all of its
processes end with it. Code passes only if every test ran to its end. The tests run in the code's own
process, so code that is written to deceive this very program can: it may look for the word that says so.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

_FENCED = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_GRACE_S = 2  # to start the interpreter
_NOBODY = 65534
_APART = (
    "unshare", "--user", "--map-current-user", "--net", "--ipc", "--pid", "--fork", "--kill-child",
)  # fmt: skip


class _User(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one run.

    Attributes:
        time_s: seconds of CPU, and of the clock with some more to start.
        confined: without network and files. False runs the code with all rights of this user.
    """

    time_s: int = 5
    memory_mb: int = 256
    confined: bool = True


def code_in(reply: str) -> str:
    """The code of a reply: its fenced blocks, one behind the other; without any, the reply itself.

    >>> code_in("Sure!\\n```python\\ndef f():\\n    return 1\\n```\\nDone.")
    'def f():\\n    return 1\\n'
    """
    blocks = _FENCED.findall(reply)
    return "\n".join(blocks) if blocks else reply


def passes(reply: str, tests: Sequence[str], limits: Limits) -> bool:
    """Whether the code in `reply` passes every test, each of which is code that raises if it fails.

    Raises: OSError if no interpreter can be started.
    """
    word = secrets.token_hex(16)
    code = code_in(reply)
    if not tests or "\0" in code:
        return False
    with tempfile.TemporaryDirectory(prefix="routerr1-") as folder:
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        read, write = os.pipe()
        job = {
            "code": code, "tests": list(tests), "word": word, "result": write,
            "time_s": limits.time_s, "memory_mb": limits.memory_mb, "confined": limits.confined,
        }  # fmt: skip
        try:
            subprocess.run(
                [*(_APART if limits.confined else ()), _interpreter(), "-I", "-S", "-c", _program()],
                input=json.dumps(job).encode(), cwd=folder, env={"LANG": "C.UTF-8"},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(write,),
                timeout=limits.time_s + _GRACE_S, check=False, start_new_session=True,
                **_as_nobody(),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        finally:
            os.close(write)
            os.set_blocking(read, False)
            said = _read(read)
            os.close(read)
    return said == word.encode()


async def passes_aside(reply: str, tests: Sequence[str], limits: Limits) -> bool:
    """`passes`, in a thread."""
    return await asyncio.to_thread(passes, reply, tests, limits)


@cache
def can_confine() -> bool:
    """Whether this machine lets a program run without network and files."""
    return shutil.which("unshare") is not None and passes("x = 1", ["assert x == 1"], Limits())


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 256)
    except BlockingIOError:  # a process that still holds the other end has written nothing
        return b""


@cache
def _interpreter() -> str:
    """This interpreter, or the system's if the code's user may not start this one, as in root's home.

    Raises: OSError if there is neither.
    """
    own = str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())
    for path in (own, "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            subprocess.run(
                [path, "-I", "-S", "-c", ""], check=True, capture_output=True, env={}, cwd="/",
                **_as_nobody(),
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            continue
        return path
    raise OSError("no Python interpreter that the user `nobody` may start")


def _as_nobody() -> _User:
    """What makes a process of another user: limits on processes do not bind root."""
    if os.geteuid() != 0:
        return {}
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}


@cache
def _program() -> str:
    return Path(__file__).with_name("in_sandbox.py").read_text(encoding="utf-8")
