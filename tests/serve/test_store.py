"""What several gateways share."""

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import openai
import pytest

from routerr1.errors import ConfigError
from routerr1.pool.budget import Budget, Limits
from routerr1.serve.keys import new_key
from routerr1.serve.store import FeedbackRow, RequestRow, Store, TrialRow
from tests.serve.conftest import Start
from tests.serve.test_openai_client import ASK, client
from tests.servers import postgresql


@pytest.mark.slow
def test_gateways_share_keys_rates_budgets_and_requests_through_postgresql(
    start: Start, tmp_path: Path
) -> None:
    with postgresql(tmp_path) as url:
        budgets = [Budget(url, Limits(), run=f"run {number}") for number in range(2)]
        one, two = (start(budget=budget, database=url) for budget in budgets)
        often, key = new_key("often", rate_per_minute=4)
        poor, poor_key = new_key("poor", month_usd=0.0003)
        one.gateway.store.add_key(key)
        one.gateway.store.add_key(poor_key)
        while time.time() % 60 > 50:  # the count is by calendar minute
            time.sleep(0.5)
        for running in (one, two, one, two):
            with client(running, often) as openai_client:
                openai_client.models.list()
        for running in (one, two):
            with client(running, often) as openai_client, pytest.raises(openai.RateLimitError):
                openai_client.models.list()
        with client(one, poor) as openai_client:  # its row is kept, and those beside it
            openai_client.chat.completions.create(**ASK, user="\0", max_tokens=1)
        one.gateway.flush()
        (row,) = two.gateway.store.requests()
        spent, refused = row.cost_usd, None
        for number in range(10_000):
            with client((one, two)[number % 2], poor) as openai_client:
                try:
                    spent += openai_client.chat.completions.create(**ASK).usage.cost
                except openai.RateLimitError as error:
                    refused = error.code
                    break
        assert refused == "insufficient_quota"
        assert 0 < spent <= 0.0003
        for running in (one, two):
            running.gateway.flush()
        kept = [row for row in two.gateway.store.requests() if row.status == 200]
        assert sum(row.cost_usd for row in kept) == pytest.approx(spent)
        sums = budgets[1].spent_usd()
        months = [usd for name, usd in sums.items() if name.startswith(f"key {poor_key.id} ")]
        assert months == [pytest.approx(spent, abs=1e-6)]


def test_a_database_that_cannot_be_opened_is_named_without_its_password() -> None:
    with pytest.raises(ConfigError, match=r"serve\.database: .*cannot be opened") as refused:
        Store("postgresql://me:secret@127.0.0.1:9/x?connect_timeout=2")
    assert "secret" not in str(refused.value)


def test_the_character_0_is_replaced_for_databases_that_refuse_it(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    user, asked = "a\0b", "Why\0?"
    row = RequestRow("r", 1.0, None, user, "v", "m", 5.0, 200, None, 0.0, 0.1, [], asked, "A")
    store.write_requests([row])
    store.write_feedback(FeedbackRow("r", 2.0, None, None, "B\0", None, True, asked))
    (kept,), (said,) = store.requests(), store.feedback()
    assert (kept.user_name, kept.question, kept.answer) == ("a\ufffdb", "Why\ufffd?", "A")
    assert (said.answer, said.question) == ("B\ufffd", "Why\ufffd?")
    store.close()


def test_a_name_has_one_key(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    store.add_key(new_key("alice")[1])
    with pytest.raises(ConfigError, match="key 'alice': exists already"):
        store.add_key(new_key("alice")[1])
    store.remove_key("alice")
    with pytest.raises(ConfigError, match="key 'alice': there is none"):
        store.remove_key("alice")
    store.close()


def _opened(url: str, start: Event) -> None:
    start.wait()
    Store(url).close()


def test_gateways_that_open_a_new_database_at_once_all_open_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    url, start = f"sqlite:///{tmp_path / 'serve.sqlite'}", context.Event()
    others = [context.Process(target=_opened, args=(url, start)) for _ in range(4)]
    for other in others:
        other.start()
    start.set()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0, 0]


def test_a_trial_that_ended_is_known_to_who_slept_through_its_end_and_the_next_begin(
    tmp_path: Path,
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'serve.sqlite'}")
    began = store.join_trial("c@2", 10.0)
    store.write_trials([TrialRow("c@2", 20.0, "returned", "c@2", why="slow")])
    again = store.join_trial("c@2", 30.0)
    assert (store.trial_ended("c@2", began), store.trial_ended("c@2", again)) == ("slow", None)
    store.close()
