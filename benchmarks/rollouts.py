"""Speed of a loop in which every trajectory proceeds by itself, against lockstep rounds.

Runs the same trajectories (two calls each, an instant policy) against a pool with lognormal
latency. One side is the rollout loop. The other is the published code's way: round by round, ten
calls at a time, all waiting for the slowest. Prints one JSON object. The critical path, the longest
single trajectory, is a lower bound.

    python -m benchmarks.rollouts
"""

import asyncio
import math
import random
import time
from collections.abc import Sequence

from benchmarks import shared
from routerr1.config import RolloutParams
from routerr1.pool.base import Call, Pool
from routerr1.prompt import renderer
from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.loop import play
from routerr1.types import Card, Question, Reply

CALL = "<think> t</think><search> slow: question {}</search>"
DONE = "<think> t</think><answer> x</answer>"


class SlowPool(Pool):
    """Answers after a latency fixed by (seed, query)."""

    def __init__(self, median_s: float, sigma: float, seed: int) -> None:
        self.cards = (Card("slow"),)
        self._median_s, self._sigma, self._seed = median_s, sigma, seed

    def latency_s(self, query: str) -> float:
        """Seconds that `query` takes."""
        normal = random.Random(f"{self._seed}/{query}").gauss()
        return self._median_s * math.exp(self._sigma * normal)

    async def ask(self, call: Call) -> Reply:
        """Wait, then answer."""
        wait_s = self.latency_s(call.query)
        await asyncio.sleep(wait_s)
        return Reply(call.candidate, "x", 1, 1, 0.0, wait_s)


def queries(count: int, rounds: int) -> list[list[str]]:
    """What trajectory i asks in round r."""
    return [[f"question {i}-{r}" for r in range(rounds)] for i in range(count)]


async def ours(pool: SlowPool, count: int, rounds: int) -> float:
    """Wall seconds of the rollout loop."""

    def say(prompt: str, inserted: Sequence[str]) -> str:
        number = prompt.rpartition("#")[2].strip()
        done = len(inserted) >= rounds
        return DONE if done else CALL.format(f"{number}-{len(inserted)}")

    asked = [Question(str(i), "bench", f"#{i}", ("x",), "test") for i in range(count)]
    params = RolloutParams(max_rounds=rounds, max_new_tokens=64, temperature=1.0)
    began = time.perf_counter()
    render = renderer("compact", rounds)
    played = await play(asked, ScriptedGenerator(say), pool, render=render, params=params, seed=0)
    wall_s = time.perf_counter() - began
    assert all(t.ledger.calls == rounds and t.answer == "x" for t in played)
    return wall_s


async def in_step(pool: SlowPool, count: int, rounds: int, threads: int) -> float:
    """Wall seconds if every round waits for its slowest call, `threads` calls at a time."""
    slots = asyncio.Semaphore(threads)

    async def one(query: str) -> None:
        async with slots:
            await pool.ask(Call("slow", query))

    began = time.perf_counter()
    asked = queries(count, rounds)
    for r in range(rounds):
        await asyncio.gather(*(one(asked[i][r]) for i in range(count)))
    return time.perf_counter() - began


def main() -> None:
    """Measure both, print JSON."""
    parser = shared.parser(__doc__)
    parser.add_argument("--trajectories", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=10)
    parser.add_argument("--median-s", type=float, default=0.3)
    parser.add_argument("--sigma", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    pool = SlowPool(args.median_s, args.sigma, args.seed)
    count, rounds = args.trajectories, args.rounds
    asyncio.run(ours(pool, 4, 1))  # imports and first use
    ours_s = asyncio.run(ours(pool, count, rounds))
    in_step_s = asyncio.run(in_step(pool, count, rounds, args.threads))
    critical_s = max(sum(map(pool.latency_s, asked)) for asked in queries(count, rounds))
    found = {
        **vars(args),
        "own_pace_s": round(ours_s, 3),
        "in_step_s": round(in_step_s, 3),
        "ratio": round(in_step_s / ours_s, 2),
        "critical_path_s": round(critical_s, 3),
        "fraction_of_limit": round(critical_s / ours_s, 3),
    }
    shared.report(found)


if __name__ == "__main__":
    main()
