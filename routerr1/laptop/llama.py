"""One llama.cpp server in a process of its own: `python -m routerr1.laptop.llama MODEL --port N ...`."""

import argparse
import signal
from pathlib import Path


def serve(
    model: Path, *, host: str, port: int, slots: int, context_tokens: int, threads: int
) -> None:
    """Serve one GGUF file over OpenAI's protocol until the process ends."""
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = str(model)
    params.hostnames = [host]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * context_tokens
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.warmup = False
    # With a sliding window kept whole, Gemma too reuses the beginning that prompts share.
    params.swa_full = True
    server = Server(params)
    print(f"serving {model} at {server.listening_address}", flush=True)  # noqa: T201
    signal.pause()


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--host", required=True)
    for name in ("port", "slots", "context-tokens", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    found = parser.parse_args()
    serve(
        found.model,
        host=found.host,
        port=found.port,
        slots=found.slots,
        context_tokens=found.context_tokens,
        threads=found.threads,
    )


if __name__ == "__main__":
    main()
