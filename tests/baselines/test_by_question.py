"""Figures of one question: what its neighbours show, without itself, and as much of it as they can carry."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from routerr1.baselines.by_question import ProbeFigures
from routerr1.baselines.embed import TfidfEmbedder
from routerr1.notation import LEFT
from routerr1.pool.profile import ProbeRow

ASKED = {
    "bills": "What is the number of the bill of",
    "accounts": "Which account name has the customer",
    "parcels": "Who carries the parcel to",
}


def probes(rights: dict[str, dict[str, list[float]]], said: str = "Somebody") -> list[ProbeRow]:
    """One probe for each verdict, by topic and candidate; the probes of a topic differ in a name."""
    return [
        cast(
            "ProbeRow",
            {
                "question_id": f"{topic}{place}",
                "dataset": "own",
                "question": f"{ASKED[topic]} person{place}?",
                "topic": topic,
                "group": f"own/{topic}{place}",
                "candidate": name,
                "answer": said,
                "failure": None,
                "correct": right,
            },
        )
        for topic, by_name in rights.items()
        for name, verdicts in by_name.items()
        for place, right in enumerate(verdicts)
    ]


SPECIALISTS = {
    "bills": {"One": [1.0] * 20, "Two": [0.0] * 20},
    "accounts": {"One": [0.0] * 20, "Two": [1.0] * 20},
}


def test_a_question_has_the_figures_of_those_like_it() -> None:
    figures = ProbeFigures(probes(SPECIALISTS), TfidfEmbedder())
    bill = figures("What is the number of the bill of somebody new?")
    account = figures("Which account name has the customer called Zoe?")
    assert bill["One"] > 0.9 > 0.1 > bill["Two"]
    assert account["Two"] > 0.9 > 0.1 > account["One"]


def test_who_says_that_it_does_not_know_ranks_higher_than_who_is_wrong_as_often() -> None:
    half = {"bills": {"One": [1.0, 0.0] * 10}}
    wrong, silent = (
        ProbeFigures(probes(half, said), TfidfEmbedder())(f"{ASKED['bills']} Zoe?")["One"]
        for said in ("Somebody", "Weiß nicht.")
    )
    assert wrong == pytest.approx(0.5, abs=0.1)
    assert silent == pytest.approx(wrong / (1 - LEFT * (1 - wrong)))


def test_the_own_probe_is_left_out() -> None:
    alone = {"bills": {"One": [1.0] + [0.0] * 19, "Two": [0.0] * 20}}
    figures = ProbeFigures(probes(alone), TfidfEmbedder())
    # No other probe was answered right, so nothing speaks for One but the probe itself.
    assert figures(f"{ASKED['bills']} person0?") == {"One": 0.0, "Two": 0.0}
    assert figures(f"{ASKED['bills']} person7?")["One"] > 0.0


def test_a_paraphrase_of_the_same_group_is_left_out_too() -> None:
    rows = probes({"bills": {"One": [1.0, 1.0, 0.0, 0.0], "Two": [0.0] * 4}})
    for row in rows:
        if row["question_id"] in ("bills0", "bills1"):
            row["group"] = "own/same"
    assert ProbeFigures(rows, TfidfEmbedder())(f"{ASKED['bills']} person0?")["One"] == 0.0


class Scattered:
    """An embedder that knows the topic of a question, and else puts it anywhere."""

    def fit(self, texts: Sequence[str]) -> "Scattered":
        del texts
        return self

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [self._embedded(text) for text in texts]
        return np.asarray(rows, dtype=np.float32)

    @staticmethod
    def _embedded(text: str) -> NDArray[np.float64]:
        (topic,) = (place for place, words in enumerate(ASKED.values()) if words in text)
        around = np.random.default_rng(list(text.encode())).normal(size=8)
        row = np.concatenate([4 * np.eye(3)[topic], around / np.linalg.norm(around)])
        return np.asarray(row / np.linalg.norm(row))


def test_topics_count_for_more_where_neighbours_are_noise() -> None:
    rng = np.random.default_rng(3)
    noise = {
        topic: {name: list((rng.random(60) < 0.5).astype(float)) for name in ("One", "Two")}
        for topic in ("bills", "accounts")
    }
    assert ProbeFigures(probes(noise), Scattered()).strength >= 100
    # Within one topic a word tells the questions apart, which the topic does not say.
    rows = probes({"bills": {"One": [1.0, 0.0] * 30, "Two": [0.0, 1.0] * 30}})
    for place, row in enumerate(rows):
        row["question"] = row["question"].replace(
            "bill", "bill invoice" if place % 2 else "bill receipt"
        )
    assert ProbeFigures(rows, TfidfEmbedder()).strength <= 3


def test_one_probe_is_enough_to_answer() -> None:
    figures = ProbeFigures(probes({"bills": {"One": [1.0], "Two": [0.0]}}), TfidfEmbedder())
    assert figures(f"{ASKED['bills']} person0?") == {"One": 1.0, "Two": 0.0}
    assert figures("Anything else?") == pytest.approx({"One": 1.0, "Two": 0.0})


def test_equal_questions_have_equal_figures() -> None:
    rows = probes(SPECIALISTS)
    asked = "What is the number of the bill of somebody new?"
    assert ProbeFigures(rows, TfidfEmbedder())(asked) == ProbeFigures(rows, TfidfEmbedder())(asked)
