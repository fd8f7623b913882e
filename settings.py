"""Read the settings once, from the environment and then from `.env`, into a frozen object."""

import re
import sys
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Literal, NamedTuple, Self, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

from jose.backends import HMACKey
from jose.exceptions import JWKError
from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn
from pydantic import (
    AfterValidator,
    BeforeValidator,
    DirectoryPath,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import Url
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).resolve().parent
ENV_FILE = ROOT / ".env"
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
PORT_MAX = 65535
TASKS_PER_USER_MAX = 10**12  # the databases count further, but not to every number
# RFC 9728, 3.1: the well-known path, followed by that of the resource.
MCP_METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
# uvicorn's exit code for a worker that cannot start. After any other, it keeps restarting workers.
STARTUP_FAILURE = 3

INVALID_DATABASE_URL = "is not a URL such as postgresql://user:password@host/name"
UNSUPPORTED_DATABASE = "must begin with postgresql:// or with sqlite:/// and the path of a file"
INVALID_URL = "is not a URL such as https://app.example.com"
INVALID_ORIGINS = (
    "must be origins such as https://app.example.com, separated by commas, "
    "without quotes or brackets"
)
NOT_ENCODED = (
    "has a character that must be percent-encoded: in a user name or a password, write @ as %40, "
    "/ as %2F, ? as %3F, # as %23, [ as %5B, ] as %5D, % as %25 and a space as %20"
)
HAS_WILDCARD = "must name each origin, or be * alone: there are no other wildcards"
HAS_CREDENTIALS = "must not contain @: user names and passwords are not allowed in it"


def _clean(text: object) -> object:
    """Strip whitespace and a byte order mark, which `echo` and editors leave at the ends."""
    if not isinstance(text, str):
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        problem = "is not in UTF-8"
    else:
        return text.strip().strip("\ufeff").strip()
    raise ValueError(problem)  # not inside `except`: the first error contains the text


def _refuse_empty(text: object) -> object:
    """Refuse `NAME=`. Other settings refuse it by their types; CORS_ORIGINS= means no origins."""
    if text == "":
        raise ValueError("is empty: set it to a value, or remove it")
    return text


def _require_writable(folder: Path) -> Path:
    try:
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError("must be a folder that the service can write to") from error


def _refuse_unencoded(url: str) -> None:
    """Refuse characters that a user name or password must percent-encode (RFC 3986, 3.2.1).

    Parsers disagree on where such a password ends. One that mistakes the rest for the host repeats
    it in its error messages.
    """
    user, _, _ = url.partition("://")[2].rpartition("@")
    if re.search(r"[@/?#\[\]]", user) or re.search(r"[#\s]|%(?![0-9A-Fa-f]{2})", url):
        raise ValueError(NOT_ENCODED)


def _parse_database_url(text: object) -> URL:
    """Parse a libpq URI or a SQLAlchemy URL. The only PostgreSQL driver is psycopg2."""
    scheme, separator, rest = str(text).partition("://")
    if not separator:
        raise ValueError(INVALID_DATABASE_URL)
    if scheme == "sqlite":
        return _parse_sqlite_url(str(text))
    if scheme not in {"postgres", "postgresql", "postgresql+psycopg2"}:
        raise ValueError(UNSUPPORTED_DATABASE)
    _refuse_unencoded(str(text))
    return _sqlalchemy_url(_libpq_parameters(rest))


def _parse_sqlite_url(text: str) -> URL:
    try:
        url = make_url(text)
        url.get_dialect()().create_connect_args(url)
        problem = UNSUPPORTED_DATABASE if url.database in {None, "", ":memory:"} else None
    except ArgumentError:  # its message repeats the URL
        problem = UNSUPPORTED_DATABASE
    except ValueError:
        problem = "has a value that SQLite cannot use"
    if problem is not None:
        raise ValueError(problem)
    return url


def _libpq_parameters(rest: str) -> dict[str, str]:
    """Parse a URI with libpq. Do not pass on its error messages, which repeat parts of the URI."""
    query = rest.partition("?")[2]
    try:
        parameters = parse_dsn(f"postgresql://{rest}")
        options = parse_qsl(query, keep_blank_values=True)
    except (ProgrammingError, ValueError):
        parameters = None
    if parameters is None:
        raise ValueError(_libpq_problem(query))
    hosts = [value.partition(":") for name, value in options if name == "host"]
    if len(hosts) > 1:  # SQLAlchemy's form: host=h1:5432&host=h2:5432
        parameters["host"] = ",".join(host for host, _, _ in hosts)
        parameters["port"] = ",".join(port for _, _, port in hosts)
    return parameters


def _libpq_problem(query: str) -> str:
    """Name the option that libpq does not know, unless its name may be part of a password."""
    if re.search("pass|secret", query, re.IGNORECASE):
        return "cannot be read by PostgreSQL's libpq; in a password, write & as %26 and = as %3D"
    for name in re.findall(r"(?:^|&)(\w+)=", query):
        try:
            parse_dsn(f"postgresql://?{quote(name)}=1")
        except ProgrammingError:
            return f"has an option that PostgreSQL's libpq does not know: {name}"
    return INVALID_DATABASE_URL


def _sqlalchemy_url(parameters: dict[str, str]) -> URL:
    hosts, ports = (parameters.pop(name, "").split(",") for name in ("host", "port"))
    if (
        len(ports) not in {1, len(hosts)}
        or not all(_is_port(port) for port in ports)
        or not (hosts == [""] or all(_is_host(host) for host in hosts))
    ):
        raise ValueError(INVALID_DATABASE_URL)
    url = URL.create(
        "postgresql+psycopg2",
        parameters.pop("user", None),
        parameters.pop("password", None),
        database=parameters.pop("dbname", None),
        query=parameters,
    )
    # A URL can contain only one host, which is not a directory, and its port.
    if len(hosts) == 1 and hosts[0] and not hosts[0].startswith("/"):
        return url.set(host=hosts[0], port=int(ports[0]) if ports[0] else None)
    servers = {"host": ",".join(hosts), "port": ",".join(ports) if any(ports) else ""}
    return url.update_query_dict({name: value for name, value in servers.items() if value})


def _is_port(text: str) -> bool:
    return not text or (re.fullmatch("[0-9]{1,5}", text) is not None and 0 < int(text) <= PORT_MAX)


def _is_host(text: str) -> bool:
    if ":" not in text:
        return re.fullmatch(r"/.*|[\w.-]+", text) is not None
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _refuse_unusable_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise ValueError("is empty; set it to the secret of your Better Auth server")
    try:
        HMACKey(text, "HS256")
    except JWKError as error:
        raise ValueError("is a PEM key or certificate; it must be a shared secret") from error
    return secret


def _parse_server_url(text: str) -> str:
    if "?" in text:
        raise ValueError(INVALID_URL)
    return str(_parse_http_url(text)).rstrip("/")


def _parse_key_set_url(text: str) -> str:
    return str(_parse_http_url(text))


def _parse_http_url(text: str) -> Url:
    """Parse a URL as browsers do (WHATWG's URL standard)."""
    if "@" in text:
        raise ValueError(HAS_CREDENTIALS)
    try:
        url = Url(text)
    except ValueError:
        url = None
    if (
        url is None
        or not re.match("https?://", text, re.IGNORECASE)
        # WHATWG allows characters that no host name has, as in `https://a;https://b`.
        or not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:]+\]", url.host or "")
        or url.port == 0
        or "#" in text
    ):
        raise ValueError(INVALID_URL)
    return url


def _origin(url: Url) -> str:
    """Return the origin as browsers and Better Auth write it: `new URL(…).origin`."""
    default_port = {"http": 80, "https": 443}[url.scheme]
    port = "" if url.port == default_port else f":{url.port}"
    return f"{url.scheme}://{url.host}{port}"


def _split(text: object) -> object:
    if not isinstance(text, str):
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _parse_origin(text: str) -> str:
    """Normalize an origin as browsers do: HTTPS://App.Example.com:443/ is https://app.example.com."""
    if text == "*":
        return text
    if "*" in text:
        raise ValueError(HAS_WILDCARD)
    # Mobile apps and browser extensions: capacitor://localhost, chrome-extension://<id>.
    if re.fullmatch(r"(?!(ftp|wss?|file|https?):)[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:\d+)?", text):
        return text
    try:
        return _origin(Url(_parse_server_url(text)))
    except ValueError as error:
        raise ValueError(HAS_CREDENTIALS if "@" in text else INVALID_ORIGINS) from error


def _refuse_wildcard_among_others(origins: tuple[str, ...]) -> tuple[str, ...]:
    if "*" in origins and len(origins) > 1:
        raise ValueError(HAS_WILDCARD)
    return origins


class Rate(NamedTuple):
    """A number of requests per window of `seconds`."""

    requests: int
    seconds: int


def _parse_rate(text: object) -> Rate:
    match = re.fullmatch(r"([1-9][0-9]{0,8})/(second|minute|hour|day)", str(text))
    if match is None:
        raise ValueError("must be a number per second, minute, hour or day, such as 100/minute")
    return Rate(int(match[1]), PERIODS[match[2]])


def _require_package(name: str) -> None:
    """Refuse a setting whose package, an extra of the same name, is not installed."""
    if find_spec(name) is None:
        raise ValueError(f"needs a package that is not installed: run uv sync --extra {name}")


def _require_redis(url: str) -> str:
    if url.partition("://")[0] not in {"redis", "rediss", "unix"}:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    _require_package("redis")
    _refuse_unencoded(url)
    try:
        import_module("redis.asyncio").from_url(url).connection_pool.make_connection()
        usable = True
    except Exception:  # noqa: BLE001  # of several types; their messages repeat parts of the URL
        usable = False
    if not usable:
        raise ValueError("is not a Redis URL such as redis://:password@host:6379/0")
    return url


def _require_sdk(enabled: bool) -> bool:  # noqa: FBT001  # a validator
    if enabled:
        _require_package("mcp")
    return enabled


def _parse_mcp_url(text: str) -> str:
    url = _parse_server_url(text)
    if not urlsplit(url).path.endswith("/mcp"):
        raise ValueError("must end in /mcp, such as https://tasks.example.com/mcp")
    return url


class DatabaseSettings(BaseSettings):
    """The settings that migrations need. They do not need the secret."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8-sig",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    database_url: Annotated[
        URL, NoDecode, BeforeValidator(_parse_database_url), Field(repr=False)
    ] = make_url(f"sqlite:///{ROOT / 'todo.db'}")

    clean = field_validator("*", mode="before")(_clean)


class Settings(DatabaseSettings):
    """All settings. The environment variable of each is its name in upper case."""

    better_auth_secret: Annotated[SecretStr, AfterValidator(_refuse_unusable_secret)] | None = None
    better_auth_url: Annotated[str, AfterValidator(_parse_server_url)] | None = None
    jwks_url: Annotated[str, AfterValidator(_parse_key_set_url)] | None = None
    jwt_issuer: Annotated[str | None, BeforeValidator(_refuse_empty)] = None
    # Before validators run from right to left.
    jwt_audience: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_split), BeforeValidator(_refuse_empty)
    ] = ()
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_parse_origin)], ...],
        NoDecode,
        BeforeValidator(_split),
        AfterValidator(_refuse_wildcard_among_others),
    ] = ("http://localhost:3000",)
    auto_migrate: bool = True
    tasks_per_user: Annotated[int, Field(ge=1, le=TASKS_PER_USER_MAX)] = 10_000
    rate_limit: Annotated[Rate, NoDecode, BeforeValidator(_parse_rate)] | None = None
    rate_limit_store: Annotated[
        Annotated[str, AfterValidator(_require_redis)] | None, Field(repr=False)
    ] = None
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda name: name.upper())
    ] = "INFO"
    otel_exporter_otlp_endpoint: Annotated[str, AfterValidator(_parse_server_url)] | None = None
    # DirectoryPath would make "" the current directory.
    prometheus_multiproc_dir: Annotated[
        Annotated[DirectoryPath, AfterValidator(_require_writable)] | None,
        BeforeValidator(_refuse_empty),
    ] = None
    mcp: Annotated[bool, AfterValidator(_require_sdk)] = False
    mcp_url: Annotated[str, AfterValidator(_parse_mcp_url)] = "http://127.0.0.1:8000/mcp"

    @model_validator(mode="after")
    def _require_a_way_to_verify_tokens(self) -> Self:
        if self.key_set_url is None and self.better_auth_secret is None:
            raise ValueError(
                "Neither BETTER_AUTH_URL nor BETTER_AUTH_SECRET is set: "
                "set one of them to your Better Auth server's URL or secret"
            )
        # A key set may serve many applications: anyone could have one of their tokens.
        if self.key_set_url is not None and not (self.issuer and self.audiences):
            raise ValueError(
                "JWKS_URL needs BETTER_AUTH_URL, or both JWT_ISSUER and JWT_AUDIENCE: "
                "they determine which tokens are accepted"
            )
        return self

    @model_validator(mode="after")
    def _require_a_rate_limit_for_its_store(self) -> Self:
        if self.rate_limit_store is not None and self.rate_limit is None:
            raise ValueError(
                "RATE_LIMIT_STORE needs RATE_LIMIT: without it, requests are not counted"
            )
        return self

    @property
    def key_set_url(self) -> str | None:
        """The URL of the auth server's key set."""
        if self.jwks_url is not None or self._auth_base_url is None:
            return self.jwks_url
        return f"{self._auth_base_url}/jwks"

    @property
    def issuer(self) -> str | None:
        """The `iss` of a token that Better Auth's jwt plugin signs for the API."""
        return self.jwt_issuer or self._auth_origin

    @property
    def issuers(self) -> tuple[str, ...]:
        """The `iss` of a token signed by the key set must be one of these."""
        return tuple(filter(None, [self.issuer, self.authorization_server if self.mcp else None]))

    @property
    def audiences(self) -> tuple[str, ...]:
        """The `aud` of a token signed by the key set must contain one of these."""
        return self.jwt_audience or tuple(filter(None, [self._auth_origin]))

    @property
    def authorization_server(self) -> str | None:
        """The issuer of the OAuth tokens for /mcp, with which clients find its metadata.

        Unlike the jwt plugin, Better Auth's OAuth plugins include the path of its base URL in it.
        """
        base_url, issuer = self._auth_base_url, self.jwt_issuer
        if issuer and base_url and re.fullmatch("https?://[^/]+", issuer):
            return issuer + urlsplit(base_url).path
        return issuer or base_url

    @property
    def mcp_metadata_url(self) -> str:
        """The public URL of the document that describes /mcp to OAuth clients."""
        return f"{self.mcp_url.removesuffix('/mcp')}{MCP_METADATA_PATH}"

    @property
    def _auth_origin(self) -> str | None:
        return None if self.better_auth_url is None else _origin(Url(self.better_auth_url))

    @property
    def _auth_base_url(self) -> str | None:
        if self.better_auth_url is None or urlsplit(self.better_auth_url).path:
            return self.better_auth_url
        # If its `baseURL` has no path, Better Auth uses the `basePath` /api/auth.
        return f"{self.better_auth_url}/api/auth"


Kind = TypeVar("Kind", bound=DatabaseSettings)


def read_settings(kind: type[Kind]) -> Kind:
    """Read the settings. If they are not valid, print why in one line and exit."""
    path = kind.model_config["env_file"]
    try:
        _refuse_other_encodings(Path(str(path)))
        return kind()
    except ValidationError as error:
        problem = explain(error)
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    except UnicodeError:
        problem = f"{path} is not in UTF-8: save it as UTF-8"
    sys.stderr.write(f"Cannot start: {problem}\n")
    sys.exit(STARTUP_FAILURE)


def _refuse_other_encodings(path: Path) -> None:
    # Do not read a pipe: only the first reader, which must be pydantic-settings, gets its content.
    if (path.is_file() or path.is_dir()) and "\0" in path.read_text("utf-8"):
        raise UnicodeError("UTF-16 without a byte order mark")


def explain(error: ValidationError) -> str:
    """Describe the invalid settings in one line: their names and the reasons, without values."""
    return "; ".join(
        " ".join([*_names(problem["loc"]), problem["msg"].removeprefix("Value error, ")])
        for problem in error.errors(include_input=False, include_url=False)
    )


def _names(location: tuple[int | str, ...]) -> list[str]:
    """Name the setting and, if it is a list, the position of the value."""
    return [
        f"(value {part + 1})" if isinstance(part, int) else part.upper() for part in location[:2]
    ]
