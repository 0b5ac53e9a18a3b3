"""The Java parts, as a locked list of jars.

`deploy/local/<part>/jgo.toml` names what we want, `jgo.lock.toml` beside it every jar that takes, with its SHA-256.
Starting reads the lock only: nothing is resolved, and a jar that differs from its hash is never run.

    python -m deploy.local.jars        # resolve again and rewrite the locks (part of `make lock`)
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jgo.constants import default_maven_repo
from jgo.env import EnvironmentBuilder, EnvironmentSpec
from jgo.env import LockFile as JarLock
from jgo.maven import MavenContext

from .errors import StackError

HERE = Path(__file__).parent
PARTS = {"kafka": True, "zipkin": False}  # part -> whether its dependencies are wanted too: Zipkin's jar holds them
DOWNLOADS_AT_ONCE = 8
TIMEOUT_SECONDS = 60


class JarError(StackError):
    """A jar could not be had, or is not the one that was locked."""


@dataclass(frozen=True)
class Jar:
    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it lies in the machine's own jar cache, which all checkouts share."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        folder = Path(default_maven_repo()) / self.group.replace(".", "/") / self.artifact / self.version
        return folder / f"{self.artifact}-{self.version}{suffix}.jar"

    def is_right(self) -> bool:
        if not self.path.exists():
            return False
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


def locked(part: str) -> list[Jar]:
    """The jars of `kafka` or `zipkin`, as committed."""
    data = tomllib.loads((HERE / part / "jgo.lock.toml").read_text())
    return [
        Jar(each["groupId"], each["artifactId"], each["version"], each.get("classifier", ""), each["sha256"])
        for each in data["dependencies"]
    ]


def classpath(part: str, say: Callable[[str], None] = lambda text: None) -> str:
    """Have every jar of the part on disk, right to the hash, and return the class path.

    Raises JarError when one cannot be fetched or is not what was locked.
    """
    jars = locked(part)
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        missing = [jar for jar, right in zip(jars, pool.map(Jar.is_right, jars), strict=True) if not right]
        if missing:
            say(f"fetching {len(missing)} {'jar' if len(missing) == 1 else 'jars'}")
        list(pool.map(_fetch, missing))
    return os.pathsep.join(str(jar.path) for jar in jars)


def _fetch(jar: Jar) -> None:
    # Fetched aside and moved in when right: an interrupted or concurrent download never leaves half a jar.
    jar.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jar.path.parent) as aside:
        context = MavenContext(repo_cache=Path(aside), timeout=TIMEOUT_SECONDS)
        artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact(jar.classifier)
        try:
            fetched = artifact.resolve()
        except Exception as error:
            raise JarError(
                f"cannot fetch {jar.path.name}: {error}. Is the network there? Run the command again."
            ) from error
        with fetched.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != jar.sha256:
            raise JarError(f"{jar.path.name} has SHA-256 {found}, but {jar.sha256} is locked. It was not used.")
        fetched.replace(jar.path)


def lock(part: str) -> None:
    """Resolve the part's jgo.toml and write its lock."""
    spec = EnvironmentSpec.load(HERE / part / "jgo.toml")
    context = MavenContext(timeout=TIMEOUT_SECONDS)
    wanted = EnvironmentBuilder(context).spec_to_dependencies(spec)
    if PARTS[part]:
        wanted = [jar for jars in context.resolver.resolve(wanted) for jar in jars]
    jars = sorted(wanted, key=lambda each: (each.groupId, each.artifactId))
    file = HERE / part / "jgo.lock.toml"
    JarLock.from_resolved_dependencies(jars, environment_name=spec.name).save(file)
    # Without the time of writing: the same jars make the same file.
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("generated")))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    for name in PARTS:
        lock(name)
        print(f"{name}: {len(locked(name))} jars locked")
