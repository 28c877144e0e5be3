"""The one renderer: what a policy reads of its candidates, and how it reads replies."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from routerr1.errors import ConfigError
from routerr1.policy.scratch import train_tokenizer
from routerr1.pool.names import TRAINING_NAMES, UNSEEN_NAMES
from routerr1.prompt import PUBLISHED, prompt_hash, renderer, shortlist
from routerr1.protocol import information
from routerr1.simulation.candidates import drawn_candidates
from routerr1.simulation.pool import training_pool
from routerr1.types import Card, Question

PARITY = Path(__file__).parents[2] / "shared" / "data" / "parity" / "trajectories.jsonl.gz"
CARDS = (
    Card("Ada", "sums", (), 0.1, 0.5, 0.42, performance={"maths": 0.91, "law": 0.2}),
    Card("Bo", "pleas", (), 0.2, 2.0, 1.5, performance={"maths": 0.3, "law": 0.88}),
    Card("Cy", "", (), 0.1, 0.25, performance={"maths": 0.3}),
    Card("Di", "", (), 0.1, 0.25, performance={"maths": 0.62, "law": 0.88}),
)
QUESTION = Question("q", "d", "Why?", ("x",), "test")


def test_the_compact_prompt_lists_prices_then_who_is_how_good_at_each_topic() -> None:
    assert renderer("compact", 4)(QUESTION, CARDS) == (
        " Ada 50c 400ms; Bo 200c 1500ms; Cy 25c; Di 25c;"
        " law 20 Ada 90 Bo 90 Di; maths 90 Ada 30 Bo 60 Di\n"
        "Question: Why?\n"
    )


def test_a_shortlist_holds_the_three_best_in_the_order_of_the_cards() -> None:
    assert shortlist("maths", CARDS) == " maths 90 Ada 30 Bo 60 Di"
    assert shortlist("maths", CARDS[::-1]) == " maths 60 Di 30 Cy 90 Ada"
    assert shortlist("botany", CARDS) == " botany"


def test_the_full_prompt_shows_description_price_latency_and_performance() -> None:
    text = renderer("full", 3)(QUESTION, CARDS)
    assert "- Ada: sums; $0.1 in, $0.5 out per million tokens; 0.4 s median latency; " in text
    assert "right on law 20%, maths 90%." in text
    assert "at most 3 times" in text


def test_a_prompt_of_ones_own_is_filled_in_one_pass(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Ask [{names}] {max_rounds} times, as {json: 1}.\n{cards}\n\nQ: {question}\n")
    lines = renderer("full", 3)(QUESTION, CARDS).partition("Models you can ask:\n")[2]
    text = renderer("file", 3, file)(replace(QUESTION, question="Why {cards}?"), CARDS)
    assert text == (
        f"Ask [Ada, Bo, Cy, Di] 3 times, as {{json: 1}}.\n{lines.partition('Question')[0]}Q: Why {{cards}}?\n"
    )


def test_a_prompt_that_names_all_candidates_itself_is_taken_word_by_word(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Ada, Bo, Cy and Di can help.\nQuestion: {question}\n\n")
    render = renderer("file", 4, file)
    assert render(QUESTION, CARDS) == "Ada, Bo, Cy and Di can help.\nQuestion: Why?\n\n"
    with pytest.raises(ConfigError, match=r"mine\.txt: holds no {cards} and does not name Ed,"):
        render(QUESTION, (*CARDS, Card("Ed")))


def test_a_prompt_file_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"^none\.txt: cannot be read \(No such file or directory\)$"
    ):
        renderer("file", 4, Path("none.txt"))
    told = r"^prompts/router-r1\.txt: cannot be read .*PROMPT_TEMPLATE_QWEN.*ulab-uiuc/Router-R1.*README\.md"
    with pytest.raises(ConfigError, match=told):
        renderer("file", 4, PUBLISHED)
    Path("mine.txt").write_text("{cards}")
    with pytest.raises(ConfigError, match=r"^mine\.txt: holds no {question}"):
        renderer("file", 4, Path("mine.txt"))
    Path("mine.txt").write_bytes(b"\xff{question}")
    with pytest.raises(ConfigError, match=r"^mine\.txt: is not UTF-8"):
        renderer("file", 4, Path("mine.txt"))


def test_the_hash_of_a_prompt_covers_all_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routerr1 import prompt

    file = tmp_path / "mine.txt"
    file.write_text("A, B. {question}")
    kinds: list[tuple[prompt.Template, int, Path | None]] = [
        ("compact", 4, None), ("full", 4, None), ("full", 3, None), ("file", 4, file),
    ]  # fmt: skip
    before = [prompt_hash(*kind) for kind in kinds]
    assert len(set(before)) == 4
    assert before == [prompt_hash(*kind) for kind in kinds]
    file.write_text("A, C. {question}")
    assert prompt_hash(*kinds[3]) != before[3]
    file.write_text("A, B. {question}")
    changes = {
        "_percent": (lambda share: round(share * 100), {0, 1, 2, 3}),
        "shortlist": (lambda topic, _: f" {topic}", {0}),
        "_REPLIES": (dict.fromkeys(prompt._REPLIES, "<information>{}</information>"), {0, 1, 2, 3}),
        "_FULL": (prompt._FULL.replace("weigh", "mind"), {1, 2}),
    }
    for name, (other, wanted) in changes.items():
        with monkeypatch.context() as patch:
            patch.setattr(prompt, name, other)
            after = [prompt_hash(*kind) for kind in kinds]
        assert {i for i in range(4) if after[i] != before[i]} == wanted, name


@pytest.mark.skipif(
    not PARITY.is_file(), reason="reference values not found: ../shared/data/parity is absent"
)
def test_replies_stand_where_the_published_checkpoints_read_them() -> None:
    with gzip.open(PARITY, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["completion"] for line in lines]
    inserted = [
        text
        for each in texts
        for text in re.findall(r"\n\n<information>[^<]*</information>\n\n", each)
    ]
    assert len(inserted) > 1000
    for text in inserted:
        said = text.strip().removeprefix("<information>").removesuffix("</information>")
        assert information(said, renderer("full", 4).reply) == text


def test_names_never_trained_on_are_new_pairs_of_pieces_that_were() -> None:
    assert not set(TRAINING_NAMES) & set(UNSEEN_NAMES)
    tokenizer = train_tokenizer((f" {name}" for name in TRAINING_NAMES * 3), 600)
    met = {piece for name in TRAINING_NAMES for piece in tokenizer.tokenize(f" {name}")}
    for name in UNSEEN_NAMES:
        pieces = tokenizer.tokenize(f" {name}")
        assert len(pieces) == 2
        assert set(pieces) <= met
        assert tokenizer.decode(tokenizer(f" {name}")["input_ids"]) == f" {name}"


def test_drawn_pools_repeat_by_seed_and_half_of_those_for_training_have_no_generalist() -> None:
    assert drawn_candidates(5) == drawn_candidates(5) != drawn_candidates(6)
    pools = [training_pool({}, seed).candidates for seed in range(200)]
    assert {len(pool) for pool in pools} == {6}
    general = sum(any(min(each.skill.values()) > 0.6 for each in pool) for pool in pools)
    assert 70 < general < 130
    with pytest.raises(ValueError, match="families"):
        drawn_candidates(1, names=UNSEEN_NAMES[:2])
