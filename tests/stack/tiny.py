"""Components that start in a moment, for the supervisor's own rules."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from jobs.stack.component import LOOPBACK, Component, Place, Process

SERVER = """
import socketserver, signal, sys
{prelude}
socketserver.TCPServer.allow_reuse_address = True
with socketserver.TCPServer(("127.0.0.1", {port}), socketserver.BaseRequestHandler) as server:
    server.serve_forever()
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
WITH_WORKER = """
import subprocess
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
"""


def _component(name: str, program: str, start_seconds: float = 20.0) -> Component:
    def processes(place: Place) -> tuple[Process, ...]:
        return (Process(name, (sys.executable, "-c", program.replace("{port}", str(place.ports["tcp"]))), {}),)

    return Component(
        name=name,
        ports=("tcp",),
        prepare=_prepare,
        processes=processes,
        missing=_missing,
        address=lambda place: f"{LOOPBACK}:{place.ports['tcp']}",
        start_seconds=start_seconds,
        stop_seconds=1.0,
    )


def _prepare(place: Place) -> None:
    place.folder.mkdir(parents=True, exist_ok=True)


def _missing(place: Place) -> str | None:
    try:
        socket.create_connection((LOOPBACK, place.ports["tcp"]), timeout=1).close()
    except OSError:
        return "the port is not open yet"
    return None


TINY = {
    "one": _component("one", SERVER.replace("{prelude}", "")),
    "two": _component("two", SERVER.replace("{prelude}", "")),
    "stubborn": _component("stubborn", SERVER.replace("{prelude}", STUBBORN)),
    "parent": _component("parent", SERVER.replace("{prelude}", WITH_WORKER)),
    "broken": _component("broken", "print('the disk is on fire'); raise SystemExit(3)"),
    "slow": _component("slow", "import time; time.sleep(600)", start_seconds=60.0),
    "never": _component("never", "import time; time.sleep(600)", start_seconds=0.5),
}


def start_until_stopped(home: Path) -> str:
    """Give a program that starts a component which never becomes healthy."""
    return (
        "from jobs.stack import Stack\nfrom jobs.stack.components import COMPONENTS\n"
        "from tests.stack.tiny import TINY\nCOMPONENTS.update(TINY)\n"
        f"Stack({str(home)!r}, ['one', 'slow']).up()\n"
    )
