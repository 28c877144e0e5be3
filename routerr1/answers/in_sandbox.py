"""What runs inside the sandbox: it gives up its rights, runs a candidate's code, then the tests of the task.

This file is handed to a bare interpreter as text, so it imports the standard library alone. `sandbox` starts it.
"""

import ctypes
import json
import os
import resource
import struct
import sys
import sysconfig

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # of Landlock, on every architecture
_NO_NEW_PRIVILEGES = 38
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # Landlock's version -> its bits; newer ones have 16
_EXECUTE, _READ_FILE, _READ_DIRECTORY = 1 << 0, 1 << 2, 1 << 3
_NEEDED = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/zero")
_MOST_FILE_BYTES = 1_000_000
_MOST_FILES = 64
_MOST_PROCESSES = 16


def limit(time_s: int, memory_mb: int) -> None:
    """Bound CPU, memory, files and processes of this process and its children."""
    for kind, most in (
        (resource.RLIMIT_CPU, time_s),
        (resource.RLIMIT_AS, memory_mb * 2**20),
        (resource.RLIMIT_FSIZE, _MOST_FILE_BYTES),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
        (resource.RLIMIT_NPROC, _MOST_PROCESSES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def confine(folder: str) -> None:
    """Leave this process its own folder and the standard library (Landlock).

    Raises: OSError where the kernel has no Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(*arguments: object) -> int:
        found = int(libc.syscall(*arguments))
        if found < 0:
            raise OSError(ctypes.get_errno(), "Landlock")
        return found

    version = call(_CREATE_RULESET, None, 0, 1)
    every = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    rules = call(_CREATE_RULESET, struct.pack("Q", every), 8, 0)

    def allow(path: str, rights: int) -> None:
        if not os.path.exists(path):  # noqa: PTH110 - pathlib is slow to import
            return
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        call(_ADD_RULE, rules, 1, struct.pack("=Qi", rights & every, beneath), 0)
        os.close(beneath)

    for path in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *_NEEDED):
        allow(path, _EXECUTE | _READ_FILE | _READ_DIRECTORY)
    for path in _DEVICES:
        allow(path, _READ_FILE | 1 << 1)
    allow(folder, every & ~_EXECUTE)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def main() -> None:
    """Read the job from standard input; write its word to the result's descriptor if all tests pass."""
    job = json.loads(sys.stdin.read())
    word, result = job.pop("word"), int(job["result"])
    os.close(0)
    os.open("/dev/null", os.O_RDONLY)
    if job["confined"]:
        confine(os.getcwd())  # noqa: PTH109 - pathlib would be imported for this alone
    limit(job["time_s"], job["memory_mb"])
    compiled = [compile(test, f"test {place}", "exec") for place, test in enumerate(job["tests"])]
    names: dict[str, object] = {"__name__": "answer"}
    exec(compile(job["code"], "answer", "exec"), names)
    for test in compiled:
        exec(test, names)
    os.write(result, word.encode())


if __name__ == "__main__":
    main()
    os._exit(0)  # threads and exit handlers of the code have no say
