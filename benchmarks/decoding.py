"""Time that CUDA graphs save in decoding the same tokens. Needs a GPU.

    python -m benchmarks.decoding --base models/policy --out docs/results/decoding.json

First it compares 24 greedy sessions of two turns in float32, with single kernels and with graphs.
Then it samples `--rows` sessions in bfloat16 over float32 weights, as in training. It reports
milliseconds per token of the longest session, for a first pass, which captures the graphs, and for
a second.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import shared
from routerr1.policy.load import LoadOptions
from routerr1.rollout.engine.cuda_graph import Capture, captured
from routerr1.rollout.local import LocalGenerator

Played = Sequence[tuple[tuple[int, ...], tuple[float, ...]]]
SESSIONS = 24


def main() -> None:
    """Compare, time, write."""
    parser = shared.parser(__doc__)
    parser.add_argument("--base", required=True, help="a folder or hub name of a causal LM")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    wanted = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU is to be seen, and there are no graphs without one")
    found = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        **compared(wanted.base),
        **timed(wanted.base, wanted.rows),
    }
    shared.report(found, wanted.out)


def compared(base: str) -> dict[str, float]:
    """Of how many sessions all tokens are equal, and how far their log-probabilities are apart at most."""
    launched, replayed = (
        asyncio.run(play(generator(base, "float32", capture), SESSIONS, 0.0, 16))
        for capture in (None, captured)
    )
    same = [(a, b) for a, b in zip(launched, replayed, strict=True) if a[0] == b[0]]
    gaps = [abs(p - q) for a, b in same for p, q in zip(a[1], b[1], strict=True)]
    return {"sessions": SESSIONS, "equal": len(same), "largest_logprob_gap": max(gaps, default=0.0)}


def timed(base: str, rows: int) -> dict[str, float]:
    """Milliseconds per token of the longest session."""
    found: dict[str, float] = {"rows": rows}
    for name, capture in (("launched", None), ("replayed", captured)):
        policy = generator(base, "bfloat16", capture)
        for when in ("first", "second"):
            began = time.perf_counter()
            played = asyncio.run(play(policy, rows, 1.0, 24))
            took = time.perf_counter() - began
            longest = max(len(ids) for ids, _ in played)
            found[f"{name}_{when}_ms"] = round(took / longest * 1000, 2)
    return {**found, "ratio": round(found["launched_second_ms"] / found["replayed_second_ms"], 2)}


def generator(base: str, dtype: str, capture: Capture | None) -> LocalGenerator:
    """The model behind `base` with float32 weights."""
    loaded = LocalGenerator.load(base, LoadOptions("cuda", dtype), trained=True)
    return LocalGenerator(
        loaded.model, loaded.tokenizer, max_length=2048, autocast=loaded.autocast, capture=capture
    )


async def play(policy: LocalGenerator, count: int, temperature: float, tokens: int) -> Played:
    """Tokens and log-probabilities of `count` sessions that each read a reply between two turns."""

    async def one(number: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        session = policy.start(f"Count on from {number}, and name a country. " * 12, seed=number)
        # Of different lengths, so that some wait while others decode.
        first = await session.generate(max_new_tokens=tokens + number % 7, temperature=temperature)
        session.insert(f"<information> It is the {number}. Go on.</information>")
        second = await session.generate(max_new_tokens=tokens, temperature=temperature)
        session.close()
        return first.token_ids + second.token_ids, first.logprobs + second.logprobs

    return await asyncio.gather(*(one(number) for number in range(count)))


if __name__ == "__main__":
    main()
