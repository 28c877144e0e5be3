"""The whole chain as one flow: every stage of dvc.yaml in DVC's order, then register, then promote.

`python -m routerr1.flows.pipeline` runs it here and now, without a server.
"""

import shutil
import sys
from collections.abc import Iterator
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
from prefect.runtime import flow_run
from prefect.states import Cancelled

from routerr1.config import load_params
from routerr1.errors import LockHeld, RouterError
from routerr1.flows import baseline
from routerr1.flows.links import link_to_run
from routerr1.flows.params import set_values
from routerr1.flows.promote import promote_if_better
from routerr1.flows.stages import run_stage, spending_as, stages
from routerr1.flows.triggers import DRIFT, POOL_CHANGED, resource_of
from routerr1.registry.versions import Version, register
from routerr1.stages import PROFILED
from routerr1.tracking.store import file_lock

_LEASE_S = 60.0  # the slot of a killed flow is free after this


@task(cache_policy=NO_CACHE, persist_result=False)
def stage_task(stage: str, force: bool = False) -> None:
    """One stage, in its own process group."""
    run_stage(stage, get_run_logger().info, force=force)


@task(cache_policy=NO_CACHE, persist_result=False)
def register_task() -> Version:
    """Make the outputs a version, with an artifact that links to its run."""
    version = register(load_params())
    create_markdown_artifact(
        key="version",
        markdown=f"Version {version.number} of {version.name}, {link_to_run(version)}.",
        description="What this flow run registered",
    )
    get_run_logger().info("version %d of %s", version.number, version.name)
    return version


def limit_of(model: str) -> str:
    """The Prefect limit on retrains of a model: of all deployments together, on all machines of one server."""
    return f"{model}-retrain"


@contextmanager
def only_one(wait_s: float) -> Iterator[None]:
    """One retrain at a time: across machines by a Prefect limit, in this folder by a file lock.

    Raises: LockHeld if another one does not end within `wait_s`.
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
    """Bring the chain up to date, register what came out, and let the gate decide.

    Args:
        preset: written to params.yaml first, where it stays; None leaves what stands there.
        cost_weight: alpha of the reward, likewise.
        promote: ask the gate; otherwise the version stays challenger.
        wait_s: how long to wait for another retrain to end.
        trigger: the event that asks for this run. Within `watch.cooldown_s` of the last retrain such a run
            is cancelled; one by schedule or by hand never is.

    Raises: ConfigError if params.yaml could not be read with these values; it stays as it was.
    """
    if trigger is not None and (left_s := _cooldown_left_s()) > 0:
        return Cancelled(message=f"{trigger}: the cool-down lasts for another {left_s:.0f} s")
    with only_one(wait_s), spending_as(f"flow run {flow_run.id}"):
        _set_params(preset, cost_weight)
        _begin_cooldown()
        _run_stages(trigger)
        version = register_task()
    if promote:
        promote_if_better(str(version.number), why=f"flow run {flow_run.name}")
    return None


def _run_stages(trigger: str | None) -> None:
    """All stages, after which the watch compares with what they saw.

    DVC sees a pool file that was edited. It cannot see that an endpoint answers otherwise: so after drift,
    and where the pool is said to have changed although it stands as the last retrain saw it, the candidates
    are profiled anew.
    """
    now = baseline.fingerprints(load_params())
    other_pool = POOL_CHANGED in baseline.changed(now)
    unseen = trigger == DRIFT or (trigger == POOL_CHANGED and not other_pool)
    if unseen:
        shutil.rmtree(PROFILED, ignore_errors=True)  # recorded replies would answer
    for stage in stages():
        stage_task.with_options(task_run_name=stage)(stage, force=unseen and stage == "profile")
    baseline.take_in(now, drift=unseen or other_pool)


def _cooldown_left_s() -> float:
    """Seconds until an event may start a retrain again, by the model's last run that got as far as its stages.

    It counts from the run's end, however it ended: one that failed would fail again, and one that a person
    cancelled would be back at the watch's next look.
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
    """Mark this run as one of the model's, for `_cooldown_left_s`."""
    ours = resource_of(load_params().registry.model)
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags={*flow_run.tags, ours})


def _set_params(preset: str | None, cost_weight: float | None) -> None:
    given = {"preset": preset, "reward.cost_weight": cost_weight}
    wanted = {key: value for key, value in given.items() if value is not None}
    if changed := set_values(Path("params.yaml"), wanted):
        get_run_logger().info("params: %s", ", ".join(changed))


def main(arguments: dict[str, Any] | None = None) -> int:
    """Run the flow; our own errors are one line and status 2, as in the `routerr1` command."""
    try:
        retrain(**(arguments or {}))
    except RouterError as error:
        sys.stderr.write(f"routerr1.flows.pipeline: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
