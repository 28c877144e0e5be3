"""What unfinished work depends on."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
import yaml

from routerr1.config import Params
from routerr1.errors import DataError
from routerr1.lineage import code_digest, sections, stage_inputs

PACKAGE = Path(__file__).parents[1] / "routerr1"


def test_a_digest_of_code_takes_files_and_folders() -> None:
    roots = [PACKAGE / "train", PACKAGE / "reward.py"]
    some = code_digest(roots)
    assert len({some, code_digest([PACKAGE]), *(code_digest([root]) for root in roots)}) == 4
    assert some == code_digest(roots[::-1])


def test_a_stage_depends_on_what_dvc_yaml_lists(params: Params, tmp_path: Path) -> None:
    file = tmp_path / "dvc.yaml"
    file.write_text(
        "stages:\n"
        "  train: {cmd: x, deps: [data/questions, routerr1/reward.py], params: [seeds, reward, train.steps]}\n"
        "  own: {cmd: x}\n"
    )
    found = stage_inputs("train", params, file)
    assert found["code"] == code_digest([PACKAGE / "reward.py"])
    assert found["params"] == sections(params, "reward", "train")


def test_a_stage_without_a_list_depends_on_everything(params: Params, tmp_path: Path) -> None:
    file = tmp_path / "dvc.yaml"
    missing = stage_inputs("train", params, file)
    assert missing["code"] == code_digest([PACKAGE])
    assert missing["params"].keys() == {
        name for name in Params.model_fields if name not in ("preset", "seeds", "max_rejected")
    }
    file.write_text("stages: {own: {cmd: x}}")
    assert stage_inputs("train", params, file) == missing
    file.write_text("stages: {train: {cmd: x, deps: [data/questions]}}")
    assert stage_inputs("train", params, file) == missing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stages: {train: {deps: [routerr1/no.py]}}", r"routerr1/no\.py: not found; correct .* dvc\.yaml"),
        ("stages: {train: train.py}", r"dvc\.yaml: stages: must map names"),
        ("stages: [train]", r"dvc\.yaml: stages: must map names"),
    ],
)  # fmt: skip
def test_a_broken_list_is_an_error(
    params: Params, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "dvc.yaml"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        stage_inputs("train", params, file)


# What stages import although it does not decide their results.
EXEMPT = {
    "config.py": "dvc.yaml lists the parameters themselves",
    "data/card.py": "describes data that MLflow logs",
    "data/benchmarks.py": "names sources of data that MLflow logs",
    "data/contracts.py": "finds broken rows, and changes no other",
    "data/lineage.py": "describes data that MLflow logs",
    "data/sources.py": "names sources of data that MLflow logs",
    "data/splits.py": "reads and writes files of questions",
    "errors.py": "messages",
    "files.py": "reads and writes files",
    "jobs": "shows progress, and puts broken rows aside",
    "lineage.py": "names files and digests them",
    "pool": "asks candidates; the stage profile lists it, and its cards come before all else",
    "tracking": "talks to MLflow",
    "train/checkpoint.py": "reads and writes checkpoints",
    "types.py": "values without behaviour",
    "workspace.py": "opens what the parameters name",
}
_RESULTS_ONLY = "the report reads results, and plays nothing"
_NO_POLICY = "the workspace could load a policy, which this stage does not"
_TEXT = "writes the results as Markdown; rows and JSON do not depend on it"
EXEMPT_IN = {
    "evaluate": {"report": _TEXT},
    "generalize": {
        "report": _TEXT,
        "reward.py": "imported only for the cost scale that a checkpoint stores",
    },
    "profile": dict.fromkeys(
        ("baselines", "policy", "prompt.py", "protocol.py", "reward.py", "rollout"), _NO_POLICY
    ),
    "report": dict.fromkeys(
        (
            "answers", "baselines", "data/embedded.py", "matching.py", "prompt.py", "protocol.py",
            "rollout", "simulation",
        ),
        _RESULTS_ONLY,
    ),
}  # fmt: skip


@cache
def _imports(file: Path) -> set[Path]:
    """The package's files that a file imports, in functions too, but not under TYPE_CHECKING."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    found: set[Path] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in typing or node.module is None:
            continue
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
            path = PACKAGE.parent / name.replace(".", "/")
            found |= {
                each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()
            }
    return {each for each in found if PACKAGE in each.parents}


def _closure(stage: str) -> set[str]:
    """Every file that a stage imports, directly or not, relative to the package; empty packages left out."""
    seen: set[Path] = set()
    waiting = [PACKAGE / f"stages/{stage}.py"]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _imports(file)
    return {each.relative_to(PACKAGE).as_posix() for each in seen if each.name != "__init__.py"}


STAGES = yaml.safe_load((PACKAGE.parent / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_lists_the_code_that_a_stage_imports(stage: str) -> None:
    listed = {
        dep.removeprefix("routerr1/")
        for dep in STAGES[stage]["deps"]
        if dep.startswith("routerr1/")
    }
    exempt = EXEMPT.keys() | EXEMPT_IN.get(stage, {}).keys()

    def covered(file: str, by: Iterable[str]) -> bool:
        return any(file == each or file.startswith(f"{each}/") for each in by)

    imported = _closure(stage)
    assert sorted(file for file in imported if not covered(file, listed | exempt)) == []
    assert (
        sorted(each for each in listed if not any(covered(file, [each]) for file in imported)) == []
    )
    assert sorted(each for each in listed if not (PACKAGE / each).exists()) == []


@pytest.mark.slow
def test_dvc_reads_one_pipeline_in_the_repository() -> None:
    """The files that `routerr1 init` copies look like a pipeline, and DVC reads all that it finds."""
    shown = subprocess.run(
        [sys.executable, "-m", "dvc", "params", "diff"],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "unable to read" not in shown.stderr


def test_every_exempt_module_is_imported_by_a_stage() -> None:
    imported = set().union(*map(_closure, STAGES))
    assert [
        each for each in EXEMPT if not any(f"{file}/".startswith(f"{each}/") for file in imported)
    ] == []


def test_imports_within_functions_count(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from routerr1 import reward\n"
        "def work():\n    from routerr1.matching import normalise\n    from routerr1 import prompt\n"
    )
    names = {each.relative_to(PACKAGE).as_posix() for each in _imports(file)}
    assert names == {"__init__.py", "matching.py", "prompt.py"}
