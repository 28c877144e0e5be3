"""Agreement with values computed by the reference implementation, row by row."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from routerr1 import matching, protocol, reward

PARITY = Path(__file__).parents[2] / "shared" / "data" / "parity"
NAMES = (
    "Qwen2.5-7B-Instruct",
    "LLaMA-3.1-8B-Instruct",
    "LLaMA-3.1-70B-Instruct",
    "Mistral-7B-Instruct",
    "Mixtral-8x22B-Instruct",
    "Gemma-2-27B-Instruct",
)

pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(), reason="reference values not found: ../shared/data/parity is absent"
)


def rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(PARITY / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_answers_score_as_in_the_reference() -> None:
    table = rows("answers.jsonl.gz")
    assert len(table) == 1000
    wrong = [
        row
        for row in table
        if matching.exact_match(row["prediction"], row["golden_answers"]) != row["em"]
        or abs(matching.token_f1(row["prediction"], row["golden_answers"]) - row["f1"]) > 1e-6
    ]
    assert not wrong, wrong[:3]


def test_trajectories_score_as_in_the_reference() -> None:
    table = rows("trajectories.jsonl.gz")
    assert len(table) == 1800
    wrong = []
    for row in table:
        answer = protocol.extract_answer(row["completion"])
        format_valid = protocol.check(row["completion"], NAMES)
        em = matching.exact_match(answer, row["golden_answers"]) if answer is not None else 0
        f1 = matching.token_f1(answer, row["golden_answers"]) if answer is not None else 0
        rewards = [
            reward.hierarchical(
                format_valid, em, row[f"reward_a{alpha}"]["cost_reward"], alpha=float(alpha)
            )
            for alpha in ("0.0", "0.6", "0.9")
        ]
        agrees = (
            format_valid == (row["format"] == 0)
            and (answer or "") == (row["answer"] or "")
            and em == row["em"]
            and abs(f1 - row["f1"]) < 1e-6
            and all(
                abs(ours - row[f"reward_a{alpha}"]["reward"]) < 1e-6
                for ours, alpha in zip(rewards, ("0.0", "0.6", "0.9"), strict=True)
            )
        )
        if not agrees:
            wrong.append((row, format_valid, answer, em, f1, rewards))
    assert not wrong, (len(wrong), wrong[:3])


def test_costs_score_as_in_the_reference() -> None:
    scale = reward.CostScale(window=1000)
    table = rows("cost_sequence.jsonl.gz")
    assert len(table) == 1500
    for row in table:
        assert scale.score(row["cost"]) == pytest.approx(row["cost_reward"], abs=1e-6)
