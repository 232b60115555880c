"""The Java commands of JobManager, TaskManager and client: what Flink's own scripts would run, without their shells.

The scripts start up to six Java processes to find the memory settings of one. Here Flink is asked once, and its answer
is kept for as long as the configuration stays the same.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from jobs.stack.class_archive import class_archive
from jobs.stack.errors import StackError
from jobs.stack.jars import PROJECT, java

CLIENT = "org.apache.flink.client.cli.CliFrontend"
ANSWERS = PROJECT / ".tidegate" / "flink-memory"
_UTILITY = "org.apache.flink.runtime.util.bash.BashJavaUtils"
_MARKER = "BASH_JAVA_UTILS_EXEC_RESULT:"


@dataclass(frozen=True)
class Role:
    """One of the two programs of a session cluster."""

    main: str
    question: str  # to Flink's own calculator
    options: str  # the configuration's key for its Java options
    quick: tuple[str, ...] = ()  # Java options of a local cluster


ROLES = {
    # It only coordinates: the simple compiler and collector start faster and lack nothing.
    "jobmanager": Role(
        main="org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
        question="GET_JM_RESOURCE_PARAMS",
        options="env.java.opts.jobmanager",
        quick=("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    ),
    "taskmanager": Role(
        main="org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
        question="GET_TM_RESOURCE_PARAMS",
        options="env.java.opts.taskmanager",
    ),
}


def command(name: str, distribution: Path, folder: Path, log: Path, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """Give the command line of `jobmanager` or `taskmanager`; the folder holds conf/ and lib/."""
    role, settings = ROLES[name], read(folder / "conf")
    machine, dynamic = _answer(role, distribution, folder / "conf", settings)
    opening = _options(settings, role.options)
    logging = folder / "conf" / "log4j-console.properties"
    places = (f"-Dlog.file={log}", f"-Dlog4j.configurationFile=file:{logging}", "-Dconsole.log.level=WARN")
    extra = [part for key, value in arguments.items() for part in ("-D", f"{key}={value}")]
    program = (role.main, "--configDir", str(folder / "conf"), *dynamic, *extra)
    class_path = _joined(in_order((folder / "lib").glob("*.jar")))
    return (java(), *role.quick, *machine, *opening, *places, "-cp", class_path, *program)


@contextmanager
def client_command(conf: Path, log: Path, libraries: Iterable[Path]) -> Iterator[tuple[str, ...]]:
    """Give the command line of the client, to which its arguments are added: `run`, `-d` and so on."""
    program, found = java(), in_order(libraries)
    options = _options(read(conf), "env.java.opts.client")
    places = (f"-Dlog.file={log}", f"-Dlog4j.configurationFile=file:{conf / 'log4j-cli.properties'}")
    with class_archive("flink-client", program, found, options) as archive:
        yield (program, *options, *archive, *places, "-cp", _joined(found), CLIENT)


def read(conf: Path) -> dict[str, str]:
    """Give the settings of a config.yaml with flat keys."""
    # BaseLoader: `true` and `0.10` stay the text they are.
    content: dict[str, str] = yaml.load((conf / "config.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    return content


def in_order(jars: Iterable[Path]) -> list[Path]:
    """Give the jars in the order of Flink's scripts: by name, the distribution last."""
    return sorted(jars, key=lambda jar: (jar.name.startswith("flink-dist"), jar.name))


def _joined(jars: Iterable[Path]) -> str:
    return ":".join(map(str, jars))


def _options(settings: Mapping[str, str], own: str) -> list[str]:
    """Give the Java options that the configuration asks for: of all programs, and of this one."""
    return (settings.get("env.java.opts.all", "") + " " + settings.get(own, "")).split()


def _answer(role: Role, distribution: Path, conf: Path, settings: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Give the Java memory options and the dynamic properties that Flink derives from its configuration."""
    deciding = {key: value for key, value in settings.items() if key.startswith(("taskmanager.", "jobmanager.mem"))}
    text = json.dumps([role.question, str(distribution), deciding], sort_keys=True)
    kept = ANSWERS / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(f".{conf.stat().st_ino}")
        fresh.write_text(json.dumps(_ask(role, distribution, conf)), encoding="utf-8")
        fresh.replace(kept)
    machine, dynamic = json.loads(kept.read_text(encoding="utf-8"))
    return machine.split(), dynamic.split()


def _ask(role: Role, distribution: Path, conf: Path) -> list[str]:
    jars = [distribution / "bin" / "bash-java-utils.jar", *(distribution / "lib").glob("flink-dist-*.jar")]
    program = [_UTILITY, role.question, "--configDir", str(conf)]
    done = subprocess.run(
        [java(), "-cp", ":".join(map(str, jars)), *program], capture_output=True, text=True, check=False
    )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    answer = [line.removeprefix(_MARKER) for line in lines if line.startswith(_MARKER)]
    if done.returncode or len(answer) != 2:
        causes = [line for line in lines if "Exception" in line] or lines[-1:]
        raise StackError(f"Flink refuses the memory settings in flink-conf.yaml: {' '.join(causes[:2])}")
    return answer
