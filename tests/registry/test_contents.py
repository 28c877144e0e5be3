"""What a version is judged by, from the files of the stages."""

from pathlib import Path

import pytest
import yaml

from routerr1.config import Params
from routerr1.evaluate.rows import Row, write_rows
from routerr1.pool.cards import write_cards
from routerr1.registry.contents import Outputs, evidence_of
from routerr1.types import Card

POOL = {
    "prices": {"as_of": "2026-01-01", "source": "a list"},
    "endpoints": {"here": {"base_url": "https://example.org/v1"}},
    "candidates": [
        {
            "name": "Mint", "endpoint": "here", "model": "maker/mint", "context_window": 4096,
            "prompt_usd_per_mtok": 1.5e-7, "completion_usd_per_mtok": 0.6,
        }
    ],
}  # fmt: skip


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    row = Row(
        pool="training", router="baseline/knn", seed=1, question_id="q", dataset="mine", question="Who?",
        group="q", hops=1, topic="money", answer="x", em=1.0, f1=1.0, format_valid=True, cost_usd=0.1,
        calls=1, failures=0, prompt_tokens=1, completion_tokens=1, policy_tokens=0, latency_s=0.1,
        called=["Mint"], best_calls=1, judged_calls=1,
        trajectory='{"question": {"golden_answers": ["x"]}}',
    )  # fmt: skip
    found = Outputs(cards=tmp_path / "cards.json", rows=tmp_path / "rows.parquet")
    write_rows(found.rows, [row])
    write_cards(found.cards, [Card("Mint")])
    return found


def test_a_price_that_the_pool_file_does_not_confirm_is_evidence(
    tmp_path: Path, params: Params, outputs: Outputs
) -> None:
    file = tmp_path / "pool.yaml"
    pool = params.pool.replace(kind="http", file=file, store=None, redraw=0.0)
    generalize = params.generalize.replace(file=None)
    params = params.replace(pool=pool, generalize=generalize)
    file.write_text(yaml.safe_dump(POOL))
    (slip,) = evidence_of(params, outputs, "baseline/knn").odd_prices
    assert slip.startswith("candidate 'Mint': prompt_usd_per_mtok is 1.5e-07 USD")
    file.write_text(yaml.safe_dump(POOL | {"prices": POOL["prices"] | {"confirmed": ["Mint"]}}))  # type: ignore[operator]
    assert evidence_of(params, outputs, "baseline/knn").odd_prices == ()
