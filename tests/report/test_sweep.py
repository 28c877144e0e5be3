import asyncio
from dataclasses import replace

import numpy as np
import pytest

from routerr1.evaluate.pareto import fronts
from routerr1.report import markdown
from routerr1.report.sweep import Sweep, compare_swept, swept_name, write_swept
from routerr1.report.tables import fronts_section
from tests.evaluation import evaluated


def test_equal_quality_and_equal_cost_by_hand():
    # Ours costs 2 at .8: on the line from (0, 0), .4 costs 1; for 3 dollars it stays at .8.
    found = fronts([(2.0, 0.8)], {"dear": (3.0, 0.4), "better": (4.0, 0.9)})
    dear, better = found.equal
    assert (dear.our_cost_usd, dear.our_em) == (pytest.approx(1.0), pytest.approx(0.8))
    assert better.our_cost_usd is None
    # Ours alone up to 4: triangle 2 * .8 / 2 = .8, then 2 * .8 = 1.6; 2.4 / 4 = .6.
    assert found.area_of_us_alone == pytest.approx(0.6)
    assert found.area >= found.area_without_us
    assert "not reached" in markdown.render([fronts_section("x", found, "ours")])


def test_when_nobody_pays_there_is_no_area_and_no_crash():
    found = fronts([(0.0, 0.1)], {"other": (0.0, 0.0)})
    assert (found.area, found.equal[0].our_em) == (0.0, 0.1)


@pytest.fixture(scope="module")
def found(stage):
    """Two weights of cost beside an evaluation; every second question belongs to another data set."""
    rows = asyncio.run(evaluated(stage)).rows
    ids = sorted({row.question_id for row in rows})
    rows = [replace(row, dataset=("one", "two")[ids.index(row.question_id) % 2]) for row in rows]
    policy = [row for row in rows if row.router == "policy"]
    free = [row for row in rows if row.router == "closed_book"]
    swept = [replace(row, router=swept_name(0.0)) for row in policy]
    swept += [replace(row, router=swept_name(0.9)) for row in free]
    return swept, compare_swept(swept, rows, stage.params, steps=3, restart=True, evaluation="x")


def test_swept_policies_are_one_front_among_the_rivals(found):
    table = found[1]
    assert table.swept == ("alpha=0", "alpha=0.9")
    names = [entry.router for entry in table.routers]
    assert "policy" not in names
    assert {"alpha=0", "alpha=0.9", "oracle", "random"} < set(names)
    rivals = set(names) - set(table.swept) - {"oracle"}
    assert {row.router for row in table.fronts.equal} == rivals


def test_each_data_set_has_a_front_of_its_own(found):
    swept, table = found
    assert set(table.by_dataset) == {"one", "two"}
    for name, own in table.by_dataset.items():
        mine = [row.em for row in swept if (row.router, row.dataset) == ("alpha=0", name)]
        line = own.router("alpha=0")
        assert (own.n, line.em.mean) == (len(mine), pytest.approx(np.mean(mine)))


def test_a_sweep_is_written_with_a_plot_for_all_and_for_each_data_set(found, tmp_path):
    write_swept(tmp_path, *found)
    for name in ("sweep", "sweep-one", "sweep-two"):
        assert "Cost weight 0.9" in (tmp_path / f"{name}.svg").read_text()
    text = (tmp_path / "sweep.md").read_text()
    assert "| Cost weight 0.9 |" in text
    assert text.count("Area under the front") == 3
    assert Sweep.read(tmp_path / "sweep.json") == found[1]
