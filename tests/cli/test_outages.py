"""An evaluation during an outage is called one."""

from routerr1.cli.outages import outage
from tests.evaluate.made import row


def test_many_failed_calls_are_called_an_outage_with_the_remedy():
    rows = [row(question_id=f"q{place}", calls=2, failures=0) for place in range(10)]
    assert outage(rows) is None
    assert outage([*rows[1:], row(calls=2, failures=1)]) is None  # 1 of 20
    said = outage([*rows[2:], row(calls=2, failures=1), row(calls=2, failures=1)])
    assert said is not None
    assert said.startswith("2 of 20 calls of the evaluation failed")
    assert "dvc repro --force --single-item evaluate generalize`" in said
    assert outage([]) is None
