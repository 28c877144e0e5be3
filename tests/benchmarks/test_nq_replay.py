"""Routing against format repair, on a log of six questions worked out by hand."""

import json
from pathlib import Path

import pytest

from benchmarks.nq_replay import LABELS, Six, page, run
from routerr1.baselines.replay_study import (
    METRICS,
    REPAIRED,
    RecordedReply,
    read_log,
    repaired_answer,
    score,
)
from routerr1.config import Params

LOG = Path(__file__).parents[3] / "shared/data/logs/llmrouter_nq_6llm.jsonl.gz"


def _log(path: Path, replies: dict[str, list[str]]) -> Path:
    """Each model's reply to "who is N?", whose answer is "n"."""
    rows = [
        {
            "query_id": f"q{place}", "query": f"who is {place}?", "golden_answers": ["Ada"],
            "model": f"lab/{model}", "response": reply, "cost_usd": cost,
        }
        for cost, (model, own) in enumerate(replies.items(), start=1)
        for place, reply in enumerate(own)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_metric_has_a_column():
    assert set(LABELS) == {*METRICS, *REPAIRED}


RIGHT, WRONG, SAID = "<answer>Ada</answer>", "<answer>Bob</answer>", "The person is Ada. She wrote."


@pytest.mark.parametrize(
    ("reply", "em", "readable"),
    [
        (RIGHT, 1, 1),
        (WRONG, 0, 0),
        (SAID, 1, 1),  # the first sentence is read
        ("She wrote. It is Ada.", 0, 1),  # the rule reads the first sentence only
        ("Ada is no answer. <answer>Bob</answer>", 0, 0),  # a tag is taken at its word
        ("", 0, 0),
    ],
)
def test_a_reply_without_a_tag_is_read_by_a_rule_and_by_a_perfect_reader(reply, em, readable):
    row = RecordedReply(
        query_id="q", query="who is it?", golden_answers=("Ada",), model="m", response=reply,
        cost_usd=0.0,
    )  # fmt: skip
    assert (score(row, "em_repaired"), score(row, "em_readable")) == (em, readable)
    assert score(row, "em_in_tag") == float(reply == RIGHT)


def test_repair_takes_the_first_sentence_or_list_item():
    assert repaired_answer("who made it?", "It was made by Ada Doe. He lived long.") == "Ada Doe"
    assert repaired_answer("which spices?", "1. **Cloves**\n2. Anise") == "Cloves"
    assert repaired_answer("who?", "x <answer> Ada </answer>") == "Ada"


def test_votes_of_three_and_of_two_by_hand(tmp_path: Path, params: Params):
    # "a" knows 6 of 6, but tags 4 only; "b" and "c" tag the same 4; "d" is always wrong.
    log = _log(tmp_path / "log.jsonl", {
        "a": [RIGHT, RIGHT, RIGHT, RIGHT, SAID, SAID],
        "b": [RIGHT, RIGHT, RIGHT, WRONG, RIGHT, RIGHT],
        "c": [RIGHT, RIGHT, WRONG, WRONG, RIGHT, RIGHT],
        "d": [WRONG] * 6,
    })  # fmt: skip
    section = params.evaluate.replace(bootstrap=100)
    baselines = params.baselines.replace(embedder="tfidf", include=("best_40",))
    found = run(log, baselines, section, repetitions=2)
    quality = {
        metric: {entry.router: entry.quality.mean for entry in own.routers}
        for metric, own in found.studies.items()
    }
    said, repaired = quality["em_in_tag"], quality["em_repaired"]
    assert said["fixed/a"] == pytest.approx(4 / 6)
    assert repaired["fixed/a"] == 1.0
    # Of a, b, c at least two are right and tagged but for question 3, where b and c agree on Bob.
    assert said["baseline/majority_of_three"] == pytest.approx(5 / 6)
    assert repaired["oracle"] == said["oracle"] == 1.0
    # The two that know most are a and b in either half: where a has no tag, b's answer counts, and that is right.
    assert said["baseline/two_knowing_tagged"] == 1.0
    costs = {entry.router: entry.cost_usd.mean for entry in found.studies["em_in_tag"].routers}
    assert costs["baseline/majority_of_three"] == pytest.approx(1 + 2 + 3)
    assert found.untagged == {"a": pytest.approx(1 / 3), "b": 0, "c": 0, "d": 0}
    split = {each.router: each for each in found.splits}["fixed/a"]
    base = said["best_single"]
    assert split.routing == pytest.approx(4 / 6 - base, abs=1e-8)
    assert split.both == pytest.approx(1 - base, abs=1e-8)
    assert split.repair == pytest.approx(repaired["best_single"] - base, abs=1e-8)
    text = page(found)
    assert "| Majority of three | 0.833 [" in text
    assert "| a | 0.333 |" in text
    found.write(tmp_path / "six.json")
    assert Six.read(tmp_path / "six.json") == found


@pytest.mark.skipif(not LOG.exists(), reason="the log is not here")
def test_the_log_says_of_single_models_what_was_published():
    matrix = read_log(LOG, "em_in_tag")
    gemma = matrix.candidates.index("google/gemma-2-27b-it")
    assert matrix.quality[:, gemma].mean() == pytest.approx(0.340)
    assert matrix.quality.max(axis=1).mean() == pytest.approx(0.436)
    assert all("<answer>" in line[gemma] for line in matrix.replies)
