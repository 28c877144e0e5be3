import asyncio
from dataclasses import replace

import pytest

from routerr1.evaluate.pareto import fronts, fronts_markdown
from routerr1.evaluate.run import evaluate
from routerr1.evaluate.sweep import compare_swept, swept_name, write_swept


def test_equal_quality_and_equal_cost_by_hand():
    # Ours costs 2 at .8: on the line from (0, 0), .4 costs 1; for 3 dollars it stays at .8.
    found = fronts([(2.0, 0.8)], {"dear": (3.0, 0.4), "better": (4.0, 0.9)})
    dear, better = found["equal"]
    assert (dear["our_cost_usd"], dear["our_em"]) == (pytest.approx(1.0), pytest.approx(0.8))
    assert better["our_cost_usd"] is None
    # Ours alone up to 4: triangle 2 * .8 / 2 = .8, then 2 * .8 = 1.6; 2.4 / 4 = .6.
    assert found["area_of_us_alone"] == pytest.approx(0.6)
    assert found["area"] >= found["area_without_us"]
    assert "not reached" in fronts_markdown(found)


def test_when_nobody_pays_there_is_no_area_and_no_crash():
    found = fronts([(0.0, 0.1)], {"other": (0.0, 0.0)})
    assert (found["area"], found["equal"][0]["our_em"]) == (0.0, 0.1)


def test_swept_policies_are_one_front_among_the_rivals(stage, tmp_path):
    rows = asyncio.run(
        evaluate({1: stage.policy}, stage.pool, stage.test, stage.validation, **stage.settings())
    ).rows
    policy = [row for row in rows if row.router == "policy"]
    free = [row for row in rows if row.router == "no_call"]
    swept = [replace(row, router=swept_name(0.0)) for row in policy]
    swept += [replace(row, router=swept_name(0.9)) for row in free]
    found = compare_swept(swept, rows, stage.params)
    assert found["swept"] == ["alpha=0", "alpha=0.9"]
    names = [entry["router"] for entry in found["routers"]]
    assert "policy" not in names
    assert {"alpha=0", "alpha=0.9", "oracle", "random"} < set(names)
    rivals = set(names) - set(found["swept"]) - {"oracle"}
    assert {row["router"] for row in found["fronts"]["equal"]} == rivals
    write_swept(tmp_path, swept, found)
    assert "alpha=0.9" in (tmp_path / "pareto.svg").read_text()
    assert "| alpha=0.9 |" in (tmp_path / "sweep.md").read_text()
