"""`routerr1 ask` with a real policy."""

from pathlib import Path

from routerr1.asking import ask_once
from routerr1.config import BudgetParams, Params
from routerr1.pool.build import open_budget
from routerr1.pool.cards import write_cards
from routerr1.pool.simulated import default_candidates
from routerr1.types import Card


def test_what_was_asked_before_is_not_held_against_a_question(
    chain: Params, asking_policy: Path
) -> None:
    limits = BudgetParams(question_usd=0.001, run_usd=0.001)
    params = chain.model_copy(update={"pool": chain.pool.model_copy(update={"budget": limits})})
    cards = [Card(candidate.name) for candidate in default_candidates()]
    write_cards(Path("data/pool/cards.json"), cards)
    asked = [
        ask_once(
            "What is the capital of France?", str(asking_policy), params, seed=1, temperature=0.0
        )
        for _ in range(2)
    ]
    assert [each.ledger.calls for each in asked] == [asked[0].ledger.calls] * 2
    assert asked[0].ledger.calls > 0
    budget = open_budget(limits, {})
    assert budget is not None
    spent = budget.spent_usd()
    budget.close()
    runs = {scope: usd for scope, usd in spent.items() if scope.startswith("run ")}
    assert len(runs) == 2
    assert len(set(runs.values())) == 1  # both cost the same, and none of it twice
    assert sum(scope.startswith("question asked/") for scope in spent) == 2
