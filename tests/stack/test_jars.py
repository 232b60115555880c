"""Fetching jars: once per pom, offline when Maven has them, and a clear sentence when it cannot be done."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from jobs.stack import StackError, jars

FAKE_MAVEN = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *" -o") exit {offline};; esac
[ {online} = 0 ] || {{ echo "[ERROR] Could not transfer artifact: Unknown host"; exit 1; }}
"""
FAKE_JAVA = "#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one pom, a PATH of its own with java and mvn in it, and a log of what mvn was asked."""
    monkeypatch.setattr(jars, "POMS", tmp_path / "poms")
    monkeypatch.setattr(jars, "JARS", tmp_path / "jars")
    (tmp_path / "poms" / "x").mkdir(parents=True)
    (tmp_path / "poms" / "x" / "pom.xml").write_text("<project/>")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    program(tmp_path, "java", FAKE_JAVA.format(version="17.0.1"))
    return tmp_path


def program(place: Path, name: str, text: str) -> None:
    path = place / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def maven(place: Path, offline: int = 0, online: int = 0) -> None:
    program(place, "mvn", FAKE_MAVEN.format(log=place / "log", offline=offline, online=online))


def asked(place: Path) -> list[str]:
    return (place / "log").read_text().splitlines()


def test_jars_are_fetched_offline_first_and_only_once(place: Path) -> None:
    maven(place)
    assert jars.jars("x") == jars.jars("x") == place / "jars" / "x"
    (line,) = asked(place)
    assert "maven-dependency-plugin:3.8.1:copy-dependencies" in line
    assert line.endswith(" -o")


def test_what_maven_does_not_have_is_downloaded(place: Path) -> None:
    maven(place, offline=1)
    jars.jars("x")
    assert [line.endswith(" -o") for line in asked(place)] == [True, False]


def test_a_changed_pom_is_resolved_again_into_an_empty_folder(place: Path) -> None:
    maven(place)
    (jars.jars("x") / "old.jar").touch()
    (place / "poms" / "x" / "pom.xml").write_text("<project><!-- newer --></project>")
    assert not (jars.jars("x") / "old.jar").exists()
    assert len(asked(place)) == 2


def test_a_program_packed_within_a_jar_is_unpacked_and_may_run(place: Path) -> None:
    maven(place, offline=1)
    inner, packed = place / "program.txz", place / "packed.jar"
    with tarfile.open(inner, "w:xz") as archive:
        archive.add(place / "bin" / "java", "bin/server")
    with zipfile.ZipFile(packed, "w") as jar:
        jar.write(inner, "program.txz")
    with (place / "bin" / "mvn").open("a") as script:
        script.write(f"for a; do case $a in -DoutputDirectory=*) cp {packed} ${{a#*=}};; esac; done\n")
    folder = jars.jars("x")
    assert sorted(path.name for path in folder.iterdir()) == ["bin", "resolved"]
    assert (folder / "bin" / "server").stat().st_mode & 0o111


def test_a_failed_download_says_what_maven_said_and_what_to_do(place: Path) -> None:
    maven(place, offline=1, online=1)
    with pytest.raises(StackError, match=r"could not fetch the x jars .*Unknown host Check the network and ~/\.m2"):
        jars.jars("x")
    assert not (place / "jars" / "x").exists()


def test_an_old_java_is_refused(place: Path) -> None:
    program(place, "java", FAKE_JAVA.format(version="11.0.2"))
    with pytest.raises(StackError, match="is Java 11: Tidegate needs Java 17"):
        jars.java()


def test_a_missing_java_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StackError, match="java is missing: install Java 17"):
        jars.java()


def test_a_missing_maven_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place / "bin"))
    (place / "bin" / "sh").symlink_to("/bin/sh")
    with pytest.raises(StackError, match="mvn is missing: install Maven"):
        jars.jars("x")


@pytest.mark.parametrize("name", sorted(pom.parent.name for pom in jars.POMS.glob("*/pom.xml")))
def test_a_pom_names_exact_versions_and_no_repository(name: str) -> None:
    text = (jars.PROJECT / "jars" / name / "pom.xml").read_text(encoding="utf-8")
    assert "<repositor" not in text
    assert not {"SNAPSHOT", "LATEST", "RELEASE"} & set(text.replace("<", ">").split(">"))
