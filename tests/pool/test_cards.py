"""Cards on disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from routerr1.errors import PoolError
from routerr1.files import write_json
from routerr1.pool.cards import read_cards, write_cards
from routerr1.prompt import renderer
from routerr1.types import Card, Question

CARDS = [
    Card("Atlas", "places", ("A",), 0.2, 0.6, 0.4, 0.9, {"geography": 0.95}, 12.5),
    Card("Mint", aliases=("M: 1".replace(": ", "-"),), completion_usd_per_mtok=0.8),
]


def test_what_is_written_is_read_back_in_order(tmp_path: Path):
    write_cards(tmp_path / "cards.json", CARDS)
    assert read_cards(tmp_path / "cards.json") == CARDS


def test_a_size_is_kept_and_changes_neither_the_prompt_nor_the_files_of_pools_without(
    tmp_path: Path,
):
    sized = [replace(card, size_b=7.6) for card in CARDS]
    write_cards(tmp_path / "sized.json", sized)
    assert read_cards(tmp_path / "sized.json") == sized
    write_cards(tmp_path / "cards.json", CARDS)
    assert "size_b" not in (tmp_path / "cards.json").read_text()
    question = Question("q", "d", "Who?", ("x",), "test")
    for template in ("compact", "full"):
        render = renderer(template, 4)
        assert render(question, sized) == render(question, CARDS)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"colour": "red"}, "candidate 'Atlas': unknown key colour"),
        (
            {"prompt_usd_per_mtok": -1},
            "candidate 'Atlas': prompt_usd_per_mtok: Input should be greater",
        ),
        ({"performance": {"x": 1.5}}, r"candidate 'Atlas': performance\.x: "),
        (
            {"performance": {"X": 0.7}, "unsure": {"y": 0.7, "x": 0.4}},
            "candidate 'Atlas': unsure: 0.4 of the replies on 'x' are not sure and 0.7 are right",
        ),
        ({"completion_usd_per_mtok": "dear"}, "candidate 'Atlas': completion_usd_per_mtok: "),
        ({"size_b": 0}, "candidate 'Atlas': size_b: Input should be greater"),
        ({"name": "At\nlas"}, r"candidate 'At\\nlas': name: must be printable"),
        ({"name": "At\u202elas"}, "candidate 'At.*las': name: must be printable"),
        ({"name": "Atlas "}, "candidate 'Atlas ': name: must be printable"),
        ({"name": ""}, "candidate number 1: name: "),
        ({"name": "Mint"}, "candidate 'Mint': name 'Mint' already belongs to candidate 'Mint'"),
        ({"aliases": ["At:las"]}, r"candidate 'Atlas': aliases\.0: must not"),
        (
            {"aliases": ["mint"]},
            "candidate 'Atlas': alias 'mint' already belongs to candidate 'Mint'",
        ),
    ],
)
def test_a_bad_card_is_named(tmp_path: Path, change: dict[str, Any], problem: str):
    path = tmp_path / "cards.json"
    write_json(path, [{"name": "Atlas", **change}, {"name": "Mint"}])
    with pytest.raises(PoolError, match=problem) as caught:
        read_cards(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{}", "[1]", "[{", "\xff"])
def test_a_file_that_holds_no_cards_is_named(tmp_path: Path, text: str):
    path = tmp_path / "cards.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(PoolError, match=str(path)):
        read_cards(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(PoolError, match=r"none\.json: cannot be read"):
        read_cards(tmp_path / "none.json")


def test_cards_that_share_a_name_are_not_written(tmp_path: Path):
    with pytest.raises(PoolError, match="'Atlas'"):
        write_cards(tmp_path / "cards.json", [Card("Atlas"), Card("Atlas")])
    assert not (tmp_path / "cards.json").exists()
