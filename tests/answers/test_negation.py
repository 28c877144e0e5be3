"""What a negation denies, in English and German."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.answers.negation import relation


@pytest.mark.parametrize(
    ("said", "reference", "expected"),
    [
        ("The key is no longer valid.", "The key has expired.", "denies"),
        ("The key is no longer valid.", "The key is valid.", "contradicts"),
        ("Der Schlüssel ist nicht mehr gültig.", "Der Schlüssel ist gültig.", "contradicts"),
        ("Der Schlüssel ist ungültig.", "Der Schlüssel ist nicht gültig.", "same"),
        ("The plug is not unsuitable.", "The plug is unsuitable.", "contradicts"),
        ("The plug is not unsuitable.", "The plug is suitable.", "same"),
        ("Yes, it can be opened.", "No, it cannot be opened.", "contradicts"),
        ("Ja, das geht.", "Nein, das geht nicht.", "contradicts"),
        ("It is not paid before it arrives.", "It is paid after it arrives.", "same"),
        ("It is not paid before it arrives.", "It is paid before it arrives.", "contradicts"),
        ("It takes no more than 5 days.", "It takes more than 5 days.", "contradicts"),
        ("Do not forget to renew it.", "Renew it.", "same"),
        ("Not only the lid may be opened.", "The lid may be opened.", "same"),
        ("Schliessen Sie den Deckel nicht.", "Schließen Sie den Deckel.", "contradicts"),
        ("Starten Sie das Gerät nicht neu.", "Starten Sie das Gerät neu.", "contradicts"),
        ("Öffnen Sie den Deckel nicht.", "Lassen Sie den Deckel geschlossen.", "denies"),
        ("Stornieren ist ausgeschlossen.", "Sie können nicht stornieren.", "same"),
        ("Cover it.", "Cover it so that it does not dry out.", "same"),
        ("Cover it.", "Cover it. It must not burn.", "silent"),
        ("No llueve.", "Llueve.", "contradicts"),
        ("Il ne ferme pas.", "Il ferme.", "contradicts"),
        ("", "It is not true.", "silent"),
        (
            "Es ist nicht verboten, das Fenster zu öffnen.",
            "Das Öffnen ist verboten.",
            "contradicts",
        ),
        ("Smoking is not forbidden.", "Smoking is forbidden.", "contradicts"),
        ("Smoking is not forbidden.", "Smoking is allowed.", "same"),
        ("", "", "same"),
        ("It has n\u200bot expired.", "It has expired.", "contradicts"),
        ("It has ｎｏｔ expired.", "It has expired.", "contradicts"),
        ("It hasnʼt expired.", "It hasn't expired.", "same"),
        ("Es ist unmo\u0308glich.", "Es ist möglich.", "contradicts"),
    ],
)
def test_how_negations_relate(said: str, reference: str, expected: str):
    assert relation(said, reference) == expected


@given(st.text(max_size=200))
def test_no_text_contradicts_itself(text: str):
    assert relation(text, text) == "same"
