"""What unfinished work depends on."""

from pathlib import Path

import pytest

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
        name for name in Params.model_fields if name not in ("preset", "seeds")
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
