"""Pool files: the ready-made ones hold, and every bad one gets one clear error before any call."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from routerr1.config import GeneralizeParams, PoolParams
from routerr1.errors import PoolError
from routerr1.pool.build import open_http_pool
from routerr1.pool.pool_file import read_pool_file

POOLS = Path(__file__).parents[2] / "pools"
Change = Callable[[dict[str, Any]], object]


def good() -> dict[str, Any]:
    def entry(name: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name, "endpoint": "here", "model": f"maker/{name}", "context_window": 4096,
            "prompt_usd_per_mtok": 1.0, "completion_usd_per_mtok": 2.0, **more,
        }  # fmt: skip

    return {
        "prices": {"as_of": "2026-01-01", "source": "a list"},
        "endpoints": {"here": {"base_url": "https://example.org/v1", "key_env": "THE_KEY"}},
        "candidates": [entry("One", aliases=["Uno"]), entry("Two", fallback="One"), entry("Three")],
    }


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "pools" / "pool.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def edit(place: int, **values: Any) -> Change:
    return lambda content: content["candidates"][place].update(values)


def test_a_good_file_tells_cards_and_requests(tmp_path: Path):
    file = read_pool_file(written(tmp_path, good()), max_reply_tokens=50)
    assert [card.name for card in file.cards] == ["One", "Two", "Three"]
    assert (file.cards[0].aliases, file.cards[0].completion_usd_per_mtok) == (("Uno",), 2.0)
    assert file.request("Two", "why?") == {
        "model": "maker/Two",
        "messages": [{"role": "user", "content": "why?"}],
        "max_tokens": 50,
        "temperature": 0.0,
    }
    assert file.keys({"THE_KEY": "k"}) == {"here": "k"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit(1, name="one"), "candidate 'one': name 'one' already belongs to candidate 'One'"),
        (edit(1, aliases=["UNO"]), "candidate 'Two': alias 'UNO' already belongs to candidate 'One'"),
        (edit(2, aliases=["two"]), "candidate 'Three': alias 'two' already belongs to candidate 'Two'"),
        (edit(0, prompt_usd_per_mtok=-0.1), "candidate 'One': prompt_usd_per_mtok: "),
        (edit(0, completion_usd_per_mtok=float("nan")), "candidate 'One': completion_usd_per_mtok: "),
        (edit(1, fallback="Four"), "candidate 'Two': fallback 'Four' is no candidate of the file"),
        (edit(0, fallback="Two"), "candidate 'One': its fallbacks run in a circle: One -> Two -> One"),
        (edit(2, fallback="Three"), "its fallbacks run in a circle: Three -> Three"),
        (edit(0, endpoint="there"), "candidate 'One': endpoint 'there' is not among those"),
        (edit(0, price=1), "candidate 'One': unknown key price"),
        (edit(0, temperature=3), "candidate 'One': temperature: "),
        (edit(1, context_window=600), "candidate 'Two': context_window is 600, and replies of 600 tokens"),
        (edit(1, max_reply_tokens=9000), "candidate 'Two': context_window is 4096, and replies of 9000"),
        (lambda c: c["candidates"][0].pop("model"), "candidate 'One': model: Field required"),
        (lambda c: c["candidates"][0].pop("prompt_usd_per_mtok"), "prompt_usd_per_mtok: Field required"),
        (lambda c: c["candidates"][0].pop("name"), "candidate number 1: name: Field required"),
        (lambda c: c.update(candidates=[]), "candidates: "),
        (lambda c: c.pop("prices"), "prices: Field required"),
        (lambda c: c["prices"].update(as_of="lately"), "prices.as_of: "),
        (lambda c: c["endpoints"]["here"].update(base_url="example.org"), "endpoints.here.base_url: "),
        (
            lambda c: c["endpoints"]["here"].update(base_url="https://me:secret@example.org/v1"),
            "must hold no key or password",
        ),
        (
            lambda c: c["endpoints"]["here"].update(key_env="sk-secret"),
            "endpoints.here.key_env: must name an environment variable",
        ),
    ],
)  # fmt: skip
def test_a_bad_file_gets_one_clear_error(tmp_path: Path, change: Change, problem: str):
    content = good()
    change(content)
    path = written(tmp_path, content)
    with pytest.raises(PoolError, match=re.escape(problem)) as caught:
        read_pool_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_yaml_that_cannot_be_read_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "pool.yaml"
    path.write_text("prices: {as_of: 2026-01-01\ncandidates: [", encoding="utf-8")
    with pytest.raises(PoolError, match=r"pool\.yaml, line 2: is not valid YAML"):
        read_pool_file(path)
    with pytest.raises(PoolError, match=r"none\.yaml: cannot be read"):
        read_pool_file(tmp_path / "none.yaml")


def http(path: Path = Path("pools/pool.yaml"), **more: Any) -> PoolParams:
    return PoolParams(
        kind="http", file=path, seed=1, max_reply_tokens=10, max_concurrency=4, **more
    )


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_told_when_the_pool_is_opened(tmp_path: Path, value: str | None):
    environ = {} if value is None else {"THE_KEY": value}
    written(tmp_path, good())
    with pytest.raises(
        PoolError, match=r"endpoint 'here' needs its key in the .* THE_KEY, which is"
    ):
        open_http_pool(http(), environ=environ)


@pytest.mark.parametrize(
    "path", ["pool.yaml", "data/pool/pool.yaml", "/srv/pool.yaml", "pools/../pool.yaml", ""]
)
def test_a_pool_file_that_dvc_would_not_watch_is_refused(path: str):
    with pytest.raises(ValueError, match=r"a pool file's place is pools/"):
        http(Path(path))
    with pytest.raises(ValueError, match=r"a pool file's place is pools/"):
        GeneralizeParams(pool_seed=1, file=Path(path), added_models=1, max_questions=None)


def test_a_store_that_dvc_would_delete_is_refused():
    with pytest.raises(ValueError, match=r"data/pool is an output of the profile stage"):
        http(calls="record", store=Path("data/pool/calls.jsonl"))


def test_cards_of_another_pool_are_refused(tmp_path: Path):
    from routerr1.types import Card

    written(tmp_path, good())
    with pytest.raises(PoolError, match="the cards name candidate 'Five'"):
        open_http_pool(http(), [Card("Five")], environ={"THE_KEY": "k"})


async def test_a_replay_needs_no_key(tmp_path: Path):
    from routerr1.pool.records import Record, RecordStore
    from routerr1.types import Reply

    path, store = written(tmp_path, good()), tmp_path / "calls.jsonl"
    request = read_pool_file(path, max_reply_tokens=10).request("One", "q")
    with RecordStore(store) as opened:
        opened.append(Record(request, Reply("One", "a")))
    pool = open_http_pool(http(calls="replay", store=store), environ={})
    assert (await pool.ask("One", "q")).text == "a"


def test_the_ready_made_files_hold_and_carry_the_papers_prices():
    paper = read_pool_file(POOLS / "paper.yaml")
    unseen = read_pool_file(POOLS / "paper-unseen.yaml")
    assert {card.name: card.completion_usd_per_mtok for card in paper.cards} == {
        "Qwen2.5-7B-Instruct": 0.30,
        "LLaMA-3.1-70B-Instruct": 0.88,
        "LLaMA-3.1-8B-Instruct": 0.18,
        "Mistral-7B-Instruct": 0.20,
        "Mixtral-8x22B-Instruct": 1.20,
        "Gemma-2-27B-Instruct": 0.80,
    }
    assert {card.name: card.completion_usd_per_mtok for card in unseen.cards} == {
        "Palmyra-Creative-122B": 1.80,
        "LLaMA3-ChatQA-1.5-8B": 0.18,
    }
    local = read_pool_file(POOLS / "local.yaml")
    assert local.keys({}) == {"vllm": "", "ollama": ""}
    for file in (paper, unseen, local):
        assert file.prices.source
