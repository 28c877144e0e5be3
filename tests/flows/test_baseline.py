"""What the last retrain knew: stored, acknowledged, and dropped with the champion it was about."""

from pathlib import Path

import pytest

from routerr1.errors import DataError
from routerr1.flows import baseline
from routerr1.flows.baseline import DriftReport
from routerr1.flows.triggers import POOL_CHANGED

LOOK = DriftReport(champion=3, figures={"set/q1": (1.0, 0.002)}, gone=("Mint",))


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_retrain_acknowledges_the_drift_that_a_look_found() -> None:
    baseline.keep(LOOK)
    baseline.acknowledge({}, drift=False)
    assert baseline.acknowledged(3) == DriftReport(champion=3)
    baseline.acknowledge({}, drift=True)
    assert baseline.acknowledged(3) == LOOK
    baseline.acknowledge({}, drift=True)  # nothing was found since: what is known stays known
    assert baseline.acknowledged(3) == LOOK
    assert baseline.acknowledged(4) == DriftReport(champion=4)  # another champion, another baseline


def test_drift_that_went_away_is_not_acknowledged() -> None:
    baseline.keep(LOOK)
    baseline.keep(None)
    baseline.acknowledge({}, drift=True)
    assert baseline.acknowledged(3) == DriftReport(champion=3)


def test_what_was_never_seen_has_not_changed() -> None:
    assert baseline.changed({POOL_CHANGED: "a"}) == []
    baseline.acknowledge({POOL_CHANGED: "a"}, drift=False)
    assert baseline.changed({POOL_CHANGED: "a"}) == []
    assert baseline.changed({POOL_CHANGED: "b"}) == [POOL_CHANGED]


def test_a_record_that_is_none_is_named() -> None:
    baseline.ACKNOWLEDGED.parent.mkdir(parents=True)
    baseline.ACKNOWLEDGED.write_text('{"champion": "first"}')
    with pytest.raises(DataError, match=r"acknowledged\.json: is no drift report; delete it"):
        baseline.acknowledged(1)
