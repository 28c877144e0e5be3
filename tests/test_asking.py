"""One question, as a person sees it played."""

import pytest

from routerr1.asking import show, told
from routerr1.config import RolloutParams
from routerr1.pool.simulated import SimulatedPool
from routerr1.prompt import Template, renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout
from routerr1.types import Question, Trajectory

FRANCE = "What is the capital of France?"


async def played(pool: SimulatedPool, template: Template, *script: str) -> Trajectory:
    return await rollout(
        Question("asked", "asked", FRANCE, (), "test"),
        ScriptedGenerator(script),
        pool,
        render=renderer(template, 2),
        params=RolloutParams(max_rounds=2, max_new_tokens=50, temperature=1.0),
        seed=0,
    )


@pytest.mark.parametrize("template", ["compact", "full"])
async def test_every_thought_call_price_and_reply_is_told(
    pool: SimulatedPool, template: Template
) -> None:
    said = (
        f"<think> geography: Atlas</think><search> atlas: {FRANCE}</search>",
        "<think>\nAgain.\n</think>\n<search>Nobody: Why?</search>",
        "<think> done</think><answer> Paris\x1b[31m </answer>",
    )
    trajectory = await played(pool, template, *said)
    reply = trajectory.turns[0].reply
    assert reply is not None
    figures = f"${reply.cost_usd:.6f}, {reply.latency_s:.2f} s"
    assert list(told(trajectory)) == [
        ("Thinks", "geography: Atlas"),
        ("Asks Atlas", FRANCE),
        (f"Reply ({figures})", reply.text),
        ("Thinks", "Again."),
        ("Asks nobody", "<search>Nobody: Why?</search>"),
        ("No reply ($0.000000, 0.00 s)", "There is no such model. Ask one of the models listed."),
        ("Thinks", "done"),
        ("Answer", "Paris[31m"),  # the escape character would colour the terminal
    ]


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (f"<think>t</think><search>Atlas: {FRANCE}</search>", "all calls were made"),
        ("<think>t", "it ended without a call or an answer"),
    ],
)
async def test_why_there_is_no_answer_is_told(pool: SimulatedPool, last: str, why: str) -> None:
    call = f"<think>t</think><search>Atlas: {FRANCE}</search>"
    *_, (label, text) = told(await played(pool, "compact", call, call, last))
    assert (label, text[:6]) == ("Answer", "none: ")
    assert why in text


async def test_the_sums_stand_at_the_end_and_a_simulation_is_called_one(
    pool: SimulatedPool, capsys: pytest.CaptureFixture[str]
) -> None:
    call = f"<think>t</think><search>Atlas: {FRANCE}</search>"
    trajectory = await played(pool, "compact", call, call, "<think>t</think><answer>[x] y</answer>")
    replies = [turn.reply for turn in trajectory.turns if turn.reply]
    usd, seconds = sum(r.cost_usd for r in replies), sum(r.latency_s for r in replies)
    show(trajectory, simulated=True)
    *_, answer, sums, last = capsys.readouterr().out.splitlines()
    assert answer == "Answer: [x] y"
    assert sums == f"2 calls, ${usd:.6f}, {seconds:.2f} s in all"
    assert "simulated" in last
    show(trajectory, simulated=False)
    assert "simulated" not in capsys.readouterr().out
