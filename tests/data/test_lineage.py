"""Every data set of a run is an MLflow input that names the bytes, by DVC's digest, and fetches them."""

import json
import subprocess
from pathlib import Path

import pytest

from routerr1.data.lineage import DvcSource, inputs
from routerr1.data.splits import write_questions
from routerr1.errors import DataError
from routerr1.files import digest
from routerr1.tracking.store import open_client
from tests.data.conftest import worded

MD5 = "d41d8cd98f00b204e9800998ecf8427e.dir"


def test_each_data_set_is_an_input_with_digest_schema_and_rows(mlflow_store: Path) -> None:
    import mlflow

    folder = Path("data/questions")
    write_questions(folder, [*worded(10), *worded(5, seed=2, dataset="other")])
    Path("dvc.lock").write_text(
        f"stages: {{dataset: {{outs: [{{path: data/questions, md5: {MD5}}}]}}}}"
    )
    client = open_client()
    run = client.create_run(client.create_experiment("data"))
    client.log_inputs(run.info.run_id, inputs(folder, "training"))
    logged = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert {entry.dataset.name: entry.dataset.digest for entry in logged} == {
        "mine": MD5,
        "other": MD5,
    }
    assert {(tag.key, tag.value) for tag in logged[0].tags} == {("mlflow.data.context", "training")}
    mine = next(entry.dataset for entry in logged if entry.dataset.name == "mine")
    assert json.loads(mine.profile)["train"]["rows"] == 6  # three in five of ten
    assert "golden_answers" in mine.schema
    source = mlflow.data.get_source(mine)
    assert isinstance(source, DvcSource)
    assert (source.path, source.digest) == ("data/questions", MD5)
    assert mlflow_store.is_dir()


def test_anything_else_is_one_input_by_its_path(mlflow_store: Path) -> None:
    report = mlflow_store / "report"
    report.mkdir()
    (report / "index.html").write_text("<p>")
    (one,) = inputs(report, "evaluation")
    assert (one.dataset.name, one.dataset.source_type) == (report.as_posix(), "dvc")


@pytest.mark.filterwarnings(
    "ignore:_NoneStep.value will soon:DeprecationWarning"
)  # pygtrie, by DVC
def test_a_logged_version_can_be_fetched_after_the_data_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q", "."], check=True)
    for key, value in (("user.name", "t"), ("user.email", "t@example.org")):
        subprocess.run(["git", "config", key, value], check=True)
    with Repo.init() as repo:
        write_questions(Path("questions"), worded(10))
        before = digest(Path("questions"))
        repo.add("questions")
        subprocess.run(["git", "add", "questions.dvc"], check=True)
        subprocess.run(["git", "commit", "-qm", "first"], check=True)
        write_questions(Path("questions"), worded(20))
    source = DvcSource("questions", MD5, commit="HEAD")
    assert digest(Path(source.load("fetched"))) == before
    with pytest.raises(DataError, match="nothing at HEAD"):
        DvcSource("nothing", MD5, commit="HEAD").load("absent")
