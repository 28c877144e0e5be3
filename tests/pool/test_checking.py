"""One small call to every candidate, through a real server."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from routerr1.pool.checking import check_pool, remarks
from routerr1.pool.pool_file import PoolFile, read_pool_file
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.pool import SimulatedPool
from routerr1.simulation.server import build_app, serving
from tests.servers import write_pool_file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolFile]:
    """Six candidates that do not know the capital of France, behind a server that wants a key."""
    pool = SimulatedPool(default_candidates(), {}, seed=7)
    with serving(build_app(pool, time_scale=0, key="k")) as url:
        path = write_pool_file(
            tmp_path_factory.mktemp("pool") / "pool.yaml", url, default_candidates()
        )
        path.write_text(path.read_text().replace("base_url", "key_env: THE_KEY\n    base_url"))
        yield read_pool_file(path)


async def test_each_candidate_is_called_once_and_its_reply_told(file: PoolFile):
    found = await check_pool(file, {"THE_KEY": "k"})
    assert [each.candidate for each in found] == [row.name for row in file.candidates]
    assert all(each.problem == "" and each.key == "$THE_KEY" for each in found)
    assert all(each.reply.cost_usd > 0 and each.reply.completion_tokens > 0 for each in found)
    (hint,) = (line for line in remarks(file, found) if "capital of France" in line)
    assert all(row.name in hint for row in file.candidates)


async def test_a_missing_or_wrong_key_and_an_unknown_model_are_named(file: PoolFile):
    (missing, *_) = await check_pool(file, {})
    assert "THE_KEY" in missing.problem
    (wrong, *_) = await check_pool(file, {"THE_KEY": "other"})
    assert "401" in wrong.problem
    assert f", at {file.endpoints['here'].base_url}" in wrong.problem
    assert "other" not in wrong.problem
    first, *rest = file.candidates
    changed = replace(file, candidates=(first.model_copy(update={"model": "Nope"}), *rest))
    unknown, known, *_ = await check_pool(changed, {"THE_KEY": "k"})
    assert "404" in unknown.problem
    assert known.problem == ""
    failed, stops, *_ = remarks(changed, [known, unknown])
    assert failed == unknown.problem  # before any hint, and not in a narrow cell
    assert "the profile stage stops" in stops
