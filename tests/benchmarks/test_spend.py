"""The table of spend levels, from rows that are counted by hand."""

import pytest

from benchmarks.spend import KNN, LEVELS, page, plot, summary
from routerr1.evaluate.controls import POLICY
from routerr1.evaluate.redrawn import CARDS
from tests.evaluate.made import row


def rows_at(level: int) -> list:
    """Two questions: the policy answers one more from level 5 on, and pays for it; the cards never do."""
    more = level >= 5
    return [
        row(router=router, question_id=f"q{place}", em=float(place == 0 or (rich and place == 1)),
            cost_usd=0.003 if rich else 0.001)
        for router, rich in ((POLICY, more), (CARDS, False), (KNN, False))
        for place in range(2)
    ]  # fmt: skip


def test_levels_and_areas_by_hand(tmp_path):
    found = summary({level: rows_at(level) for level in LEVELS}, 50)
    assert (found["n"], found["groups"]) == (2, 2)
    own = found["levels"][POLICY]
    assert [each["em"]["mean"] for each in own] == [0.5] * 5 + [1.0] * 6
    assert [each["usd_per_1000"] for each in own] == pytest.approx([1.0] * 5 + [3.0] * 6)
    assert found["cheapest_over_dearest_level"] == pytest.approx(1 / 3)
    # Up to 3 USD per 1000: the cards' front rises to .5 at 1 and stays, the policy's goes on to 1.0 at 3.
    assert found["area"] == pytest.approx(
        {POLICY: (0.25 + 2 * 0.75) / 3, **dict.fromkeys((CARDS, KNN), (0.25 + 2 * 0.5) / 3)}
    )
    for gap in found["area_difference"].values():
        assert gap["mean"] == pytest.approx(0.5 / 3)
        assert gap["low"] <= gap["mean"] <= gap["high"]
    assert set(found["area_difference"]) == {CARDS, KNN}
    text = page({"seeds": 1, "trained_levels": [10], **found})
    assert "| 5 | 1.000 [1.000, 1.000] | 3.0000 | " in text
    assert "from 0 to 3.0000 USD" in " ".join(text.split())
    assert "exact match falls at no level. Training sees level 10 only." in " ".join(text.split())
    plot(found, tmp_path / "spend.svg")
    assert "trained policy" in (tmp_path / "spend.svg").read_text(encoding="utf-8")
