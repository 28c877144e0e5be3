"""Rows of the KV cache have lengths of their own."""

import torch

from routerr1.rollout.engine.kv_cache import RaggedCache


def written(cache: RaggedCache, rows: list[int], positions: list[list[int]]) -> None:
    """One pass that writes 10 * row + position as the key, and its negative as the value."""
    at, where = torch.tensor(rows), torch.tensor(positions)
    cache.place(at, at, where, height=max(rows) + 1, span=int(where.max()) + 1)
    keys = (10 * at[:, None] + where).float()[:, None, :, None]  # (rows, heads, width, size)
    for layer in cache.layers:
        layer.update(keys, -keys)


def test_a_pass_writes_its_rows_and_reads_only_them() -> None:
    cache = RaggedCache(2)
    written(cache, [0, 1], [[0, 1], [0, 1]])
    written(cache, [1], [[2, 3]])
    cache.place(
        slice(1, 2), torch.tensor([1]), torch.tensor([[4]]), height=2, span=5
    )  # fmt: skip
    keys, values = cache.layers[1].update(torch.full((1, 1, 1, 1), 14.0), torch.zeros(1, 1, 1, 1))
    assert keys.flatten().tolist() == [10, 11, 12, 13, 14]
    assert values.flatten().tolist() == [-10, -11, -12, -13, 0]


def test_a_cache_that_grows_keeps_its_content_and_takes_other_tensors() -> None:
    cache = RaggedCache(1)
    written(cache, [0, 1], [[0, 1], [0, 1]])
    before = cache.keys()[0]
    assert cache.fits(32, 64)
    assert not cache.fits(33, 64)
    assert not cache.fits(32, 65)
    cache.reserve(32, 64)
    assert cache.keys()[0] is before
    cache.reserve(33, 65)
    after = cache.keys()[0]
    assert after is not before
    assert after[:2, 0, :2, 0].tolist() == [[0, 1], [10, 11]]


def test_a_row_is_copied_up_to_its_length() -> None:
    cache = RaggedCache(1)
    written(cache, [0, 1], [[0, 1], [0, 1]])
    cache.copy_row(1, 0, 1)
    assert cache.keys()[0][0, 0, :2, 0].tolist() == [10, 1]
