"""What the watch finds, its events for Prefect, and when it stops sending them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from routerr1.config import Params, load_params
from routerr1.data import imported
from routerr1.data.embedded import World
from routerr1.data.splits import read_questions, write_questions
from routerr1.errors import RegistryError
from routerr1.flows.params import set_values
from routerr1.lineage import PATHS
from routerr1.pool.cards import read_cards, write_cards
from routerr1.registry import promotion, versions
from routerr1.registry.versions import Version
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from routerr1.tracking.store import file_lock
from routerr1.types import SPLITS
from tests.chain import make_outputs
from tests.flows.conftest import Artifacts, Told
from tests.servers import write_pool_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect", "chain"),
]
PARAMS, POOL_FILE = Path("params.yaml"), Path("pools/pool.yaml")


def another_price() -> None:
    text = POOL_FILE.read_text()
    price = next(line for line in text.splitlines() if "completion_usd_per_mtok" in line)
    POOL_FILE.write_text(text.replace(price, f"{price}9", 1))


def test_a_changed_price_is_told_until_a_retrain_has_taken_it_in(told: Told) -> None:
    from routerr1.flows.pipeline import retrain
    from routerr1.flows.triggers import POOL_CHANGED
    from routerr1.flows.watch import watch_changes

    write_pool_file(POOL_FILE, "http://127.0.0.1:9", default_candidates())
    set_values(PARAMS, {"pool.file": str(POOL_FILE)})
    assert watch_changes() == []  # nothing to compare with yet
    another_price()
    assert watch_changes() == [POOL_CHANGED]
    Path("made.yaml").write_text("{right: no number, cost: 0.001, size: 10}\n")
    assert retrain(return_state=True).is_failed()
    assert watch_changes() == [POOL_CHANGED]
    make_outputs()
    retrain(promote=False)
    assert watch_changes() == []
    assert told(POOL_CHANGED, 2) == ["seen by watch-changes"] * 2
    set_values(PARAMS, {"pool.budget.run_usd": 5})
    assert watch_changes() == []  # more money is no other pool


def test_what_changes_while_a_retrain_runs_is_left_to_the_next() -> None:
    from routerr1.flows.pipeline import retrain
    from routerr1.flows.triggers import DATA_CHANGED
    from routerr1.flows.watch import watch_changes

    text = PARAMS.read_text()
    Path("make.py").write_text(
        Path("make.py").read_text()
        + "text = Path('params.yaml').read_text()\n"
        + "Path('params.yaml').write_text(text.replace('seed: 42', 'seed: 43'))\n"
    )
    retrain(promote=False)
    assert PARAMS.read_text() != text
    assert watch_changes() == [DATA_CHANGED]


def test_other_data_are_told_too(told: Told) -> None:
    from routerr1.flows.triggers import DATA_CHANGED
    from routerr1.flows.watch import watch_changes

    watch_changes()
    set_values(PARAMS, {"dataset.seed": 43})
    assert watch_changes() == [DATA_CHANGED]
    told(DATA_CHANGED, 1)


def test_imported_questions_are_told_by_the_list_that_dvc_goes_by() -> None:
    from routerr1.flows.triggers import DATA_CHANGED
    from routerr1.flows.watch import watch_changes

    mine, report = Path("mine/mine.parquet"), Path("data/imported/mine.refused.jsonl")
    for file in (mine, report):
        file.parent.mkdir()
        file.write_text("one")
    imported.remember(mine)
    watch_changes()
    report.write_text("two")  # no stage reads it
    assert watch_changes() == []
    mine.write_text("two")
    assert watch_changes() == []  # the stages refuse it until it is imported
    imported.remember(mine)
    assert watch_changes() == [DATA_CHANGED]


def test_without_a_champion_there_is_nothing_to_watch() -> None:
    from routerr1.flows.watch import evaluate_champion

    with pytest.raises(RegistryError, match="'routerr1': has no champion to watch"):
        evaluate_champion()


def test_while_a_retrain_rewrites_the_data_nothing_is_compared(chain: Params) -> None:
    from routerr1.flows.watch import evaluate_champion

    versions.register(chain)
    promotion.promote(chain)
    with file_lock("pipeline", timeout_s=1):
        state = evaluate_champion(wait_s=0.1, return_state=True)
    assert state.is_cancelled()
    assert state.message == "a retrain is under way"


def test_the_champion_reads_its_own_cards_whatever_a_later_retrain_wrote(champion: Version) -> None:
    from routerr1.flows.replay import questions_of, replay

    params = load_params()
    judged = versions.read_version_evidence(champion).samples
    chosen = questions_of(params, {play.content for play in judged})
    cards = read_cards(PATHS.cards)
    others = [
        replace(card, performance={topic: 1 - known for topic, known in card.performance.items()})
        for card in cards
    ]
    write_cards(PATHS.cards, others)
    played = {play.question_id: play for play in replay(params, champion, chosen)}
    assert played == {play.question_id: replace(play, pool="replay") for play in judged}


@pytest.mark.usefixtures("champion")
def test_other_questions_of_the_same_ids_measure_neither_champion_nor_candidates(
    artifacts: Artifacts,
) -> None:
    from routerr1.flows.watch import evaluate_champion

    every = [q for split in SPLITS for q in read_questions(PATHS.questions, split)]
    others = [replace(question, golden_answers=("another",)) for question in every]
    write_questions(PATHS.questions, others)
    assert evaluate_champion() is True
    told = "| champion cost in USD | nan | nan | **moved** | could not be measured |"
    assert told in artifacts["drift"]
    assert artifacts["drift"].count("**moved**") == 2  # the other is its exact match


@pytest.fixture
def served(world: World) -> Iterator[str]:
    """The candidates that the champion was judged on, over HTTP; gives the server's address."""
    pool = SimulatedPool(default_candidates(), known_facts(world), seed=7)
    with serving(build_app(pool, time_scale=0)) as url:
        write_pool_file(POOL_FILE, url, default_candidates())
        yield url


def over_http() -> None:
    # A loopback server answers faster than the simulation says it would.
    set_values(
        PARAMS,
        {"pool.kind": "http", "pool.file": str(POOL_FILE), "watch.max_latency_ratio": 1e6},
    )


def priced(url: str, times: float) -> None:
    candidates = [
        replace(
            each,
            prompt_usd_per_mtok=each.prompt_usd_per_mtok * times,
            completion_usd_per_mtok=each.completion_usd_per_mtok * times,
        )
        for each in default_candidates()
    ]
    write_pool_file(POOL_FILE, url, candidates)


@pytest.mark.usefixtures("champion")
def test_drift_is_told_until_a_retrain_answers_it_and_again_once_it_has_moved_on(
    served: str, told: Told, artifacts: Artifacts
) -> None:
    from routerr1.flows.pipeline import retrain
    from routerr1.flows.triggers import DRIFT
    from routerr1.flows.watch import evaluate_champion

    over_http()
    assert evaluate_champion() is False
    assert artifacts["drift"].startswith("# Watch: no drift")
    priced(served, 3)
    assert evaluate_champion() is True
    retrain(
        promote=False
    )  # as on every night: no candidate is profiled again, no change is acknowledged
    assert evaluate_champion() is True
    retrain(trigger=DRIFT, promote=False)
    assert evaluate_champion() is False
    priced(served, 9)
    assert evaluate_champion() is True
    priced(served, 1)
    assert evaluate_champion() is True
    assert told(DRIFT, 4) == ["champion cost in USD"] * 4


@pytest.mark.usefixtures("champion", "served")
def test_a_candidate_that_answers_nothing_is_drift(told: Told, artifacts: Artifacts) -> None:
    from routerr1.flows.triggers import DRIFT
    from routerr1.flows.watch import evaluate_champion

    content = yaml.safe_load(POOL_FILE.read_text())
    content["endpoints"]["dead"] = {"base_url": "http://127.0.0.1:9/v1", "max_tries": 1}
    content["candidates"][0]["endpoint"] = "dead"
    POOL_FILE.write_text(yaml.safe_dump(content))
    over_http()
    assert evaluate_champion() is True
    name = default_candidates()[0].name
    page = artifacts["drift"]
    assert f"| {name} latency, s | nan | nan | **moved** | no call was answered |" in page
    assert f"{name} latency" in told(DRIFT, 1)[0]
    kept = Path("runs/watch/drift.md").read_text()
    assert page.startswith(kept)
    assert " is champion; " in kept


def test_a_candidate_that_is_gone_is_told_until_a_retrain_knows(
    champion: Version, served: str, told: Told, artifacts: Artifacts
) -> None:
    from routerr1.flows.pipeline import retrain
    from routerr1.flows.replay import questions_of, replay
    from routerr1.flows.triggers import DRIFT, POOL_CHANGED
    from routerr1.flows.watch import evaluate_champion

    first, *others = default_candidates()
    write_pool_file(POOL_FILE, served, others)
    over_http()
    assert evaluate_champion() is True
    page = artifacts["drift"]
    assert page.startswith("# Watch: drift")
    assert f"| {first.name} | nan | nan | **moved** | no longer in the pool |" in page
    assert page.count("**moved**") == 1  # of the others nothing has changed
    assert "| champion" not in page  # it cannot be played
    params = load_params()
    with pytest.raises(
        RegistryError, match=rf"version 1 .* the pool lacks {first.name}; `routerr1"
    ):
        replay(params, champion, questions_of(params))
    retrain(trigger=POOL_CHANGED, promote=False)
    assert evaluate_champion() is False
    assert "no longer in the pool, as the last retrain knew" in artifacts["drift"]
    assert told(DRIFT, 1) == [first.name]
