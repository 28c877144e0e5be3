"""Thoughts are separated from replies in every form that models write them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.pool.thoughts import split_thoughts, without_thoughts


@pytest.mark.parametrize(
    ("text", "said", "thought"),
    [
        ("Paris.", "Paris.", ""),
        ("  Paris.\n", "  Paris.\n", ""),
        ("<think>\nLyon?\n</think>\n\nParis.", "Paris.", "Lyon?"),
        ("<THINK>Lyon?</Think>Paris.", "Paris.", "Lyon?"),
        ("Lyon? No.\n</think>\nParis.", "Paris.", "Lyon? No."),
        ("<think></think>Paris.", "Paris.", ""),
        ("<think>a</think>Paris<think>b</think> it is.", "Paris it is.", "a\nb"),
        ("<think>a <think>b</think> c</think>Paris.", "Paris.", "a <think>b\nc"),
        ("<thinking>a</thinking>Paris.", "Paris.", "a"),
        ("<thought>a</thought>Paris.", "Paris.", "a"),
        ("[THINK]a[/THINK]Paris.", "Paris.", "a"),
        ("<reasoning>a</reasoning>Paris.", "Paris.", "a"),
        ("◁think▷a◁/think▷Paris.", "Paris.", "a"),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>Paris.<|END_RESPONSE|>", "Paris.", "a"),
        ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>Paris.", "Paris.", "a"),
        ("<unused94>thought\na<unused95>Paris.", "Paris.", "a"),
        ("<|channel>thought\na<channel|>Paris.", "Paris.", "a"),
        ("analysisThe user asks.assistantfinalParis.", "Paris.", "The user asks."),
        ("analysis of assistantfinals", "analysis of assistantfinals", ""),
        ("<seed:think>a</seed:think>Paris.", "Paris.", "a"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>Paris.<|return|>",
         "Paris.", "a"),
        # Only `<think>` is a mark inside a reply: the others are words that a reply may quote.
        ("Write <thought>x</thought> in XML.", "Write <thought>x</thought> in XML.", ""),
        # Never closed: noise at the beginning, a quotation further on.
        ("<think>Paris.", "Paris.", ""),
        ("Models write <think> first.", "Models write <think> first.", ""),
        ("Paris.</think>", "Paris.", ""),
        ("<think>a</think>Paris.</think>", "Paris.", "a"),
    ],
)  # fmt: skip
def test_thoughts_are_told_apart(text: str, said: str, thought: str):
    assert split_thoughts(text) == (said, thought)


def test_thoughts_that_the_token_limit_cuts_are_no_reply():
    assert split_thoughts("<think>Lyon, or", cut=True) == ("", "Lyon, or")
    assert split_thoughts("Paris, and", cut=True) == ("Paris, and", "")


def test_a_reply_of_thoughts_alone_is_left_as_it_is():
    assert without_thoughts("<think>Lyon?</think>") == "<think>Lyon?</think>"


@pytest.mark.parametrize(
    "piece", ["<think>", "</think>", "<think></think>", "[THINK]", "<|channel|>", " ", "<"]
)
def test_a_hostile_megabyte_takes_no_more_than_linear_time(piece: str):
    text = piece * (1_000_000 // len(piece))
    started = time.perf_counter()
    split_thoughts(text)
    split_thoughts("<|channel|>" + "a" * 1_000_000)
    assert time.perf_counter() - started < 5  # quadratic: minutes


@given(st.lists(st.sampled_from(["<think>", "</think>", "[THINK]", "a", " "])).map("".join))
def test_splitting_never_raises_and_loses_no_word(text: str):
    said, thought = split_thoughts(text)
    assert (said + thought).count("a") == text.count("a")
