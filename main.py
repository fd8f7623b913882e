"""Create the app. `uv run main.py` serves it."""

import argparse
import gc
import logging
import multiprocessing
import os
import re
import secrets
import signal
import sys
import threading
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from multiprocessing.process import BaseProcess

import uvicorn
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from jose import jwt
from opentelemetry import trace
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

import statements
from auth import FOREIGN_PATH, OwnPath, TokenVerifier
from db import Database
from driver import transaction
from errors import EXCEPTION_HANDLERS, SchemaNotCurrentError, cause_of
from gate import CORS, HeadAsGet, Headers, Prefix
from logs import RequestLog, configure_logging
from models import USER_ID_MAX_CHARS, is_blank, is_storable
from overload import Limit
from paths import Paths
from rates import TOO_MANY, RateLimit
from routes import changes, docs, health, tasks, transfers, users
from settings import ENV_FILE, PORT_MAX, ROOT, DatabaseSettings, Settings, read_settings
from telemetry import HiddenQuery, trace_statements

SECRET_RECOMMENDED_BYTES = 32  # RFC 7518, 3.2: at least as long as the hash
GRACEFUL_SHUTDOWN_SECONDS = 8
# uvicorn's 5 s are too short to import everything on a busy machine: it would kill all workers.
WORKER_START_SECONDS = 60
# An unavailable collector must not delay the shutdown.
EXPORT_TIMEOUT_SECONDS = 2
# New objects between garbage collections. A few requests at once create more than Python's default,
# which is 700 or, since Python 3.13, 2,000.
GC_THRESHOLD = 10_000
# Larger numbers on the command line are mistakes.
WORKERS_MAX = 999
TOKEN_MINUTES_MAX = 999_999
PURGE_DAYS_MAX = 99_999
# RFC 3986, 2.3: characters that are never percent-encoded, so that no proxy rewrites them.
PATH_PREFIX = re.compile(r"[A-Za-z0-9._~/-]*")

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

DESCRIPTION = """\
Tasks for many users. You see and change only your own.

- **Sign in**: send the JWT of your Better Auth server with every request: `Authorization: Bearer <JWT>`.
  To try the operations in `/docs`, press *Authorize* and paste a token, such as one that `uv run main.py token ann` prints.

- **Errors** have one format: `{"detail": "Task not found", "status_code": 404}`.
  A 422 adds `errors`, with the name of each invalid field and the reason.

- **Conflicts**: the `ETag` of a response is the version of its task.
  Send it back as `If-Match`, and the task is updated only if nobody has changed it since; otherwise you get a 412.

- **Retries**: send an `Idempotency-Key` with a POST, and you can repeat the request without creating anything twice.

- **Sync**: a client that keeps a copy of the tasks asks `GET /api/tasks/changes` for what has changed, deletions included.

- **Unknown query parameters** get a 422, so that a misspelled filter cannot update or delete more than you meant.
"""  # noqa: E501  # Markdown, in which a line may be as long as its sentence

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Check the schema, and migrate it if allowed, before serving.

    If this fails, serve nevertheless: each request checks again.
    """
    database: Database = app.state.database
    if (supervisor := multiprocessing.parent_process()) is not None:  # there are several workers
        threading.Thread(target=_stop_with, args=[supervisor], daemon=True).start()
    try:
        await run_in_threadpool(database.schema.require_current)
    except (DBAPIError, SchemaNotCurrentError) as error:
        logger.warning("Responding with 503 until this is fixed: %s", cause_of(error))
    yield
    if app.state.rate_limit is not None:
        await app.state.rate_limit.close()
    # In a thread, so that requests whose threads must end can still be answered.
    await run_in_threadpool(database.close)


def _stop_with(supervisor: BaseProcess) -> None:
    """Stop this worker when its supervisor is gone: nobody else would, and it keeps the port."""
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)


def create_app(settings: Settings) -> FastAPI:
    """Create the app. It does not connect to the database before it starts."""
    secret = settings.better_auth_secret
    if secret is not None and len(secret.get_secret_value().encode()) < SECRET_RECOMMENDED_BYTES:
        logger.warning("BETTER_AUTH_SECRET is shorter than %d bytes", SECRET_RECOMMENDED_BYTES)
    exporting = settings.otel_exporter_otlp_endpoint is not None
    app = FastAPI(
        title="Tasks",
        version=VERSION,
        description=DESCRIPTION,
        openapi_tags=docs.TAGS,
        lifespan=lifespan,
        exception_handlers=EXCEPTION_HANDLERS,
        # Redirects would use the Host header, which the client controls.
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry={
            "auto_configure": exporting,
            "tracing": exporting,
            "metrics": exporting,
            "operation_spans": False,
            "logs": False,  # they would contain the messages of exceptions
        },
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.database = Database(settings.database_url, auto_migrate=settings.auto_migrate)
    app.state.verifier = TokenVerifier(settings)
    app.state.rate_limit = None
    if settings.rate_limit is not None:
        app.state.rate_limit = RateLimit(settings.rate_limit, settings.rate_limit_store)
    _include_routes(app)
    observe = None
    if settings.prometheus_multiproc_dir:
        metrics = import_module("metrics")  # only if enabled: it takes time and reads the variable
        app.include_router(metrics.router)
        observe = metrics.observe
    app.state.paths = Paths(app.routes)
    # Wrap Starlette's ServerErrorMiddleware, which add_middleware cannot do: browsers must be able
    # to read a 500 too, and it must be logged.
    stack = Headers(
        CORS(
            Limit(app.build_middleware_stack(), app.state.database.slots.in_flight),
            settings.cors_origins,
        )
    )
    app.middleware_stack = Prefix(RequestLog(HeadAsGet(stack), observe), app.state.paths)
    if exporting:
        trace_statements(app.state.database.engine, trace.get_tracer("todo-backend"))
        app.middleware_stack = HiddenQuery(app.middleware_stack)
    return app


def _include_routes(app: FastAPI) -> None:
    limited = {} if app.state.rate_limit is None else TOO_MANY
    # Paths with a fixed name under /api/tasks come before the path with an id.
    groups = (
        (changes.router, docs.ALL_TASKS),
        (transfers.router, docs.ALL_TASKS),
        (tasks.router, docs.SINGLE_TASKS),
        (tasks.bulk_router, docs.MANY_TASKS),
    )
    for router, tag in groups:
        app.include_router(router, prefix="/api/tasks", tags=[tag], responses=limited)
    for router, tag in groups:
        app.include_router(
            router,
            prefix="/api/{user_id}/tasks",
            tags=[docs.with_user_id(tag)],
            dependencies=[OwnPath],
            responses=FOREIGN_PATH | limited,
            generate_unique_id_function=_id_with_user,
        )
    app.include_router(users.router, tags=[docs.ACCOUNT], responses=limited)
    app.include_router(health.router, tags=[docs.MONITORING])
    app.include_router(docs.router)
    if app.state.settings.mcp:  # only then: it takes time and memory to import
        mcp = import_module("routes.mcp")
        app.include_router(mcp.router)
        app.include_router(mcp.metadata_router)


def _id_with_user(route: APIRoute) -> str:
    return f"{route.name}_of_user"


def __getattr__(name: str) -> FastAPI:
    """Create `main:app` on first access, so that importing this module needs no settings."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = read_settings(Settings)
    configure_logging(settings.log_level)
    _export_settings(settings)
    app = globals()["app"] = create_app(settings)
    freeze()
    return app


def freeze() -> None:
    """Exclude all current objects from garbage collection, since they live as long as the process.

    A full collection of them takes 50 ms, during which no request is served.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def _export_settings(settings: Settings) -> None:
    """Copy settings from `.env` to the environment, where libraries read them."""
    for name in ("otel_exporter_otlp_endpoint", "prometheus_multiproc_dir"):
        if value := getattr(settings, name):
            os.environ[name.upper()] = str(value)
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", str(EXPORT_TIMEOUT_SECONDS))


def main() -> None:
    """Run the server or a command (token, purge)."""
    parser = argparse.ArgumentParser(description="A secure multi-user task backend.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port",
        default=8000,
        type=_whole_number(0, PORT_MAX),
        help="port to listen on (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        default=1,
        type=_whole_number(1, WORKERS_MAX),
        help="number of processes (%(default)s)",
    )
    parser.add_argument("--reload", action="store_true", help="restart when the code changes")
    parser.add_argument(
        "--root-path", default="", type=_path_prefix, help="path prefix behind a proxy, such as /x"
    )
    commands = parser.add_subparsers(dest="command", title="commands")
    token = commands.add_parser("token", help="print a token for curl and /docs")
    token.add_argument("user", type=_user_id, help="the user id, which becomes the claim sub")
    token.add_argument(
        "--minutes",
        default=60,
        type=_whole_number(1, TOKEN_MINUTES_MAX),
        help="lifetime in minutes (%(default)s)",
    )
    purge = commands.add_parser("purge", help="remove the tombstones of deleted tasks")
    purge.add_argument(
        "--days",
        default=90,
        type=_whole_number(1, PURGE_DAYS_MAX),
        help="keep those of the last DAYS days (%(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.command == "purge":
        removed = _purge(timedelta(days=arguments.days))
        sys.stdout.write(f"Removed {removed} tombstone{'' if removed == 1 else 's'}\n")
    elif arguments.command == "token":
        secret = read_settings(Settings).better_auth_secret
        if secret is None:
            parser.error("token needs BETTER_AUTH_SECRET, which is not set")
        sys.stdout.write(sign(secret, arguments.user, arguments.minutes) + "\n")
    else:
        _serve(arguments)


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def _path_prefix(text: str) -> str:
    if not PATH_PREFIX.fullmatch(text):
        raise argparse.ArgumentTypeError(
            "may contain only letters, digits and the characters / . _ ~ -"
        )
    return text


def _user_id(text: str) -> str:
    """Refuse what `auth` refuses in the claim sub."""
    if len(text) > USER_ID_MAX_CHARS or is_blank(text) or not is_storable(text):
        raise argparse.ArgumentTypeError(
            f"must be 1 to {USER_ID_MAX_CHARS} characters in UTF-8, at least one of them visible"
        )
    return text


def _purge(keep: timedelta) -> int:
    """Remove the tombstones that are older than `keep`, and return their number.

    A client whose last sync predates a removed tombstone must start over.

    Raises:
        SystemExit: the database is unavailable, or its schema is not current.

    """
    database = Database(read_settings(DatabaseSettings).database_url, auto_migrate=False)
    before = {"before": datetime.now(UTC) - keep}
    try:
        database.schema.require_current()
        with database.engine.connect() as connection, transaction(connection):
            connection.execute(statements.RECORD_PURGE, before)
            return connection.execute(statements.PURGE, before).rowcount
    except (DBAPIError, SchemaNotCurrentError) as error:
        raise SystemExit(f"Nothing was purged: {cause_of(error)}") from error
    finally:
        database.close()


def sign(secret: SecretStr, user_id: str, minutes: int) -> str:
    """Sign a token for curl and /docs, as a Better Auth server with this secret would."""
    now = int(time.time())
    claims = {"sub": user_id, "iat": now, "exp": now + minutes * 60}
    return jwt.encode(claims, secret.get_secret_value(), "HS256")


def _serve(arguments: argparse.Namespace) -> None:
    ways = {"BETTER_AUTH_SECRET", "BETTER_AUTH_URL", "JWKS_URL"}
    unset = not ENV_FILE.exists() and not ways & {name.upper() for name in os.environ}
    # In a container, the directory is read-only: settings are required.
    if unset and os.access(ENV_FILE.parent, os.W_OK):
        _write_secret()
    configure_logging(read_settings(Settings).log_level)
    uvicorn.run(
        "main:app",
        host=arguments.host,
        port=arguments.port,
        workers=arguments.workers,
        reload=arguments.reload,
        root_path=arguments.root_path,
        # uvloop accepts one connection per iteration, and under load there are few iterations. The
        # other connections would wait in the kernel, where they cannot be refused.
        loop="asyncio",
        http="protocol:Protocol",
        ws="none",  # there are no WebSockets: treat a handshake like any other request
        log_config=None,  # use configure_logging instead
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        timeout_worker_healthcheck=WORKER_START_SECONDS,
    )


def _write_secret() -> None:
    """Write a random secret to `.env`, so that the first start needs no configuration."""
    line = f"BETTER_AUTH_SECRET={secrets.token_urlsafe(SECRET_RECOMMENDED_BYTES)}\n"
    ENV_FILE.touch(mode=0o600, exist_ok=False)
    ENV_FILE.write_text(line)
    sys.stderr.write(
        f"Wrote a random BETTER_AUTH_SECRET into {ENV_FILE}; "
        "for real sign-ins, replace it with your Better Auth server's\n"
    )


if __name__ == "__main__":
    main()
