"""The page on the recorded candidates is what the committed store says."""

from pathlib import Path

import pytest

from benchmarks import laptop
from routerr1.pool.recorded import StoredReply
from routerr1.types import Question

ROOT = Path(__file__).parents[2]


def asked(topic: str, **texts: str) -> laptop.Asked:
    """A question of a topic, with the replies of candidates."""
    replies = {
        name: StoredReply(
            candidate=name, question="?", text=text, prompt_tokens=1, completion_tokens=1, latency_s=0
        )
        for name, text in texts.items()
    }  # fmt: skip
    return laptop.Asked(Question("q", "d", "?", ("Peru",), "test", 1, {"topic": topic}), replies)


def test_the_page_is_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    laptop.main()
    page = (ROOT / "docs/results/laptop.md").read_text()
    assert capsys.readouterr().out == page
    assert "## What each desk is good for" in page
    assert "## What verification buys" in page


def test_replies_agree_if_one_is_part_of_the_other() -> None:
    found = asked("t", a="Lima is in Peru.", b="Peru", c="Chad", d="Not in my notes.").replies
    assert laptop.alike(found["a"], found["b"])
    assert laptop.alike(found["b"], found["a"])
    assert not laptop.alike(found["b"], found["c"])


def test_agreement_leaves_refusals_out() -> None:
    orders = {"t": ["a", "b", "c"]}
    same = asked("t", a="Peru", b="Peru.", c="Chad")
    differ = asked("t", a="Peru", b="Chad", c="Chad")
    refused = asked("t", a="Peru", b="Not in my notes.", c="Peru")
    assert laptop.agreement([same, differ, refused], orders) == ([same], [differ])
