"""A proxy in front of the S3 server that loses the answers to commits: made, and their writers are not told."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import suppress

from tests.bench.slow_proxy import BLOCK, LIMIT, SlowProxy, _body_bytes, _pass

_COMMIT = re.compile(rb"PUT (\S+)/_delta_log/\d{20}\.json")


class LossyProxy(SlowProxy):
    """Passes everything, but for the answers to the next so many commits, whose connections it closes instead."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self._left, self._table = 0, ""
        self._lock = threading.Lock()
        self.lost: list[str] = []  # the tables of commits whose answers were lost

    def lose(self, answers: int, table: str = "") -> None:
        """Lose the answers to the next so many commits to the table whose path ends so."""
        with self._lock:
            self._left, self._table = answers, table

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream, limit=LIMIT)
        except OSError:  # the server is down: so is this address
            writer.close()
            return
        answers = asyncio.ensure_future(_answers(up_reader, writer))
        try:
            # Clients wait for an answer before they send the next request on a connection.
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                commit = _COMMIT.match(head)
                if commit and self._take(commit[1].decode()):
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    await self._deliver(head, reader, up_reader, up_writer, commit[1].decode())
                    return
                up_writer.write(head)
                await _pass(reader, _body_bytes(head), up_writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client or we are done
        finally:
            answers.cancel()
            up_writer.close()
            writer.close()

    def _take(self, path: str) -> bool:
        with self._lock:
            self._left -= path.endswith(self._table)
            return path.endswith(self._table) and self._left >= 0

    async def _deliver(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        up_reader: asyncio.StreamReader,
        up: asyncio.StreamWriter,
        table: str,
    ) -> None:
        """Hand on a commit and wait for its answer, which the client will not see."""
        up.write(head)
        await _pass(reader, _body_bytes(head), up)
        with suppress(TimeoutError):
            answer = await asyncio.wait_for(up_reader.readuntil(b"\r\n"), 30.0)
            if answer.split(b" ")[1].startswith(b"2"):
                self.lost.append(table)


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(BLOCK):
            writer.write(data)
            await writer.drain()
    writer.close()
