"""Tokens per second of the local generator and of vLLM's engine, on one policy. Prints JSON.

    python -m benchmarks.generators FOLDER --engines local vllm --sessions 16 64 256

FOLDER is a policy as transformers loads it. All sessions run at once: each reads a prompt of random
tokens, generates, reads an inserted text, and generates again, greedily. vLLM
needs an environment of its own on a CPU (`.ci/vllm`). The engines run in one process, one after the
other; the first run of each warms it up and is not counted. A session of the local generator that
writes an end token ends early, so the tokens that were generated are counted.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks import shared
from routerr1.policy.load import LoadOptions
from routerr1.rollout.local import LocalGenerator
from routerr1.rollout.vllm import ColocatedGenerator

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
        str(folder), dtype=dtype, enforce_eager=True, max_model_len=512, max_num_seqs=sessions
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return ColocatedGenerator(
        engine,
        lambda **wanted: SamplingParams(**{**wanted, "stop": [], "ignore_eos": True}),
        tokenizer,
        max_length=512,
    )


async def run(generator: Any, texts: Sequence[tuple[str, str]]) -> tuple[int, float]:
    """Tokens generated, and seconds from the first start to the last end."""

    async def one(prompt: str, inserted: str) -> int:
        session = generator.start(prompt, seed=1)
        first = await session.generate(max_new_tokens=NEW_TOKENS, temperature=0.0)
        session.insert(inserted)
        second = await session.generate(max_new_tokens=NEW_TOKENS, temperature=0.0)
        session.close()
        return len(first.token_ids) + len(second.token_ids)

    began = time.perf_counter()
    counts = await asyncio.gather(*(one(*text) for text in texts))
    return sum(counts), time.perf_counter() - began


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
    rows = []
    for name in args.engines:
        most = max(args.sessions)
        generator = (
            local(args.folder, args.dtype)
            if name == "local"
            else vllm(args.folder, args.dtype, most)
        )
        words = sorted(generator.tokenizer.get_vocab())[:200]
        words = [word for word in words if word.isalpha()] or ["a", "b", "c"]
        asyncio.run(run(generator, drawn(words, 2, 0)))
        for sessions in args.sessions:
            tokens, seconds = asyncio.run(run(generator, drawn(words, sessions, sessions)))
            rows.append(
                {
                    "engine": name, "sessions": sessions, "tokens": tokens,
                    "seconds": round(seconds, 3), "tokens_per_s": round(tokens / seconds, 1),
                }
            )  # fmt: skip
    about = {"policy": args.folder.name, "dtype": args.dtype, "threads": torch.get_num_threads()}
    shared.report({**about, "rows": rows})


if __name__ == "__main__":
    main()
