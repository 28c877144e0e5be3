"""Pools drawn from recorded candidates."""

from pathlib import Path

import pytest

from routerr1.errors import PoolError
from routerr1.pool.base import Call
from routerr1.pool.drawn import DrawnPools, recorded_pool, stored_probes
from routerr1.pool.names import UNSEEN_NAMES
from routerr1.pool.perturbed import PerturbedPool
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.recorded import RecordedPool, StoredReply, read_store, write_store
from routerr1.types import Question

REAL = ("Ada", "Bob", "Cy", "Dee", "Eve")
QUESTIONS = [
    Question(f"q{i}", "test", f"What is {i}?", (f"gold{i}",), "train", 1, {"topic": "abc"[i % 3]})
    for i in range(30)
]


@pytest.fixture
def pool(tmp_path: Path) -> RecordedPool:
    rows = "\n".join(
        f"  - {{name: {name}, endpoint: here, model: m, context_window: 700, "
        "prompt_usd_per_mtok: 1, completion_usd_per_mtok: 1}"
        for name in REAL
    )
    file = tmp_path / "pool.yaml"
    file.write_text(
        "prices: {as_of: 2026-11-29, source: test}\n"
        f'endpoints: {{here: {{base_url: "http://127.0.0.1:9/v1"}}}}\ncandidates:\n{rows}\n'
    )
    # Ada is right on everything, Bob on topic b alone, the others on nothing.
    knows = {"Ada": "abc", "Bob": "b"}
    replies = [
        StoredReply(
            candidate=name,
            question=question.question,
            text=question.golden_answers[0]
            if question.metadata["topic"] in knows.get(name, "")
            else f"<think>unknown?</think>{name} says so",
            prompt_tokens=10,
            completion_tokens=5,
            latency_s=0.5,
        )
        for name in REAL
        for question in QUESTIONS
    ]
    write_store(tmp_path / "store.jsonl.gz", replies)
    return RecordedPool(read_pool_file(file), read_store(tmp_path / "store.jsonl.gz"))


def test_equal_seeds_draw_equal_pools_and_others_differ(pool: RecordedPool) -> None:
    drawn = DrawnPools(pool, stored_probes(pool, QUESTIONS))
    assert drawn.draw(UNSEEN_NAMES, 3).cards == drawn.draw(UNSEEN_NAMES, 3).cards
    assert len({repr(drawn.draw(UNSEEN_NAMES, seed).cards) for seed in range(20)}) == 20


def test_a_drawn_pool_has_two_to_eight_candidates_under_other_names(pool: RecordedPool) -> None:
    drawn = DrawnPools(pool, stored_probes(pool, QUESTIONS))
    sizes = set()
    for seed in range(50):
        made = drawn.draw(UNSEEN_NAMES, seed)
        names = [card.name for card in made.cards]
        sizes.add(len(names))
        assert 2 <= len(set(names)) == len(names) <= 5
        assert set(names) <= set(UNSEEN_NAMES)
        assert {made.behind[name] for name in names} <= set(REAL)
    assert sizes == {2, 3, 4, 5}  # of two, one is left after a first call


def test_cards_show_what_recorded_probes_show(pool: RecordedPool) -> None:
    drawn = DrawnPools(pool, stored_probes(pool, QUESTIONS))
    expected = {"Ada": 1.0, "Cy": 0.0, "Dee": 0.0, "Eve": 0.0}
    for seed in range(30):
        made = drawn.draw(UNSEEN_NAMES, seed)
        for card in made.cards:
            real = made.behind[card.name]
            for topic, share in card.performance.items():
                assert share == (float(topic == "b") if real == "Bob" else expected[real])
                assert card.unsure[topic] == 0.0
            assert 0.3 <= card.prompt_usd_per_mtok <= 3.0
            assert (card.latency_s, card.completion_tokens) == (0.5, 5.0)


async def test_a_reply_is_the_recorded_one_at_the_drawn_price(pool: RecordedPool) -> None:
    made = DrawnPools(pool, stored_probes(pool, QUESTIONS)).draw(UNSEEN_NAMES, 1)
    for card in made.cards:
        reply = await made.ask(Call(card.name, "what is 4"))
        real = await pool.ask(Call(made.behind[card.name], "What is 4?"))
        assert (reply.model, reply.text) == (card.name, real.text)
        price = 10 * card.prompt_usd_per_mtok + 5 * card.completion_usd_per_mtok
        assert reply.cost_usd == pytest.approx(price / 1e6)
    assert (await made.ask(Call(made.cards[0].name, "What is love?"))).failure == "not_recorded"


def test_only_a_recorded_pool_can_be_drawn_from(pool: RecordedPool) -> None:
    changed = PerturbedPool(pool, pool.cards[:3])
    assert recorded_pool(changed) is pool
    with pytest.raises(PoolError, match="no probe question has a reply of every candidate"):
        stored_probes(pool, [Question("x", "test", "Unheard of?", ("x",), "train")])
