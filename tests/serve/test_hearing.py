"""What is told of a rollout while it happens."""

from routerr1.serve.hearing import Called, Event, Heard, Replied, Thought
from routerr1.types import Reply


def heard() -> tuple[Heard, list[Event]]:
    told: list[Event] = []
    return Heard("s", tell=told.append), told


def test_a_thought_names_the_candidate_that_its_handle_stands_for() -> None:
    listener, told = heard()
    looked_up = Thought("<think> aviation</think><search> cards: aviation</search>", 0.1)
    listener.event(looked_up)
    assert told == [looked_up]  # nothing to wait for
    listener.event(Thought("<think>97%m1</think><search>m1:@question</search>", 0.2))
    assert told == [looked_up]
    call, reply = Called(1, "Travel-0.5B", "Where?"), Replied(1, Reply("Travel-0.5B", "There"))
    listener.event(call)
    listener.event(reply)
    asked = Thought("<think>97% Travel-0.5B</think><search>Travel-0.5B:@question</search>", 0.2)
    assert told == [looked_up, asked, call, reply]


def test_a_handle_without_a_call_is_told_as_it_stands() -> None:
    listener, told = heard()
    unknown = Thought("<think>97%m9</think><search>m9: why?</search>", 0.1)
    last = Thought("<think> done</think><answer>@1</answer>", 0.1)
    listener.event(unknown)
    listener.event(last)
    listener.event(unknown)
    listener.flush()
    listener.flush()
    assert told == [unknown, last, unknown]
    silent = Heard("s")
    silent.event(unknown)
    silent.flush()
