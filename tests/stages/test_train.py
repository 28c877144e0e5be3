"""What the stages check first, what they keep after a kill, and what they ask again."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from routerr1.config import Params
from routerr1.data.embedded import World
from routerr1.data.splits import write_questions
from routerr1.errors import CheckpointError, ConfigError, DataError, PoolError, RouterError
from routerr1.evaluate.rows import read_rows
from routerr1.lineage import PATHS
from routerr1.pool.cards import read_cards, write_cards
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from routerr1.stages.dataset import dataset
from routerr1.stages.generalize import generalize
from routerr1.stages.profile import profile
from routerr1.stages.train import read_inputs, train, training_context
from routerr1.stages.warmstart import warmstart
from routerr1.tracking.store import open_client
from routerr1.types import Question
from routerr1.workspace import Workspace
from tests.folder import make_folder
from tests.servers import write_pool_file


@pytest.fixture(scope="module")
def made(
    small_policy: Path, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder in which training can start."""
    folder = tmp_path_factory.mktemp("stages") / "made"
    params = make_folder(folder, small_policy, mlflow_template, {"profile_pool": {"probes": 6}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        dataset(params)
        profile(params)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The test's own copy of it, as working folder; gives the parameters."""
    from routerr1.config import load_params

    # MLflow sets the variable itself; set first, so that its removal is undone too.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return load_params()


def changed(params: Params, section: str, **values: Any) -> Params:
    found = getattr(params, section).model_copy(update=values)
    return params.model_copy(update={section: found})


def only(*splits: str) -> Callable[[Params], Params]:
    """Leaves the questions of these splits."""

    def change(params: Params) -> Params:
        every = Workspace(params).all_questions()
        kept = [question for question in every if question.split in splits]
        shutil.rmtree(PATHS.questions)
        write_questions(PATHS.questions, kept)
        return params

    return change


def damaged(params: Params) -> Params:
    weights = PATHS.warmstart / "seed-1" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return params


def without(path: Path) -> Callable[[Params], Params]:
    def change(params: Params) -> Params:
        path.unlink()
        return params

    return change


@contextmanager
def interrupted_at(message: str) -> Iterator[None]:
    """Ctrl+C once the package logs what begins with `message`."""

    class Interrupting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(message):
                raise KeyboardInterrupt

    handler, logger = Interrupting(), logging.getLogger("routerr1")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (damaged, CheckpointError, r"seed-1/model\.safetensors: is corrupt; restore it with `dvc checkout`"),
        (without(PATHS.warmstart / "seed-1/routerr1.json"), CheckpointError, r"seed-1/routerr1\.json: cannot be read"),
        (without(PATHS.cards), PoolError, r"data/pool/cards\.json"),
        (without(PATHS.questions / "train.parquet"), DataError, r"train\.parquet"),
        (lambda params: changed(changed(params, "pool", redraw=0.0), "train", questions_per_step=1000), DataError,
         r"data/questions: holds \d+ training questions, and a step takes 1000 \(train\.questions_per_step\)"),
        (only("validation", "test"), DataError, "holds 0 training questions, and a step takes 4"),
        (only("train", "test"), DataError, "data/questions: holds no validation questions"),
        (lambda params: changed(params, "prompt", template="file", file=Path("no.txt")), ConfigError, "no.txt: cannot be read"),
    ],
)  # fmt: skip
def test_training_that_cannot_begin_leaves_no_trace(
    folder: Params, change: Callable[[Params], Params], error: type[RouterError], told: str
) -> None:
    params = change(folder)
    with pytest.raises(error, match=told):
        train(params)
    assert not PATHS.run.exists()
    assert not PATHS.other_policies.exists()
    client = open_client()
    assert client.search_experiments(filter_string="name = 'routerr1'") == []


def test_redrawn_pools_ask_the_few_training_questions_there_are_again_and_again(
    folder: Params,
) -> None:
    drawn = changed(changed(folder, "pool", redraw=1.0), "train", questions_per_step=1000)
    assert list(read_inputs(Workspace(drawn))) == [1]
    with pytest.raises(DataError, match="holds 0 training questions"):
        read_inputs(Workspace(only("validation")(drawn)))


def test_shares_of_calls_are_logged_by_name_as_long_as_some_are_made_on_the_own_pool(
    folder: Params,
) -> None:
    names = [card.name for card in read_cards(PATHS.cards)]
    for redraw, wanted in ((0.0, names), (0.5, names), (1.0, [])):
        params = changed(folder, "pool", redraw=redraw)
        pool = Workspace(params).open_pool(read_cards(PATHS.cards))
        assert training_context(Workspace(params), pool, 1).names == wanted


def test_on_a_pool_of_one_candidate_nothing_is_generalized_and_a_line_says_why(
    folder: Params, caplog: pytest.LogCaptureFixture
) -> None:
    (only_one, *_) = read_cards(PATHS.cards)
    write_cards(PATHS.cards, [only_one])
    shutil.copytree(PATHS.warmstart / "seed-1", PATHS.policy)
    PATHS.other_policies.mkdir()
    generalize(folder)
    assert "the pool has one candidate, so nothing is played" in caplog.text
    assert json.loads((PATHS.generalize / "metrics.json").read_text()) == {}
    assert read_rows(PATHS.generalize / "rows.parquet") == []  # as a version's evidence reads it


def test_a_warm_start_without_validation_questions_does_not_begin(
    folder: Params,
) -> None:
    params = only("train", "test")(folder)
    with pytest.raises(DataError, match="has no validation questions, which judge the warm start"):
        warmstart(params)
    assert not PATHS.warmstarted.exists()


@pytest.mark.slow
def test_seeds_that_are_warm_started_outlive_a_kill_in_a_later_one(
    folder: Params, caplog: pytest.LogCaptureFixture
) -> None:
    params = changed(folder, "warmstart", steps=2, batch_size=4)
    params = params.model_copy(update={"seeds": (1, 2, 3)})
    before = (PATHS.warmstart / "seed-1/model.safetensors").read_bytes()
    with interrupted_at("warm start, seed 2: 0% of the sampled"), pytest.raises(KeyboardInterrupt):
        warmstart(params)
    assert (PATHS.warmstart / "seed-1/model.safetensors").read_bytes() == before
    # A damaged one is made again.
    (kept,) = PATHS.warmstarted.glob("*-seed-2")
    (kept / "config.json").write_text("{}")
    with caplog.at_level(logging.INFO, logger="routerr1"):
        warmstart(params)
    assert "warm start, seed 1: was done before" in caplog.messages
    made = [said for said in caplog.messages if re.search(r"seed \d: \d+ s$", said)]
    assert [said[: len("warm start, seed 2")] for said in made] == [
        "warm start, seed 2",
        "warm start, seed 3",
    ]
    metrics = json.loads(Path("data/warmstart/results.json").read_text())
    assert [metrics[f"seed_{seed}"]["vocabulary"] > 300 for seed in params.seeds] == [True] * 3
    assert {path.name for path in PATHS.warmstart.iterdir()} == {"seed-1", "seed-2", "seed-3"}
    assert not PATHS.warmstarted.exists()
    # Two steps do not teach the format, and each of the three that ended logs it.
    told = "0% of the sampled trajectories keep the format"
    assert sum(told in message for message in caplog.messages) == 3


def test_other_parameters_do_not_take_up_a_warm_start(folder: Params) -> None:
    seen = []
    for params in (
        folder,
        changed(folder, "warmstart", steps=folder.warmstart.steps + 1),
        changed(folder, "rollout", max_rounds=3),
    ):
        seen.append(Workspace(params).inputs("warmstart"))
    assert len({json.dumps(parts, sort_keys=True) for parts in seen}) == 3
    assert Workspace(folder).inputs("warmstart") == seen[0]
    assert Workspace(only("train", "validation")(folder)).inputs("warmstart") != seen[0]


def test_after_a_change_of_the_pool_file_no_recorded_probe_answers(
    params: Params,
    rows: list[Question],
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_questions(PATHS.questions, rows)
    file = Path("pools/pool.yaml")
    before = default_candidates()[:1]
    after = [replace(each, prompt_usd_per_mtok=each.prompt_usd_per_mtok * 2) for each in before]
    over_http = {"kind": "http", "file": file}
    params = params.model_copy(
        update={
            "pool": params.pool.model_copy(update=over_http),
            "profile_pool": params.profile_pool.model_copy(update={"probes": 6}),
        }
    )

    def costs() -> list[float]:
        profile(params)
        return list(pd.read_parquet(PATHS.matrix)["cost_usd"])

    app = build_app(SimulatedPool(before, known_facts(world), seed=1), time_scale=0)
    with serving(app) as url:
        write_pool_file(file, url, before)
        first = costs()
    with serving(app) as url:
        write_pool_file(file, url, after)
        again = costs()
    assert all(new > old for new, old in zip(again, first, strict=True))
