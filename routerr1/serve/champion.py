"""A new version without a restart: an alias is watched, the version is loaded and checked beside the old one."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from routerr1.errors import NoSuchVersion, RouterError
from routerr1.registry.promotion import put_back
from routerr1.registry.versions import CHAMPION, Version, get_version
from routerr1.serve.engine import Engine
from routerr1.serve.gateway import Gateway
from routerr1.tracking.store import open_client

_log = logging.getLogger(__name__)
_AGAIN_S = 300.0  # until a version that failed its check is tried again


@dataclass(frozen=True, slots=True)
class Named:
    """A version as an address names it: by its number, or by an alias that may move."""

    name: str
    which: str
    moves: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that was not taken into service, and why."""

    version: int
    why: str
    at_s: float


def find_version(named: Named) -> Version:
    """The version that is named now. A champion that passed the gate by is put back first.

    Raises: NoSuchVersion if there is none; RegistryError or LockHeld if the registry cannot tell now.
    """
    client = open_client()
    if named.which == CHAMPION:
        put_back(client, named.name)
    return get_version(client, named.name, named.which)


class Seat(Protocol):
    """Where a watched version serves: as champion, shadow or canary."""

    @property
    def version(self) -> str | None:
        """The version that has the seat."""
        ...

    def refusal(self, version: Version) -> str | None:
        """Why a version is not even loaded; None lets it be tried."""
        ...

    def take(self, engine: Engine) -> None:
        """Seat a version that passed its check, in place of the present one."""
        ...

    def leave(self) -> None:
        """React to an alias that names no version."""
        ...


class ChampionSeat:
    """The seat of the version that answers; never empty."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @property
    def version(self) -> str:
        """See `Seat`."""
        return self._gateway.engine.identity.version

    def refusal(self, _: Version) -> str | None:
        """Nothing: the check decides."""
        return None

    def take(self, engine: Engine) -> None:
        """See `Seat`."""
        self._gateway.take_over(engine)

    def leave(self) -> None:
        """Stay: a gateway without a champion could answer nothing."""
        self._gateway.metrics.refused_versions.labels("no_version").inc()
        _log.warning("no version is champion; %s stays", self._gateway.engine.identity.label)


class Watch:
    """Looks at an alias every `every_s` seconds, or at once when told to.

    Args:
        build: makes the engine of a version; called in a thread.
        seat: of the version; the champion's without one.
        find: the version that is named now, as `find_version`; called in a thread.
    """

    def __init__(
        self,
        gateway: Gateway,
        named: Named,
        build: Callable[[Version], Engine],
        *,
        every_s: float,
        seat: Seat | None = None,
        find: Callable[[Named], Version] = find_version,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._named = named
        self._build = build
        self._every_s = every_s
        self._seat = ChampionSeat(gateway) if seat is None else seat
        self._find = find
        self._now = now
        self._wake = asyncio.Event()
        self.refused: Refusal | None = None

    def look_now(self) -> None:
        """End the pause before the next look."""
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._every_s)
            self._wake.clear()
            await self.look()

    async def look(self) -> None:
        """Seat the version that the alias names, if it is another one and passes its check.

        The seat is emptied only if the registry answers that the alias names none.
        """
        try:
            version = await asyncio.to_thread(self._find, self._named)
        except NoSuchVersion as error:
            _log.info("%s", error)
            self._seat.leave()
            return
        except Exception as error:  # whatever the registry does, the seated version serves
            self._gateway.metrics.refused_versions.labels("store").inc()
            _log.warning(
                "the serving version stays: %s", error,
                exc_info=None if isinstance(error, RouterError) else error,
            )  # fmt: skip
            return
        if str(version.number) == self._seat.version or self._fails(version):
            return
        why = self._seat.refusal(version)
        if why is not None:
            self._seat.leave()
            return
        try:
            engine = await asyncio.to_thread(self._build, version)
        except Exception as error:  # whatever a version does, the old one serves
            self._refuse(version, error)
            return
        try:
            await engine.check()
        except Exception as error:
            await engine.aclose()
            self._refuse(version, error)
            return
        self.refused = None
        if await self._has_moved(version):  # to load took seconds; a rollback must not be undone
            _log.info("version %d of %s is no longer named", version.number, version.name)
            await engine.aclose()
            self._wake.set()
            return
        self._seat.take(engine)

    async def _has_moved(self, version: Version) -> bool:
        """Whether the alias names another version than `version` by now; False if nothing can tell."""
        try:
            return (await asyncio.to_thread(self._find, self._named)).number != version.number
        except NoSuchVersion:
            return True
        except RouterError:
            return False

    def _fails(self, version: Version) -> bool:
        last = self.refused
        return (
            last is not None
            and last.version == version.number
            and self._now() - last.at_s < _AGAIN_S
        )

    def _refuse(self, version: Version, error: Exception) -> None:
        known = isinstance(error, RouterError)
        why = str(error) if known else f"{type(error).__name__}: {error}"
        self.refused = Refusal(version.number, why, self._now())
        self._gateway.metrics.refused_versions.labels("check").inc()
        serving = self._seat.version
        _log.error(
            "version %d of %s is not taken into service, %s stays: %s",
            version.number, version.name,
            "nothing" if serving is None else f"version {serving}", why,
            exc_info=None if known else error,
        )  # fmt: skip
