"""From a command to a running gateway."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from routerr1.config import Params
from routerr1.errors import ConfigError
from routerr1.registry.versions import CHAMPION
from routerr1.serve.beside import CanarySeat, ShadowSeat, fill, publish
from routerr1.serve.build import Choices, policy_engine, router_engine, version_engine
from routerr1.serve.champion import Named, Seat, Watch, find_version
from routerr1.serve.engine import Engine
from routerr1.serve.gateway import Gateway
from routerr1.serve.server import require_keys, serve_forever
from routerr1.serve.store import Store
from routerr1.serve.tracing import open_tracer

_log = logging.getLogger(__name__)
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")


@dataclass(frozen=True, slots=True)
class Source:
    """What is served; the champion if nothing is named."""

    model: str | None = None
    policy: Path | None = None
    router: str | None = None


def named_version(uri: str | None, params: Params) -> Named:
    """The version that an address of MLflow names; the champion without an address.

    Raises: ConfigError for another kind of address.
    """
    if uri is None:
        return Named(params.registry.model, CHAMPION, moves=True)
    found = _URI.fullmatch(uri)
    if found is None:
        raise ConfigError(f"--model {uri}: write models:/NAME@ALIAS or models:/NAME/NUMBER")
    return Named(found["name"], found["alias"] or found["number"], moves=found["alias"] is not None)


def open_engine(source: Source, params: Params, choices: Choices) -> Engine:
    """The engine of what is served.

    Raises: RouterError naming what cannot be used.
    """
    if source.policy is not None:
        return policy_engine(source.policy, params, choices)
    if source.router is not None:
        return router_engine(source.router, params, choices)
    named = named_version(source.model, params)
    return version_engine(find_version(named), choices)


def run(
    source: Source,
    params: Params,
    choices: Choices,
    *,
    ready: Callable[[str], None],
    page: bool = True,
) -> None:
    """Serve until a signal.

    Args:
        ready: called with the address once connections are taken.
        page: serve the page for people at `/`.

    Raises: RouterError if nothing can be served.
    """
    section = params.serve
    store = Store(section.database)
    require_keys(section.host, keys=bool(store.read_keys()))
    engine = open_engine(source, params, choices)
    identity = engine.identity
    _log.info("%s: %s on %s candidates", identity.label, identity.router, _WORDS[identity.pool])
    tracer = open_tracer(params.registry.experiment, share=section.trace, keep=section.keep)
    gateway = Gateway(engine, section, store, tracer=tracer)
    watches = _watches(gateway, source, params, choices)
    serve_forever(gateway, section.host, section.port, ready, watches, page=page)


def _watches(gateway: Gateway, source: Source, params: Params, choices: Choices) -> list[Watch]:
    """Seat shadow and canary, as the parameters say, and watch every alias that may move.

    Raises: RouterError if a version cannot be used.
    """
    section, found = params.serve, []
    build = partial(version_engine, choices=choices)
    watch = partial(Watch, gateway, build=build, every_s=section.watch_s)
    own = named_version(source.model, params)
    if source.policy is None and source.router is None and own.moves:
        found.append(watch(own))
    seats: list[tuple[Seat, str]] = []
    if section.shadow is not None:
        seats.append((ShadowSeat(gateway, section.shadow, publish), section.shadow.version))
    if section.canary is not None:
        seats.append((CanarySeat(gateway, section.canary), section.canary.version))
    for seat, version in seats:
        named = Named(own.name, version, moves=not version.isdigit())
        fill(seat, named, build)
        if named.moves:
            found.append(watch(named, seat=seat))
    return found


_WORDS = {"http": "live", "recorded": "recorded", "simulated": "simulated"}
