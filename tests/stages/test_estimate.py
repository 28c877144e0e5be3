"""What a run will cost, worked by hand."""

from pathlib import Path
from typing import Any

import pytest

from routerr1.config import Params, load_params
from routerr1.errors import PoolError
from routerr1.files import digest
from routerr1.pool.cards import write_cards
from routerr1.stages.estimate import Inputs, Link, estimate, foreseen, headline, read_inputs
from routerr1.train.checkpoint import write_manifest
from routerr1.types import Card

ROOT = Path(__file__).parents[2]


def params() -> Params:
    loaded = load_params(ROOT / "params.yaml")

    def change(section: str, **values: Any) -> Any:
        return getattr(loaded, section).model_copy(update=values)

    return loaded.model_copy(
        update={
            "seeds": (1, 2),
            "checks": change("checks", max_question_chars=50),
            "pool": change("pool", kind="http", max_reply_tokens=100),
            "profile_pool": change("profile_pool", probes=10),
            "rollout": change("rollout", max_rounds=3, max_new_tokens=10),
            "train": change(
                "train", steps=20, questions_per_step=2, rollouts_per_question=4,
                validate_every=10, validation_questions=5,
            ),
            "evaluate": change("evaluate", split="test", max_questions=7),
            "baselines": change("baselines", include=loaded.baselines.include[:3]),
            "generalize": change("generalize", max_questions=6),
        }
    )  # fmt: skip


A = Link(Card("A", prompt_usd_per_mtok=1.0, completion_usd_per_mtok=10.0), 2, 100)
B = Link(Card("B", completion_usd_per_mtok=1.0), 2, 100)
QUESTIONS = {"train": 100, "validation": 4, "test": 50}


def inputs(**change: Any) -> Inputs:
    values: dict[str, Any] = {
        "chains": {"A": [A], "B": [B]}, "new": {}, "mean_call_usd": {"A": 3e-4, "B": 1e-4},
        "sd_call_usd": {"A": 2e-4, "B": 0.0},
        "questions": QUESTIONS, "calls_per_question": 1.5,
    }  # fmt: skip
    return Inputs(**{**values, **change})


def test_calls_and_dollars_per_stage():
    found = {stage.stage: stage for stage in estimate(params(), inputs()).stages}
    # 10 probes to 2 candidates; a question of 50 characters has at most 200 bytes, plus 128 of template:
    # A at worst 328 * 1 + 100 * 10 micro-dollars a try, B 100; two tries each.
    assert found["profile"].most_calls == 20
    assert found["profile"].most_usd == pytest.approx(10 * 2 * (1328 + 100) * 1e-6)
    assert found["profile"].expected_usd == pytest.approx(10 * (3e-4 + 1e-4))
    # 2 seeds * (20 * 2 * 4 rollouts + (20 / 10 + 2) * 5 validated) * 3 rounds.
    assert found["train"].most_calls == 2 * (160 + 20) * 3
    # Sub-questions: 10 policy tokens of at most 32 bytes (more than a question's 200), plus the template, to A.
    assert found["train"].most_usd == pytest.approx(1080 * 2 * (448 + 1000) * 1e-6)
    assert found["train"].expected_usd == pytest.approx(360 * 1.5 * 2e-4)
    # Policy, random, two forced and three baselines on 7 test questions; two forced on 4 of validation.
    assert found["evaluate"].most_calls == 2 * (7 * 7 + 4 * 2) * 3
    # The pool and 14 changes of it, each by the policy and by best-on-cards; 7 other wordings by the policy.
    assert found["generalize"].most_calls == 2 * 6 * (30 + 7) * 3


def test_a_simulated_pool_is_played_on_other_draws_too_and_a_limit_above_the_rows_asks_no_more():
    chosen = params()
    simulated = chosen.model_copy(
        update={
            "pool": chosen.pool.model_copy(update={"kind": "simulated"}),
            "generalize": chosen.generalize.model_copy(update={"max_questions": 80}),
        }
    )
    found = {stage.stage: stage for stage in estimate(simulated, inputs()).stages}
    # All 50 rows; the pool, 14 changes of it and cards of few probes, each by two routers, and five routers
    # (policy, the one before, random, by the cards, oracle) on pools drawn for each question.
    assert found["generalize"].most_calls == 2 * 50 * (30 + 7 + 2 + 5) * 3


def test_single_round_routers_have_every_candidate_asked_the_whole_question():
    chosen = params()
    baselines = chosen.baselines.model_copy(update={"include": ("direct", "cot", "knn")})
    found = estimate(chosen.model_copy(update={"baselines": baselines}), inputs()).stages
    # As with three others, and each of two candidates once on 7 questions with 2 seeds.
    (evaluate,) = (stage for stage in found if stage.stage == "evaluate")
    assert evaluate.most_calls == 2 * (7 * 7 + 4 * 2) * 3 + 2 * 7 * 2


def test_a_fallback_may_be_paid_on_top_and_new_models_are_probed_and_played():
    found = {
        stage.stage: stage
        for stage in estimate(
            params(), inputs(chains={"A": [A, B], "B": [B]}, new={"C": [A], "D": [B], "E": [B]})
        ).stages
    }
    assert found["profile"].most_usd == pytest.approx(10 * 2 * (1328 + 100 + 100) * 1e-6)
    assert found["train"].most_usd == pytest.approx(1080 * 2 * (1448 + 100) * 1e-6)
    # As before, and policy, random and three forced on the new models alone; policy, random and four forced on
    # the old with two of them; best-on-cards on both; four more changes by two routers; 10 probes to each of three.
    assert found["generalize"].most_calls == 2 * 6 * (30 + 7 + 5 + 6 + 2 + 8) * 3 + 30


def test_the_links_of_a_pool_file_have_their_own_tries_and_reply_lengths(tmp_path: Path):
    text = (ROOT / "pools" / "local.yaml").read_text()
    text = text.replace("read_s: 120", "max_tries: 2").replace(
        "model: llama3.2:3b", "model: llama3.2:3b\n    max_reply_tokens: 900"
    )
    (tmp_path / "pool.yaml").write_text(text)
    chosen = params()
    pool = chosen.pool.model_copy(update={"file": tmp_path / "pool.yaml"})
    found = read_inputs(chosen.model_copy(update={"pool": pool}), tmp_path)
    chain = found.chains["Qwen2.5-7B-Instruct"]
    assert [(link.card.name, link.tries, link.reply_tokens) for link in chain] == [
        ("Qwen2.5-7B-Instruct", 4, 100),
        ("Llama-3.2-3B", 2, 900),
    ]


def test_without_a_profile_there_is_no_expectation_but_a_limit():
    found = estimate(params(), inputs(mean_call_usd={}, calls_per_question=None))
    assert found.expected_usd is None
    assert found.most_usd > 0
    assert "`routerr1 profile` measures" in headline(found)
    assert any("2.00 calls a question (a guess)" in line for line in found.assumptions)


def test_totals_are_sums():
    found = estimate(params(), inputs())
    assert found.most_usd == pytest.approx(sum(stage.most_usd for stage in found.stages))
    assert found.expected_usd == pytest.approx(
        sum(stage.expected_usd or 0 for stage in found.stages)
    )


def test_an_estimate_before_the_questions_are_made_says_what_to_do():
    with pytest.raises(PoolError, match="run `routerr1 dataset` first"):
        estimate(params(), inputs(questions={}))


def test_inputs_come_from_the_pool_file_and_what_stages_left(tmp_path: Path):
    chosen = params()
    paper = chosen.pool.model_copy(update={"file": ROOT / "pools" / "paper.yaml"})
    found = read_inputs(chosen.model_copy(update={"pool": paper}), tmp_path)
    assert next(iter(found.chains)) == "Qwen2.5-7B-Instruct"
    assert found.chains["LLaMA-3.1-70B-Instruct"][1].card.name == "LLaMA-3.1-8B-Instruct"
    assert (found.new, found.questions, found.profiled) == ({}, {}, False)
    # 80 prompt tokens and a reply of 150.
    card = found.chains["Qwen2.5-7B-Instruct"][0].card
    assumed = 80 * card.prompt_usd_per_mtok + 150 * card.completion_usd_per_mtok
    assert found.mean_call_usd["Qwen2.5-7B-Instruct"] == pytest.approx(assumed * 1e-6)
    assert found.calls_per_question is None


def test_the_bound_counts_calls_that_vary_and_a_mean_that_was_measured():
    found = {stage.stage: stage for stage in estimate(params(), inputs()).stages}
    # 10 probes to A and B, whose calls deviate by 2e-4 and 0; the mean rests on 10 probes.
    noise = 1.645 * 2e-4 * (10 + 10**2 / 10) ** 0.5
    assert found["profile"].bound_usd == pytest.approx(10 * 4e-4 + noise)
    # 540 calls, all of them to A.
    assert found["train"].bound_usd == pytest.approx(
        540 * 3e-4 + 1.645 * 2e-4 * (540 + 540**2 / 10) ** 0.5
    )


def test_without_a_policy_every_candidate_is_asked_every_question_once():
    chosen = params()
    alone = chosen.model_copy(update={"model": chosen.model.model_copy(update={"init": "none"})})
    found = estimate(alone, inputs())
    assert [stage.stage for stage in found.stages] == ["profile", "evaluate"]
    # 7 of test and 4 of validation, to two candidates.
    assert found.stages[1].most_calls == 22
    assert found.stages[1].expected_usd == pytest.approx(11 * 4e-4)
    assert headline(found).startswith("A run is expected to cost $0.0084")


def test_what_will_fail_later_is_said_before_anything_is_paid():
    chosen = params()
    dataset = chosen.dataset.model_copy(update={"source": "imported"})
    baselines = chosen.baselines.model_copy(update={"include": ("rag", "knn")})
    prompt = chosen.prompt.model_copy(update={"template": "full"})
    own = chosen.model_copy(update={"dataset": dataset, "baselines": baselines, "prompt": prompt})
    said = " ".join(foreseen(own, inputs(chains={"A": [A]})))
    for problem in (
        "for prompt.template compact", "baselines.corpus",
        "validation holds 4 questions", "one candidate",
    ):  # fmt: skip
        assert problem in said
    fine = inputs(questions={"train": 100, "validation": 40, "test": 50})
    assert foreseen(chosen, fine) == []


def test_a_policy_for_other_candidates_and_a_pool_of_one_are_said_before_anything_is_paid(
    tmp_path: Path,
):
    chosen = params()
    pool = chosen.pool.model_copy(update={"file": ROOT / "pools/local.yaml"})
    chosen = chosen.model_copy(update={"pool": pool})
    cards, policy = tmp_path / "pool/cards.json", tmp_path / "policy"
    policy.mkdir()
    now = list(read_inputs(chosen, tmp_path, policy).chains)
    for names, told in ((["Old", *now[1:]], True), (now, False)):
        write_cards(cards, [Card(name) for name in names])
        write_manifest(policy, {"cards": digest(cards)})
        said = [
            line
            for line in foreseen(chosen, read_inputs(chosen, tmp_path, policy))
            if "was trained for" in line
        ]
        assert bool(said) == told
        assert all(
            "Old" in line and f"now holds {', '.join(sorted(now))}:" in line for line in said
        )
    alone = foreseen(chosen, inputs(chains={"A": [A]}))
    assert (
        "the pool has one candidate, so there is nothing to route, and generalize plays nothing"
        in alone
    )
    model = chosen.model.model_copy(update={"init": "none"})
    without = foreseen(chosen.model_copy(update={"model": model}), inputs(chains={"A": [A]}))
    assert "the pool has one candidate, so there is nothing to route" in without


def own_questions(**pool: Any) -> Params:
    chosen = params()
    return chosen.model_copy(
        update={
            "dataset": chosen.dataset.model_copy(update={"source": "imported"}),
            "pool": chosen.pool.model_copy(update={"store": Path("calls.jsonl"), **pool}),
        }
    )


def test_a_policy_on_own_questions_pays_for_no_call_twice():
    found = estimate(own_questions(calls="record"), inputs())
    # 10 probes, 4 questions of validation and 7 of test, each to two candidates.
    calls = {stage.stage: stage.most_calls for stage in found.stages}
    assert calls == {"profile": 20, "train": 8, "evaluate": 14}
    assert found.expected_usd == pytest.approx((10 + 4 + 7) * 4e-4)
    assert "answers whatever asks the same again" in " ".join(found.assumptions)
    live = {stage.stage: stage.most_calls for stage in estimate(own_questions(), inputs()).stages}
    assert live["train"] > calls["train"]


def test_own_questions_teach_a_policy_if_they_are_the_probes():
    fine = inputs(questions={"train": 100, "validation": 40, "test": 50})
    own = own_questions()
    assert foreseen(own, fine) == []
    away = own.profile_pool.model_copy(update={"split": "validation"})
    (said,) = foreseen(own.model_copy(update={"profile_pool": away}), fine)
    assert "set profile_pool.split to train" in said


def test_a_limit_below_what_is_possible_in_theory_is_named():
    chosen = params()
    budget = chosen.pool.budget.model_copy(update={"run_usd": 0.01})
    limited = chosen.model_copy(update={"pool": chosen.pool.model_copy(update={"budget": budget})})
    lines = estimate(limited, inputs()).assumptions
    assert any(line.startswith("pool.budget.run_usd = 0.01 ends a run") for line in lines)
    assert not any("run_usd" in line for line in estimate(chosen, inputs()).assumptions)
