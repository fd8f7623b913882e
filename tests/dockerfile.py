"""Build a Dockerfile without Docker. The file system of a stage is a directory."""

import fnmatch
import json
import re
import shlex
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

STEP_LIMIT_SECONDS = 240


class Image:
    """The result of a Dockerfile: files in a directory, and how a container is run.

    Each instruction has a method. /app in the Dockerfile means the one in the directory. All stages
    use the same directory, because installers write its path into files. When a stage is done, its
    files are moved away.
    """

    def __init__(
        self, dockerfile: Path, context: Path, folder: Path, environment: dict[str, str]
    ) -> None:
        self.environment: dict[str, str] = {}
        self.user = "root"
        self.command: list[str] = []
        self.healthcheck: list[str] = []
        self._context = context
        self._files = context_of(dockerfile, context)
        self._outside = environment
        self._stages = folder
        self._stage = "none"
        self._root = folder / "root"
        self._root.mkdir(parents=True)
        self.workdir = self._root
        for name, rest in _instructions(dockerfile):
            getattr(self, f"_{name.lower()}")(rest)
        for path in [self._root, *self._root.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)

    def _inside(self, text: str) -> str:
        return re.sub(r"(?<![\w./])/app\b", f"{self._root}/app", text)

    def _from(self, rest: str) -> None:
        self._root.rename(self._stages / self._stage)
        self._stage = rest.rpartition(" AS ")[2]
        self.environment = dict(self._outside)

    def _workdir(self, path: str) -> None:
        self.workdir = Path(self._inside(path))
        self.workdir.mkdir(parents=True, exist_ok=True)

    def _env(self, rest: str) -> None:
        for pair in shlex.split(string.Template(self._inside(rest)).substitute(self.environment)):
            name, _, value = pair.partition("=")
            self.environment[name] = value

    def _copy(self, rest: str) -> None:
        *sources, target = shlex.split(rest)
        if sources[0].startswith("--from="):
            self._copy_from(sources[0].removeprefix("--from="), sources[1], self._inside(target))
            return
        for source in sources:
            parent = Path(source).parent if source in self._files else Path(source)
            for file in (Path(file) for file in self._files if Path(file).is_relative_to(source)):
                copied = self.workdir / self._inside(target) / file.relative_to(parent)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self._context / file, copied)

    def _copy_from(self, stage: str, source: str, target: str) -> None:
        if "/" in stage:  # a tool of another image, which must be installed on this machine
            assert shutil.which(Path(source).name)
        else:
            shutil.copytree(f"{self._stages}/{stage}{source}", target, symlinks=True)

    def _run(self, rest: str) -> None:
        step = self._inside(re.sub(r"^--mount=\S+ ", "", rest))
        subprocess.run(
            ["sh", "-ec", step],
            cwd=self.workdir,
            env=self.environment,
            check=True,
            timeout=STEP_LIMIT_SECONDS,
        )

    def _user(self, rest: str) -> None:
        self.user = rest

    def _expose(self, rest: str) -> None:
        pass

    def _healthcheck(self, rest: str) -> None:
        self.healthcheck = json.loads(rest.partition("CMD ")[2])

    def _cmd(self, rest: str) -> None:
        self.command = json.loads(rest)


def _instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    for line in filter(None, text.replace("\\\n", "").splitlines()):
        name, _, rest = line.partition(" ")
        yield name, rest


def context_of(dockerfile: Path, context: Path) -> list[str]:
    """Return the files of the build context: all except those that .dockerignore excludes."""
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    rules = (own if own.exists() else context / ".dockerignore").read_text().splitlines()
    files = (path.relative_to(context) for path in context.rglob("*") if path.is_file())
    return sorted(str(file) for file in files if not _is_ignored(file, rules))


def _is_ignored(file: Path, rules: list[str]) -> bool:
    """Apply the last rule that matches the file or one of its parent directories."""
    ignored = False
    for rule in rules:
        if any(_matches(str(name), rule.lstrip("!")) for name in (file, *file.parents)):
            ignored = not rule.startswith("!")
    return ignored


def _matches(name: str, pattern: str) -> bool:
    """Match like Docker, where `*` does not match a slash and `**` does."""
    same_depth = "**" in pattern or name.count("/") == pattern.count("/")
    return same_depth and fnmatch.fnmatch(name, pattern)
