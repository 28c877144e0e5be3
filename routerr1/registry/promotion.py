"""Promotion and rollback: the champion changes through the gate, one change at a time, each on record.

The promotion log is kept as tags of the registered model, `move.000001` and so on. A record is written
before the alias is set and marked done after it, so the next process finds a change that was interrupted.
"""

import json
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from routerr1 import files, lineage
from routerr1.config import Params
from routerr1.errors import RegistryError
from routerr1.registry import gate, rivals, rules
from routerr1.registry.announce import announce
from routerr1.registry.lock import Lease, registry_lock
from routerr1.registry.rules import Decision
from routerr1.registry.samples import SIMULATED, Evidence, sampling_of
from routerr1.registry.shadow_report import read_shadow_report
from routerr1.registry.versions import (
    CHALLENGER,
    CHAMPION,
    Version,
    get_version,
    list_versions,
    read_version_evidence,
    verify,
)
from routerr1.tracking.store import open_client, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

GATE_FOLDER = Path("runs/gate")
_MOVE = "move."
_POOL_TAG = "lineage.pool"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PromotionRecord:
    """One change of the champion.

    Attributes:
        seq: position in the log, from 1.
        when: UTC, ISO 8601.
        before: the champion before, None for the first one.
        after: the champion after.
        state: "abandoned" if the process was killed before the alias moved.
    """

    seq: int
    when: str
    who: str
    kind: Literal["promote", "rollback"]
    before: int | None
    after: int
    why: str
    state: Literal["begun", "done", "abandoned"]


@dataclass(frozen=True, slots=True)
class GateResult:
    """The decision of the gate on one challenger and one champion.

    Attributes:
        replayed: what the champion was judged by, if not by what is stored with it.
        without_comparison: the challenger was judged by absolute floors in place of the champion.
    """

    challenger: Version
    champion: Version | None
    decision: Decision
    replayed: Evidence | None = None
    without_comparison: bool = False

    @property
    def against(self) -> str:
        """The champion that the challenger was compared with, in words."""
        if self.champion is None:
            return "none"
        suffix = ", without comparison: judged by floors" if self.without_comparison else ""
        return f"version {self.champion.number}{suffix}"

    @property
    def markdown(self) -> str:
        """The decision as a page."""
        facts = {
            "model": self.challenger.name,
            "challenger": f"version {self.challenger.number}",
            "champion": self.against,
            "run": self.challenger.run_id or "unknown",
            "commit": self.challenger.tags.get("lineage.git_commit", "unknown"),
            "answers compared by": self.decision.matching,
        }
        return rules.to_markdown(self.decision, facts)


@dataclass(frozen=True, slots=True)
class Promotion:
    """The outcome of an attempt; `record` is None if the champion stays."""

    result: GateResult
    record: PromotionRecord | None


def judge(
    params: Params,
    which: int | str = CHALLENGER,
    replayed: Evidence | None = None,
    *,
    without_comparison: bool = False,
) -> GateResult:
    """Ask the gate about a version; nothing is changed.

    Args:
        replayed: evidence of the champion on the challenger's questions and pool, in place of the stored one.
        without_comparison: judge by the floors of a first champion.

    Raises: RegistryError if the version does not exist or its files have changed.
    """
    client = open_client()
    challenger = get_version(client, params.registry.model, which)
    verify(client, challenger.model_id)
    return _judge(client, params, challenger, replayed, without_comparison=without_comparison)


def _judge(
    client: "MlflowClient",
    params: Params,
    challenger: Version,
    replayed: Evidence | None,
    *,
    without_comparison: bool,
) -> GateResult:
    champion = champion_of(client, challenger.name)
    sampling = sampling_of(params.evaluate)
    own = read_version_evidence(challenger)
    other = None if champion is None or champion.number == challenger.number else champion
    comparison = None
    if other is not None and not without_comparison:
        theirs = replayed or read_version_evidence(other)
        comparison = gate.compare(own, theirs, sampling)
    setting = gate.Setting(
        rivals=rivals.compare_rivals(own, sampling),
        simulated=_is_simulated(challenger) if own.simulated is None else own.simulated,
        serves_real=_serves_real(client, params, challenger.name),
        has_champion=other is not None,
        odd_prices=own.odd_prices,
        shadow=read_shadow_report(challenger.tags, other.number)
        if params.gate.shadow is not None and other is not None
        else None,
    )
    decision = gate.decide(gate.measure(own, sampling), comparison, params.gate, setting)
    return GateResult(challenger, champion, decision, replayed, without_comparison)


def _is_simulated(version: Version) -> bool:
    """Whether a challenger of unknown candidates counts as judged on simulated ones: unless its tag says real."""
    return version.tags.get(_POOL_TAG, SIMULATED) == SIMULATED


def _serves_real(client: "MlflowClient", params: Params, name: str) -> bool:
    """Whether the parameters name real models, or any champion of the registry was judged on some.

    A champion of unknown candidates counts as real, so that a simulated challenger is refused.
    """
    if params.pool.kind != SIMULATED:
        return True
    done = {move.after for move in promotion_log(client, name) if move.state == "done"}
    return any(
        version.tags.get(_POOL_TAG) != SIMULATED
        for version in list_versions(client, name)
        if version.number in done or CHAMPION in version.aliases
    )


def champion_of(client: "MlflowClient", name: str) -> Version | None:
    """The version with the alias champion."""
    found = [version for version in list_versions(client, name) if CHAMPION in version.aliases]
    return found[0] if found else None


def promote(
    params: Params,
    which: int | str = CHALLENGER,
    *,
    why: str = "passed the gate",
    replayed: Evidence | None = None,
    approved: GateResult | None = None,
    without_comparison: bool = False,
) -> Promotion:
    """Make a version champion if it passes the gate; the decision is recorded either way.

    The gate is asked inside the lock, so it compares with the champion that is replaced.

    Args:
        which: number or alias of the challenger.
        replayed, without_comparison: see `judge`.
        approved: the decision that a person approved; if challenger or champion changed since, nothing moves.

    Raises: RegistryError; LockHeld if another promotion does not end, or if this one takes too long.
    """
    client = open_client()
    challenger = get_version(client, params.registry.model, which)
    # Fetching and hashing a large checkpoint takes long, so it happens outside the lock.
    verify(client, challenger.model_id)
    with registry_lock(client, params.registry.model) as lease:
        _recover(client, params.registry.model)
        result = _judge(client, params, challenger, replayed, without_comparison=without_comparison)
        _refuse_other_than_approved(result, approved)
        champion = result.champion
        if champion is not None and champion.number == challenger.number:
            return Promotion(result, None)
        record_decision(client, result)
        if not result.decision.passed:
            return Promotion(result, None)
        reason = f"without comparison: {why}" if without_comparison else why
        record = _move(client, lease, challenger, champion, "promote", reason)
    announce(params.promote.gateways, challenger.name, record.after)
    return Promotion(result, record)


def _refuse_other_than_approved(result: GateResult, approved: GateResult | None) -> None:
    if approved is None:
        return
    seen = [
        (found.challenger.number, found.champion and found.champion.number)
        for found in (result, approved)
    ]
    if seen[0] != seen[1]:
        raise RegistryError(
            f"model {result.challenger.name!r}: approved was version {seen[1][0]} over "
            f"{seen[1][1]}, but now it would be {seen[0][0]} over {seen[0][1]}; ask again"
        )


def rollback(params: Params, *, why: str) -> PromotionRecord:
    """Make the previous champion champion again; each repetition goes back one further.

    A promotion puts a version on a stack and a rollback takes one off; deleted versions are skipped.

    Raises: RegistryError if there is no earlier champion.
    """
    client = open_client()
    name = params.registry.model
    target, _ = _previous(client, name)
    verify(client, target.model_id)
    with registry_lock(client, name) as lease:
        _recover(client, name)
        found, now = _previous(client, name)
        if found.number != target.number:
            raise RegistryError(f"model {name!r}: the champion changed meanwhile; try again")
        record = _move(client, lease, target, now, "rollback", why)
    announce(params.promote.gateways, name, record.after)
    return record


def put_back(client: "MlflowClient", name: str) -> tuple[int, int | None] | None:
    """Undo a change of the champion that is on no record, such as by a button of MLflow's pages.

    Returns: the version that was champion without a decision of the gate, and the one that is champion
        again (None if there never was one, so that the alias is removed); None if the champion is on record.
    """
    if is_on_record(client, name):
        return None
    with registry_lock(client, name) as lease:
        _recover(client, name)
        now = champion_of(client, name)
        stack = champions(promotion_log(client, name))
        if now is None or (stack and stack[-1] == now.number):
            return None
        known = {version.number for version in list_versions(client, name)}
        before = next((number for number in reversed(stack) if number in known), None)
        lease.check()
        with store_errors():
            if before is None:
                client.delete_registered_model_alias(name, CHAMPION)
            else:
                client.set_registered_model_alias(name, CHAMPION, str(before))
    _log.warning(
        "model %s: version %d became champion past the gate; champion is %s again",
        name, now.number, "none" if before is None else f"version {before}",
    )  # fmt: skip
    return now.number, before


def is_on_record(client: "MlflowClient", name: str) -> bool:
    """Whether the champion is the one that the promotion log names; true without a champion."""
    now = champion_of(client, name)
    stack = champions(promotion_log(client, name))
    return now is None or (bool(stack) and stack[-1] == now.number)


def _previous(client: "MlflowClient", name: str) -> tuple[Version, Version | None]:
    """The previous champion and the present one."""
    now = champion_of(client, name)
    known = {version.number: version for version in list_versions(client, name)}
    stack = [number for number in champions(promotion_log(client, name)) if number in known]
    if now is not None and stack and stack[-1] == now.number:
        stack.pop()
    if not stack:
        raise RegistryError(f"model {name!r}: has no earlier champion to go back to")
    return known[stack[-1]], now


def champions(record: Sequence[PromotionRecord]) -> list[int]:
    """The champions that rollbacks go back through, the present one last.

    >>> def move(kind, after): return PromotionRecord(1, "", "", kind, None, after, "", "done")
    >>> champions([move("promote", 1), move("promote", 2), move("promote", 3), move("rollback", 2)])
    [1, 2]
    """
    stack: list[int] = []
    for move in record:
        if move.state != "done":
            continue
        if move.kind == "promote":
            stack.append(move.after)
        else:
            while stack and stack[-1] != move.after:
                stack.pop()
    return stack


def promotion_log(client: "MlflowClient", name: str) -> list[PromotionRecord]:
    """Every record in order.

    Raises: RegistryError naming a record that cannot be read.
    """
    from mlflow.exceptions import MlflowException

    with store_errors():
        try:
            tags: Mapping[str, str] = client.get_registered_model(name).tags
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise
    found = []
    for key in sorted(key for key in tags if key.startswith(_MOVE)):
        try:
            found.append(PromotionRecord(**json.loads(tags[key])))
        except (TypeError, json.JSONDecodeError):
            raise RegistryError(f"model {name!r}: the record {key} cannot be read") from None
    return found


def _move(
    client: "MlflowClient",
    lease: Lease,
    target: Version,
    before: Version | None,
    kind: Literal["promote", "rollback"],
    why: str,
) -> PromotionRecord:
    record = promotion_log(client, target.name)
    move = PromotionRecord(
        seq=record[-1].seq + 1 if record else 1,
        when=datetime.now(UTC).isoformat(timespec="milliseconds"),
        who=f"{lineage.user_name()}@{socket.gethostname()}",
        kind=kind,
        before=None if before is None else before.number,
        after=target.number,
        why=why,
        state="begun",
    )
    lease.check()
    _write(client, target.name, move)
    lease.check()
    with store_errors():
        client.set_registered_model_alias(target.name, CHAMPION, str(target.number))
    return _finish(client, target.name, move)


def _finish(client: "MlflowClient", name: str, move: PromotionRecord) -> PromotionRecord:
    """After the alias moved: mark the record done, and remove `challenger` from the new champion."""
    done = replace(move, state="done")
    _write(client, name, done)
    with store_errors():
        aliases = client.get_registered_model(name).aliases
        if int(aliases.get(CHALLENGER, 0)) == move.after:
            client.delete_registered_model_alias(name, CHALLENGER)
    return done


def _write(client: "MlflowClient", name: str, move: PromotionRecord) -> None:
    with store_errors():
        client.set_registered_model_tag(name, f"{_MOVE}{move.seq:06d}", json.dumps(asdict(move)))


def _recover(client: "MlflowClient", name: str) -> None:
    """Complete the record of a process that was killed between writing a record and finishing it."""
    for move in promotion_log(client, name):
        if move.state != "begun":
            continue
        now = champion_of(client, name)
        if now is not None and now.number == move.after:
            _finish(client, name, move)
        else:
            _write(client, name, replace(move, state="abandoned"))
        _log.warning("move %d of %s was left unfinished; its record is completed", move.seq, name)


def record_decision(client: "MlflowClient", result: GateResult) -> Path:
    """Write the decision to the version's tags, to its run and to runs/gate; returns the path of the page."""
    version = result.challenger
    decision = result.decision
    page = GATE_FOLDER / f"version-{version.number}.md"
    files.atomic_write_text(page, result.markdown)
    tags = {
        "gate": "passed" if decision.passed else "refused",
        "gate.at": datetime.now(UTC).isoformat(timespec="seconds"),
        "gate.champion": result.against,
        "gate.refused_by": ",".join(decision.refused_by),
        "gate.matching": decision.matching,
    }
    tags |= {f"gate.{name}": rule for name, rule in rules.to_tags(decision).items()}
    with store_errors():
        for key in version.tags.keys() - tags.keys():
            if key.startswith("gate."):  # a rule of an earlier decision
                client.delete_model_version_tag(version.name, str(version.number), key)
        for key, value in tags.items():
            client.set_model_version_tag(version.name, str(version.number), key, value)
        if version.run_id:
            client.log_artifact(version.run_id, str(page), "gate")
    return page
