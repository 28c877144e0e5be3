"""One at a time, across processes by a file lock and across machines by the tracking store itself.

MLflow moves aliases and sets tags without compare-and-set. What it does do atomically is to refuse a
second registered model of the same name: so a registered model `<name>.lock` is the mutex of all who share
a store, made to take it and deleted to release it.
"""

import hashlib
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from routerr1.errors import LockHeld
from routerr1.tracking.runs import acquire_lock, is_gone, store_errors, this_process

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEASE_S = 900.0  # a holder elsewhere is given up after this; a dead one of this kernel at once
_OWNER = "routerr1.owner"


class Hold:
    """A mutex that was taken, for as long as nobody breaks it."""

    def __init__(self, client: "MlflowClient", lock: str, owner: str, began: float) -> None:
        self._client = client
        self._lock = lock
        self._owner = owner
        self._began = began

    def check(self) -> None:
        """Call it right before the change that the mutex is for: is it still held, and for long enough?

        MLflow cannot make a change depend on a mutex. Half of the lease is left for a change that is under
        way, so that one sent now is made before anybody else may begin.

        Raises: LockHeld if it was held too long.
        """
        if time.monotonic() - self._began > LEASE_S / 2 or not self._is_ours():
            raise LockHeld(
                f"MLflow model {self._lock!r}: was held too long by this process and may be another's now; "
                "nothing was changed, try again"
            )

    def release(self) -> None:
        """Free the mutex, if it is still ours."""
        if self._is_ours():
            with store_errors():
                self._client.delete_registered_model(self._lock)

    def _is_ours(self) -> bool:
        with store_errors():
            found = _holder(self._client, self._lock)
        return found is not None and found.tags.get(_OWNER) == self._owner


@contextmanager
def exclusive(client: "MlflowClient", name: str, *, timeout_s: float = 300.0) -> Iterator[Hold]:
    """Hold `name` against every process that shares the working folder or the tracking store.

    A holder that was killed is found out: by its process on the same kernel, else by the lease. So hold it
    for seconds, and call `Hold.check` before what must not be done twice.

    Raises: LockHeld naming the holder if it is not free within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    with file_lock(name, timeout_s=timeout_s):
        owner = f"{this_process()} {uuid.uuid4().hex[:8]}"
        began = _take(client, f"{name}.lock", owner, deadline)
        hold = Hold(client, f"{name}.lock", owner, began)
        try:
            yield hold
        finally:
            hold.release()


@contextmanager
def file_lock(name: str, *, timeout_s: float) -> Iterator[None]:
    """Hold runs/locks/<name>.lock; the system frees it when the process ends, however it ends.

    Raises: LockHeld if it is not free within `timeout_s`; RegistryError if the file cannot be made.
    """
    with acquire_lock(name, timeout_s):
        yield


def _take(client: "MlflowClient", lock: str, owner: str, deadline: float) -> float:
    """Make the mutex; the monotonic second at which its lease began at the earliest."""
    from mlflow.exceptions import MlflowException

    while True:
        began = time.monotonic()
        with store_errors():
            try:
                client.create_registered_model(lock, tags={_OWNER: owner})
                return began
            except MlflowException as error:
                # A server that finds the name taken looks the other one up; it may be gone by then.
                if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                    raise
            found = _holder(client, lock)
            holder = "" if found is None else found.tags.get(_OWNER, "")
            if holder == owner:  # the reply to our own request was lost and it was sent again
                return began
            if found is not None and _is_stale(found, holder):
                _break(client, lock, holder)
        if time.monotonic() > deadline:
            raise LockHeld(f"MLflow model {lock!r}: held by {holder or 'an unknown process'}")
        time.sleep(random.uniform(0.05, 0.25))


def _holder(client: "MlflowClient", lock: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(lock)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _is_stale(found: Any, holder: str) -> bool:
    process = holder.rpartition(" ")[0]
    return is_gone(process) or time.time() - found.creation_timestamp / 1000 > LEASE_S


def _break(client: "MlflowClient", lock: str, holder: str) -> None:
    """Move a dead holder's lock out of the way.

    Two who saw the same dead holder both rename to the same name, which only the first can: so the second
    never removes the lock that the first has taken since. The renamed one stays for an hour for this.
    """
    from mlflow.exceptions import MlflowException

    aside = f"{lock}.stale-{hashlib.sha256(holder.encode()).hexdigest()[:12]}"
    try:
        client.rename_registered_model(lock, aside)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
            raise
    for old in client.search_registered_models(f"name LIKE '{lock}.stale-%'"):
        if time.time() - old.last_updated_timestamp / 1000 > 3600:
            client.delete_registered_model(old.name)
