"""A router without a policy, asked with a key that may ask some candidates only."""

from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from routerr1.baselines.cascade import Cascade
from routerr1.baselines.learned import Chooser, ScoredChooser
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.replies import Always
from routerr1.config import Params
from routerr1.pool.budget import Grant
from routerr1.pool.cards import write_cards
from routerr1.pool.profile import profile, sample_probes, write_profile
from routerr1.serve.allowed import among, best_first
from routerr1.serve.build import Choices, reply_route, router_engine
from routerr1.serve.hearing import Heard
from routerr1.serve.keys import new_key
from routerr1.simulation.pool import SimulatedPool
from routerr1.types import Ask, Question, Reply
from tests.serve.conftest import FRANCE, Start
from tests.serve.test_openai_client import ASK, Saying, client

NAMES = ("Atlas", "Penny", "Curie")
SCORES = {"Atlas": 0.9, "Penny": 0.2, "Curie": 0.6}


def probes() -> Matrix:
    """Two questions; Atlas answers both right, Curie one of them, and Penny none."""
    return Matrix(
        ("a?", "b?"), NAMES, np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), np.ones((2, 3)),
        (("",) * 3, ("",) * 3),
    )  # fmt: skip


def by_scores() -> ScoredChooser:
    return ScoredChooser(probes(), lambda _: np.array([SCORES[name] for name in NAMES]))


class Unsure:
    """Believes no reply by more than one half."""

    def score(self, *_: str) -> float:
        return 0.5


def cascade() -> Cascade:
    scorer: Any = Unsure()
    return Cascade(("Penny", "Curie", "Atlas"), (0.8, 0.6, 0.0), scorer)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ({"Atlas", "Penny", "Curie"}, "Atlas"),
        ({"Penny", "Curie"}, "Curie"),
        ({"Penny"}, "Penny"),
        ({"Ada"}, "Atlas"),  # of which it learned nothing: the gateway refuses what it chooses
    ],
)
def test_the_best_of_the_allowed_is_chosen(names: set[str], chosen: str) -> None:
    for fitted in (by_scores(), best_first("Atlas", probes())):
        left = among(fitted, names)
        assert isinstance(left, ScoredChooser)
        assert left.choose("a?") == chosen


def test_rules_that_ask_the_next_best_stay_among_the_allowed() -> None:
    left = among(by_scores(), {"Penny", "Curie"})
    assert isinstance(left, ScoredChooser)
    assert left.next_best("a?", {"Curie"}) == "Penny"
    assert left.next_best("a?", {"Curie", "Penny"}) == "Curie"


def test_the_best_single_model_is_first_whatever_the_probes_say() -> None:
    chooser = best_first("Curie", probes())
    assert chooser.choose("a?") == "Curie"
    assert chooser.next_best("a?", {"Curie"}) == "Atlas"


def test_a_cascade_leaves_out_stages_and_keeps_the_thresholds_of_the_others() -> None:
    left = among(cascade(), {"Atlas", "Curie"})
    assert isinstance(left, Cascade)
    assert (left.order, left.thresholds) == (("Curie", "Atlas"), (0.6, 0.0))
    assert left.next_call("a?", [Reply("Curie", "b")]) == Ask("Atlas", "a?")  # 0.5 is below 0.6
    none_left = among(cascade(), {"Ada"})
    assert isinstance(none_left, Cascade)
    assert none_left.order == ("Penny", "Curie", "Atlas")


@pytest.mark.parametrize(
    ("fitted", "name"),
    [
        (by_scores(), "baseline/knn"),
        (best_first("Atlas", probes()), "best_single"),
        (cascade(), "baseline/frugal"),
        (Always("Atlas"), "baseline/largest"),
    ],
    ids=["knn", "best_single", "frugal", "largest"],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_key_gets_the_answer_of_a_candidate_that_it_may_ask(
    start: Start, pool: SimulatedPool, params: Params, fitted: Chooser | Cascade, name: str,
    *, stream: bool,
) -> None:  # fmt: skip
    saying = Saying(pool, "Paris")
    running = start(asked=saying, route=reply_route(fitted, name, params))
    secret, key = new_key("curie", candidates=frozenset({"Curie"}))
    running.gateway.store.add_key(key)
    with client(running, secret) as openai_client:
        found = openai_client.chat.completions.create(**ASK, stream=stream)
        if isinstance(found, openai.Stream):
            pieces = [chunk.choices[0].delta.content or "" for chunk in found if chunk.choices]
            assert "".join(pieces) == "Paris"
        else:
            assert found.choices[0].message.content == "Paris"
    assert saying.asked == ["Curie"]


@pytest.mark.parametrize("name", ["best_single", "largest", "knn"])
async def test_a_router_named_to_serve_chooses_among_the_allowed(
    params: Params, pool: SimulatedPool, rows: list[Question], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, name: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    asked = sample_probes([row for row in rows if row.split == "train"], 16, seed=1)
    write_profile(tmp_path / "data/pool", await profile(asked, pool, store=None))
    write_cards(tmp_path / "data/pool/cards.json", list(pool.cards))
    without = params.replace(model=params.model.replace(init="none"))
    engine = router_engine(name, without, Choices(demo=True, topics=False))
    heard = {each: Heard(f"r/{each}") for each in ("all", "rest")}
    try:
        await engine.play(Question("q1", "served", FRANCE, (), "test"), heard["all"], Grant())
        first = heard["all"].replies[0].model
        heard["rest"].allowed = frozenset(card.name for card in pool.cards) - {first}
        await engine.play(Question("q2", "served", FRANCE, (), "test"), heard["rest"], Grant())
    finally:
        await engine.aclose()
    (reply,) = heard["rest"].replies
    assert reply.model in heard["rest"].allowed
    assert reply.failure is None
