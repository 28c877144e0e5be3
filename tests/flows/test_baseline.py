"""What the last retrain knew: kept, answered, and put aside with the champion it was about."""

from pathlib import Path

import pytest

from routerr1.errors import DataError
from routerr1.flows import baseline
from routerr1.flows.baseline import Look
from routerr1.flows.triggers import POOL_CHANGED

LOOK = Look(champion=3, figures={"set/q1": (1.0, 0.002)}, gone=("Mint",))


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_look_is_answered_by_a_retrain_that_took_the_drift_in() -> None:
    baseline.keep(LOOK)
    baseline.take_in({}, drift=False)
    assert baseline.answered(3) == Look(champion=3)
    baseline.take_in({}, drift=True)
    assert baseline.answered(3) == LOOK
    baseline.take_in({}, drift=True)  # nothing was found since: what is known stays known
    assert baseline.answered(3) == LOOK
    assert baseline.answered(4) == Look(champion=4)  # another champion, another baseline


def test_drift_that_went_away_is_not_answered() -> None:
    baseline.keep(LOOK)
    baseline.keep(None)
    baseline.take_in({}, drift=True)
    assert baseline.answered(3) == Look(champion=3)


def test_what_was_never_seen_has_not_changed() -> None:
    assert baseline.changed({POOL_CHANGED: "a"}) == []
    baseline.take_in({POOL_CHANGED: "a"}, drift=False)
    assert baseline.changed({POOL_CHANGED: "a"}) == []
    assert baseline.changed({POOL_CHANGED: "b"}) == [POOL_CHANGED]


def test_a_record_that_is_none_is_named() -> None:
    baseline.ANSWERED.parent.mkdir(parents=True)
    baseline.ANSWERED.write_text('{"champion": "first"}')
    with pytest.raises(DataError, match=r"answered\.json: is no record of a look; delete it"):
        baseline.answered(1)
