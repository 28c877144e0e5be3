"""Where versions beside the champion serve: as its shadow, or as a canary. Each may follow an alias that moves."""

import logging
from collections.abc import Callable

from routerr1.config import CanaryParams, ShadowParams
from routerr1.errors import ConfigError, NoSuchVersion
from routerr1.registry.shadow_report import ShadowReport, write_shadow_report
from routerr1.registry.versions import Version
from routerr1.serve.asked import Outcome
from routerr1.serve.canary import RETURNED, Canary, has_returned
from routerr1.serve.champion import Named, Seat, find_version
from routerr1.serve.engine import Engine, Identity
from routerr1.serve.gateway import Gateway
from routerr1.serve.shadow import Shadow
from routerr1.serve.store import RequestRow
from routerr1.tracking.store import open_client

_log = logging.getLogger(__name__)
Publish = Callable[[Identity, ShadowReport], None]


class ShadowSeat:
    """The seat of a shadow; empty while the alias names no version.

    Args:
        publish: makes a report known to the gate.
    """

    def __init__(
        self, gateway: Gateway, params: ShadowParams, publish: Publish | None = None
    ) -> None:
        self._gateway = gateway
        self._params = params
        self._publish = publish
        self._engine: Engine | None = None
        self.shadow: Shadow | None = None
        gateway.observers.append(self._observe)
        gateway.at_end.append(self._finish)

    @property
    def version(self) -> str | None:
        """See `Seat`."""
        return None if self._engine is None else self._engine.identity.version

    def refusal(self, _: Version) -> str | None:
        """Nothing: any version may be a shadow."""
        return None

    def take(self, engine: Engine) -> None:
        """See `Seat`."""
        self.leave()
        self._gateway.add_beside(engine)
        self._engine = engine
        self.shadow = Shadow(self._gateway, engine, self._params, self._publish)
        share = 100 * self._params.share
        _log.info("%s is a shadow of %g %% of the requests", engine.identity.label, share)

    def leave(self) -> None:
        """End the shadow after the questions that it is playing, with its report."""
        engine, shadow = self._engine, self.shadow
        self._engine = self.shadow = None
        if engine is not None and shadow is not None:
            self._gateway.retire(engine, shadow.finish)

    def _observe(self, outcome: Outcome) -> None:
        if self.shadow is not None:
            self.shadow.observe(outcome)

    async def _finish(self) -> None:
        if self.shadow is not None:
            await self.shadow.finish()


class CanarySeat:
    """The seat of a canary; empty while the alias names no version, or one that returned."""

    def __init__(self, gateway: Gateway, params: CanaryParams) -> None:
        self._gateway = gateway
        self._params = params
        self._engine: Engine | None = None
        self.canary: Canary | None = None
        gateway.choose = self._choose
        gateway.observers.append(self._observe)
        gateway.on_score = self._scored
        gateway.at_end.append(self._finish)

    @property
    def version(self) -> str | None:
        """See `Seat`."""
        return None if self._engine is None else self._engine.identity.version

    def refusal(self, version: Version) -> str | None:
        """A version that returned is not tried again."""
        label = f"{version.name}@{version.number}"
        if not has_returned(label):
            return None
        return f"{label} returned before; see {RETURNED}, and remove its file to try it again"

    def take(self, engine: Engine) -> None:
        """See `Seat`."""
        self.leave()
        self._gateway.add_beside(engine)
        self._engine = engine
        self.canary = Canary(self._gateway, engine, self._params)
        share = 100 * self._params.share
        _log.info("%s answers %g %% of the users", engine.identity.label, share)

    def leave(self) -> None:
        """End the canary after its last request."""
        engine, canary = self._engine, self.canary
        self._engine = self.canary = None
        if engine is not None and canary is not None and canary.returned is None:
            self._gateway.retire(engine, canary.finish)

    def _choose(self, sticky: str) -> Engine | None:
        return None if self.canary is None else self.canary.choose(sticky)

    def _observe(self, outcome: Outcome) -> None:
        if self.canary is not None:
            self.canary.observe(outcome)

    async def _finish(self) -> None:
        if self.canary is not None:
            await self.canary.finish()

    def _scored(self, request: RequestRow, score: float) -> None:
        if self.canary is not None:
            self.canary.scored(request, score)


def fill(seat: Seat, named: Named, build: Callable[[Version], Engine]) -> None:
    """Let the version that is named now take its seat, before the gateway serves.

    Raises: RouterError if it cannot be used, or if a number names none; an alias may name one later.
    """
    try:
        version = find_version(named)
    except NoSuchVersion as error:
        if not named.moves:
            raise
        _log.info("%s; waits for one", error)
        return
    why = seat.refusal(version)
    if why is None:
        seat.take(build(version))
    elif not named.moves:
        raise ConfigError(f"serve.canary: {why}")
    else:
        _log.warning("%s", why)


def publish(identity: Identity, report: ShadowReport) -> None:
    """Put a shadow's report on its version in the registry, where the gate reads it."""
    write_shadow_report(open_client(), identity.name, identity.version, report)
