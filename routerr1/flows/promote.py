"""Promotion as a flow: the gate's decision as an artifact and, where wanted, a person's word."""

import sys

from prefect import flow, get_run_logger, pause_flow_run, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import Field

from routerr1 import stages
from routerr1.config import load_params
from routerr1.errors import RouterError
from routerr1.files import sha256
from routerr1.flows.links import link_to_run
from routerr1.flows.replay import questions_of, replay
from routerr1.flows.stages import spending_as
from routerr1.registry.gate import Evidence
from routerr1.registry.lock import registry_lock
from routerr1.registry.promotion import GateResult, judge, promote, record_decision
from routerr1.registry.versions import read_version_evidence
from routerr1.tracking.store import file_lock, open_client


class Approval(RunInput):
    """What the person who resumes the flow is asked; Prefect refuses an answer that names nobody."""

    approve: bool
    who: str = Field(pattern=r"\S")
    reason: str = ""


@task(cache_policy=NO_CACHE, persist_result=False)
def judge_task(which: str) -> GateResult:
    """Ask the gate, and show what it says.

    If data or candidates have changed since the champion was judged, it samples the challenger's questions
    first, on the pool as it is now.
    """
    params = load_params()
    result = judge(params, which)
    if result.champion is not None and not _comparable(result):
        asked = {play.content for play in read_version_evidence(result.challenger).samples}
        # A retrain rewrites the questions and cards that this reads.
        with file_lock("pipeline", timeout_s=600), spending_as(f"flow run {flow_run.id}"):
            samples = replay(params, result.champion, questions_of(params, asked))
            cards = sha256(stages.POOL / "cards.json")
        result = judge(params, which, Evidence(samples, (), cards, ""))
    create_markdown_artifact(
        key="gate",
        markdown=f"{result.markdown}\nThe challenger's {link_to_run(result.challenger)}.\n",
        description="The gate's decision, rule by rule",
    )
    return result


def _comparable(result: GateResult) -> bool:
    """Were both judged on the same questions, with the same candidates at the same prices?"""
    return not {"same_pool", "same_questions"} & set(result.decision.refused_by)


@task(cache_policy=NO_CACHE, persist_result=False)
def promote_task(result: GateResult, why: str) -> bool:
    """Move the champion; the gate is asked again by whoever holds the lock."""
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
    """Record a refusal."""
    client = open_client()
    with registry_lock(client, result.challenger.name):
        record_decision(client, result)


@flow(name="promote", persist_result=False)
def promote_if_better(which: str = "challenger", why: str = "by hand") -> bool:
    """Promote a version if the gate lets it and, with `promote.require_approval`, a person agrees.

    Nobody's answer within `promote.approval_timeout_s` fails the flow: the champion stays.
    Returns: whether the champion changed.
    """
    return act_on(judge_task(which), why)


def act_on(result: GateResult, why: str) -> bool:
    """Do what the gate decided; a refusal stands, whatever was edited since."""
    log = get_run_logger()
    challenger, champion = result.challenger, result.champion
    if champion is not None and champion.number == challenger.number:
        log.info("version %d is champion already", challenger.number)
        return False
    if not result.decision.passed:
        refuse_task(result)
        log.warning("refused by %s", ", ".join(result.decision.refused_by))
        return False
    params = load_params()
    if params.promote.require_approval:
        asked = Approval.with_initial_data(description=result.markdown, approve=False)
        answer = pause_flow_run(
            wait_for_input=asked, timeout=params.promote.approval_timeout_s, poll_interval=2
        )
        if not answer.approve:
            log.warning("%s said no: %s", answer.who, answer.reason)
            return False
        why = f"approved by {answer.who}: {answer.reason or why}"
    if not promote_task(result, why):
        log.warning("version %d is not champion: the gate, asked again, refused", challenger.number)
        return False
    log.info("champion is version %d", challenger.number)
    return True


def main() -> int:
    """Run the flow; our own errors are one line and status 2, as in the `routerr1` command."""
    try:
        promote_if_better()
    except RouterError as error:
        sys.stderr.write(f"routerr1.flows.promote: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
