"""Dockerfile, compose.yaml, dev container and workflows, checked as far as it goes without Docker."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, (keyword, rest), continued lines joined and comments dropped."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
    words = (line.split(None, 1) for line in text.replace("\\\n", " ").splitlines())
    return [(keyword, rest) for keyword, rest in words]


@cache
def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions by stage; a stage includes those of the stage that it starts from."""
    found: dict[str, list[tuple[str, str]]] = {}
    for keyword, rest in instructions():
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = list(found.get(base, []))
        elif found:
            found[list(found)[-1]].append((keyword, rest))
    return found


@cache
def help_of(*command: str) -> str:
    program = BIN / command[0]
    done = subprocess.run(
        [program, *command[1:], "--help"], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("stage", stages())
def test_every_stage_ends_as_another_user_than_root(stage: str):
    users = [rest for keyword, rest in stages()[stage] if keyword == "USER"]
    assert users[-1:] == ["routerr1"]


def test_dockerfile_copies_files_that_exist():
    copied = [rest.split() for keyword, rest in instructions() if keyword == "COPY"]
    assert copied
    for words in copied:
        *sources, _ = [word for word in words if not word.startswith("--")]
        stage = next((word[7:] for word in words if word.startswith("--from=")), None)
        assert stage is None or stage in stages(), stage
        assert stage or all((ROOT / source).exists() for source in sources), sources


@pytest.mark.parametrize(
    "text",
    [(ROOT / "Dockerfile").read_text(encoding="utf-8")]
    + [path.read_text(encoding="utf-8") for path in WORKFLOWS],
)
def test_installed_extras_exist(text: str):
    named = re.findall(r"\.\[([a-z,]+)\]", text) + re.findall(r"^ARG EXTRAS=(\S+)", text, re.M)
    assert named
    assert {extra for group in named for extra in group.split(",")} <= EXTRAS.keys()


def test_dev_container_builds_a_stage_of_the_dockerfile():
    path = ROOT / ".devcontainer" / "devcontainer.json"
    build = json.loads(path.read_text(encoding="utf-8"))["build"]
    assert (path.parent / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert build["target"] in stages()


@pytest.mark.parametrize(
    "name", [name for name, each in COMPOSE["services"].items() if "command" in each]
)
@pytest.mark.slow
def test_compose_commands_and_their_options_exist(name: str):
    words = COMPOSE["services"][name]["command"]
    command = [word for word in words if not word.startswith("--")]
    listed = help_of(*command)
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert option in listed, f"{' '.join(command)} has no option {option}"


def test_compose_publishes_ports_on_loopback_only():
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_worker_serves_the_work_pool_that_deployments_use():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    pools = {f"--pool={each['work_pool']['name']}" for each in deployments}
    assert pools <= set(COMPOSE["services"]["worker"]["command"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_commands_exist(workflow: Path):
    # Of the runner, installed by the step before, or of an extra that this environment may lack.
    external = {"docker", "pip-audit", "ruff", "mypy", "lint-imports", "mkdocs"}
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands
    for line in "\n".join(commands).splitlines():
        program = line.split()[0]
        assert program in external or (BIN / program).exists() or shutil.which(program), line


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_the_actions_that_they_use(workflow: Path):
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", each) for each in used), used


def test_workflow_covers_the_oldest_and_the_newest_supported_python():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
