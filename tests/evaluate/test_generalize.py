import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from routerr1.baselines.retrieval import MemoryIndex, RetrieverPool
from routerr1.config import GeneralizeParams, PoolParams
from routerr1.errors import PoolError
from routerr1.evaluate.generalize import (
    compare_pools,
    generalize,
    headline,
)
from routerr1.evaluate.perturbations import (
    POISON,
    Perturbation,
    Perturbations,
    perturb_pool,
    spare_names,
    with_new_models,
    without_new_models,
)
from routerr1.evaluate.redrawn import redrawn
from routerr1.evaluate.results import Estimate
from routerr1.pool.base import Call, Pool, is_best
from routerr1.pool.build import open_http_pool
from routerr1.pool.names import UNSEEN_NAMES
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.profile import profile
from routerr1.pool.recording import Recorder
from routerr1.pool.records import RecordStore
from routerr1.prompt import renderer
from routerr1.report import markdown
from routerr1.report.glossary import label
from routerr1.report.tables import controls_table, pools_section
from routerr1.simulation.candidates import default_candidates, drawn_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from routerr1.types import Card, Reply
from tests.evaluate.made import played
from tests.evaluation import drawing, new_models
from tests.servers import write_pool_file

WITH_NEW = {"drawn", "added", "better_added", "worse_added", "pool_of_12", "pool_of_25"}
LIMITS = GeneralizeParams(pool_seed=1007, added_models=2, max_questions=45)


@pytest.fixture(scope="module")
def compared(stage):
    """A policy that asks the first candidate shown, on every perturbed pool."""
    return asyncio.run(_compared(stage))


async def _compared(stage):
    before = _policies(stage, stage.policy)
    new = await new_models(stage) + redrawn(stage.pool, *drawing(stage.world), before, seed=3)
    rows, changes = await generalize(
        stage.policies(stage.follower), stage.pool, new, stage.test, stage.params, LIMITS
    )
    found = compare_pools(rows, changes, stage.params)
    return found, {entry.pool: entry for entry in found.pools}


def _policies(stage, generator):
    return {policy.seed: policy for policy in stage.policies(generator)}


def _changes(stage):
    """All of them: the paper's prompt shows whatever a card says."""
    found = perturb_pool(stage.pool, "Atlas", 1, renderer("full", 4))
    assert not found.not_made
    return {variant.name: variant.pool for variant in found.made}


UNSEEN = {"favourite_down", "two_down", "favourite_hesitant"}


def test_every_change_that_is_made_changes_the_prompt_but_for_what_no_card_says(stage):
    cards = [replace(card, performance={"capital": 0.5 + 0.05 * place})
             for place, card in enumerate(stage.pool.cards)]  # fmt: skip
    render = renderer("full", 4)
    found = perturb_pool(PerturbedPool(stage.pool, cards), "Atlas", 1, render)
    before = render(stage.test[0], cards)
    same = {v.name for v in found.made if render(stage.test[0], v.pool.cards) == before}
    assert same == UNSEEN
    assert not found.not_made


def test_a_policy_that_looks_cards_up_is_shown_no_description(stage):
    # Free text on a card never reaches it: that is the defence.
    cards = [replace(card, performance={"capital": 0.5 + 0.05 * place})
             for place, card in enumerate(stage.pool.cards)]  # fmt: skip
    found = perturb_pool(PerturbedPool(stage.pool, cards), "Atlas", 1, renderer("compact", 4))
    hidden = {"descriptions_swapped", "description_poisoned"}
    assert found.not_made == dict.fromkeys(hidden, "the prompt does not show it")


def test_the_poison_stands_in_the_prompt_of_a_policy_that_reads_descriptions(stage):
    poisoned = _changes(stage)["description_poisoned"]
    assert renderer("full", 4)(stage.test[0], poisoned.cards).count(POISON.rstrip(".")) == 1


def test_the_favourite_is_targets_where_its_place_changes(stage):
    found = perturb_pool(stage.pool, "Atlas", 1, renderer("full", 4))
    targets = {variant.name: variant.target for variant in found.made}
    assert targets["order_shuffled"] == ("Atlas",)
    assert targets["favourite_removed"] == ()


def test_every_question_has_a_drawn_pool_that_other_questions_do_not_change(stage):
    before = _policies(stage, stage.policy)
    (variant,) = redrawn(stage.pool, *drawing(stage.world), before, seed=3).made
    pools = [variant.redraw(question) for question in stage.test[:20]]
    names = {tuple(card.name for card in pool.cards) for pool in pools}
    assert len(names) == 20
    assert not {name for each in names for name in each} - set(UNSEEN_NAMES)
    assert variant.redraw(stage.test[7]).cards == pools[7].cards
    (other,) = redrawn(stage.pool, *drawing(stage.world), before, seed=4).made
    assert other.redraw(stage.test[7]).cards != pools[7].cards


@pytest.mark.slow
def test_on_redrawn_pools_the_cards_and_the_truth_bound_what_routing_can_win(compared):
    table = compared[1]["redrawn"].table
    lines = {line.router: line for line in table.routers}
    assert set(lines) == {"policy", "policy_before_rl", "random", "best_on_cards", "oracle"}
    em = {name: line.em.mean for name, line in lines.items()}
    assert em["oracle"] > em["best_on_cards"] > em["policy"] + 0.1  # it asks the first one shown
    assert em["policy_before_rl"] == 0.0  # it asks for a candidate that is in none of these pools
    assert lines["best_on_cards"].collapse.best_model_share > 0.7  # cards are measured
    assert 0.0 < lines["policy"].collapse.best_model_share < 0.5


def test_no_difference_to_the_training_pool_is_beyond_what_exact_match_can_differ(stage):
    # Two seeds that could not differ more: their own error alone would be six times the range.
    rows = played("policy", [[1] * 8, [1] * 8])
    rows += played("policy", [[0] * 8, [1] * 8], pool="down")
    changes = Perturbations((Perturbation("down", stage.pool, ()),), {})
    (entry,) = compare_pools(rows, changes, stage.params).pools
    gap = entry.difference["em"]
    assert (gap.mean, gap.low, gap.high) == (-0.5, -1.0, 1.0)


def test_renaming_changes_nothing_for_a_policy_that_reads_names_from_the_prompt(compared):
    entry = compared[1]["all_renamed"]
    assert entry.difference["em"].low == entry.difference["em"].high == 0.0
    # None of the questions differs; by the rule of three fewer than 3 in as many groups would elsewhere.
    reach = 1 - 0.05 ** (1 / compared[0].groups)
    none = Estimate(mean=0.0, low=0.0, high=reach)
    flips = entry.flipped
    assert flips.answer == flips.right_to_wrong == flips.wrong_to_right == none
    assert entry.target_share == Estimate(mean=1.0, low=1 - reach, high=1.0)
    assert entry.target_share_before == none


def test_swapped_prices_change_the_bill_and_no_answer(compared):
    entry = compared[1]["prices_swapped"]
    assert entry.flipped.answer.mean == 0.0
    # The first candidate shown is the most expensive; it is swapped with the cheapest.
    assert entry.difference["cost_usd"].high < 0


def test_a_candidate_that_is_down_is_called_in_vain(compared):
    entry = compared[1]["favourite_down"]
    assert entry.policy.em.mean == 0.0
    assert entry.policy.cost_usd.mean == 0.0
    assert entry.target_share.mean == 1.0
    lost = compared[0].training.em.mean
    assert entry.flipped.right_to_wrong.mean == pytest.approx(lost)


def test_pools_of_new_models_get_all_controls(compared):
    for name in ("drawn", "added"):
        routers = {line.router for line in compared[1][name].table.routers}
        assert {"policy", "random", "oracle", "closed_book"} < routers
    assert compared[1]["drawn"].target_share.mean == 1.0
    assert compared[1]["added"].target_share.mean == 0.0  # the first shown is an old one
    assert compared[1]["favourite_removed"].table is None
    assert compared[1]["favourite_removed"].target_share is None  # no candidate is new there


def test_metrics_and_markdown_name_every_pool(compared):
    flat = headline(compared[0])
    assert flat["unseen_em"] == compared[1]["drawn"].policy.em.mean
    assert flat["worst_em_delta"] == min(each.difference["em"].mean for each in compared[0].pools)
    text = markdown.render([pools_section(compared[0])])
    assert all(f"| {name} |" in text for name in compared[1])


def test_the_controls_say_how_many_calls_went_to_the_best(compared):
    table = controls_table(compared[1]["redrawn"].table)
    place = table.heads.index("Calls to the best, %")
    known = {label(line.router): line for line in compared[1]["redrawn"].table.routers}
    for line in table.lines:
        share = known[line.cells[0].text].collapse.best_model_share
        # A policy that calls a candidate of no such pool makes no call.
        assert line.cells[place].text == ("–" if share is None else f"{100 * share:.0f}")
    assert known["Policy before RL"].collapse.best_model_share is None
    assert known["Best by card"].collapse.best_model_share > 0.7


def test_each_change_changes_what_it_says(stage):
    pools = _changes(stage)
    before = {card.name: card for card in stage.pool.cards}
    dear = max(before.values(), key=lambda card: card.completion_usd_per_mtok)
    assert "Atlas" not in {card.name for card in pools["favourite_removed"].cards}
    assert not {card.name for card in pools["all_renamed"].cards} & before.keys()
    order = [card.name for card in pools["order_shuffled"].cards]
    assert order != list(before)
    assert sorted(order) == sorted(before)
    swapped = {card.name: card for card in pools["prices_swapped"].cards}
    assert swapped["Atlas"].completion_usd_per_mtok == dear.completion_usd_per_mtok
    assert swapped[dear.name].completion_usd_per_mtok == before["Atlas"].completion_usd_per_mtok
    assert swapped["Atlas"].description == before["Atlas"].description
    for name, performance in (("descriptions_swapped", before["Atlas"]), ("claims_swapped", dear)):
        lying = {card.name: card for card in pools[name].cards}["Atlas"]
        assert lying.description == dear.description
        assert lying.performance == performance.performance
        assert lying.completion_usd_per_mtok == before["Atlas"].completion_usd_per_mtok
    assert sum(POISON in card.description for card in pools["description_poisoned"].cards) == 1


async def test_a_swapped_price_is_what_the_call_costs(stage):
    question = stage.test[0].question
    before = await stage.pool.ask(Call("Atlas", question))
    after = await _changes(stage)["prices_swapped"].ask(Call("Atlas", question))
    dear = max(stage.pool.cards, key=lambda card: card.completion_usd_per_mtok)
    assert after.text == before.text
    assert after.cost_usd == pytest.approx(
        (
            before.prompt_tokens * dear.prompt_usd_per_mtok
            + before.completion_tokens * dear.completion_usd_per_mtok
        )
        / 1e6
    )


async def test_a_removed_candidate_is_unknown(stage):
    reply = await _changes(stage)["favourite_removed"].ask(Call("Atlas", "anything"))
    assert reply.failure == "unknown_model"


def test_truth_follows_the_names_that_are_shown(stage):
    renamed = _changes(stage)["all_renamed"]
    truth, real = renamed.ground_truth, stage.pool.ground_truth
    for question in stage.test[:40]:
        for shown, behind in renamed.behind.items():
            assert truth.knows(shown, question.question) == real.knows(behind, question.question)


def test_truth_counts_only_who_is_there_and_up(stage):
    capital = next(q for q in stage.train if q.metadata["relation"] == "capital" and q.hops == 1)
    assert is_best(stage.pool, "Atlas", capital.question) is True
    assert is_best(stage.pool, "Mint", capital.question) is False
    assert is_best(stage.pool, "Atlas", "gibberish") is None
    without = _changes(stage)["favourite_down"]
    others = [card.name for card in stage.pool.cards if card.name != "Atlas"]
    assert any(is_best(without, name, capital.question) for name in others)
    assert is_best(without, "Atlas", capital.question) is False
    assert is_best(without, "Atlas", "gibberish") is None
    assert not any(without.ground_truth.knows("Atlas", each.question) for each in stage.train)
    again = PerturbedPool(without, [c for c in without.cards if c.name != "Mint"])
    assert is_best(again, "Mint", capital.question) is None
    assert not again.ground_truth.knows("Goliath", "gibberish")


def test_truth_sees_through_a_recorder(stage, tmp_path):
    recorder = Recorder(stage.pool, RecordStore(tmp_path / "calls.jsonl"))
    question = stage.test[0].question
    expected = stage.pool.ground_truth.knows("Atlas", question)
    assert (
        PerturbedPool(recorder, stage.pool.cards).ground_truth.knows("Atlas", question) == expected
    )
    assert RetrieverPool(MemoryIndex(["a passage"]), count=1).ground_truth is None


def test_what_a_pool_does_not_allow_is_said_and_not_played(stage):
    alike = [replace(c, completion_usd_per_mtok=1.0, prompt_usd_per_mtok=1.0, description="", performance={})
             for c in stage.pool.cards]  # fmt: skip
    render = renderer("full", 4)
    found = perturb_pool(PerturbedPool(stage.pool, alike), "Atlas", 1, render)
    assert found.not_made == {
        f"{what}_swapped": f"Atlas and Goliath have the same {what}"
        for what in ("prices", "descriptions", "claims")
    }
    assert not found.not_made.keys() & {variant.name for variant in found.made}
    with pytest.raises(PoolError, match="'Nobody'"):
        perturb_pool(stage.pool, "Nobody", 1, render)
    with pytest.raises(PoolError, match="another candidate"):
        perturb_pool(PerturbedPool(stage.pool, stage.pool.cards[:1]), "Atlas", 1, render)
    with pytest.raises(PoolError, match="no candidate 'Stranger'"):
        PerturbedPool(stage.pool, [Card("Stranger")])


def test_there_are_spare_names_for_any_pool():
    cards = [Card("Nova", aliases=("model 1",)), *(Card(f"m{place}") for place in range(20))]
    names = spare_names(cards, 50)
    assert len(set(names)) == 50
    assert not {"Nova", "Model 1"} & set(names)


def test_who_answers_in_place_of_another_is_told_by_its_shown_name(stage):
    class Falling(Pool):
        """A pool whose first candidate is out: the second answers for it, as a fallback does."""

        cards = stage.pool.cards[:2]

        async def ask(self, call):  # noqa: ARG002 - as `Pool.ask`
            return Reply(self.cards[1].name, "x", 10, 10, 1e-6)

    first, second = Falling.cards
    shown = [replace(first, name="A"), replace(second, name="B", completion_usd_per_mtok=9.0)]
    changed = PerturbedPool(Falling(), shown, {"A": first.name, "B": second.name})
    reply = asyncio.run(changed.ask(Call("A", "?")))
    assert reply.model == "B"
    assert reply.cost_usd == pytest.approx((10 * second.prompt_usd_per_mtok + 10 * 9.0) / 1e6)


@pytest.mark.slow
async def test_the_suite_plays_on_a_pool_file_with_a_second_one_of_new_models(
    stage, tmp_path, monkeypatch
):
    """Real HTTP: every candidate of both files answers behind one loopback server."""
    monkeypatch.chdir(tmp_path)
    drawn = drawn_candidates(1007)[:2]
    known = known_facts(stage.world)
    served = SimulatedPool((*default_candidates(), *drawn), known, seed=7)
    with serving(build_app(served, time_scale=0)) as url:
        files = {
            name: write_pool_file(Path(f"pools/{name}.yaml"), url, candidates)
            for name, candidates in (("old", default_candidates()), ("new", drawn))
        }
        params = PoolParams(
            kind="http", file=files["old"], seed=1, max_reply_tokens=100, max_concurrency=32
        )
        everyone = open_http_pool(params, added=files["new"])
        try:
            cards = everyone.cards[:6]
            probed = await profile(
                stage.train[:6], PerturbedPool(everyone, everyone.cards[6:]), store=None
            )
            new = with_new_models(everyone, cards, probed.cards, 2)
            rows, changes = await generalize(
                stage.policies(stage.follower), PerturbedPool(everyone, cards), new, stage.test,
                stage.params, LIMITS.model_copy(update={"max_questions": 6}),
            )  # fmt: skip
        finally:
            await everyone.aclose()
        found = compare_pools(rows, changes, stage.params)
        entries = {entry.pool: entry for entry in found.pools}
        assert set(entries) | set(found.not_made) == {*WITH_NEW, *_changes(stage)}
        assert not found.not_made
        assert entries["drawn"].target == tuple(candidate.name for candidate in drawn)
        assert entries["drawn"].target_share.mean == 1.0
        forced = {line.router for line in entries["added"].table.routers}
        assert {f"fixed/{name}" for name in (drawn[0].name, drawn[1].name, "Atlas")} < forced
        assert {"oracle", "best_single"} < forced
        assert entries["all_renamed"].flipped.answer.mean == 0.0
        assert "Calls to the best" not in markdown.render([pools_section(found)])  # it is unknown
        with pytest.raises(PoolError, match="already belongs to candidate"):
            open_http_pool(params, added=files["old"])
    elsewhere = write_pool_file(Path("pools/elsewhere.yaml"), "http://127.0.0.1:9", drawn)
    with pytest.raises(PoolError, match=r"elsewhere\.yaml: endpoint 'here' differs from that of"):
        open_http_pool(params, added=elsewhere)


def test_without_new_models_the_rest_is_played_and_the_reason_stands_in_the_table(stage):
    why = "generalize.file names no new models"
    limits = LIMITS.model_copy(update={"max_questions": 6})
    rows, changes = asyncio.run(
        generalize(
            stage.policies(stage.follower), stage.pool, without_new_models(why), stage.test,
            stage.params, limits,
        )
    )  # fmt: skip
    found = compare_pools(rows, changes, stage.params)
    assert {"drawn", "added"} < set(found.not_made)
    assert {e.pool for e in found.pools} | set(found.not_made) == {
        *WITH_NEW, *_changes(stage)
    }  # fmt: skip
    assert f"Not made: drawn: {why}." in markdown.render([pools_section(found)])
    assert "unseen_em" not in headline(found)
