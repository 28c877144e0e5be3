"""The process: which addresses it takes, and how it ends."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from routerr1.errors import ConfigError
from routerr1.pool.cards import write_cards
from routerr1.serve.server import is_loopback, listen, raise_file_limit, require_keys
from routerr1.simulation.pool import SimulatedPool

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.3.2.1"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    require_keys(host, keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", "1270.0.0.1"])
def test_any_other_address_needs_a_key(host: str) -> None:
    require_keys(host, keys=True)
    with pytest.raises(ConfigError, match="there is no key; make one with `routerr1 keys add"):
        require_keys(host, keys=False)


def test_a_taken_port_is_named() -> None:
    taken = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port} .*; is it taken"):
        listen("127.0.0.1", port)
    taken.close()


def test_as_many_connections_are_taken_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_end(
    small_policy: Path, pool: SimulatedPool, tmp_path: Path
) -> None:
    for name in ("params.yaml", "presets"):
        target = tmp_path / name
        copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copied(ROOT / name, target)
    text = (tmp_path / "params.yaml").read_text().replace("preset: embedded", "preset: ci", 1)
    (tmp_path / "params.yaml").write_text(text)
    write_cards(tmp_path / "data/pool/cards.json", list(pool.cards))
    shutil.copytree(small_policy, tmp_path / "models/policy")
    command = [sys.executable, "-m", "routerr1.cli", "serve", "--policy", "models/policy"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "the candidates are simulated" in refused.stderr
    with subprocess.Popen(
        [*command, "--demo", "--port", "0", "--no-ui"], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        ready = httpx2.get(f"{url}/readyz", timeout=60).json()
        assert (ready["status"], ready["pool"]) == ("ready", "simulated")
        assert httpx2.get(url, timeout=60).status_code == 404
        paths = httpx2.get(f"{url}/openapi.json", timeout=60).json()["paths"]
        assert "/v1/chat/completions" in paths
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
