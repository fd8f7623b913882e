"""The users of the tests, and the settings of the app."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import URL
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from main import sign
from settings import Settings

SECRET = SecretStr("the secret of the tests, of 32 bytes and more")


def settings_for(database_url: URL, **others: object) -> Settings:
    """Create settings that ignore the environment and `.env`."""
    given = {
        "database_url": str(database_url.render_as_string(hide_password=False)),
        "better_auth_secret": SECRET,
        "better_auth_url": None,
        "jwks_url": None,
        "jwt_issuer": None,
        "jwt_audience": (),
        "cors_origins": "http://localhost:3000",
        "auto_migrate": True,
        "rate_limit": None,
        "rate_limit_store": None,
        "log_level": "INFO",
        "otel_exporter_otlp_endpoint": None,
        "prometheus_multiproc_dir": None,
        "mcp": False,
        "mcp_url": "https://tasks.example.com/mcp",
    }
    return Settings(_env_file=None, **(given | others))  # type: ignore[arg-type]  # Settings parses them


def bearer(user_id: str, minutes: int = 5) -> dict[str, str]:
    return {"Authorization": f"Bearer {sign(SECRET, user_id, minutes)}"}


def client_of(app: FastAPI, headers: dict[str, str]) -> Iterator[TestClient]:
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def served(app: ASGIApp, root_path: str = "", http: str = "protocol:Protocol") -> Iterator[int]:
    """Serve the app on real connections as main.py does; yield the port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(
            uvicorn.Config(app, http=http, ws="none", log_config=None, root_path=root_path)
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
