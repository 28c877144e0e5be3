"""Run a command that never outlives its parent: `python -m routerr1.flows.supervise COMMAND ...`

The command gets its own process group. The group ends when the command ends, or when the standard input of
this process closes, which happens however the parent ends, `kill -9` included. Only the standard library
is imported, so the start takes a few hundredths of a second.
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
    """Supervise the command in `sys.argv`; returns its exit status, or 128 + signal."""
    # The parent stops this process by closing the pipe; a Ctrl-C of the terminal reaches the parent too.
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
    """Send SIGTERM to every process of the group, and SIGKILL after the grace period."""
    deadline = time.monotonic() + GRACE_S
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
