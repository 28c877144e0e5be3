"""A server of OpenAI's chat protocol on loopback, whose models say what a function says, and its pool file."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

Says = Callable[[str, str], str]
"""(model, text of the last message) -> its reply."""


@contextmanager
def chatting(says: Says) -> Iterator[str]:
    """The address of a server, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = says(body["model"], body["messages"][-1]["content"])
            usage = {"prompt_tokens": 20, "completion_tokens": max(1, len(text.split()))}
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}  # fmt: skip
            sent = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_pool(path: Path, url: str, prices: Mapping[str, float]) -> Path:
    """A pool file of the models at `url`, by name with the price of a million reply tokens."""
    candidates = [
        {
            "name": name, "endpoint": "here", "model": name, "context_window": 8192,
            "prompt_usd_per_mtok": usd / 10, "completion_usd_per_mtok": usd,
        }
        for name, usd in prices.items()
    ]  # fmt: skip
    content = {
        "prices": {"as_of": "2026-11-01", "source": "made up"},
        "endpoints": {"here": {"base_url": f"{url}/v1"}},
        "candidates": candidates,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path
