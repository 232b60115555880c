"""Where tables live: one local folder or one prefix of a bucket."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from deltalake.exceptions import CommitFailedError, DeltaError, DeltaProtocolError, SchemaMismatchError
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from lakehouse.errors import (
    BucketMissing,
    CommitContested,
    DiskFull,
    LakehouseError,
    LakeUnavailable,
    NotWritable,
    TableRefused,
    WrongCredentials,
)

Objects = LocalStore | S3Store

# How long one request may be tried before it counts as unanswered (seconds); Flink's restart strategy does the rest.
CONNECT_TIMEOUT = "5s"
REQUEST_TIMEOUT = "60s"
RETRIES = 3
DELETED_AT_ONCE = 1000  # objects, as S3 allows

# What the storage says (lower case) -> what it means. The first match counts.
MEANINGS: tuple[tuple[str, type[LakehouseError], str], ...] = (
    ("no space left", DiskFull, "Free space; a running job then goes on by itself."),
    ("storagefull", DiskFull, "Free space; a running job then goes on by itself."),
    ("os error 28", DiskFull, "Free space; a running job then goes on by itself."),
    ("disk quota exceeded", DiskFull, "Raise the quota; a running job then goes on by itself."),
    ("file too large", DiskFull, "Raise the file size limit, then start the workers again."),
    ("nosuchbucket", BucketMissing, "Create the bucket, or correct the lake's address."),
    ("signaturedoesnotmatch", WrongCredentials, "Correct the secret key."),
    ("invalidaccesskeyid", WrongCredentials, "Correct the access key."),
    ("accessdenied", WrongCredentials, "Correct the key, or grant it read and write on the lake's prefix."),
    ("403 forbidden", WrongCredentials, "Correct the key, or grant it read and write on the lake's prefix."),
    ("401 unauthorized", WrongCredentials, "Correct the key."),
    ("unauthenticated", WrongCredentials, "Correct the key."),
    ("permission denied", NotWritable, "Let the process's user write there."),
    ("read-only file system", NotWritable, "Mount it writable, or choose another lake."),
    ("file exists", NotWritable, "A file stands where a folder must be: choose another lake."),
    ("not a directory", NotWritable, "A file stands where a folder must be: choose another lake."),
)


@dataclass(frozen=True)
class Lake:
    """One place for tables, segments and small files. Opening it touches nothing."""

    uri: str  # an absolute local path, or s3://bucket/prefix; no slash at the end
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)  # deltalake's names; holds secrets

    @classmethod
    def open(cls, uri: str, options: Mapping[str, str] | None = None) -> Lake:
        """Give the lake at a local path or at s3://bucket/prefix.

        Options carry AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION.
        Raises ValueError for any other kind of address.
        """
        if "://" not in uri or uri.startswith("file://"):
            path = Path(uri.removeprefix("file://")).expanduser().absolute()
            return cls(str(path))
        parts = urlsplit(uri)
        if parts.scheme not in {"s3", "s3a"} or not parts.netloc:
            raise ValueError(f"the lake's address {uri!r} is neither a local path nor s3://bucket/prefix")
        return cls(f"s3://{parts.netloc}{parts.path.rstrip('/')}", _s3_options(options or {}))

    @property
    def remote(self) -> bool:
        """Whether the lake is reached over the network."""
        return self.uri.startswith("s3://")

    def table_uri(self, name: str) -> str:
        """Give a table's address."""
        return f"{self.uri}/{name}"

    @cached_property
    def objects(self) -> Objects:
        """Give the lake's objects by path; a local folder is made here."""
        if not self.remote:
            with self.explained("make the lake's folder"):
                Path(self.uri).mkdir(parents=True, exist_ok=True)
            return LocalStore(self.uri)
        parts = urlsplit(self.uri)
        options = self.storage_options
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL")
        config = {name.lower(): options[name] for name in names if name in options}
        return S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            config={**config, "aws_virtual_hosted_style_request": False},  # type: ignore[arg-type]
            client_options={
                "allow_http": options.get("AWS_ALLOW_HTTP") == "true",
                "connect_timeout": CONNECT_TIMEOUT,
                "timeout": REQUEST_TIMEOUT,
            },
            retry_config={"max_retries": RETRIES},
        )

    def put(self, path: str, data: bytes) -> None:
        """Write one object; it is there whole or not at all."""
        with self.explained(f"write {path}"):
            obstore.put(self.objects, path, data)

    def get(self, path: str) -> bytes | None:
        """Read one object; None when there is none."""
        with self.explained(f"read {path}"):
            try:
                return bytes(obstore.get(self.objects, path).bytes())
            except (FileNotFoundError, NotFoundError) as error:
                if "nosuchbucket" in str(error).lower():
                    raise
                return None

    def exists(self, path: str) -> bool:
        """Say whether an object is there."""
        with self.explained(f"look for {path}"):
            try:
                obstore.head(self.objects, path)
            except (FileNotFoundError, NotFoundError):
                return False
            return True

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects, in order; those that somebody else has deleted already count as deleted."""
        for start in range(0, len(paths), DELETED_AT_ONCE):
            several = list(paths[start : start + DELETED_AT_ONCE])
            with self.explained(f"delete {several[0]}"):
                try:
                    obstore.delete(self.objects, several)
                except (FileNotFoundError, NotFoundError):  # of a local folder, and then the rest may be there
                    for path in several:
                        with suppress(FileNotFoundError, NotFoundError):
                            obstore.delete(self.objects, path)

    def tables(self) -> list[str]:
        """Give the names of the tables, in order: every folder directly in the lake that holds a `_delta_log`."""
        with self.explained("list the tables"):
            folders = obstore.list_with_delimiter(self.objects)["common_prefixes"]
            names = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
            return sorted(name for name in names if not name.startswith("_") and self._has_log(name))

    def _has_log(self, name: str) -> bool:
        found = obstore.list_with_delimiter(self.objects, prefix=f"{name}/_delta_log/")["objects"]
        return any(entry["path"].endswith(".json") for entry in found)

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn what the storage raises inside into an error of lakehouse.errors that says what to do."""
        try:
            yield
        except (BaseError, DeltaError, OSError) as error:
            raise self.explain(doing, error) from error

    def explain(self, doing: str, error: BaseException) -> LakehouseError:
        """Give the error that says what a storage failure means; LakeUnavailable when nothing more is known."""
        said = _innermost(error)
        if isinstance(error, CommitFailedError):
            return CommitContested(f"cannot {doing} in the lake {self.uri}: {said}. It will be tried again.")
        if isinstance(error, SchemaMismatchError | DeltaProtocolError):
            return TableRefused(f"cannot {doing} in the lake {self.uri}: {said}. Correct the table or the contract.")
        for words, meaning, remedy in MEANINGS:
            if words in said.lower():
                return meaning(f"cannot {doing} in the lake {self.uri}: {said}. {remedy}")
        return LakeUnavailable(f"cannot {doing} in the lake {self.uri}: {said}. It will be tried again.")


def _innermost(error: BaseException) -> str:
    """Give the storage's message in one line, without the debug print that follows it."""
    text = _DECORATION.sub("", str(error).split("\n\nDebug source", maxsplit=1)[0])
    told, _, answer = text.partition("<?xml")
    code = _CODE.search(answer)
    return " ".join(f"{told} {code[1] if code else ''}".split())[:600].rstrip(" .:")


_DECORATION = re.compile(r"\x1b\[[0-9;]*m|\u21b3")  # colours and arrows of delta-rs
_CODE = re.compile(r"<Code>(\w+)</Code>")  # of an S3 error document


def _s3_options(options: Mapping[str, str]) -> dict[str, str]:
    given = {name: value for name, value in options.items() if value}
    settled = {"AWS_REGION": "us-east-1", **given}
    if settled.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        settled["AWS_ALLOW_HTTP"] = "true"
    settled["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] = "false"
    return settled
