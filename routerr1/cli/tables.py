"""Tables of the pool for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from routerr1.laptop.servers import ServerState
from routerr1.pool.budget import Budget, Limits
from routerr1.pool.build import budget_file
from routerr1.pool.checking import Checked
from routerr1.types import Card


def candidates(cards: Sequence[Card]) -> Table:
    """One line per candidate; unknown figures stay empty."""
    table = Table(box=None, pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    for column in ("prompt", "reply", "median", "p95", "tokens"):
        table.add_column(column, justify="right")
    table.add_column("right on probes")
    for card in cards:
        skills = sorted(card.performance.items(), key=lambda item: (-item[1], item[0]))
        table.add_row(
            card.name,
            f"{card.prompt_usd_per_mtok:g}",
            f"{card.completion_usd_per_mtok:g}",
            "" if card.latency_s is None else f"{card.latency_s:.2f} s",
            "" if card.latency_p95_s is None else f"{card.latency_p95_s:.2f} s",
            "" if card.completion_tokens is None else f"{card.completion_tokens:.0f}",
            ", ".join(f"{topic} {share:.0%}{_unsure(card, topic)}" for topic, share in skills),
        )
    table.caption = "prompt, reply: USD per million tokens; tokens: mean reply length; in brackets: says that it is not sure"
    return table


def _unsure(card: Card, topic: str) -> str:
    share = card.unsure.get(topic, 0.0)
    return f" ({share:.0%})" if share else ""


def checked(found: Sequence[Checked]) -> Table:
    """One line per candidate that was called once; `checking.remarks` says why one does not answer."""
    table = Table(box=None, pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    table.add_column("key")
    for column in ("seconds", "tokens in", "out", "USD", "per 1,000"):
        table.add_column(column, justify="right")
    table.add_column("reply")
    for each in found:
        figures = (
            ("",) * 5
            if each.problem
            else (
                f"{each.reply.latency_s:.2f}",
                str(each.reply.prompt_tokens),
                str(each.reply.completion_tokens),
                f"{each.reply.cost_usd:.6f}",
                f"{1000 * each.reply.cost_usd:.4f}",
            )
        )
        said = Text("none", style="red") if each.problem else Text(each.shown)
        table.add_row(each.candidate, each.key, *figures, said)
    answered = sum(not each.problem for each in found)
    spent = sum(each.reply.cost_usd for each in found)
    table.caption = f"{answered} of {len(found)} candidates answer; the calls cost ${spent:.6f}"
    return table


def spending(path: Path | None = None) -> Table | None:
    """What is spent in every run and month; None if no budget was ever kept here."""
    path = path or budget_file()
    if not path.exists():
        return None
    budget = Budget(path, Limits(), run="")
    table = Table(box=None, pad_edge=False)
    table.add_column("spent in")
    table.add_column("USD", justify="right")
    for scope, usd in budget.spent_usd().items():
        if not scope.startswith("question "):
            table.add_row(scope, f"{usd:.6f}")
    table.add_row("of this, set aside for calls not settled", f"{budget.under_way_usd():.6f}")
    budget.close()
    return table


def servers(states: Sequence[ServerState]) -> Table:
    """One line per server, with the memory of those that are up; narrow enough for 80 columns."""
    table = Table(box=None, pad_edge=False)
    for column in ("server", "", "address"):
        table.add_column(column, no_wrap=True)
    for column in ("process", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in states:
        table.add_row(
            each.name,
            each.did,
            each.address,
            "" if each.pid is None else str(each.pid),
            "" if each.memory_mb is None else f"{each.memory_mb:,.0f} MB",
        )
    total = sum(each.memory_mb or 0.0 for each in states)
    memory = f"{total:,.0f} MB in all; " if total else ""
    table.caption = (
        f"{memory}logs in {', '.join(sorted({str(each.log.parent) for each in states}))}"
    )
    return table
