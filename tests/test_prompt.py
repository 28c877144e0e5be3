"""The one renderer: what a policy reads of its candidates, and how it reads replies."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from routerr1.errors import ConfigError
from routerr1.notation import ShortNotation
from routerr1.policy.scratch import train_tokenizer
from routerr1.pool.names import TRAINING_NAMES, UNSEEN_NAMES
from routerr1.prompt import PUBLISHED, looking_up, prompt_hash, renderer
from routerr1.protocol import information
from routerr1.simulation.candidates import drawn_candidates, wide_candidates
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


def test_the_compact_prompt_holds_the_question_alone() -> None:
    assert renderer("compact", 4)(QUESTION, CARDS) == "spend 10: why\n"


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


class PriceLess(ShortNotation):
    """Look-ups without prices."""

    def cards_on(self, topic: str) -> str:
        return re.sub(r" \$\d+", "", super().cards_on(topic))


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
        "_percent": (lambda share: round(share * 100), {1, 2, 3}),
        "tidied": (str.upper, {0}),
        "ShortNotation": (PriceLess, {0}),
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


def test_the_words_of_the_short_form_are_one_token_each_and_case_does_not_count() -> None:
    tokenizer = train_tokenizer(["what is the capital of peru"] * 9, 700)
    text = "<search> m4: what is @2?</search><information> $11 95% m12 $0 100% m1</information>"
    shown = [token.strip() for token in tokenizer.tokenize(text)]
    assert shown[:2] == ["<search>", "m4"]
    assert shown[shown.index("<information>") :] == [
        "<information>", "$11", "95%", "m12", "$0", "100%", "m1", "</information>"
    ]  # fmt: skip
    assert "@2" in shown
    assert tokenizer("Capital of PERU")["input_ids"] == tokenizer("capital of peru")["input_ids"]
    assert tokenizer.tokenize("spend 10: x")[0] == "spend 10"


def test_drawn_pools_repeat_by_seed_and_are_of_every_size_and_shape() -> None:
    assert drawn_candidates(5) == drawn_candidates(5) != drawn_candidates(6)
    with pytest.raises(ValueError, match="families"):
        drawn_candidates(1, names=UNSEEN_NAMES[:2])
    pools = [training_pool({}, seed).candidates for seed in range(300)]
    assert pools[7] == training_pool({}, 7).candidates
    assert {len(pool) for pool in pools} == set(range(2, 26))
    assert not {each.name for pool in pools for each in pool} - set(TRAINING_NAMES)
    leads, dearest, last = [], 0, 0
    for pool in pools:
        skills = sorted((each.skill["money"] for each in pool), reverse=True)
        assert 0.4 <= skills[0] <= 0.98
        leads.append(skills[0] - skills[1])
        best = max(pool, key=lambda each: each.skill["money"])
        dearest += best == max(pool, key=lambda each: each.completion_usd_per_mtok)
        last += best == pool[-1]
    assert min(leads) < 0.04
    assert max(leads) > 0.4
    # Neither the dearest nor the last of a pool is a way to find the best.
    assert dearest < 150
    assert last < 150
    with pytest.raises(ValueError, match="as many names"):
        wide_candidates(1, UNSEEN_NAMES[:2], 3)


def test_a_policy_that_looks_questions_up_reads_how_they_begin():
    long = replace(QUESTION, question=f"Why {'very ' * 1000}long?")
    text = looking_up(lambda _: {})(long, CARDS)
    assert text.startswith("spend 10: why very very")
    assert len(text) < 250
    assert looking_up(lambda _: {})(QUESTION, CARDS) == renderer("compact", 4)(QUESTION, CARDS)
