"""Two kinds of questions that nobody would confuse."""

import json

from benchmarks.outside import compared, page, plot, read_sets


def test_a_set_of_one_kind_knows_its_own(tmp_path):
    kinds = {
        "sums": [f"How much is {a} plus {b}?" for a in range(14) for b in range(14)],
        "invoices": [f"Where do I find invoice {n} of the year 2024?" for n in range(190)],
    }
    for name, asked in kinds.items():
        (tmp_path / name).mkdir()
        lines = [json.dumps({"question": question}) for question in asked]
        (tmp_path / name / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found, curves = compared(read_sets(tmp_path), seed=0)
    assert set(found["sets"]) == set(kinds)
    for each in found["sets"].values():
        assert (each["auroc"], each["found"]) == (1.0, 1.0)
        assert each["false_alarms"] < 0.05
    assert "| sums | " in page(found)
    plot(curves, tmp_path / "curves.svg")
    assert "invoices" in (tmp_path / "curves.svg").read_text(encoding="utf-8")
