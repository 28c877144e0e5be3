import asyncio
from pathlib import Path

import numpy as np
import pytest

from routerr1.baselines.build import (
    CHOOSERS,
    SINGLE,
    BaselineContext,
    baseline_routers,
    fitted_models,
    whole_routers,
)
from routerr1.baselines.cascade import ReplyScorer, frugal
from routerr1.baselines.few_probes import AGAIN, PROMPTED
from routerr1.baselines.learned import Majority
from routerr1.baselines.matrix import Matrix, read_matrix
from routerr1.baselines.prompted import largest, prompted_choice
from routerr1.baselines.retrieval import FileIndex, MemoryIndex, RetrieverPool
from routerr1.baselines.script import play_calls, play_once
from routerr1.config import BaselineParams
from routerr1.errors import DataError
from routerr1.evaluate.run import WHOLE, evaluation_of, play_all
from routerr1.pool.base import Call
from routerr1.pool.cards import write_cards
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.profile import Profile, write_profile
from routerr1.protocol import check, names_of
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.lazy import Lazy
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import statements
from routerr1.types import Ask, Card, Reply

ALL = (
    "direct", "cot", "sft", "rag", "search_r1", "prompted", "largest", "knn", "mlp", "bert",
    "router_dc", "graph_router", "policy_before_rl", "knn_multi_turn", "frugal",
    "best_8", "best_40", "beta_40", "thompson_40", "knn_40", "prompted_40", "knn_spend_0",
    "ask_again", "ask_sure_first",
)  # fmt: skip
PARAMS = BaselineParams(
    include=ALL, embedder="tfidf", encoder=None, neighbours=10, passages=1, corpus=None,
    sft_steps=0, sft_learning_rate=1e-3,
)  # fmt: skip
PAPER = Path(__file__).parents[2] / "pools/paper.yaml"
NAMES = [candidate.name for candidate in default_candidates()]


@pytest.fixture(scope="module")
def played(world):
    """Every baseline on the test questions of one fact, with a perfect reader as the base policy."""

    def ask_then_read(prompt: str, inserted) -> str:
        if inserted:
            return world.reader().generator.start("", seed=0)._script(prompt, inserted)
        if "Penny" not in prompt:  # a small policy names whom it reads of
            return "<think> nobody</think><answer> nobody</answer>"
        query = prompt.rsplit("Question: ", 1)[1].strip()
        return f"<think> ask</think><search> Penny: {query}</search>"

    base = world.policy(ScriptedGenerator(ask_then_read))
    passages = statements(world.known)
    learned = {
        **fitted_models(world.matrix, PARAMS, seed=3), "sft": Lazy(lambda: world.reader().generator)
    }  # fmt: skip
    retriever = RetrieverPool(MemoryIndex(passages), count=1, aliases=NAMES)
    context = BaselineContext(base, base.showing(world.pool.cards), world.pool, learned, retriever)
    routers = baseline_routers(context, PARAMS, pool_name="training", seed=3)
    routers += whole_routers(base, world.pool, pool_name=WHOLE, seed=3)
    jobs = [(router, question) for router in routers for question in world.test]
    rows = evaluation_of(asyncio.run(play_all(jobs, concurrency=32))).rows
    return {
        name: [row for row in rows if row.router.removeprefix("baseline/") == name]
        for name in (*ALL, "best_of_singles")
    }  # fmt: skip


def _em(rows) -> float:
    return float(np.mean([row.em for row in rows]))


@pytest.mark.parametrize("name", ["knn", "mlp", "bert", "router_dc", "graph_router", "frugal"])
@pytest.mark.slow
def test_a_router_that_learnt_from_the_matrix_beats_the_best_single_model(played, world, name):
    best = max(
        np.mean([world.pool.knows(card.name, question.question) for question in world.test])
        for card in world.pool.cards
    )
    assert _em(played[name]) > best


@pytest.mark.parametrize("name", ["direct", "cot", "sft"])
@pytest.mark.slow
def test_who_asks_nobody_pays_nothing(played, name):
    rows = played[name]
    assert all((row.cost_usd, row.called) == (0.0, []) for row in rows)
    assert all(row.answer is not None for row in rows)


@pytest.mark.parametrize("name", ["rag", "search_r1"])
@pytest.mark.slow
def test_retrieval_finds_the_fact_and_is_free(played, name):
    assert _em(played[name]) > 0.9
    assert {model for row in played[name] for model in row.called} == {"Retriever"}
    assert sum(row.cost_usd for row in played[name]) == 0.0


@pytest.mark.slow
def test_single_round_routers_call_once_with_the_whole_question_and_keep_the_format(played):
    for name in ("largest", "knn", "mlp", "bert", "router_dc", "graph_router", "prompted"):
        for row in played[name]:
            assert row.calls == 1
            assert row.format_valid, row.trajectory
            assert f": {row.question}</search>" in row.trajectory


def test_the_largest_has_the_most_parameters_where_all_tell_them():
    cards = [Card("dear", completion_usd_per_mtok=2.0, size_b=8.0), Card("big", size_b=70.0)]
    assert largest(cards) == "big"
    assert largest([*cards, Card("silent")]) == "dear"
    assert (
        largest(read_pool_file(PAPER).cards) == "Mixtral-8x22B-Instruct"
    )  # 141, its experts counted


@pytest.mark.slow
def test_without_sizes_the_largest_is_the_dearest(played, world):
    dearest = max(world.pool.cards, key=lambda card: card.completion_usd_per_mtok).name
    assert largest(world.pool.cards) == dearest
    assert {model for row in played["largest"] for model in row.called} == {dearest}


@pytest.mark.slow
def test_prompted_asks_whom_the_policy_names_and_decomposed_knn_chooses_itself(played):
    assert {model for row in played["prompted"] for model in row.called} == {"Penny"}
    assert {model for row in played["policy_before_rl"] for model in row.called} == {"Penny"}
    assert len({model for row in played["knn_multi_turn"] for model in row.called}) > 2
    assert _em(played["knn_multi_turn"]) > _em(played["policy_before_rl"])


@pytest.mark.slow
def test_a_part_that_is_asked_again_goes_to_the_next_best(world):
    """The base policy asks every question twice, and reads the second reply."""

    def twice(prompt: str, inserted) -> str:
        if len(inserted) > 1:
            return world.reader().generator.start("", seed=0)._script(prompt, inserted[1:])
        query = prompt.rsplit("Question: ", 1)[1].strip()
        return f"<think> ask</think><search> Penny: {query}</search>"

    base = world.policy(ScriptedGenerator(twice))
    learned = fitted_models(world.matrix, PARAMS, seed=3)
    context = BaselineContext(base, base, world.pool, learned, None)
    for name in ("ask_again", "ask_sure_first"):
        params = PARAMS.replace(include=(name,))
        (router,) = baseline_routers(context, params, pool_name="training", seed=3)
        chooser = learned[name]()
        for question in world.test[:10]:
            (row,) = asyncio.run(play_all([(router, question)], concurrency=1))
            first = chooser.choose(question.question)
            assert row.called == [first, chooser.next_best(question.question, {first})]


@pytest.mark.slow
def test_forty_probes_beat_the_best_single_model_and_a_penalty_for_cost_saves(played, world):
    best = max(
        np.mean([world.pool.knows(card.name, question.question) for question in world.test])
        for card in world.pool.cards
    )
    for name in ("best_40", "beta_40", "knn_40"):
        assert _em(played[name]) > best
    paid = {name: sum(row.cost_usd for row in played[name]) for name in ("knn_spend_0", "knn_40")}
    assert paid["knn_spend_0"] < paid["knn_40"]


async def test_only_what_is_played_is_learnt(world):
    learned = []

    def lesson(name: str) -> Lazy:
        return Lazy(lambda: learned.append(name) or Majority(world.matrix))

    known = {name: lesson(name) for name in (*CHOOSERS, *AGAIN, *PROMPTED, "frugal", "sft")}
    base = world.reader()
    context = BaselineContext(base, base, world.pool, known, None)
    params = PARAMS.model_copy(
        update={"include": ("sft", "mlp", "knn_multi_turn", "frugal", "direct")}
    )
    routers = {
        router.name.removeprefix("baseline/"): router
        for router in baseline_routers(context, params, pool_name="training", seed=3)
    }
    needs = {name: router.needs and router.needs[0] for name, router in routers.items()}
    assert needs == {
        "sft": "sft", "mlp": "mlp", "knn_multi_turn": "knn", "frugal": "frugal", "direct": None
    }  # fmt: skip
    await play_all([(routers["mlp"], question) for question in world.test[:3]], concurrency=2)
    assert learned == ["mlp"]


@pytest.mark.slow
def test_a_cascade_stops_at_the_reply_it_believes(played, world):
    cascade = frugal(world.matrix, seed=0)
    assert {row.calls for row in played["frugal"]} <= {1, 2, 3}
    prices = dict(zip(world.matrix.candidates, world.matrix.mean_cost, strict=True))
    assert list(cascade.order) == sorted(cascade.order, key=prices.__getitem__)
    believed = Reply(cascade.order[0], "yes")
    sure = cascade.scorer.score("?", believed.model, believed.text)
    ask = cascade.next_call("?", [believed])
    assert (ask is None) == (len(cascade.order) == 1 or sure >= cascade.thresholds[0])
    failed = Reply(cascade.order[0], "", failure="unavailable")
    if len(cascade.order) > 1:
        assert cascade.next_call("?", [failed]) == Ask(cascade.order[1], "?")
    everyone = [Reply(name, "no") for name in cascade.order]
    assert cascade.next_call("?", everyone) is None


def test_cascade_takes_the_cheap_one_alone_if_it_is_always_right():
    right = np.ones((12, 2))
    matrix = Matrix(
        tuple(f"q{i}" for i in range(12)), ("cheap", "dear"), right,
        np.tile([1.0, 10.0], (12, 1)), (("yes", "yes"),) * 12,
    )  # fmt: skip
    assert frugal(matrix, seed=0).order == ("cheap",)


def test_cascade_goes_on_where_the_cheap_reply_is_seen_to_be_wrong():
    # "cheap" says "dunno" on half; the scorer can read that, so a cascade beats either alone.
    wrong = np.arange(40) % 2 == 0
    matrix = Matrix(
        tuple(f"question {i}" for i in range(40)), ("cheap", "dear"),
        np.stack([~wrong, np.ones(40)], axis=1).astype(float),
        np.tile([1.0, 10.0], (40, 1)),
        tuple(("dunno" if no else "surely", "surely") for no in wrong),
    )  # fmt: skip
    cascade = frugal(matrix, seed=0)
    assert cascade.order == ("cheap", "dear")
    assert cascade.next_call("q", [Reply("cheap", "dunno")]) == Ask("dear", "q")
    assert cascade.next_call("q", [Reply("cheap", "surely")]) is None


def test_a_scorer_of_replies_that_are_all_right_says_so():
    matrix = Matrix(("q",), ("a",), np.ones((1, 1)), np.ones((1, 1)), (("x",),))
    assert ReplyScorer(matrix, 0).score("q", "a", "x") == 1.0


async def test_a_policy_that_would_rather_ask_on_is_made_to_answer(world):
    stubborn = world.policy(
        ScriptedGenerator(["<think> hm</think><search> Penny: what?</search>", " Paris</answer>"])
    )
    found = await play_once(world.test[0], "Atlas", stubborn, world.pool, seed=0, player="p")
    assert (found.answer, found.stopped) == ("Paris", "answered")
    assert [turn.reply.model for turn in found.turns if turn.reply] == ["Atlas"]
    assert not check(found.text, names_of(world.pool.cards))  # a call without a reply


async def test_who_never_answers_has_no_answer(world):
    mute = world.policy(ScriptedGenerator(["nothing", "nothing"]))
    found = await play_once(world.test[0], "Atlas", mute, world.pool, seed=0, player="p")
    assert (found.answer, found.stopped) == (None, "no_action")


async def test_without_a_known_name_nobody_is_asked(world):
    base = world.policy(ScriptedGenerator(["<think> x</think><search> Nobody: q</search>"]))
    found = await prompted_choice(world.test[0], base, world.pool, seed=0, player="p")
    assert (found.ledger.calls, found.answer) == (0, None)


@pytest.mark.slow
def test_no_single_round_router_is_above_the_best_candidate_asked_whole(played, world):
    best = {row.question_id: row for row in played["best_of_singles"]}
    assert len(best) == len(world.test)
    for name in SINGLE:
        assert all(row.em <= best[row.question_id].em for row in played[name])


async def test_a_writer_does_not_read_what_a_cascade_rejected(world):
    read: list[list[str]] = []

    def note(_: str, inserted) -> str:
        read.append(list(inserted))
        return "<think> done</think><answer> it</answer>"

    asks = [Ask("Atlas", "first?"), Ask("Mint", "second?")]
    for read_all, seen in ((True, 2), (False, 1)):
        found = await play_calls(
            world.test[0], lambda replies: asks[len(replies)] if len(replies) < 2 else None,
            world.policy(ScriptedGenerator(note)), world.pool, seed=0, player="p", read_all=read_all,
        )  # fmt: skip
        heard = [text for text in read[-1] if text.startswith("<information>")]
        assert len(heard) == seen
        assert heard[-1] == found.turns[1].inserted
        assert (found.ledger.calls, found.text.count("<search>")) == (2, 2)  # both were paid


async def test_retriever_finds_symbols_that_look_like_stop_words():
    passages = ["The symbol He stands for Helium.", "The symbol In is Indium."]
    pool = RetrieverPool(MemoryIndex(passages), count=1)
    assert "Helium" in (await pool.ask(Call("Retriever", "Which element has the symbol He?"))).text
    assert (await pool.ask(Call("Other", "x"))).failure == "unknown_model"


def _corpus(path, texts) -> None:
    path.write_text(
        "".join(f'{{"id": {n}, "contents": "{text}"}}\n' for n, text in enumerate(texts))
    )


async def test_a_corpus_file_is_indexed_once_and_answers_as_the_same_passages_in_memory(tmp_path):
    texts = [f"Place {n} lies in Ländchen {n % 7}." for n in range(50)]
    corpus, folder = tmp_path / "corpus.jsonl", tmp_path / "bm25" / "digest"
    _corpus(corpus, texts)
    first = RetrieverPool(FileIndex(corpus, folder), count=3)
    memory = RetrieverPool(MemoryIndex(texts), count=3)
    queries = [f"Which Ländchen holds place {n}?" for n in range(20)]
    there = await asyncio.gather(*(first.ask(Call("Retriever", query)) for query in queries))
    here = [await memory.ask(Call("Retriever", query)) for query in queries]
    assert [reply.text for reply in there] == [reply.text for reply in here]
    assert "Place 7 lies in Ländchen 0." in there[7].text
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert FileIndex(corpus, folder).search("place 49", 1) == [texts[49]]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written


def test_a_bad_corpus_is_named_by_its_line_and_leaves_no_index(tmp_path):
    corpus, folder = tmp_path / "corpus.jsonl", tmp_path / "bm25" / "digest"
    corpus.write_text('{"contents": "one"}\n{"title": "two"}\n')
    with pytest.raises(DataError, match=r"corpus\.jsonl, line 2: needs a `contents`"):
        FileIndex(corpus, folder)
    corpus.write_text('{"text": "one"}\n{"contents": \n')
    with pytest.raises(DataError, match=r"corpus\.jsonl, line 2: is not JSON"):
        FileIndex(corpus, folder)
    corpus.write_text("")
    with pytest.raises(DataError, match="holds no passage"):
        FileIndex(corpus, folder)
    assert not folder.exists()
    corpus.write_text('{"text": "one"}\n')
    assert FileIndex(corpus, folder).search("one", 3) == ["one"]


def test_the_matrix_file_gives_the_matrix(world, tmp_path):
    write_profile(tmp_path, Profile(world.rows, world.pool.cards, {}))
    write_cards(tmp_path / "cards.json", world.pool.cards)
    found = read_matrix(tmp_path / "matrix.parquet")
    assert found.questions == world.matrix.questions
    assert np.array_equal(found.quality, world.matrix.quality)
    assert found.replies == world.matrix.replies
    write_profile(tmp_path, Profile(world.rows[1:], world.pool.cards, {}))
    with pytest.raises(DataError, match=r"matrix\.parquet: no row for .* 'Goliath'"):
        read_matrix(tmp_path / "matrix.parquet")
