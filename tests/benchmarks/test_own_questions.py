"""The support desk of the benchmark: its questions, its models and its table."""

import json
import urllib.request
from collections import Counter

import pytest

from benchmarks.own_questions import (
    LANGUAGES,
    PER_THEME,
    SKILLS,
    questions_of,
    reply_of,
    served,
    table,
)


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_question_has_an_answer_of_its_own(name: str) -> None:
    rows = questions_of(LANGUAGES[name])
    assert Counter(theme for theme, _, _ in rows) == {0: PER_THEME, 1: PER_THEME, 2: PER_THEME}
    assert len({question for _, question, _ in rows}) == len(rows)
    assert len({answer for _, _, answer in rows}) == len(rows)
    assert rows == questions_of(LANGUAGES[name])


@pytest.mark.parametrize("model", SKILLS)
def test_models_are_about_as_good_as_they_should_be(model: str) -> None:
    language = LANGUAGES["de"]
    rows = questions_of(language)
    for theme, skill in enumerate(SKILLS[model]):
        mine = [row for row in rows if row[0] == theme]
        replies = [reply_of(model, f"Frage: {row[1]}", rows, language.unsure) for row in mine]
        right = sum(said == f"{row[2]}." for said, row in zip(replies, mine, strict=True))
        assert abs(right / len(mine) - skill) < 0.15
        assert (language.unsure in replies) == (model == "Small")


def test_the_server_replies_as_an_api_does() -> None:
    language = LANGUAGES["en"]
    rows = questions_of(language)
    with served(rows, language.unsure) as address:
        body = {"model": "Large", "messages": [{"role": "user", "content": rows[0][1]}]}
        request = urllib.request.Request(
            f"{address}/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answered:
            said = json.load(answered)["choices"][0]["message"]["content"]
    assert said == reply_of("Large", rows[0][1], rows, language.unsure)


def test_a_run_is_a_row() -> None:
    share = {"mean": 0.5, "low": 0.25, "high": 0.75}
    run = {
        "language": "de", "seed": 2, "seconds": 90.0, "em": {"policy": share}, "format_valid": 0.99,
        "best_shown": None,
    }  # fmt: skip
    line = table([run]).splitlines()[-1]
    assert line == "| de | 2 | 0.500 [0.250, 0.750] |  |  |  |  | 0.99 |  | 1.5 |"
