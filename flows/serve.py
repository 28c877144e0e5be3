"""`python -m flows.serve`: schedules and runs on one machine, no work pool and no worker needed."""

from typing import cast

from prefect import serve
from prefect.deployments.runner import RunnerDeployment

from flows.pipeline import retrain
from flows.promote import promote_if_better
from flows.watch import evaluate_champion, watch_changes


def main() -> None:
    """Serve every flow until interrupted; the schedules are those of prefect.yaml."""
    deployments = [
        retrain.to_deployment("retrain", cron="0 2 * * *", concurrency_limit=1),
        evaluate_champion.to_deployment("evaluate-champion", cron="0 */6 * * *"),
        watch_changes.to_deployment("watch-changes", cron="*/15 * * * *"),
        promote_if_better.to_deployment("promote"),
    ]
    # Called outside of an event loop, these are deployments and not coroutines.
    serve(*cast(list[RunnerDeployment], deployments))


if __name__ == "__main__":
    main()
