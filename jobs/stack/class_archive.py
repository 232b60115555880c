"""Class archives (AppCDS): what a Java program has loaded and verified once is mapped into memory the next time.

A third of what a short program of Flink's costs is loading classes. The first of its runs writes the archive as it
ends; one archive is for one Java, one class path and one set of options. Java goes on without one that does not fit.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from jobs.stack.jars import PROJECT

ARCHIVES = PROJECT / ".tidegate" / "classes"


@contextmanager
def class_archive(
    name: str, java: str, class_path: Sequence[Path], options: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """Give the Java options with which a run uses its archive, or writes it where there is none yet.

    What was written is kept when the block ends without an exception, and then replaces the archives of that name.
    """
    archive = ARCHIVES / f"{name}-{_fingerprint(java, class_path, options)}.jsa"
    if archive.exists():
        yield (f"-XX:SharedArchiveFile={archive}", "-Xlog:disable")
        return
    fresh = archive.with_suffix(f".{uuid.uuid4().hex}")
    try:
        ARCHIVES.mkdir(parents=True, exist_ok=True)
    except OSError:  # a folder that others own: it works without, as slowly as ever
        yield ()
        return
    try:
        yield (f"-XX:ArchiveClassesAtExit={fresh}", "-Xlog:disable")
        with suppress(OSError):  # Java keeps none that it could not write whole, and some are built without archives
            fresh.replace(archive)
            for old in set(ARCHIVES.glob(f"{name}-*")) - {archive}:  # also what a killed run left
                old.unlink(missing_ok=True)
    finally:
        fresh.unlink(missing_ok=True)


def _fingerprint(java: str, class_path: Sequence[Path], options: Sequence[str]) -> str:
    files = [Path(java).resolve(), *class_path]
    told = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join([*told, *options]).encode()).hexdigest()[:32]
