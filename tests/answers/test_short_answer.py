"""The short answer in a reply, on sentences of the kind that small real models write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.answers.short_answer import is_unsure, short_answer


@pytest.mark.parametrize(
    ("question", "reply", "answer"),
    [
        ("What is the capital of France?", "Paris", "Paris"),
        ("What is the capital of France?", "The capital of France is Paris.", "Paris"),
        ("What is the capital of Mexico?", "The capital of Mexico is Mexico City.", "Mexico City"),
        ("Name the capital city of Algeria.", "Good question, let me recall. It is Algiers.", "Algiers"),
        ("Which country is home to the airport BOG?", "Colombia is home to the airport BOG.", "Colombia"),
        ("Which country saw the discovery of Tin?", "Tin was discovered in England.", "England"),
        ("Which element has the symbol Mo?", "Molybdenum is a chemical element with the symbol Mo.",
         "Molybdenum"),
        ("What is the currency code of Sweden?", "Sweden is a country with a unique currency code of SEK.",
         "SEK"),
        ("What is the calling code of Iraq?", "964", "964"),
        ("In which country was Tin discovered?", "In which country was Tin discovered?",
         "In which country was Tin discovered"),
        ("What is it?", "", ""),
    ],
)  # fmt: skip
def test_what_a_reply_says_beyond_the_question(question: str, reply: str, answer: str) -> None:
    assert short_answer(question, reply) == answer


@pytest.mark.parametrize(
    "reply",
    ["I am not sure about that.", "Not in my notes.", "I do not know.", "I don’t know.", "", "  ",
     "Das weiß ich leider nicht.", "Weiss nicht", "Keine Ahnung.", "Je ne sais pas.", "No lo sé.", "Non lo so.",
     "Não sei.", "Dat weet ik niet.", "Nie wiem.", "Я не знаю", "不知道", "わかりません", "모르겠습니다",
     "Das weiß ich leider gar nicht.", "わからない", "我不清楚", "Je l'ignore.", "The answer is unknown.", "Unbekannt",
     "na\u0303o sei"],
)  # fmt: skip
def test_a_reply_without_an_answer_is_known_as_one(reply: str) -> None:
    assert is_unsure(reply)


@pytest.mark.parametrize(
    "reply",
    ["Oslo", "Ich weiß, dass es nicht Bonn ist, sondern Berlin.", "Weißrussland", "No se vende en Oslo.",
     "Der Weiße Nil", "The film is L'Inconnu du lac.", "Die Farbe ist weiß und nicht gelb.",
     "The Tomb of the Unknown Soldier."],
)  # fmt: skip
def test_a_reply_with_an_answer_is_not_taken_for_one_without(reply: str) -> None:
    assert not is_unsure(reply)


@given(st.text(), st.text())
def test_any_reply_has_one(question: str, reply: str) -> None:
    assert short_answer(question, reply) in " ".join(reply.split())
