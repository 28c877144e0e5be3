"""Whatever candidates are called, calls and metrics have a name for each."""

import posixpath
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils import validation
from pydantic import ValidationError

from routerr1.pool.cards import CardRow, read_cards, write_cards
from routerr1.prompt import renderer
from routerr1.protocol import IN_KEY, check, fit_names, handles, names_of, parse_action
from routerr1.train.score import Score, batch_figures
from routerr1.types import Ask, Card, Ledger, Question, Trajectory

ODD = (
    "Qwen/Qwen2.5-7B:free", "Qwen/Qwen2.5-7B-free", 'gpt 4o "mini"', "<b>", "b", "B", "🦙", "🦙🦙", "模型", "..", "../x",
    "a" * 200, "a" * 199 + "b", "$x$", "[/b]", "é", "e\u0301", "</search>", "x|y", "_hidden", "Goliath (big)", "CON",
)  # fmt: skip


mlflow_takes: Any = validation.validate_param_and_metric_name  # untyped in MLflow


def _accepted(name: str) -> bool:
    try:
        CardRow(name=name)
    except ValidationError:
        return False
    return True


names = st.lists(
    (st.sampled_from(ODD) | st.text(min_size=1, max_size=80)).filter(_accepted),
    min_size=1, max_size=8, unique=True,
)  # fmt: skip


@given(names)
def test_keys_differ_and_mlflow_takes_them(given_names: list[str]) -> None:
    keys = [f"share/{key}" for key in fit_names(given_names, IN_KEY).values()]
    assert len({key.casefold() for key in keys}) == len(given_names)
    for key in keys:
        assert mlflow_takes(key), key
        assert posixpath.normpath(key) == key
        assert len(key) <= 100


@given(names)
def test_a_call_reaches_the_candidate_whose_handle_it_names(given_names: list[str]) -> None:
    cards = [Card(name) for name in given_names]
    known = names_of(cards)
    for name, handle in handles(cards).items():
        assert parse_action(f"<search> {handle}: who?</search>", known) == Ask(name, "who?")
        query = "\U0010ffff"  # no name holds it: a question that holds the name breaks the format
        said = (
            f"<think>t</think><search>{handle}: {query}</search><information>r</information>"
            "<think>u</think><answer>x</answer>"
        )
        assert check(said, known)


def test_names_that_fit_stay_as_they_are() -> None:
    plain = ["Atlas", "Qwen2.5-7B-Instruct", "LLaMA-3.1-70B-Instruct", "Model 1"]
    assert list(fit_names(plain, IN_KEY).values()) == plain
    cards = [Card(name) for name in [*plain, "org/model", "Goliath (big)", "GPT-4o+"]]
    assert all(name == handle for name, handle in handles(cards).items())


def test_every_odd_name_passes_through_a_file_of_cards_and_a_prompt(tmp_path: Path) -> None:
    cards = [
        Card(unicodedata.normalize("NFC", name)) if name == "é" else Card(name) for name in ODD
    ]
    write_cards(tmp_path / "cards.json", cards)
    assert read_cards(tmp_path / "cards.json") == cards
    prompt = renderer("full", 4)(Question("q", "d", "Why?", ("x",), "test"), cards)
    assert "- Qwen/Qwen2.5-7B-free-2:" in prompt  # the name that fits keeps its own
    assert prompt.count("\n- ") == len(ODD)


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "\u200b", "a\x00b", "a\u2028b"])
def test_a_name_that_cannot_be_printed_is_refused(name: str) -> None:
    assert not _accepted(name)


def test_the_share_of_calls_of_every_candidate_has_a_column() -> None:
    played = Trajectory(
        Question("q", "d", "Why?", ("x",), "test"), (), "no_action", None, "", Ledger()
    )
    scored = Score(False, 0.0, 0.0, 0.0, 0.0, 0.0, (-1.0, 0.0, 0.0))
    assert {key for key in batch_figures([played], [scored], ODD) if key.startswith("share/")} == {
        f"share/{key}" for key in fit_names(ODD, IN_KEY).values()
    }
