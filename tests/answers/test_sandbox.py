"""Code of a reply in the sandbox: what passes, and what only tries to."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from routerr1.answers.sandbox import Limits, can_confine, code_in, passes

pytestmark = pytest.mark.skipif(not can_confine(), reason="needs unshare and Landlock")
TESTS = ["assert double(2) == 4", "assert double(-1) == -2"]
QUICK = Limits(time_s=1, memory_mb=128)
RIGHT = "def double(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    "reply",
    [
        RIGHT,
        f"Sure!\n```python\n{RIGHT}```\nIt doubles a number.",
        f"```\nimport math\n```\nand\n```py\n{RIGHT}```",
        "from functools import partial\nfrom operator import mul\ndouble = partial(mul, 2)",
        f"open('notes.txt', 'w').write('of its own')\n{RIGHT}",
        f"print('PASS')\n{RIGHT}",
    ],
)
def test_right_code_passes(reply: str):
    assert passes(reply, TESTS, QUICK)


@pytest.mark.parametrize(
    "reply",
    [
        "", "def double(x):\n    return 4", "print('PASS')", "PASS", "def double(x):\n    return 2 *",
        "import sys\nsys.exit(0)", "import os\nos._exit(0)", "raise SystemExit",
        "import sys\ndef double(x):\n    sys.exit(0)", "import os\ndef double(x):\n    os._exit(0)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        f"import os\nos.write(3, b'passed')\n{RIGHT.replace('2 * x', '0')}",
        "def double(x):\n    raise AssertionError", "x = 1\0", "lösung = '\ud800'",
        f"{RIGHT}\nimport atexit, os\natexit.register(os._exit, 0)\nraise ValueError",
    ],
)  # fmt: skip
def test_code_that_does_not_pass_its_tests_fails(reply: str):
    assert not passes(reply, TESTS, QUICK)


def test_without_tests_nothing_passes():
    assert not passes(RIGHT, [], QUICK)
    assert not passes(RIGHT, ["assert double("], QUICK)


@pytest.mark.parametrize(
    "reply",
    [
        "while True:\n    pass",
        "import time\ntime.sleep(60)",
        "def double(x):\n    return double(x)",
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True:\n    pass",
        "x = [0] * 10**9",
        "open('big', 'w').write('x' * 10**8)",
        "files = [open(f'{n}', 'w') for n in range(1000)]",
    ],
)
def test_time_memory_and_files_are_bounded(reply: str):
    began = time.monotonic()
    assert not passes(f"{reply}\n{RIGHT}" if "def double" not in reply else reply, TESTS, QUICK)
    assert time.monotonic() - began < 8


def test_a_fork_bomb_stays_small_and_ends():
    bomb = "import os, time\nfor _ in range(200):\n    try:\n        os.fork()\n    except OSError:\n        break\ntime.sleep(30)"
    began = time.monotonic()
    assert not passes(bomb, TESTS, QUICK)
    assert not passes("import os\nwhile True:\n    os.fork()", TESTS, QUICK)
    assert time.monotonic() - began < 12
    user = "nobody" if os.geteuid() == 0 else str(os.geteuid())
    listed = subprocess.run(
        ["ps", "-u", user, "-o", "args="], capture_output=True, text=True, check=False
    )
    assert "in_sandbox" not in listed.stdout
    assert "_RESTRICT_SELF" not in listed.stdout


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd').read()",
        "import os\nos.listdir('/')",
        "import os\nos.listdir('/proc')",
        "open('/tmp/left-behind', 'w').write('x')",
        "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
        "import socket\nsocket.getaddrinfo('example.org', 80)",
        "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'], check=True)",
        "import os\nos.kill({parent}, 0)",
        "import os\nassert not set(os.environ) & {{'HOME', 'PATH', 'OPENAI_API_KEY'}}; raise OSError",
        "import ctypes\nassert ctypes.CDLL(None).setuid(0) == 0",
        "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (500, 500))",
    ],
)
def test_files_network_processes_and_secrets_are_out_of_reach(
    attempt: str, monkeypatch: pytest.MonkeyPatch
):
    """Right code passes only where the attempt before it raised."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        inside = attempt.format(port=listening.getsockname()[1], parent=os.getpid())
        body = "\n    ".join(inside.split("\n"))
        reply = (
            f"try:\n    {body}\nexcept Exception:\n    {RIGHT.replace(chr(10), chr(10) + '    ')}"
        )
        assert passes(reply, TESTS, QUICK)
    assert not Path("/tmp/left-behind").exists()


def test_nothing_is_left_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    tmp_path.chmod(0o755)
    passes(f"open('notes.txt', 'w').write('x')\n{RIGHT}", TESTS, QUICK)
    assert list(tmp_path.iterdir()) == []


def test_code_is_what_is_fenced():
    assert code_in("x = 1") == "x = 1"
    assert code_in("```python\nx = 1\n```\ntext\n~~~\n") == "x = 1\n"
