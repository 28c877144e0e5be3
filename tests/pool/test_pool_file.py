"""Pool files: the ready-made ones hold, and every bad one gets one clear error before any call."""

import re
from collections.abc import Callable
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from routerr1.config import GeneralizeParams, PoolParams
from routerr1.errors import PoolError
from routerr1.pool.addresses import proxy_for
from routerr1.pool.base import Call
from routerr1.pool.build import open_http_pool
from routerr1.pool.pool_file import read_pool_file
from routerr1.pool.pricing import cost_usd

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


def at(**values: Any) -> Change:
    return lambda content: content["endpoints"]["here"].update(values)


def test_a_good_file_tells_cards_and_requests(tmp_path: Path):
    file = read_pool_file(written(tmp_path, good()), max_reply_tokens=50)
    assert [card.name for card in file.cards] == ["One", "Two", "Three"]
    assert (file.cards[0].aliases, file.cards[0].completion_usd_per_mtok) == (("Uno",), 2.0)
    assert file.request(Call("Two", "why?")) == {
        "model": "maker/Two",
        "messages": [{"role": "user", "content": "why?"}],
        "max_tokens": 50,
        "temperature": 0.0,
    }
    assert file.keys({"THE_KEY": "k"}) == {"here": "k"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit(1, name="One"), "candidate 'One': name 'One' already belongs to candidate 'One'"),
        (edit(1, aliases=["UNO"]), "candidate 'Two': alias 'UNO' already belongs to candidate 'One'"),
        (edit(2, aliases=["two"]), "candidate 'Three': alias 'two' already belongs to candidate 'Two'"),
        (edit(0, prompt_usd_per_mtok=-0.1), "candidate 'One': prompt_usd_per_mtok: "),
        (edit(0, completion_usd_per_mtok=float("nan")), "candidate 'One': completion_usd_per_mtok: "),
        (edit(1, fallback="Four"), "candidate 'Two': fallback 'Four' is no candidate of the file"),
        (edit(0, fallback="Two"), "candidate 'One': its fallbacks run in a circle: One -> Two -> One"),
        (edit(2, fallback="Three"), "its fallbacks run in a circle: Three -> Three"),
        (edit(0, endpoint="there"), "candidate 'One': endpoint 'there' is not among those"),
        (edit(0, price=1), "candidate 'One': unknown key price"),
        (
            lambda c: c["candidates"][0].update(
                prompt_usd_per_token=c["candidates"][0].pop("prompt_usd_per_mtok")
            ),
            "unknown key prompt_usd_per_token; did you mean prompt_usd_per_mtok?",
        ),
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
        (at(base_url="https://example.org:99999/v1"), "endpoints.here.base_url: must be an address with a host"),
        (at(base_url="https://example.org:abc/v1"), "endpoints.here.base_url: must be an address with a host"),
        (at(base_url="https://example.org:0/v1"), "endpoints.here.base_url: must be an http or https address"),
        (at(base_url=" https://example.org/v1"), "endpoints.here.base_url: must hold no blank"),
        (at(base_url="https://example.org/\u200bv1"), "endpoints.here.base_url: must hold no blank"),
        (at(base_url="https://exa mple.org/v1"), "endpoints.here.base_url: must hold no blank"),
        (at(base_url="https://[::1/v1"), "endpoints.here.base_url: must be an address"),
        (at(base_url="https://example.org/v1/chat/completions"), "must end before /chat/completions"),
        (at(base_url="https://example.org/v1/responses"), "must end before /responses"),
        (at(base_url="https://exam💩ple.org/v1"), "must be an address with a host"),
        (at(base_url="https://example.org/v1?key=secret"), "must hold no key or password and nothing behind a `?`"),
        (at(verify=False), "endpoints.here.verify: must be a file of certificates (PEM); the check cannot be"),
        (at(headers={"X-Api-Key": "secret"}), "endpoints.here.headers: X-Api-Key must hold no key; write $NAME"),
        (at(headers={"Authorization": "Bearer secret"}), "Authorization must hold no key; write $NAME"),
        (at(headers={"X-Title": "two\nlines"}), "X-Title must be one line of printable ASCII"),
        (at(headers={"X Title": "x"}), "'X Title' is no name of a header"),
        (at(query={"api-key": "secret"}), "endpoints.here.query: api-key must hold no key; write $NAME"),
        (at(query={"api version": "1"}), "endpoints.here.query: 'api version' is no name of a parameter"),
        (at(query={"api-version": "1\n2"}), "endpoints.here.query: api-version must be one line"),
        (at(headers={"Host": "x"}), "Host is set by every call itself"),
        (at(proxy="http://me:secret@proxy:3128"), "endpoints.here.proxy: must hold no password; write $NAME"),
        (at(proxy="proxy:3128"), "endpoints.here.proxy: must be the address of a proxy"),
        (at(proxy="ftp://proxy"), "endpoints.here.proxy: must be the address of a proxy"),
        (at(cost="guessed"), "endpoints.here.cost: "),
        (edit(0, thoughts="hide"), "candidate 'One': thoughts: "),
        (edit(0, reply="middle"), "candidate 'One': reply: "),
        (edit(0, parameters={"messages": []}), "candidate 'One': parameters: messages is no parameter"),
        (edit(0, parameters={"top_p": float("inf")}), "candidate 'One': parameters: "),
        (edit(0, parameters={"since": date(2026, 1, 1)}), "candidate 'One': parameters.since"),
        (edit(0, cached_prompt_usd_per_mtok=-1), "candidate 'One': cached_prompt_usd_per_mtok: "),
        (edit(0, reasoning_usd_per_mtok=-1), "candidate 'One': reasoning_usd_per_mtok: "),
        (edit(0, request_usd=-1), "candidate 'One': request_usd: "),
        (edit(1, parameters={"max_tokens": None, "max_completion_tokens": 9000}),
         "candidate 'Two': context_window is 4096, and replies of 9000"),
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


def test_parameters_are_merged_into_the_call_and_null_removes_one(tmp_path: Path):
    content = good()
    edit(0, parameters={
        "max_tokens": None, "max_completion_tokens": 600, "temperature": None, "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": False},
    })(content)  # fmt: skip
    file = read_pool_file(written(tmp_path, content), max_reply_tokens=50)
    assert file.request(Call("One", "why?")) == {
        "model": "maker/One",
        "messages": [{"role": "user", "content": "why?"}],
        "max_completion_tokens": 600,
        "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert "max_tokens" in file.request(Call("Two", "why?"))


@pytest.mark.parametrize(
    ("parameters", "most"),
    [
        ({}, 50),
        ({"max_tokens": 70}, 70),
        ({"max_tokens": None, "max_completion_tokens": 600}, 600),
        ({"n": 3}, 150),
        ({"max_tokens": None}, 4096),  # without a limit the window is one
    ],
)
def test_the_worst_case_is_of_the_limit_that_the_call_asks_for(
    tmp_path: Path, parameters: dict[str, Any], most: int
):
    content = good()
    edit(0, parameters=parameters)(content)
    file = read_pool_file(written(tmp_path, content), max_reply_tokens=50)
    assert file.reply_tokens(file.candidates[0]) == most


def test_the_prices_of_a_file_are_on_its_cards(tmp_path: Path):
    content = good()
    edit(0, cached_prompt_usd_per_mtok=0.25, reasoning_usd_per_mtok=4.0, request_usd=0.005, reply="last")(content)  # fmt: skip
    card, other, _ = read_pool_file(written(tmp_path, content)).cards
    assert (card.cached_prompt_usd_per_mtok, card.reasoning_usd_per_mtok) == (0.25, 4.0)
    assert (card.request_usd, card.reply) == (0.005, "last")
    # A million of each: 0.75 at 1.0 and 0.25 at 0.25; 0.5 at 2.0 and 0.5 at 4.0; and the call.
    assert cost_usd(
        card, 1_000_000, 1_000_000, cached_prompt_tokens=250_000, reasoning_tokens=500_000
    ) == pytest.approx(0.75 + 0.0625 + 1.0 + 2.0 + 0.005)
    assert cost_usd(
        other, 1_000_000, 1_000_000, cached_prompt_tokens=250_000, reasoning_tokens=500_000
    ) == pytest.approx(3.0)


COMPLETION = "completion_usd_per_mtok"


@pytest.mark.parametrize(
    ("key", "price", "told"),
    [
        (COMPLETION, 3e-7, f"{COMPLETION} is 3e-07 USD per million tokens; if that is the price per token, write 0.3"),
        (COMPLETION, 300000, "is 300000 USD per million tokens; if that is the price per million tokens, times 10^6, write 0.3"),
        (COMPLETION, 0, None),
        (COMPLETION, 0.001, None),
        (COMPLETION, 1000, None),
        ("request_usd", 5000, "request_usd is 5000 USD for each call; if that is the price of a million calls, write 0.005"),
        ("request_usd", 1000, None),
        ("request_usd", 1e-9, None),
    ],
)  # fmt: skip
def test_a_price_that_no_model_has_is_a_warning_that_names_the_slip(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, price: float, told: str | None
):
    content = good()
    edit(0, **{key: price})(content)
    read_pool_file(written(tmp_path, content))
    assert len(caplog.messages) == (1 if told else 0)
    if told:
        assert told in caplog.messages[0]
        assert "candidate 'One'" in caplog.messages[0]


def test_a_price_that_is_confirmed_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    content = good()
    edit(0, **{COMPLETION: 3e-7})(content)
    (told,) = read_pool_file(written(tmp_path, content)).odd_prices
    assert told.startswith("candidate 'One': ")
    caplog.clear()
    content["prices"]["confirmed"] = ["One"]
    assert read_pool_file(written(tmp_path, content)).odd_prices == ()
    assert caplog.messages == []
    content["prices"]["confirmed"] = ["Uno"]
    with pytest.raises(PoolError, match=r"prices\.confirmed: 'Uno' is no candidate of the file"):
        read_pool_file(written(tmp_path, content))


@pytest.mark.parametrize(
    "key", ["sk\u2013abcdefghij", "\u201csk-abcdefghij\u201d", "sk-abc\u200bdefghij", "sk-abc\ndefghij", "sk abc",
            '"sk-abc"', "'sk-abc'", "<sk-abc>"]
)  # fmt: skip
def test_a_key_that_no_server_could_be_sent_is_told_before_a_call(tmp_path: Path, key: str):
    written(tmp_path, good())
    with pytest.raises(PoolError, match="THE_KEY, which holds a character that no key") as caught:
        open_http_pool(http(), environ={"THE_KEY": key})
    assert "\n" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (at(headers={"api-key": "$OTHER"}), "endpoint 'here': the environment variable OTHER, which is not set"),
        (at(query={"key": "$OTHER"}), "endpoint 'here': the environment variable OTHER, which is not set"),
        (at(proxy="$OTHER"), "endpoint 'here': the environment variable OTHER, which is not set"),
        (at(verify="ca.pem"), "endpoint 'here': ca.pem cannot be read as a file of certificates"),
    ],
)  # fmt: skip
def test_what_an_endpoint_needs_is_looked_for_before_a_call(
    tmp_path: Path, change: Change, problem: str
):
    content = good()
    change(content)
    written(tmp_path, content)
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(PoolError, match=re.escape(problem)):
        open_http_pool(http(), environ={"THE_KEY": "k"})


@pytest.mark.skipif(find_spec("socksio") is not None, reason="SOCKS proxies can be used here")
@pytest.mark.parametrize("address", ["socks5://proxy:1080", "socks5h://proxy:1080"])
def test_a_socks_proxy_without_its_package_is_named_before_a_call(tmp_path: Path, address: str):
    content = good()
    at(proxy=address)(content)
    written(tmp_path, content)
    with pytest.raises(
        PoolError, match=r"endpoint .here.: its proxy speaks SOCKS.*pip install socksio"
    ):
        open_http_pool(http(), environ={"THE_KEY": "k"})


def test_half_a_character_in_a_question_does_not_break_the_call(tmp_path: Path):
    file = read_pool_file(written(tmp_path, good()))
    (message,) = file.request(Call("One", "a \ud83d?"))["messages"]
    assert message["content"] == "a \ufffd?"


@pytest.mark.parametrize(
    ("variables", "url", "through"),
    [
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://example.org/v1", "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "https://example.org/v1", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "https://example.org/v1", None),
        ({"ALL_PROXY": "http://proxy:3128"}, "https://example.org/v1", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.org"}, "https://example.org/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".org"}, "https://example.org/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, "https://example.org/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"}, "https://example.org/v1", "http://proxy:3128"),
        ({}, "https://example.org/v1", None),
    ],
)  # fmt: skip
def test_the_proxies_of_the_environment_are_heeded(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, through: str | None
):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url, None, trust_env=True) == through
    assert proxy_for(url, None, trust_env=False) is None
    assert proxy_for(url, "http://mine:1", trust_env=True) == "http://mine:1"


def test_a_proxy_of_the_environment_that_is_no_address_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:99999")
    monkeypatch.setenv("NO_PROXY", "")
    written(tmp_path, good())
    with pytest.raises(PoolError, match="endpoint 'here': the environment variable HTTPS_PROXY") as caught:  # fmt: skip
        open_http_pool(http(), environ={"THE_KEY": "k"})
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
    """In params.yaml, whose name is the context; a served version has a pool file of its own."""
    pool = http(Path(path)).model_dump()
    generalize = {"pool_seed": 1, "file": Path(path), "added_models": 1, "max_questions": None}
    with pytest.raises(ValueError, match=r"a pool file's place is pools/"):
        PoolParams.model_validate(pool, context=Path("params.yaml"))
    with pytest.raises(ValueError, match=r"a pool file's place is pools/"):
        GeneralizeParams.model_validate(generalize, context=Path("params.yaml"))


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
    request = read_pool_file(path, max_reply_tokens=10).request(Call("One", "q"))
    with RecordStore(store) as opened:
        opened.append(Record(request, Reply("One", "a")))
    pool = open_http_pool(http(calls="replay", store=store), environ={})
    assert (await pool.ask(Call("One", "q"))).text == "a"


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
