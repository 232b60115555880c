"""A real S3 server for tests: SeaweedFS on free loopback ports in a folder of its own, stopped by its process id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import obstore
from obstore.store import S3Store

from jobs.stack.ports import choose

PARTS = ("s3", "master", "filer", "volume")
PORTS = (*(f"{part}.port" for part in PARTS), *(f"{part}.port.grpc" for part in PARTS), "admin.port", "admin.port.grpc")
KEY, SECRET, BUCKET = "tester", "only-for-tests", "lake"


@dataclass
class S3Server:
    """One server process; killing and starting it again keeps its data and its address."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    def options(self, **changed: str) -> dict[str, str]:
        """Give the options with which a lake on this server is opened."""
        options = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        return options | changed

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports = self.ports or choose(PORTS, {})
        fixed = {"ip": "127.0.0.1", "ip.bind": "127.0.0.1", "bucket": BUCKET, "dir": str(self.folder)}
        off = dict.fromkeys(("webdav", "admin.ui", "master.telemetry", "s3.autoCreateBucket"), "false")
        off |= {"s3.port.iceberg": "0", "s3.port.lance": "0"}
        flags = [f"-{name}={value}" for name, value in {**fixed, **off, **self.ports}.items()]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "weed"), "-logtostderr=true", "mini", *flags],
                env={**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
                stdout=log,
                stderr=log,
            )
        self._await()

    def kill(self) -> None:
        """Kill the server as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _await(self) -> None:
        store = S3Store(
            BUCKET,
            config={
                "endpoint": self.endpoint,
                "access_key_id": KEY,
                "secret_access_key": SECRET,
                "region": "us-east-1",
            },
            client_options={"allow_http": True, "timeout": "2s"},
            retry_config={"max_retries": 0},
        )
        for _ in range(300):
            try:
                obstore.put(store, "ready", b"")
                return
            except Exception:  # whatever it is, it means: not yet
                time.sleep(0.1)
        raise RuntimeError("the S3 server did not start: " + (self.folder / "server.log").read_text()[-2000:])
