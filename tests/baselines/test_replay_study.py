import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routerr1.baselines.matrix import Matrix
from routerr1.baselines.replay_study import (
    METRICS,
    RecordedReply,
    halves_of,
    read_log,
    score,
    study,
)
from routerr1.config import load_params
from routerr1.errors import DataError
from routerr1.report.glossary import label
from routerr1.report.replay import studies_text, study_text

ROOT = Path(__file__).parents[2]
LOG = ROOT.parent / "shared" / "data" / "logs" / "llmrouter_nq_6llm.jsonl.gz"


def _row(query: str, model: str, response: str | None, cost_usd: float = 1e-5) -> dict:
    return {
        "query_id": query, "query": f"who {query}?", "golden_answers": ["Ada Lovelace"],
        "model": model, "response": response, "cost_usd": cost_usd,
    }  # fmt: skip


def _write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("response", "em", "f1", "contained"),
    [
        ("It was her. <answer>ada lovelace</answer>", 1.0, 1.0, 1.0),
        ("It was Ada Lovelace.", 0.0, 0.0, 1.0),  # right, but without the tag
        # Lovelace of one word said and two wanted: precision 1, recall 1/2, F1 2/3.
        ("<answer>Lovelace</answer>", 0.0, 2 / 3, 0.0),
        ("Not Ada Lovelace. <answer>Babbage</answer>", 0.0, 0.0, 1.0),
        (None, 0.0, 0.0, 0.0),
    ],
)
def test_three_metrics_by_hand(response, em, f1, contained):
    found = [score(RecordedReply(**_row("q", "m", response)), metric) for metric in METRICS]
    assert found == pytest.approx([em, f1, contained])


def test_halvings_part_the_questions_and_the_second_direction_turns_them():
    forth, back, *others = halves_of(11, seed=5, repetitions=2, folds=2)
    assert sorted([*forth.learn, *forth.test]) == list(range(11))
    assert (sorted(forth.learn), sorted(forth.test)) == (sorted(back.test), sorted(back.learn))
    assert {half.halving for half in others} == {2}
    assert [half.name for half in halves_of(11, 5, 2, 1)] == [
        "halving-1-fold-1",
        "halving-2-fold-1",
    ]


def test_a_log_becomes_a_matrix(tmp_path):
    rows = [
        _row("a", "small", "Ada Lovelace", 1e-6), _row("a", "large", "Babbage", 2e-6),
        _row("b", "large", "Ada Lovelace!", 2e-6), _row("b", "small", None, 1e-6),
    ]  # fmt: skip
    found = read_log(_write(tmp_path / "log.jsonl", rows), "gold_contained")
    assert (found.candidates, found.questions) == (("large", "small"), ("who a?", "who b?"))
    assert found.quality.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert found.cost.tolist() == [[2e-6, 1e-6]] * 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("not json\n", "line 1: is not JSON"),
        ("5\n", "line 1: is not a JSON object"),
        (json.dumps(_row("a", "m", "x")) + '\n{"query": 1}\n', "line 2: has no query_id"),
        (json.dumps(_row("a", "m", "x") | {"cost_usd": None}) + "\n", "line 1: cost_usd"),
        ("", "holds no reply"),
        (2 * (json.dumps(_row("a", "m", "x")) + "\n"), r"two replies for \('a', 'm'\)"),
        (
            json.dumps(_row("a", "m", "x")) + "\n" + json.dumps(_row("b", "n", "x")) + "\n",
            "no reply for",
        ),
    ],
)
def test_a_bad_log_is_refused_with_its_line(tmp_path, text, why):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=why):
        read_log(path, "em_in_tag")


def test_a_broken_archive_is_named(tmp_path):
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n")[:-9])
    with pytest.raises(DataError, match=r"log\.jsonl\.gz"):
        read_log(path, "em_in_tag")


@pytest.fixture(scope="module")
def planted():
    """The first word decides which of two candidates is right; the dearer one also knows a few more."""
    rng = np.random.default_rng(0)
    topic = rng.integers(0, 2, 80)
    quality = np.stack([topic == 0, (topic == 1) | (rng.random(80) < 0.2)], axis=1).astype(float)
    questions = tuple(f"{('red', 'blue')[t]} thing {i}" for i, t in enumerate(topic))
    matrix = Matrix(
        questions, ("x/cheap", "x/dear"), quality, np.tile([1e-6, 3e-6], (80, 1)),
        tuple(("right" if q[0] else "wrong", "right" if q[1] else "wrong") for q in quality),
    )  # fmt: skip
    loaded = load_params(ROOT / "params.yaml")
    params = loaded.evaluate.model_copy(update={"bootstrap": 200})
    baselines = loaded.baselines.model_copy(
        update={"include": ("knn", "mlp", "frugal"), "embedder": "tfidf"}
    )
    return matrix, study(matrix, baselines, params, repetitions=2)


@pytest.mark.slow
def test_routers_that_learn_beat_the_best_single_model_and_none_beats_the_oracle(planted):
    entries = {entry.router: entry for entry in planted[1].routers}
    oracle = entries["oracle"].quality.mean
    for name in ("baseline/knn", "baseline/mlp", "baseline/frugal"):
        assert entries[name].difference.low > 0
        assert entries[name].quality.mean <= oracle
    assert oracle == 1.0
    assert planted[1].pareto_area_with_learned > planted[1].pareto_area_singles


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 5), st.integers(4, 12), st.integers(0, 10_000))
def test_the_oracle_is_never_below_any_router_that_asks_once(candidates, count, seed):
    rng = np.random.default_rng(seed)
    quality = rng.choice([0.0, 0.5, 1.0], size=(count, candidates))
    matrix = Matrix(
        tuple(f"question {place} {rng.integers(3)}" for place in range(count)),
        tuple(f"x/m{place}" for place in range(candidates)), quality,
        rng.random((count, candidates)), (("",) * candidates,) * count,
    )  # fmt: skip
    loaded = load_params(ROOT / "params.yaml")
    params = loaded.evaluate.model_copy(update={"bootstrap": 100})
    baselines = loaded.baselines.model_copy(update={"include": ("knn",), "embedder": "tfidf"})
    found = study(matrix, baselines, params, repetitions=1)
    means = {entry.router: entry.quality.mean for entry in found.routers}
    assert means["oracle"] == pytest.approx(max(means.values()))
    assert means["oracle"] == pytest.approx(quality.max(axis=1).mean())


def test_single_models_and_random_are_what_the_matrix_says(planted):
    matrix, found = planted
    entries = {entry.router: entry for entry in found.routers}
    assert entries["fixed/cheap"].quality.mean == pytest.approx(matrix.quality[:, 0].mean())
    assert entries["random"].quality.mean == pytest.approx(matrix.quality.mean())
    assert entries["random"].cost_usd.mean == pytest.approx(2e-6)
    assert entries["fixed/cheap"].per_repetition.sd == 0.0
    best = entries["best_single"].difference
    assert (best.low, best.high) == (0.0, 0.0)


def test_a_cascade_pays_for_everyone_it_asked(planted):
    entries = {entry.router: entry for entry in planted[1].routers}
    # Cheap first; where its reply reads "wrong" the dear one is paid on top: 1e-6 + 3e-6 * share.
    wrong = 1 - planted[0].quality[:, 0].mean()
    assert entries["baseline/frugal"].cost_usd.mean == pytest.approx(1e-6 + 3e-6 * wrong, rel=0.02)


def test_the_markdown_names_every_router_and_ranks_the_single_models(planted):
    text = studies_text({"em_in_tag": planted[1]})
    assert all(f"| {label(entry.router)} |" in text for entry in planted[1].routers)
    singles, learned = text.rstrip().splitlines()[-2:]
    assert singles.index("dear") < singles.index("cheap")
    assert all(name in learned for name in ("kNN", "MLP", "FrugalGPT"))


def test_votes_on_replies_without_tags_are_left_out_and_named(planted):
    matrix, found = planted
    votes = ("baseline/majority_of_three", "baseline/two_best_tagged")
    assert found.left_out == votes
    text = studies_text({"em_in_tag": found})
    assert "no reply has an answer tag: Majority of three, Two best, the tagged one." in text
    tagged = replace(
        matrix,
        replies=tuple(
            tuple(f"<answer>{said}</answer>" for said in line) for line in matrix.replies
        ),
    )
    loaded = load_params(ROOT / "params.yaml")
    params = loaded.evaluate.replace(bootstrap=100)
    baselines = loaded.baselines.replace(include=())
    for replies, repair, missing in (
        (tagged, False, ()), (tagged, True, ()), (matrix, True, votes[1:]), (matrix, False, votes)
    ):  # fmt: skip
        again = study(replies, baselines, params, known=replies, repair=repair, repetitions=1)
        assert again.left_out == missing
        # The family of the Holm correction has the routers that were played, without the reference.
        assert {entry.router for entry in again.routers} & set(votes) == set(votes) - set(missing)
        assert ("no reply has" in study_text("x", again)) == bool(missing)


@pytest.mark.skipif(not LOG.is_file(), reason=f"needs the recorded replies at {LOG}")
def test_the_recorded_replies_score_as_their_description_says():
    # data/README.md: exact match in the tag of the six candidates on 500 questions.
    found = read_log(LOG, "em_in_tag")
    assert len(found.questions) == 500
    means = dict(zip(found.candidates, found.quality.mean(axis=0), strict=True))
    assert means["google/gemma-2-27b-it"] == pytest.approx(0.340)
    assert means["meta/llama-3.1-70b-instruct"] == pytest.approx(0.136)
    assert means["mistralai/mistral-7b-instruct-v0.3"] == pytest.approx(0.060)
