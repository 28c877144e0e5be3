"""The promotion lock: one change of the champion at a time, across processes and machines.

Processes of one folder take a file lock. Machines that share a store take a registered model
`<name>.lock`: MLflow moves aliases without compare-and-set, but it refuses a second registered model of the
same name, so creating that model takes the lock and deleting it frees it.
"""

import hashlib
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from routerr1.errors import LockHeld
from routerr1.tracking.store import file_lock, is_gone, store_errors, this_process

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

LEASE_S = 900.0
"""A holder on another machine loses the lock after this time; a dead one on this kernel loses it at once."""

_OWNER = "routerr1.owner"
_ASIDE = ".stale-"
_KEEP_ASIDE_S = 3600.0


class Lease:
    """A held lock, valid until `lease_s` has passed."""

    def __init__(
        self, client: "MlflowClient", lock: str, owner: str, began: float, lease_s: float
    ) -> None:
        self._client = client
        self._lock = lock
        self._owner = owner
        self._began = began
        self._lease_s = lease_s

    def check(self) -> None:
        """Confirm, right before the change that the lock protects, that it is still held.

        MLflow cannot make a change depend on a lock. Half of the lease is reserved for the change itself,
        so that a change sent now arrives before another process may begin.

        Raises: LockHeld if the first half of the lease has passed or the lock was lost.
        """
        if time.monotonic() - self._began > self._lease_s / 2 or not self._is_ours():
            raise LockHeld(
                f"MLflow model {self._lock!r}: this process held it too long, so another may hold it now; "
                "nothing was changed, try again"
            )

    def release(self) -> None:
        """Free the lock if it is still ours.

        MLflow sends a request again if its reply is lost. A second deletion would free the lock that another process
        has taken since; a second renaming finds the new name taken.
        """
        from mlflow.exceptions import MlflowException

        if not self._is_ours():
            return
        with store_errors():
            aside = _put_aside(self._client, self._lock, self._owner)
            try:
                self._client.delete_registered_model(aside)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise

    def _is_ours(self) -> bool:
        with store_errors():
            found = _holder(self._client, self._lock)
        return found is not None and found.tags.get(_OWNER) == self._owner


@contextmanager
def registry_lock(
    client: "MlflowClient", name: str, *, timeout_s: float = 300.0, lease_s: float = LEASE_S
) -> Iterator[Lease]:
    """Lease the lock of a registered model against every process of this folder and of this store.

    A killed holder is recognised by its process on the same kernel, and by its lease elsewhere. Lease the
    lock for seconds only, and call `Lease.check` before a change that must not happen twice.

    Raises: LockHeld naming the holder if the lock is not free within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    with file_lock(name, timeout_s):
        owner = f"{this_process()} {uuid.uuid4().hex[:8]}"
        began = _take(client, f"{name}.lock", owner, deadline, lease_s)
        lease = Lease(client, f"{name}.lock", owner, began, lease_s)
        try:
            yield lease
        finally:
            lease.release()


def _take(client: "MlflowClient", lock: str, owner: str, deadline: float, lease_s: float) -> float:
    """Create the lock; returns the monotonic second at which its lease began at the earliest."""
    from mlflow.exceptions import MlflowException

    while True:
        began = time.monotonic()
        with store_errors():
            try:
                client.create_registered_model(lock, tags={_OWNER: owner})
                return began
            except MlflowException as error:
                # A server that finds the name taken looks the model up, which may be deleted by then.
                if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                    raise
            found = _holder(client, lock)
            holder = "" if found is None else found.tags.get(_OWNER, "")
            if holder == owner:  # the reply to our request was lost, and the request was sent again
                return began
            if found is not None and _is_stale(found, holder, lease_s):
                _break(client, lock, holder)
        if time.monotonic() > deadline:
            raise LockHeld(f"MLflow model {lock!r}: held by {holder or 'an unknown process'}")
        time.sleep(random.uniform(0.05, 0.25))


def _holder(client: "MlflowClient", lock: str) -> "RegisteredModel | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(lock)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _is_stale(found: "RegisteredModel", holder: str, lease_s: float) -> bool:
    process = holder.rpartition(" ")[0]
    return is_gone(process) or time.time() - found.creation_timestamp / 1000 > lease_s


def _break(client: "MlflowClient", lock: str, holder: str) -> None:
    """Remove a dead holder's lock, which is kept aside for an hour.

    Two processes that see the same dead holder put the lock aside under the same name, so the second never removes the
    lock that the first has taken since.
    """
    _put_aside(client, lock, holder)
    for old in client.search_registered_models(f"name LIKE '{lock}{_ASIDE}%'"):
        if time.time() - old.last_updated_timestamp / 1000 > _KEEP_ASIDE_S:
            client.delete_registered_model(old.name)


def _put_aside(client: "MlflowClient", lock: str, holder: str) -> str:
    """Rename the lock of a holder; gives the new name. Of several such renamings only the first does anything."""
    from mlflow.exceptions import MlflowException

    aside = f"{lock}{_ASIDE}{hashlib.sha256(holder.encode()).hexdigest()[:12]}"
    try:
        client.rename_registered_model(lock, aside)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
            raise
    return aside
