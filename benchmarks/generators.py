"""Tokens per second of the local generator and of vLLM's engine, on one policy. Prints JSON.

    python -m benchmarks.generators FOLDER --engines local vllm --sessions 16 64 256

FOLDER is a policy as transformers loads it. All sessions run at once: each reads a prompt of random
tokens, generates, reads an inserted text, and generates again, greedily. vLLM
needs an environment of its own on a CPU (`.ci/vllm`). The engines run in one process, one after the
other; the first run of each warms it up and is not counted. A session that writes a closing tag or an
end token ends early, so the tokens that were generated are counted. `tokens_per_cpu_s` is by
seconds of CPU of the process: other work on the machine changes it less than `tokens_per_s`.

With both engines, `agreement` compares them in each session, up to the earlier end: the share of
sessions with equal tokens, and the mean difference of their log-probabilities where tokens are equal.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch

from benchmarks import shared
from routerr1.policy.load import LoadOptions
from routerr1.rollout.local import LocalGenerator
from routerr1.rollout.vllm import ColocatedGenerator
from routerr1.types import Generation

PROMPT_WORDS, INSERTED_WORDS, NEW_TOKENS = 120, 20, 32


def local(folder: Path, dtype: str) -> Any:
    """The generator of the default."""
    return LocalGenerator.load(folder, LoadOptions(device="cpu", dtype=dtype))


def vllm(folder: Path, dtype: str, sessions: int) -> Any:
    """vLLM's engine in this process."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # the output is JSON
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(folder), dtype=dtype, enforce_eager=True, max_model_len=512, max_num_seqs=sessions,
        logprobs_mode="processed_logprobs",
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return ColocatedGenerator(engine, SamplingParams, tokenizer, max_length=512)


@dataclass(frozen=True)
class Run:
    """One run of all sessions.

    Attributes:
        said: for each session the generations before and after the inserted text.
        wall_s: from the first start to the last end.
        cpu_s: of all threads of the process.
    """

    said: list[tuple[Generation, Generation]]
    wall_s: float
    cpu_s: float

    @property
    def tokens(self) -> int:
        return sum(len(part.token_ids) for both in self.said for part in both)


async def run(generator: Any, texts: Sequence[tuple[str, str]]) -> Run:
    """Let all sessions generate at once."""

    async def one(prompt: str, inserted: str) -> tuple[Generation, Generation]:
        session = generator.start(prompt, seed=1)
        first = await session.generate(max_new_tokens=NEW_TOKENS, temperature=0.0)
        session.insert(inserted)
        second = await session.generate(max_new_tokens=NEW_TOKENS, temperature=0.0)
        session.close()
        return first, second

    began, worked = time.perf_counter(), time.process_time()
    said = await asyncio.gather(*(one(*text) for text in texts))
    return Run(said, time.perf_counter() - began, time.process_time() - worked)


def agreement(ours: Run, theirs: Run) -> dict[str, float]:
    """How the first generations of two engines compare, up to the earlier end of each.

    `logprob_gap` is the mean of |ours - theirs| over tokens that both wrote after equal ones.
    """
    equal, gaps = 0, []
    for (one, _), (other, _) in zip(ours.said, theirs.said, strict=True):
        pairs = list(zip(one.token_ids, other.token_ids, strict=False))
        same = next((at for at, (a, b) in enumerate(pairs) if a != b), len(pairs))
        equal += same == len(pairs)
        both = zip(one.logprobs[:same], other.logprobs[:same], strict=True)
        gaps += [abs(a - b) for a, b in both]
    return {
        "equal_sessions": round(equal / len(ours.said), 4),
        "logprob_gap": float(f"{fmean(gaps) if gaps else 0.0:.3g}"),
    }


def drawn(words: Sequence[str], sessions: int, seed: int) -> list[tuple[str, str]]:
    """A prompt and an inserted text for each session."""
    rng = Random(seed)
    return [
        (" ".join(rng.choices(words, k=PROMPT_WORDS)), " ".join(rng.choices(words, k=INSERTED_WORDS)))
        for _ in range(sessions)
    ]  # fmt: skip


def main() -> None:
    """Measure, print JSON."""
    parser = shared.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engines", nargs="+", choices=["local", "vllm"], default=["local"])
    parser.add_argument("--sessions", nargs="+", type=int, default=[16, 64, 256])
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    runs: dict[tuple[str, int], Run] = {}
    for name in args.engines:
        generator = (
            local(args.folder, args.dtype)
            if name == "local"
            else vllm(args.folder, args.dtype, max(args.sessions))
        )
        words = sorted(generator.tokenizer.get_vocab())[:200]
        words = [word for word in words if word.isalpha()] or ["a", "b", "c"]
        asyncio.run(run(generator, drawn(words, 2, 0)))
        for sessions in args.sessions:
            done = asyncio.run(run(generator, drawn(words, sessions, sessions)))
            runs[name, sessions] = done
            rows.append(
                {
                    "engine": name, "sessions": sessions, "tokens": done.tokens,
                    "seconds": round(done.wall_s, 3), "cpu_s": round(done.cpu_s, 3),
                    "tokens_per_s": round(done.tokens / done.wall_s, 1),
                    "tokens_per_cpu_s": round(done.tokens / done.cpu_s, 1),
                }
            )  # fmt: skip
    about = {"policy": args.folder.name, "dtype": args.dtype, "threads": torch.get_num_threads()}
    both = {
        str(count): agreement(runs["local", count], runs["vllm", count])
        for count in args.sessions
        if {("local", count), ("vllm", count)} <= runs.keys()
    }
    shared.report({**about, **shared.machine(), "rows": rows, "agreement": both})


if __name__ == "__main__":
    main()
