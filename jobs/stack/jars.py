"""The jars Tidegate needs, by Maven: one small pom a component, resolved once into .tidegate/jars/<name>/."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.stack.errors import StackError

PROJECT = Path(__file__).parents[2]
POMS = PROJECT / "jars"
JARS = PROJECT / ".tidegate" / "jars"
NAMES = ("kafka", "flink")  # what every user needs; others are resolved when first asked for
GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
OLDEST_JAVA = 17
STAMP = "resolved"


def jars(name: str) -> Path:
    """Give the folder with a component's jars, resolved when they are not there or the pom has changed.

    Archives among them and within them are unpacked in place.
    Raises StackError when Java or Maven is missing or the download fails.
    """
    pom, folder = POMS / name / "pom.xml", JARS / name
    wanted = hashlib.sha256(pom.read_bytes() + GOAL.encode()).hexdigest()
    if _stamp(folder) == wanted:
        return folder
    with _alone(JARS / f".{name}.lock"):
        if _stamp(folder) != wanted:
            _resolve(name, pom, folder)
            (folder / STAMP).write_text(wanted, encoding="utf-8")
    return folder


def java() -> str:
    """Give the path of java; raises StackError when it is missing or older than 17."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not found or not Path(found).exists():
        raise StackError("java is missing: install Java 17 (OpenJDK), or set JAVA_HOME to where it is")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version and int(version[1]) < OLDEST_JAVA:
        raise StackError(f"{found} is Java {version[1]}: Tidegate needs Java 17; install it, or set JAVA_HOME")
    return found


def _resolve(name: str, pom: Path, folder: Path) -> None:
    java()
    mvn = shutil.which("mvn")
    if not mvn:
        raise StackError("mvn is missing: install Maven 3.8 or newer (it fetches the Kafka and Flink connector jars)")
    # Into a fresh folder, so that jars of an earlier version never stay on the class path.
    fresh = folder.with_name(f".{name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    command = [mvn, "-q", "-B", "-f", str(pom), GOAL, f"-DoutputDirectory={fresh}", "-DincludeScope=runtime"]
    said = _run([*command, "-o"])  # offline first: no network is asked for what the local repository holds
    if said is not None:
        said = _run(command)
    if said is not None:
        raise StackError(
            f"Maven could not fetch the {name} jars (jars/{name}/pom.xml). It said: {said} "
            "Check the network and ~/.m2/settings.xml (mirror or proxy), then run the command again."
        )
    _unpack(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _run(command: Sequence[str]) -> str | None:
    """Run Maven; give its first error line, or None when it succeeded."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("[ERROR]")]
    return (errors or ["[ERROR] no message"])[0].removeprefix("[ERROR]").strip()


def _unpack(folder: Path) -> None:
    for jar in folder.glob("*.jar"):  # a whole program, packed for Maven
        with zipfile.ZipFile(jar) as content:
            inside = [name for name in content.namelist() if name.endswith(".txz")]
            content.extractall(folder, inside)
        if inside:
            jar.unlink()
    for archive in (*folder.glob("*.tar.gz"), *folder.glob("*.txz")):
        with tarfile.open(archive) as content:
            content.extractall(folder, filter="data")
        archive.unlink()


def _stamp(folder: Path) -> str | None:
    path = folder / STAMP
    return path.read_text(encoding="utf-8") if path.exists() else None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time resolve the jars of one component."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Resolve what every user needs; give the exit code."""
    try:
        for name in NAMES:
            jars(name)
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
