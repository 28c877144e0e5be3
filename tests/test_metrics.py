"""The table of metrics covers what training, evaluation and gate report; spread of calls by hand."""

import re
from dataclasses import fields

import pytest

from routerr1.evaluate.table import MEASURES
from routerr1.metrics import METRICS, metric, routing_metrics
from routerr1.registry.gate import Metrics
from routerr1.train.score import Score, batch_figures
from routerr1.types import Answer, Generation, Ledger, Question, Trajectory, Turn


def test_spread_of_calls_by_hand():
    # Calls a, a, b, c over four questions, one of which makes none.
    found = routing_metrics([["a", "b"], ["a"], [], ["c"]], names=["d"])
    assert found.num_calls == 4
    assert found.call_share == {"d": 0.0, "a": 0.5, "b": 0.25, "c": 0.25}
    assert (found.top_model_share, found.call_entropy, found.no_call_rate) == (0.5, 1.5, 0.25)


def test_no_calls_and_no_questions_give_zeros():
    silent = routing_metrics([[], []], names=["a"])
    assert (silent.top_model_share, silent.call_entropy, silent.no_call_rate) == (0.0, 0.0, 1.0)
    assert silent.call_share == {"a": 0.0}
    assert routing_metrics([]).no_call_rate == 0.0


def test_metric_names_are_unique_and_unknown_ones_are_refused():
    assert len({each.name for each in METRICS}) == len(METRICS)
    with pytest.raises(KeyError):
        metric("thrift")


def test_training_evaluation_and_gate_report_no_metric_outside_the_table():
    turn = Turn(Generation("<answer>y</answer>"), Answer("y"))
    played = Trajectory(
        Question("q", "d", "x?", ("y",), "train", 1), (turn,), "answered", "y", "", Ledger()
    )
    score = Score(True, 1.0, 1.0, 1.0, 0.0, 0.5, (0.0, 1.0, 0.0))
    logged = batch_figures([played], [score], ["Atlas"])
    facts = {"questions", "intervals", "unseen_em", "worst_change", "router", "matching"}
    gated = {field.name for field in fields(Metrics)} - facts
    known = {each.name for each in METRICS}
    for name in {*logged, *MEASURES, *gated}:
        general = re.sub(r"^share/.*", "share/NAME", re.sub(r"_\d+hop$", "_Nhop", name))
        assert general in known, name
