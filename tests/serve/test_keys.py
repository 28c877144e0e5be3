"""Keys: made once, compared by digest, read again."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from routerr1.serve.errors import ApiError
from routerr1.serve.keys import Keyring, digest_of, new_key
from routerr1.serve.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 's.sqlite'}")


def test_what_is_kept_is_a_digest(store: Store, tmp_path: Path) -> None:
    secret, key = new_key("alice", rate_per_minute=3, candidates=frozenset({"B", "A"}))
    store.add_key(key)
    assert store.read_keys() == [key]
    assert key.digest == digest_of(secret)
    assert secret.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len({new_key("x")[0] for _ in range(50)}) == 50


async def test_a_new_key_counts_and_a_removed_one_does_not_after_two_seconds(store: Store) -> None:
    now = [0.0]
    ring = Keyring(store, now=lambda: now[0])
    assert await ring.admit(None) is None
    secret, key = new_key("alice")
    store.add_key(key)
    now[0] = 3.0
    assert await ring.admit(f"Bearer {secret}") == key
    assert await ring.admit(f"bearer  {secret} ") == key
    for wrong in (None, "", "Bearer", f"Basic {secret}", "Bearer \u00e9\udc80"):
        with pytest.raises(ApiError) as refused:
            await ring.admit(wrong)
        assert refused.value.status == 401
    store.remove_key("alice")
    other, _ = new_key("other")
    now[0] = 6.0
    for gone in (secret, other, None):  # without the last key the gateway is not open to all
        with pytest.raises(ApiError):
            await ring.admit(None if gone is None else f"Bearer {gone}")


async def test_an_address_that_others_reach_needs_a_key_from_the_start(store: Store) -> None:
    with pytest.raises(ApiError) as refused:
        await Keyring(store, required=True).admit(None)
    assert refused.value.status == 401


async def test_a_database_that_is_gone_leaves_the_known_keys(store: Store) -> None:
    now = [0.0]
    ring, late = Keyring(store, now=lambda: now[0]), Keyring(store, now=lambda: now[0])
    secret, key = new_key("alice")
    store.add_key(key)
    assert await ring.admit(f"Bearer {secret}") == key
    with store._engine.begin() as db:
        db.execute(sa.text("DROP TABLE serve_keys"))
    now[0] = 3.0
    assert await ring.admit(f"Bearer {secret}") == key
    with pytest.raises(ApiError) as unknown:
        await late.admit(f"Bearer {secret}")
    assert unknown.value.status == 503


async def test_requests_that_come_first_all_get_the_keys(store: Store) -> None:
    secret, key = new_key("alice")
    store.add_key(key)
    ring = Keyring(store)
    assert await asyncio.gather(*(ring.admit(f"Bearer {secret}") for _ in range(20))) == [key] * 20
