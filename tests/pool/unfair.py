"""A server that does not play fair, in a process of its own: `POST /KIND/chat/completions`.

It writes raw bytes, since no library sends what it sends. Its own memory is not the client's, so that the
client's can be measured.
"""

import asyncio
import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPLY = json.dumps(
    {
        "choices": [{"message": {"content": "Paris."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 2},
    }
).encode()
_OPEN = b'{"choices": [{"message": {"content": "'
_BOMB = gzip.compress(_OPEN + b"a" * 200_000_000, compresslevel=9)  # 200 kB on the wire


def _head(status: str = "200 OK", *more: str, length: int | None = None) -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", size, *more]
    return "\r\n".join([*lines, "", ""]).encode()


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


async def _answer(kind: str, port: int, write: asyncio.StreamWriter) -> None:
    send = write.write
    match kind:
        case "fair" | "moved":
            send(_head(length=len(REPLY)) + REPLY)
        case "gzip":
            packed = gzip.compress(REPLY)
            send(_head("200 OK", "content-encoding: gzip", length=len(packed)) + packed)
        case "parts":
            packed = gzip.compress(REPLY[:40]) + gzip.compress(REPLY[40:]) + b"junk"
            send(_head("200 OK", "content-encoding: gzip", length=len(packed)) + packed)
        case "deflate":
            packed = zlib.compress(REPLY)
            send(_head("200 OK", "content-encoding: deflate", length=len(packed)) + packed)
        case "br":
            send(_head("200 OK", "content-encoding: br", length=len(REPLY)) + REPLY)
        case "damaged":
            send(_head("200 OK", "content-encoding: gzip", length=len(REPLY)) + REPLY)
        case "bomb":
            send(_head("200 OK", "content-encoding: gzip", length=len(_BOMB)) + _BOMB)
        case "huge":
            send(_head())
            while True:
                send(_chunk(b"a" * 60_000))
                await write.drain()
        case "headers":
            send(b"HTTP/1.1 200 OK\r\n")
            while True:
                send(b"x-more: " + b"a" * 60_000 + b"\r\n")
                await write.drain()
        case "informed":
            while True:
                send(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
                await write.drain()
                await asyncio.sleep(0.001)
        case "drip":
            send(_head(length=len(REPLY)))
            for place in range(len(REPLY)):
                send(REPLY[place : place + 1])
                await write.drain()
                await asyncio.sleep(1.0)
        case "circle":
            send(_head("307 Temporary Redirect", f"location: /{kind}/chat/completions", length=0))
        case "away":
            send(_head("308 Permanent Redirect", "location: /moved/chat/completions", length=0))
        case "elsewhere":
            other = f"http://localhost:{port}/moved/chat/completions?key=x"
            send(_head("307 Temporary Redirect", f"location: {other}", length=0))
        case "found":
            send(_head("302 Found", "location: /moved/chat/completions", length=0))
        case "stream":
            send(_head("200 OK", "content-type: text/event-stream"))
            event = {"choices": [{"index": 0, "delta": {"content": "la " * 100}}]}
            while True:
                send(_chunk(b"data: " + json.dumps(event).encode() + b"\n\n"))
                await write.drain()
        case "comments":
            send(_head("200 OK", "content-type: text/event-stream"))
            while True:
                send(_chunk(b": keep-alive\n\n"))
                await write.drain()
                await asyncio.sleep(0.05)
        case "nested":
            body = b'{"choices": ' + b"[" * 400_000
            send(_head(length=len(body)) + body)
        case "many":
            body = b'{"choices": [' + b"{}," * 300_000 + b"{}]}"
            send(_head(length=len(body)) + body)
    await write.drain()


async def _serve() -> None:
    async def serve_one(read: asyncio.StreamReader, write: asyncio.StreamWriter) -> None:
        try:
            while line := await read.readline():
                kind = line.split()[1].decode().split("/")[1]
                length = 0
                while (header := await read.readline()).strip():
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                await read.readexactly(length)
                await _answer(kind, port, write)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client had enough
        finally:
            write.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextmanager
def unfair() -> Iterator[str]:
    """The server's address while the block runs."""
    process = subprocess.Popen([sys.executable, Path(__file__)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(_serve())
