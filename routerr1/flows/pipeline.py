"""One flow from data to champion: every stage of dvc.yaml in DVC's order, then register, then promote.

`python -m routerr1.flows.pipeline` runs it here, without a server.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.sorting import FlowRunSort
from prefect.concurrency.sync import concurrency
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Cancelled, Failed

from routerr1.config import load_params
from routerr1.errors import LockHeld
from routerr1.flows import baseline
from routerr1.flows.links import link_to_run
from routerr1.flows.params import set_values
from routerr1.flows.promote import REFUSED, promote_if_better
from routerr1.flows.stages import remove_broken_lock, run_stage, spending_as, stages
from routerr1.flows.triggers import DRIFT, POOL_CHANGED, resource_of, run_here
from routerr1.lineage import PATHS
from routerr1.registry.versions import Version, register
from routerr1.tracking.store import file_lock

_LEASE_S = 60.0  # after this the slot of a killed flow is free


@task(cache_policy=NO_CACHE, persist_result=False)
def stage_task(stage: str, force: bool = False) -> None:
    """Run one stage in its own process group."""
    run_stage(stage, get_run_logger().info, force=force)


@task(cache_policy=NO_CACHE, persist_result=False)
def register_task() -> Version:
    """Register the outputs as a version, with an artifact that links to its run."""
    version = register(load_params())
    create_markdown_artifact(
        key="version",
        markdown=f"Version {version.number} of {version.name}, {link_to_run(version)}.",
        description="What this flow run registered",
    )
    get_run_logger().info("version %d of %s", version.number, version.name)
    return version


def limit_of(model: str) -> str:
    """Name of the Prefect limit on retrains of a model, over all deployments and machines of one server."""
    return f"{model}-retrain"


@contextmanager
def only_one(wait_s: float) -> Iterator[None]:
    """Allow one retrain at a time: a Prefect limit for all machines, and a file lock for this folder.

    Raises: LockHeld if another retrain does not end within `wait_s`.
    """
    limit = limit_of(load_params().registry.model)
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(limit, 1)
    with ExitStack() as held:
        slot = concurrency(
            limit, occupy=1, strict=True, timeout_seconds=wait_s, lease_duration=_LEASE_S
        )
        try:
            held.enter_context(slot)
        except TimeoutError:
            raise LockHeld(
                f"Prefect limit {limit}: another retrain has held it for {wait_s:.0f} s"
            ) from None
        held.enter_context(file_lock("pipeline", timeout_s=wait_s))
        yield


@flow(name="retrain", persist_result=False)
def retrain(
    preset: str | None = None,
    cost_weight: float | None = None,
    promote: bool = True,
    wait_s: float = 600.0,
    trigger: str | None = None,
) -> Any:
    """Run the stages that changed, register the outputs as a version, and let the gate decide.

    A challenger that is refused ends the flow in the state `Refused`.

    Args:
        preset: written to params.yaml first, where it stays; None keeps the present value.
        cost_weight: alpha of the reward, likewise.
        promote: false leaves the version challenger without asking the gate.
        wait_s: seconds to wait for another retrain to end.
        trigger: the event that started this run. Within `watch.cooldown_s` of the last retrain such
            a run is cancelled; a run by schedule or by hand never is.

    Raises: ConfigError if params.yaml would be invalid with these values; it then stays unchanged.
    """
    if trigger is not None and (left_s := _cooldown_left_s()) > 0:
        return Cancelled(message=f"{trigger}: the cool-down lasts for another {left_s:.0f} s")
    with only_one(wait_s), spending_as(f"flow run {flow_run.id}"):
        _set_params(preset, cost_weight)
        _begin_cooldown()
        _run_stages(trigger)
        version = register_task()
    if promote:
        try:
            promote_if_better(str(version.number), why=f"flow run {flow_run.name}")
        except FailedRun as refusal:
            return Failed(name=REFUSED, message=str(refusal))
    return None


def _run_stages(trigger: str | None) -> None:
    """Run all stages, then update the baseline of the watch.

    DVC sees an edited pool file, but not an endpoint that answers differently. So the candidates
    are profiled again after drift, and after a pool change that file and parameters do not show.
    """
    now = baseline.fingerprints(load_params())
    other_pool = POOL_CHANGED in baseline.changed(now)
    unseen = trigger == DRIFT or (trigger == POOL_CHANGED and not other_pool)
    if unseen:
        shutil.rmtree(PATHS.probed, ignore_errors=True)  # recorded replies would answer
    remove_broken_lock()
    for stage in stages():
        stage_task.with_options(task_run_name=stage)(stage, force=unseen and stage == "profile")
    baseline.acknowledge(now, drift=unseen or other_pool)


def _cooldown_left_s() -> float:
    """Seconds until an event may start a retrain again, counted from the last run that reached its stages.

    It counts from the end of that run, however it ended: a failed run would fail again, and a run
    that a person cancelled would be started again by the next look of the watch.
    """
    params = load_params()
    ours = FlowRunFilterTags(all_=[resource_of(params.registry.model)])
    with get_client(sync_client=True) as client:
        last = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=ours), sort=FlowRunSort.START_TIME_DESC, limit=1
        )
    since = (last[0].end_time or last[0].start_time) if last else None
    if since is None:
        return 0.0
    return params.watch.cooldown_s - (datetime.now(UTC) - since).total_seconds()


def _begin_cooldown() -> None:
    """Tag this run with its model, for `_cooldown_left_s`."""
    ours = resource_of(load_params().registry.model)
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags={*flow_run.tags, ours})


def _set_params(preset: str | None, cost_weight: float | None) -> None:
    given = {"preset": preset, "reward.cost_weight": cost_weight}
    wanted = {key: value for key, value in given.items() if value is not None}
    if changed := set_values(Path("params.yaml"), wanted):
        get_run_logger().info("params: %s", ", ".join(changed))


def main(arguments: Sequence[str] | None = None) -> int:
    """See `run_here`."""
    parser = argparse.ArgumentParser(
        prog="routerr1.flows.pipeline",
        description="Run the stages, register a version, ask the gate.",
    )
    parser.add_argument("--preset", help="written to params.yaml, where it stays")
    parser.add_argument("--cost-weight", type=float, help="alpha of the reward, likewise")
    parser.add_argument(
        "--no-promote", dest="promote", action="store_false", help="leave the version challenger"
    )
    return run_here(parser.prog, retrain, **vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
