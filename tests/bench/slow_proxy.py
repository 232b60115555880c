"""A proxy in front of an S3 server that holds up every request about one prefix and then refuses it (503 Slow Down).

Requests pass through byte for byte (the signature covers the Host header, which the server sees as the client sent it).
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import TracebackType

LIMIT = 1 << 20  # bytes of a request's head
BLOCK = 1 << 16
REFUSAL = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"


class SlowProxy:
    """Listens on a free loopback port while its block runs; `slow` sets which requests wait, and for how long."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._prefix: str | None = None
        self._seconds = 0.0
        self.delayed = 0  # requests that were refused
        self.address = ""

    def slow(self, prefix: str | None, seconds: float) -> None:
        """Let requests whose path holds the prefix wait so many seconds and be refused; None: all pass again."""
        self._prefix, self._seconds = prefix, seconds

    def __enter__(self) -> SlowProxy:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0, limit=LIMIT))
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        self._loop.run_forever()
        server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        answers = asyncio.ensure_future(_pump(up_reader, writer))
        try:
            # Clients wait for an answer before they send the next request on a connection.
            while True:
                await self._request(reader, writer, up_writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client or we are done
        finally:
            up_writer.close()
            answers.cancel()
            writer.close()

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if self._prefix is None or self._prefix not in head.split(b"\r\n", 1)[0].decode():
            up.write(head)
            await _pass(reader, _body_bytes(head), up)
            return
        self.delayed += 1
        await _pass(reader, _body_bytes(head), None)
        await asyncio.sleep(self._seconds)
        writer.write(REFUSAL)
        await writer.drain()


async def _pass(reader: asyncio.StreamReader, left: int, to: asyncio.StreamWriter | None) -> None:
    """Hand on a body, or throw it away."""
    while left:
        data = await reader.read(min(left, BLOCK))
        if not data:
            raise ConnectionResetError("the client left in the middle of a request")
        left -= len(data)
        if to is not None:
            to.write(data)
            await to.drain()


def _body_bytes(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.CancelledError, ConnectionError):
        while data := await reader.read(BLOCK):
            writer.write(data)
            await writer.drain()
    writer.close()
