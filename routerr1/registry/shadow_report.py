"""What a gateway found out about a version that it played as a shadow, as a tag of the version."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from routerr1.config import GateParams
from routerr1.errors import RegistryError
from routerr1.registry.rules import Rule, at_least, no_worse
from routerr1.tracking.store import store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from routerr1.evaluate.stats import Difference

TAG = "shadow.report"


class ShadowReport(BaseModel):
    """A shadow beside one champion, on requests that both answered.

    Attributes:
        champion: number of the version that answered the requests.
        pairs: requests that the shadow played.
        verdict: mean over the pairs: 1 where the shadow's answer is better, -1 where it is worse, missing
            or differs and was not judged, 0 otherwise.
        low, high: its 95 % interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: str
    pairs: int
    verdict: float
    low: float | None
    high: float | None


def write_shadow_report(
    client: "MlflowClient", name: str, number: str, report: ShadowReport
) -> None:
    """Put a report on the version of the shadow, in place of an earlier one."""
    with store_errors():
        client.set_model_version_tag(name, number, TAG, report.model_dump_json())


def read_shadow_report(tags: Mapping[str, str], champion: int | None) -> ShadowReport | None:
    """The report on a version beside this champion; None without one, or beside another champion.

    Raises: RegistryError if the tag cannot be read.
    """
    if TAG not in tags:
        return None
    try:
        report = ShadowReport.model_validate_json(tags[TAG])
    except ValidationError:
        raise RegistryError(
            f"the tag {TAG} holds no report of a shadow; remove it, and play the shadow again"
        ) from None
    return report if report.champion == str(champion) else None


def shadow_rules(
    report: ShadowReport | None, params: GateParams, *, has_champion: bool
) -> list[Rule]:
    """The rules of `gate.shadow`; none without a champion, which a shadow could be beside."""
    asked = params.shadow
    if asked is None or not has_champion:
        return []
    pairs = 0 if report is None else report.pairs
    what = "requests that the champion answered and the challenger played as a shadow"
    rules = [at_least("shadow_pairs", float(pairs), float(asked.min_pairs), what)]
    what = "verdict on the shadow's answers, from -1 to 1, lower end of the interval"
    if report is None:
        why = f"{what}: no shadow was played beside this champion"
        return [*rules, Rule("shadow_verdict", None, None, -asked.margin_verdict, False, why)]
    return [*rules, no_worse("shadow_verdict", _verdict(report), asked.margin_verdict, what)]


def _verdict(report: ShadowReport) -> "Difference":
    from routerr1.evaluate.stats import Difference

    return Difference(
        mean=report.verdict, low=report.low, high=report.high, p=None, mde=None,
        n=report.pairs, groups=report.pairs,
    )  # fmt: skip
