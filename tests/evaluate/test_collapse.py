"""Collapse figures, worked by hand."""

from routerr1.evaluate.collapse import collapse, collapse_by_dataset
from routerr1.metrics import entropy_bits
from tests.evaluate.made import row


def test_entropy_by_hand():
    # Shares 1/2, 1/4, 1/4: 1/2 * 1 + 2 * 1/4 * 2 = 1.5 bits.
    assert entropy_bits({"a": 2, "b": 1, "c": 1}) == 1.5
    assert entropy_bits({"a": 7, "b": 0}) == 0.0
    assert entropy_bits({}) == 0.0


def test_two_seeds_that_each_call_one_model_have_both_collapsed():
    # Pooled, A and B would share the calls: half each, one bit.
    found = collapse([row(seed=1, called=["A"]), row(seed=2, called=["B"])])
    assert (found.top_model_share, found.call_entropy) == (1.0, 0.0)
    assert found.call_share == {"A": 0.5, "B": 0.5}


def test_means_over_seeds_and_the_worst_of_them_by_hand():
    rows = [
        # Seed 1: A, B, B, C: top share 1/2, 1.5 bits, every question calls; 3 of 4 calls to the best.
        row(seed=1, question_id="q0", called=["A", "B"], best_calls=1, judged_calls=2),
        row(seed=1, question_id="q1", called=["B", "C"], best_calls=2, judged_calls=2),
        # Seed 2: A alone, 0 bits, one question of two without a call; 1 of 1 to the best.
        row(seed=2, question_id="q0", called=["A"], best_calls=1, judged_calls=1),
        row(seed=2, question_id="q1", called=[]),
    ]
    found = collapse(rows)
    assert found.questions == 4
    assert found.calls == 5
    assert found.top_model_share == 0.75
    assert found.call_entropy == 0.75
    assert found.no_call_rate == 0.25
    assert found.best_model_share == 0.875
    assert found.call_share == {"A": (0.25 + 1) / 2, "B": 0.25, "C": 0.125}
    assert found.worst == {
        "top_model_share": 1.0, "call_entropy": 0.0, "no_call_rate": 0.5, "best_model_share": 0.75,
    }  # fmt: skip


def test_a_seed_without_calls_does_not_hide_the_most_called_model_of_another():
    found = collapse([row(seed=1, called=["A"]), row(seed=2, called=[])])
    assert (found.top_model_share, found.no_call_rate) == (1.0, 0.5)
    assert found.worst["no_call_rate"] == 1.0


def test_calls_by_hops_by_hand():
    # One fact: 1 and 2 calls with seed 1, 0 and 1 with seed 2: means 1.5 and .5. Two facts: 3 and 1 calls.
    made = [
        (1, 1, 1),
        (1, 1, 2),
        (1, 2, 3),
        (2, 1, 0),
        (2, 1, 1),
        (2, 2, 1),
        (1, None, 4),
        (2, None, 4),
    ]
    rows = [
        row(seed=seed, hops=hops, called=["A"] * calls, question_id=f"{place}")
        for place, (seed, hops, calls) in enumerate(made)
    ]
    assert collapse(rows).calls_by_hops == {"1": 1.0, "2": 2.0, "unknown": 4.0}


def test_collapse_handles_zero_calls():
    found = collapse([row(called=[])], ["A", "B"])
    assert found.call_share == {"A": 0.0, "B": 0.0}
    assert (found.top_model_share, found.no_call_rate, found.best_model_share) == (
        0.0,
        1.0,
        None,
    )


def test_each_data_set_has_figures_of_its_own():
    rows = [row(dataset="one", called=["A"]), row(dataset="two", called=["B"])]
    found = collapse_by_dataset(rows, ["A", "B"])
    assert found["one"].call_share == {"A": 1.0, "B": 0.0}
    assert found["two"].call_share == {"A": 0.0, "B": 1.0}
