"""Promotion as a flow: the gate's decision as an artifact and, if required, the approval of a person."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger, pause_flow_run, task
from prefect.artifacts import create_markdown_artifact
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from routerr1.config import load_params
from routerr1.errors import RegistryError
from routerr1.evaluate.controls import POLICY
from routerr1.files import sha256
from routerr1.flows.links import link_to_run
from routerr1.flows.replay import questions_of, replay
from routerr1.flows.stages import spending_as
from routerr1.flows.triggers import run_here
from routerr1.lineage import PATHS
from routerr1.registry.lock import registry_lock
from routerr1.registry.promotion import GateResult, judge, promote, record_decision
from routerr1.registry.samples import Evidence
from routerr1.registry.versions import read_version_evidence, save_report
from routerr1.tracking.store import file_lock, open_client

REFUSED = "Refused"
"""Name of the state in which a flow ends if the challenger does not become champion; its type is FAILED."""


class Approval(RunInput):
    """The form for the person that resumes the flow; Prefect refuses an answer without a name."""

    approve: bool
    who: str = Field(pattern=r"\S")
    reason: str = ""


@task(cache_policy=NO_CACHE, persist_result=False)
def judge_task(which: str) -> GateResult:
    """Ask the gate, and publish its decision as an artifact.

    If data or candidates changed since the champion was judged, the champion is first evaluated on
    the challenger's questions, on the pool as it is now.
    """
    params = load_params()
    result = judge(params, which)
    if result.champion is not None and not _comparable(result):
        asked = {sample.content for sample in read_version_evidence(result.challenger).samples}
        judged_by = read_version_evidence(result.champion)
        # A retrain rewrites the questions and cards that are read here.
        with file_lock("pipeline", timeout_s=600), spending_as(f"flow run {flow_run.id}"):
            samples = replay(params, result.champion, questions_of(params, asked))
            cards = sha256(PATHS.cards)
        router = result.champion.tags.get("lineage.router", POLICY)
        replayed = Evidence(samples, (), cards, "", router, whole_replies=judged_by.whole_replies)
        result = judge(params, which, replayed)
    create_markdown_artifact(
        key="gate",
        markdown=f"{result.markdown}\nThe challenger's {link_to_run(result.challenger)}.\n",
        description="The gate's decision, rule by rule",
    )
    return result


def _comparable(result: GateResult) -> bool:
    """True if both were judged on the same questions, with the same candidates at the same prices."""
    return not {"same_pool", "same_questions"} & set(result.decision.refused_by)


@task(cache_policy=NO_CACHE, persist_result=False)
def promote_task(result: GateResult, why: str) -> bool:
    """Move the champion; the gate is asked again inside the lock."""
    done = promote(
        load_params(),
        result.challenger.number,
        why=why,
        replayed=result.replayed,
        approved=result,
    )
    return done.record is not None


@task(cache_policy=NO_CACHE, persist_result=False)
def refuse_task(result: GateResult) -> None:
    """Record a refusal, and put the champion's report into runs/reports.

    The outputs in data/ and models/ are the refused challenger's.
    """
    client = open_client()
    with registry_lock(client, result.challenger.name):
        record_decision(client, result)
    if result.champion is not None:
        try:
            get_run_logger().info("the champion's report: %s", save_report(result.champion))
        except RegistryError as error:  # a report decides nothing
            get_run_logger().warning("the champion's report cannot be shown: %s", error)


def notify_refused(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Send a refusal through the Prefect notification block that `promote.notify` names, if any."""
    block = load_params().promote.notify
    if state.name != REFUSED or block is None:
        return
    notification: Any = Block.load(block)
    notification.notify(
        body=f"{state.message} (flow run {flow_run.name})", subject="Challenger refused"
    )


@flow(name="promote", persist_result=False, on_failure=[notify_refused])
def promote_if_better(which: str = "challenger", why: str = "by hand") -> Any:
    """Promote a version if it passes the gate and, with `promote.require_approval`, a person agrees.

    A refusal, by the gate or by the person, ends the flow in the state `Refused`, once per version.
    Without an answer within `promote.approval_timeout_s` the flow fails, and the champion stays.

    Returns: True if the champion changed, False if the version was champion already.
    """
    return act_on(judge_task(which), why)


def act_on(result: GateResult, why: str) -> bool | State[Any]:
    """Carry out the decision of the gate, whatever was edited since; a `Refused` state if it is a refusal."""
    log = get_run_logger()
    challenger, champion = result.challenger, result.champion
    if champion is not None and champion.number == challenger.number:
        log.info("version %d is champion already", challenger.number)
        return False
    if not result.decision.passed:
        known = challenger.tags.get("gate"), challenger.tags.get("gate.champion")
        if known == ("refused", result.against):  # e.g. by the retrain of another night
            return Completed(
                name="Unchanged", message=f"version {challenger.number}: was refused before"
            )
        refuse_task(result)
        for refusal in result.decision.refusals:
            log.warning("version %d is refused by %s", challenger.number, refusal)
        return refused(challenger.number, f"refused by {', '.join(result.decision.refused_by)}")
    params = load_params()
    if params.promote.require_approval:
        asked = Approval.with_initial_data(description=result.markdown, approve=False)
        answer = pause_flow_run(
            wait_for_input=asked, timeout=params.promote.approval_timeout_s, poll_interval=2
        )
        if not answer.approve:
            return refused(challenger.number, f"{answer.who} said no: {answer.reason}")
        why = f"approved by {answer.who}: {answer.reason or why}"
    if not promote_task(result, why):
        return refused(challenger.number, "the gate refused when it was asked again")
    log.info("champion is version %d", challenger.number)
    return True


def refused(number: int, reason: str) -> State[Any]:
    """The final state of a flow whose challenger does not become champion."""
    return Failed(name=REFUSED, message=f"version {number}: {reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    """See `run_here`."""
    parser = argparse.ArgumentParser(
        prog="routerr1.flows.promote", description=promote_if_better.__doc__
    )
    parser.add_argument("--which", default="challenger", help="number or alias of a version")
    parser.add_argument("--why", default="by hand", help="reason, kept in the promotion log")
    return run_here(parser.prog, promote_if_better, **vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
