"""Run a command so that it never outlives who started it: `python -m routerr1.flows.supervise COMMAND ...`

The command gets a process group of its own. It is ended, with everything it started, when the command
ends or dies, or when this process's standard input closes, which it does however the parent ends:
`kill -9` included. Only the standard library is imported, to start in a few hundredths of a second.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 10.0  # between asking the group to end and killing it


def main() -> int:
    """Supervise the command in `sys.argv`; its exit status, or 128 + signal."""
    # The parent decides when to stop, by closing the pipe; a terminal's Ctrl-C reaches it as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    command = subprocess.Popen(
        sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_default_signals
    )
    threading.Thread(target=_end_with_parent, args=(command.pid,), daemon=True).start()
    status = command.wait()
    _end_group(command.pid)
    return status if status >= 0 else 128 - status


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_with_parent(group: int) -> None:
    while os.read(0, 4096):
        pass
    _end_group(group)


def _end_group(group: int) -> None:
    """SIGTERM, then after the grace SIGKILL, to every process of the group."""
    deadline = time.monotonic() + GRACE_S
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
