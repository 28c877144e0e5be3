"""One question, as a person sees it played."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from routerr1.baselines.replies import Always, answer_with_reply, next_call_of
from routerr1.cli.app import app
from routerr1.cli.ask import (
    ask_once,
    ask_router,
    ask_version,
    compared,
    evaluated_router,
    show,
    steps_shown,
)
from routerr1.cli.sources import SIMULATED
from routerr1.config import BudgetParams, Params, RolloutParams
from routerr1.errors import CheckpointError, ConfigError, DataError
from routerr1.evaluate.run import Evaluation
from routerr1.files import digest
from routerr1.pool.base import Call, Pool
from routerr1.pool.budget import Budget, BudgetedPool, Grant, Limits
from routerr1.pool.build import open_budget
from routerr1.pool.cards import write_cards
from routerr1.pool.profile import profile, sample_probes, write_profile
from routerr1.pool.provenance import provenance_file
from routerr1.prompt import Template, renderer
from routerr1.registry import versions
from routerr1.report.outputs import evaluation_table
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import rollout
from routerr1.serve.build import Choices, router_engine
from routerr1.serve.hearing import Heard
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from routerr1.train.checkpoint import save_policy
from routerr1.types import Card, Question, Reply, Trajectory
from tests.chain import put_policy
from tests.evaluate.made import played as rows_of
from tests.servers import write_pool_file

ROOT = Path(__file__).parents[2]
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
    first, second = ("@1 ", "@2 ") if template == "compact" else ("", "")
    assert list(steps_shown(trajectory)) == [
        ("Thinks", "geography: Atlas"),
        ("Asks Atlas", FRANCE),
        (f"Reply ({figures})", first + reply.text),
        ("Thinks", "Again."),
        ("Asks no model", "<search>Nobody: Why?</search>"),
        (
            "No reply ($0.000000, 0.00 s)",
            f"{second}There is no such model. Ask one of the models listed. (there is no model named 'Nobody')",
        ),
        ("Thinks", "done"),
        ("Answer", "Paris[31m"),  # the escape character would colour the terminal
    ]


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (
            f"<think>t</think><search>Atlas: {FRANCE}</search>",
            "the policy gave none after its last call",
        ),
        ("<think>t", "the policy ended without a call or an answer"),
        ("<think>t</think><answer> </answer>", "the policy answered nothing"),
    ],
)
async def test_why_there_is_no_answer_is_told(pool: SimulatedPool, last: str, why: str) -> None:
    call = f"<think>t</think><search>Atlas: {FRANCE}</search>"
    *_, (label, text) = steps_shown(await played(pool, "compact", call, call, last))
    assert (label, text[:6]) == ("Answer", "none: ")
    assert why in text


class Failing(Pool):
    """Every call fails with the same reply."""

    cards = (Card("Atlas", completion_usd_per_mtok=1.0),)

    def __init__(self, note: str) -> None:
        self._note = note

    async def ask(self, call: Call) -> Reply:
        return Reply(call.candidate, "", failure="unavailable", note=self._note)


async def test_a_router_without_a_reply_says_the_cause_and_no_empty_thought() -> None:
    question = Question("q", "asked", FRANCE, (), "test")
    asks = next_call_of(Always("Atlas"))
    steps = list(steps_shown(await answer_with_reply(question, asks, Failing("refused"), seed=0)))
    assert [label for label, _ in steps] == [
        "Thinks",
        "Asks Atlas",
        "No reply ($0.000000, 0.00 s)",
        "Answer",
    ]
    assert [text for _, text in steps[2:]] == [
        "refused",
        "none: no candidate replied (Atlas: refused)",
    ]


async def test_a_spent_question_budget_is_named_in_the_answer(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "budget.sqlite", Limits(question_usd=0.0), run="r")
    pool = BudgetedPool(Failing("never asked"), budget, max_reply_tokens=50)
    question = Question("q", "asked", FRANCE, (), "test")
    asked = await answer_with_reply(question, next_call_of(Always("Atlas")), pool, seed=0)
    *_, (label, text) = steps_shown(asked)
    await pool.aclose()
    assert label == "Answer"
    assert text.startswith("none: no candidate replied (Atlas: question ")
    assert "(pool.budget.question_usd)" in text


async def test_a_look_up_is_shown_with_names(pool: SimulatedPool) -> None:
    look = "<think> geography</think><search> cards: geography</search>"
    trajectory = await played(pool, "compact", look, "<think>t</think><answer> x</answer>")
    (label, text) = list(steps_shown(trajectory))[1]
    assert label == "Looks up geography"
    assert len(trajectory.handles) == 4
    assert all(name in text for name in trajectory.handles.values())


async def test_the_sums_stand_at_the_end_and_a_simulation_is_called_one(
    pool: SimulatedPool, capsys: pytest.CaptureFixture[str]
) -> None:
    call = f"<think>t</think><search>Atlas: {FRANCE}</search>"
    again = f"<think>t</think><search>Goliath: {FRANCE}</search>"
    trajectory = await played(
        pool, "compact", call, again, "<think>t</think><answer>[x] y</answer>"
    )
    replies = [turn.reply for turn in trajectory.turns if turn.reply]
    usd, seconds = sum(r.cost_usd for r in replies), sum(r.latency_s for r in replies)
    show(trajectory, source=SIMULATED)
    *_, answer, sums, last = capsys.readouterr().out.splitlines()
    assert answer == "Answer: [x] y"
    assert sums == f"2 calls, ${usd:.6f}, {seconds:.2f} s in all"
    assert "simulated" in last
    show(trajectory, source=None)
    assert "simulated" not in capsys.readouterr().out


def simulated(params: Params, **changes: object) -> Params:
    """The parameters with the simulated pool, which knows candidates by name alone."""
    section = params.pool.replace(kind="simulated", file=None, store=None, **changes)
    return params.model_copy(update={"pool": section})


@pytest.mark.slow
def test_what_was_asked_before_is_not_held_against_a_question(
    chain: Params, calling_policy: Path
) -> None:
    limits = BudgetParams(question_usd=0.001, run_usd=0.001)
    params = simulated(chain, budget=limits)
    cards = [Card(candidate.name) for candidate in default_candidates()]
    write_cards(Path("data/pool/cards.json"), cards)
    asked = [
        ask_once(
            "What is the capital of France?", str(calling_policy), params, seed=1, temperature=0.0
        )
        for _ in range(2)
    ]
    assert [each.ledger.calls for each in asked] == [asked[0].ledger.calls] * 2
    assert asked[0].ledger.calls > 0
    budget = open_budget(limits, {})
    assert budget is not None
    spent = budget.spent_usd()
    budget.close()
    runs = {scope: usd for scope, usd in spent.items() if scope.startswith("run ")}
    assert len(runs) == 2
    assert len(set(runs.values())) == 1  # both cost the same, and none of it twice
    assert sum(scope.startswith("question asked/") for scope in spent) == 2


@pytest.mark.slow
def test_a_policy_of_another_pool_is_refused_unless_told(
    chain: Params, calling_policy: Path, tmp_path: Path
) -> None:
    write_cards(
        Path("data/pool/cards.json"), [Card(candidate.name) for candidate in default_candidates()]
    )
    other = tmp_path / "policy"
    params = simulated(chain)
    save_policy(calling_policy, other, {"cards": "another digest"})
    with pytest.raises(CheckpointError, match=r"policy: was trained with other candidates"):
        ask_once(FRANCE, str(other), params, seed=1, temperature=0.0)
    assert ask_once(FRANCE, str(other), params, seed=1, temperature=0.0, other_pool=True).turns
    save_policy(calling_policy, other, {"cards": digest(Path("data/pool/cards.json"))})
    assert ask_once(FRANCE, str(other), params, seed=1, temperature=0.0).turns


def test_what_was_not_made_yet_names_the_command_that_makes_it(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"models/policy: there is no .* run `dvc repro`"):
        ask_once(FRANCE, "models/policy", params, seed=1, temperature=0.0)
    with pytest.raises(DataError, match=r"table\.json: not found; run `dvc repro`"):
        evaluated_router()


def probed(pool: SimulatedPool, rows: list[Question], topic: str | None = None) -> None:
    """Profile the pool on 24 training questions, all of one topic if it is given, into data/pool."""
    probes = sample_probes([row for row in rows if row.split == "train"], 24, seed=1)
    if topic is not None:
        probes = [replace(row, metadata={**row.metadata, "topic": topic}) for row in probes]
    write_profile(Path("data/pool"), asyncio.run(profile(probes, pool, store=None)))


def served_by(name: str, params: Params) -> str:
    """The model that the gateway asks."""

    async def play() -> Trajectory:
        engine = router_engine(name, params, Choices(demo=True, topics=False))
        try:
            question = Question("q1", "served", FRANCE, (), "test")
            return await engine.play(question, Heard("served/q1"), Grant())
        finally:
            await engine.aclose()

    return model_of(asyncio.run(play()))


def model_of(trajectory: Trajectory) -> str:
    (turn,) = [turn for turn in trajectory.turns if turn.reply is not None]
    assert turn.reply is not None
    return turn.reply.model


def test_ask_and_serve_take_the_best_single_model_that_the_evaluation_named(
    params: Params, pool: SimulatedPool, rows: list[Question], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    probed(pool, rows)
    alone = simulated(params).replace(model=params.model.replace(init="none"))
    by_probes = model_of(ask_router(FRANCE, "best_single", alone))
    assert served_by("best_single", alone) == by_probes
    other = next(card.name for card in pool.cards if card.name != by_probes)
    tested = [row for name in ("best_single", f"fixed/{other}") for row in rows_of(name, [[1] * 4])]
    for named, asked in ((other, other), ("Stranger", by_probes)):
        found = Evaluation(tested, {alone.seeds[0]: named}, "best_single")
        table = evaluation_table(found, alone.evaluate.replace(bootstrap=200))
        table.write(Path("data/eval/table.json"))
        assert model_of(ask_router(FRANCE, "best_single", alone)) == asked
        assert served_by("best_single", alone) == asked


@pytest.mark.slow
def test_a_version_compares_a_question_with_those_that_it_learned_from(
    chain: Params, small_policy: Path, pool: SimulatedPool, rows: list[Question], tmp_path: Path
) -> None:
    with serving(build_app(pool, time_scale=0)) as url:
        file = write_pool_file(tmp_path / "models.yaml", url, default_candidates())
        own = chain.replace(
            dataset=chain.dataset.replace(source="imported"),
            pool=chain.pool.replace(kind="http", file=file, redraw=0.0),
        )
        probed(pool, rows)
        put_policy(small_policy)
        before = compared(FRANCE, own)
        version = versions.register(own)
        probed(pool, rows, topic="elsewhere")
        assert (
            compared(FRANCE, own) == ["Topic: elsewhere (100% of the nearest questions)"] != before
        )
        asked = ask_version(
            FRANCE, f"models:/{own.registry.model}/{version.number}", simulated(chain)
        )
    assert asked.about == before
    assert asked.source is None  # its own pool is live; that of the working directory is simulated


def test_a_version_is_asked_whatever_is_wrong_with_the_pool_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "presets", "pools/laptop.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    store = tmp_path / "pools/laptop/replies.jsonl.gz"
    store.parent.mkdir()
    provenance_file(store).write_text("{")
    here = CliRunner().invoke(app, ["ask", FRANCE])
    assert "replies.provenance.json, line 1: is not JSON" in str(here.exception)
    version = CliRunner().invoke(app, ["ask", FRANCE, "--policy", "models:/routerr1"])
    assert "models:/NAME@ALIAS" in str(version.exception)


def test_an_address_that_is_no_version_is_refused(chain: Params) -> None:
    with pytest.raises(ConfigError, match=r"models:/NAME@ALIAS"):
        ask_version(FRANCE, "models:/routerr1", chain)


def test_a_router_that_heeds_no_spend_level_is_not_asked_with_one(params: Params) -> None:
    full = params.replace(prompt=params.prompt.replace(template="full"))
    with pytest.raises(
        ConfigError, match=r"--spend 2: a policy of prompt\.template full has no spend levels"
    ):
        ask_once(FRANCE, "models/policy", full, seed=0, temperature=0.0, spend=2)
    said = CliRunner().invoke(app, ["ask", FRANCE, "--router", "knn", "--spend", "2"])
    assert isinstance(said.exception, ConfigError)
    assert str(said.exception).startswith("--spend 2: router knn has no spend levels; ")


def test_ask_ends_with_status_1_if_no_call_may_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = {
        "model": {"init": "none"},
        "pool": {"kind": "simulated", "redraw": 0.0, "budget": {"question_usd": 0.0}},
    }
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets/own.yaml").write_text(yaml.safe_dump(preset))
    text = (ROOT / "params.yaml").read_text().replace("preset: embedded", "preset: own", 1)
    (tmp_path / "params.yaml").write_text(text)
    cards = [Card(each.name, completion_usd_per_mtok=1.0) for each in default_candidates()]
    write_cards(tmp_path / "data/pool/cards.json", cards)
    done = CliRunner().invoke(app, ["ask", FRANCE, "--router", "Atlas"], catch_exceptions=False)
    assert done.exit_code == 1
    assert "(pool.budget.question_usd)" in " ".join(done.output.split())
    assert "Thinks: \n" not in done.output
