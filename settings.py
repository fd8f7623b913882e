"""The environment, then `.env`, read once into one frozen Settings."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from jose.backends import HMACKey
from jose.exceptions import JWKError
from psycopg2 import ProgrammingError
from psycopg2.extensions import make_dsn
from pydantic import (
    AfterValidator,
    BeforeValidator,
    DirectoryPath,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).resolve().parent
ENV_FILE = ROOT / ".env"
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


def _parse_database_url(text: object) -> URL:
    """Accept what hosts hand out (`postgres://`, `postgresql://`) and name the driver ourselves.

    SQLAlchemy 2.1 reads a bare `postgresql://` as psycopg 3 and refuses `postgres://`.
    """
    try:
        url = make_url(str(text))
    except (ArgumentError, ValueError) as error:
        # Not chained into the message: SQLAlchemy's would print the password.
        raise ValueError(
            "is not a URL; it looks like postgresql://user:password@host/name"
        ) from error
    if url.drivername in {"postgres", "postgresql", "postgresql+psycopg2"}:
        _refuse_unknown_options(url)
        return url.set(drivername="postgresql+psycopg2")
    if url.drivername == "sqlite" and url.database not in {None, "", ":memory:"}:
        return url
    raise ValueError("must begin with postgresql:// or with sqlite:/// and a file's path")


def _refuse_unknown_options(url: URL) -> None:
    for option in url.query:
        try:
            make_dsn(**{option: "1"})
        except ProgrammingError as error:
            raise ValueError(
                f"has an option that PostgreSQL's libpq does not know: {option}"
            ) from error


def _refuse_unusable_secret(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value():
        raise ValueError("is empty; put the secret of your Better Auth server there")
    try:
        HMACKey(secret.get_secret_value(), "HS256")
    except JWKError as error:
        raise ValueError("is a PEM key or certificate; it must be a shared secret") from error
    return secret


def _parse_server_url(text: str) -> str:
    message = "is not a URL; it looks like https://app.example.com"
    try:
        url = urlsplit(text)
        unusable = url.port == 0 or url.query or url.fragment or not url.hostname
    except ValueError as error:
        raise ValueError(message) from error
    if unusable or url.scheme not in {"http", "https"}:
        raise ValueError(message)
    return text.rstrip("/")


def _origin(url: str | None) -> str | None:
    """Give the origin as Better Auth writes it: no path, and no port that goes without saying."""
    if url is None:
        return None
    parts = urlsplit(url)
    default_port = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in {None, default_port} else f":{parts.port}"
    return f"{parts.scheme}://{parts.hostname}{port}"


def _split_origins(text: object) -> object:
    """`https://a.example/, https://b.example` -> two origins as browsers write them."""
    if not isinstance(text, str):
        return text
    return tuple(origin.strip().rstrip("/") for origin in text.split(",") if origin.strip())


class Rate(NamedTuple):
    """So many requests in so many seconds."""

    requests: int
    seconds: int


def _parse_rate(text: object) -> Rate:
    match = re.fullmatch(r"([1-9][0-9]{0,8})/(second|minute|hour|day)", str(text))
    if match is None:
        raise ValueError("must look like 100/minute; second, hour and day are known as well")
    return Rate(int(match[1]), PERIODS[match[2]])


def _require_redis(url: str) -> str:
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    if find_spec("redis") is None:
        raise ValueError("needs a package that is not installed: uv sync --extra redis")
    return url


class DatabaseSettings(BaseSettings):
    """What a migration run needs to be told: it works without the secret."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, extra="ignore", frozen=True)

    database_url: Annotated[URL, NoDecode, BeforeValidator(_parse_database_url)] = make_url(
        f"sqlite:///{ROOT / 'todo.db'}"
    )


class Settings(DatabaseSettings):
    """What the service can be told; each name in capitals is the environment variable."""

    better_auth_secret: Annotated[SecretStr, AfterValidator(_refuse_unusable_secret)] | None = None
    better_auth_url: Annotated[str, AfterValidator(_parse_server_url)] | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_origins)] = (
        "http://localhost:3000",
    )
    auto_migrate: bool = True
    tasks_per_user: Annotated[int, Field(ge=1)] = 10_000
    rate_limit: Annotated[Rate, NoDecode, BeforeValidator(_parse_rate)] | None = None
    rate_limit_store: Annotated[str, AfterValidator(_require_redis)] | None = None
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda name: name.upper())
    ] = "INFO"
    otel_exporter_otlp_endpoint: str | None = None
    prometheus_multiproc_dir: DirectoryPath | None = None

    @model_validator(mode="after")
    def _require_a_way_to_verify_tokens(self) -> Self:
        if self.better_auth_secret is None and self.better_auth_url is None:
            raise ValueError(
                "Neither BETTER_AUTH_URL nor BETTER_AUTH_SECRET is set: "
                "put your Better Auth server's URL, or its secret, there"
            )
        return self

    @property
    def issuer(self) -> str | None:
        """The `iss` that a token of the key set must have."""
        return self.jwt_issuer or _origin(self.better_auth_url)

    @property
    def audience(self) -> str | None:
        """The `aud` that a token of the key set must have."""
        return self.jwt_audience or _origin(self.better_auth_url)


def explain(error: ValidationError) -> str:
    """Name each bad setting and the reason in one line, without its value."""
    return "; ".join(
        " ".join([*(str(name).upper() for name in problem["loc"][:1]), _reason(problem["msg"])])
        for problem in error.errors(include_input=False, include_url=False)
    )


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ")
