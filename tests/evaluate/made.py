"""Rows that say what a test needs and nothing more."""

from typing import Any

from routerr1.evaluate.rows import Row


def row(**given: Any) -> Row:
    """A right answer of the policy after one call to A, but for what is given; a group is its question."""
    question = given.get("question_id", "q0")
    values: dict[str, Any] = {
        "pool": "training", "router": "policy", "seed": 1, "question_id": question, "dataset": "d",
        "question": "?", "group": question, "hops": 1, "topic": None, "answer": "x", "em": 1.0, "f1": 1.0,
        "format_valid": True, "cost_usd": 0.001, "calls": len(given.get("called", ["A"])), "failures": 0,
        "prompt_tokens": 10, "completion_tokens": 5, "policy_tokens": 20, "latency_s": 0.5, "called": ["A"],
        "best_calls": 0, "judged_calls": 0, "trajectory": "{}",
    }  # fmt: skip
    return Row(**values | given)


def played(router: str, right: list[list[float]], **given: Any) -> list[Row]:
    """One router's rows: its exact match, seeds x questions."""
    return [
        row(router=router, seed=seed, question_id=f"q{place}", em=float(em), **given)
        for seed, line in enumerate(right, start=1)
        for place, em in enumerate(line)
    ]
