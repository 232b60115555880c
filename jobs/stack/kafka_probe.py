"""Ask a Kafka broker one question on the wire: whether it serves requests."""

from __future__ import annotations

import socket
import struct

API_VERSIONS, VERSION, CORRELATION = 18, 0, 1
# Length, then the request header v1 (key, version, correlation id, client id); ApiVersions v0 has an empty body.
_CLIENT = b"tidegate"
_HEADER = struct.pack(">hhih", API_VERSIONS, VERSION, CORRELATION, len(_CLIENT)) + _CLIENT
REQUEST = struct.pack(">i", len(_HEADER)) + _HEADER


def answers(host: str, port: int, seconds: float = 2.0) -> bool:
    """Say whether the broker answers ApiVersions. A KRaft broker does so only once the controller has let it in."""
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            connection.sendall(REQUEST)
            head = connection.recv(10, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(head) == 10 and struct.unpack(">iih", head)[1:] == (CORRELATION, 0)
