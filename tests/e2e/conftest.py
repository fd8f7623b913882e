"""Fixtures that start real processes and stop them."""

import fcntl
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from settings import ROOT, Settings
from tests.dockerfile import Image
from tests.e2e.server import Server

LIMIT_MILLISECONDS = 15_000

# Debian installs servers in a directory that is only on root's PATH.
PATH = os.environ["PATH"] + ":/usr/sbin"
HAPROXY = shutil.which("haproxy", path=PATH)

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# Chromium contacts its vendor's servers at every start.
LOOPBACK_ONLY = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"

INSTALLED = {
    "Node.js with npm": shutil.which("node") is not None and shutil.which("npm") is not None,
    "Chromium": CHROMIUM is not None,
}
needs_node, needs_chromium = map(pytest.mark.needs, INSTALLED)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a browser or npm packages, which takes minutes, unless asked for."""
    for mark in item.iter_markers("needs"):
        (program,) = mark.args
        if not item.config.getoption("--all"):
            pytest.skip(f"needs {program}: use the option --all")
        if not INSTALLED[program]:
            pytest.skip(f"{program} is not installed")


def pytest_xdist_auto_num_workers() -> int:
    """Use more workers than processors: the tests of processes spend half of their time waiting."""
    return (os.cpu_count() or 1) * 3 // 2


def npm_ci(folder: Path) -> None:
    """Install the packages of the lock file in the folder."""
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True)


def check_out(folder: Path) -> Path:
    """Copy the files that git tracks or would add, like a fresh clone."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in listed.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return check_out(tmp_path / "todo-backend")


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment without settings. `uv run` uses the packages of the tests."""
    # Allow cached bytecode: otherwise each start would compile all libraries again.
    unwanted = {name.upper() for name in Settings.model_fields} | {"PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return kept | {"UV_PROJECT_ENVIRONMENT": sys.prefix, "UV_NO_SYNC": "1"}


@pytest.fixture
def start(checkout: Path, environment: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Start servers in the checkout, and stop all of them at the end."""
    with ExitStack() as servers:  # stops the others even if one does not stop

        def start_one(*command: str, port: int | None = None, **variables: str) -> Server:
            server = Server(list(command), checkout, environment | variables, port)
            servers.callback(server.stop)
            return server

        yield start_one


@pytest.fixture
def run(
    checkout: Path, environment: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in the checkout and wait for its end."""

    def run_one(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=checkout,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run_one


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory that all pytest-xdist workers share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def build(shared: Path) -> Callable[[str], Image]:
    """Build the image of a Dockerfile, once for all pytest-xdist workers."""
    # The steps use this machine's tools and certificates, and the Python of the tests.
    unwanted = {"UV_PROJECT_ENVIRONMENT", "UV_NO_SYNC", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}
    outside = {name: value for name, value in os.environ.items() if name not in unwanted}
    outside["UV_PYTHON"] = os.path.realpath(sys.executable)

    def build_one(dockerfile: str) -> Image:
        folder = shared / dockerfile.replace("/", "-")
        built = folder.with_suffix(".image")
        with _locked(folder.with_suffix(".lock")):
            if not built.exists():
                image = Image(ROOT / dockerfile, ROOT, folder, outside)
                built.write_bytes(pickle.dumps(image))
            loaded: Image = pickle.loads(built.read_bytes())  # noqa: S301  # written above
            return loaded

    return build_one


@pytest.fixture(scope="session")
def frontend(shared: Path, build: Callable[[str], Image]) -> Path:
    """The example page from its image, in a writable directory."""
    folder = shared / "todo-frontend"
    image = build("examples/frontend/Dockerfile")
    with _locked(folder.with_suffix(".lock")):
        if not folder.exists():
            command = ["cp", "-r", "--no-preserve=mode", str(image.workdir), str(folder)]
            subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # The scope is not the session: while the browser is open, this thread has a running event loop,
    # and tests that start their own would fail.
    expect.set_options(timeout=LIMIT_MILLISECONDS)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=[LOOPBACK_ONLY]) as browser,
    ):
        yield browser
