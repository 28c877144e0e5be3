"""API keys: made here, kept as digests, compared in constant time."""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from routerr1.serve.errors import ApiError
from routerr1.serve.store import Key, Store

PREFIX = "rr1-"
_FRESH_S = 2.0  # a key that is added or removed counts after this
_MOST_CHARS = 512
_log = logging.getLogger(__name__)


def new_key(
    name: str,
    *,
    rate_per_minute: int | None = None,
    month_usd: float | None = None,
    max_spend: float | None = None,
    candidates: frozenset[str] | None = None,
) -> tuple[str, Key]:
    """A new random key, and what is kept of it.

    The key has 256 random bits, so its plain SHA-256 cannot be searched for.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = digest_of(secret)
    made = Key(
        digest[:12], name, digest, time.time(), rate_per_minute, month_usd, max_spend, candidates
    )
    return secret, made


def digest_of(secret: str) -> str:
    """SHA-256 of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Keyring:
    """The keys of the database, read again every few seconds.

    Args:
        required: whether a key is needed even where there is none. Where there was one, it always is.
    """

    def __init__(
        self,
        store: Store,
        *,
        required: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._required = required
        self._now = now
        self._read_s = float("-inf")
        self._keys: list[Key] | None = None

    async def _fresh(self) -> list[Key]:
        """Every key. A database that does not answer leaves those that are known."""
        if self._now() - self._read_s > _FRESH_S:
            self._read_s = self._now()  # one request reads, others need not wait
            try:
                self._keys = await asyncio.to_thread(self._store.read_keys)
            except SQLAlchemyError as error:
                if self._keys is None:
                    raise ApiError(503, "the keys cannot be read", "keys_unavailable") from None
                _log.error("the keys cannot be read: %s", str(error).splitlines()[0])
        while self._keys is None:  # another request reads them for the first time
            await asyncio.sleep(0.01)
            if self._now() - self._read_s > _FRESH_S:
                raise ApiError(503, "the keys cannot be read", "keys_unavailable")
        return self._keys

    async def admit(self, authorization: str | None) -> Key | None:
        """The key of a request; None where no keys are needed.

        Raises: ApiError 401 for a missing or wrong key, 429 for one that asks too often, 503 if the keys
            are not known.
        """
        keys = await self._fresh()
        self._required = self._required or bool(keys)
        if not self._required:
            return None
        key = self._find(keys, authorization)
        if key.rate_per_minute is not None:
            minute, second = divmod(int(time.time()), 60)
            count = await asyncio.to_thread(self._store.count_request, key.id, minute)
            if count > key.rate_per_minute:
                raise ApiError(
                    429,
                    f"this key may make {key.rate_per_minute} requests a minute",
                    "rate_limit_exceeded",
                    headers={"retry-after": str(60 - second)},
                )
        return key

    def _find(self, keys: list[Key], authorization: str | None) -> Key:
        kind, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if kind.lower() != "bearer" or not secret:
            raise ApiError(
                401, "an API key is needed: Authorization: Bearer KEY", "missing_api_key"
            )
        digest = digest_of(secret[:_MOST_CHARS])
        found = None
        for key in keys:  # all of them, so that the time does not tell which one is near
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None or len(secret) > _MOST_CHARS:
            raise ApiError(401, "the API key is not valid", "invalid_api_key")
        return found
