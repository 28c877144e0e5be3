"""Failed calls are counted by candidate and reason."""

from routerr1.pool.tally import FailureTally
from routerr1.types import Reply


def failed(note: str, name: str = "Mint") -> Reply:
    return Reply(name, "", failure="unavailable", note=note)


def test_failed_calls_are_counted_by_candidate_and_reason():
    tally = FailureTally()
    tally.add("Mint", Reply("Mint", "fine"))
    for number in range(3):
        tally.add("Mint", failed(f'Mint: status 400 "no max_tokens (request {number})"'))
    tally.add("Mint", failed("Mint: circuit open, not asked"))
    tally.add("Mint", failed("Mint: the server took too long; 4 tries may be billed beyond it"))
    answered = 'Mint: status 400 "later"; answered by Curie, fallback of Mint'
    tally.add("Mint", Reply("Curie", "fine", note=answered))
    tally.add("Curie", Reply("Curie", "fine", note="cut at the token limit"))
    tally.add("Atlas", failed("run r: budget", "Atlas"))
    assert tally.lines() == [
        "1 of 1 calls to Atlas failed: run r: budget",
        '4 of 7 calls to Mint failed: status 400 "no max_tokens (request 0)"',
        "1 of 7 calls to Mint failed: circuit open, not asked",
        "1 of 7 calls to Mint failed: the server took too long",
    ]
    assert tally.reason("Mint") == '4 times status 400 "no max_tokens (request 0)"'
    assert tally.reason("Curie") is None


def test_of_a_chain_of_fallbacks_every_reason_is_told():
    tally = FailureTally()
    tally.add("Mint", failed('Mint: status 404 "gone"; Curie: status 500 "broken"'))
    assert tally.lines() == [
        '1 of 1 calls to Mint failed: status 404 "gone"; Curie: status 500 "broken"'
    ]
