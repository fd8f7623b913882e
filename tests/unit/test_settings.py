"""Valid settings, and the messages for invalid ones."""

import os
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import make_url

from settings import DatabaseSettings, Settings, explain, read_settings
from tests.actors import settings_for

SQLITE = make_url("sqlite:///x.db")


def _environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in ({"BETTER_AUTH_SECRET": "s" * 32} | variables).items():
        monkeypatch.setenv(name, value)


def test_only_the_secret_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch)

    settings = Settings(_env_file=None)

    assert settings.database_url.drivername == "sqlite"
    assert str(settings.database_url.database).endswith("/todo.db")
    assert settings.cors_origins == ("http://localhost:3000",)
    assert settings.auto_migrate is True


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("postgresql://u:p@h:5433/d", "postgresql+psycopg2://u:p@h:5433/d"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg2://h/d"),
        (
            "postgresql://u:p%40@h/d?sslmode=require&channel_binding=require",
            "postgresql+psycopg2://u:p%40@h/d?channel_binding=require&sslmode=require",
        ),
        ("postgresql://u:p:w!$@h/d", "postgresql+psycopg2://u:p%3Aw!$@h/d"),
        ("postgresql:///d?user=u&password=p%26w", "postgresql+psycopg2://u:p%26w@/d"),
        ("postgresql://h/d?port=5433", "postgresql+psycopg2://h:5433/d"),
        ("postgresql://h/d?ssl=true", "postgresql+psycopg2://h/d?sslmode=require"),
        ("postgresql://", "postgresql+psycopg2://"),
        ("postgresql:///d", "postgresql+psycopg2:///d"),
        ("postgresql://u@/d", "postgresql+psycopg2://u@/d"),
        ("postgresql://[::1]:5433/d", "postgresql+psycopg2://[::1]:5433/d"),
        ("postgresql://bücher.example/d", "postgresql+psycopg2://bücher.example/d"),
        (
            "postgresql:///d?host=/var/run/postgresql",
            "postgresql+psycopg2:///d?host=/var/run/postgresql",
        ),
        (
            "postgresql://%2Fvar%2Frun%2Fpostgresql:5433/d",
            "postgresql+psycopg2:///d?host=/var/run/postgresql&port=5433",
        ),
        ("postgresql://a:1,b:2/d", "postgresql+psycopg2:///d?host=a,b&port=1,2"),
        ("postgresql://[::1]:1,[::2]/d", "postgresql+psycopg2:///d?host=::1,::2&port=1,"),
        (
            "postgresql://u:p@a,b/d?target_session_attrs=read-write",
            "postgresql+psycopg2://u:p@/d?host=a,b&target_session_attrs=read-write",
        ),
        ("postgresql://a,b/d?port=1", "postgresql+psycopg2:///d?host=a,b&port=1"),
        ("postgresql://u@/d?host=a:1&host=b:2", "postgresql+psycopg2://u@/d?host=a,b&port=1,2"),
        ("\ufeffpostgresql://h/d\r\n", "postgresql+psycopg2://h/d"),
        ("sqlite:///tasks.db", "sqlite:///tasks.db"),
        (
            "sqlite:////home/ann/50% of my #1 @ tasks.db",
            "sqlite:////home/ann/50% of my #1 @ tasks.db",
        ),
        ("sqlite:////var/lib/tasks.db", "sqlite:////var/lib/tasks.db"),
    ],
)
def test_database_urls_of_hosting_providers_are_accepted(
    monkeypatch: pytest.MonkeyPatch, given: str, used: str
) -> None:
    _environment(monkeypatch, DATABASE_URL=given)

    assert Settings(_env_file=None).database_url == make_url(used)


EMPTY_SECRET = "BETTER_AUTH_SECRET is empty; set it to the secret of your Better Auth server"
INVALID_RATE = "RATE_LIMIT must be a number per second, minute, hour or day, such as 100/minute"
UNSUPPORTED_DATABASE = (
    "DATABASE_URL must begin with postgresql:// or with sqlite:/// and the path of a file"
)
INVALID_SERVER_URL = "BETTER_AUTH_URL is not a URL such as https://app.example.com"
NEITHER_IS_SET = (
    "Neither BETTER_AUTH_URL nor BETTER_AUTH_SECRET is set: "
    "set one of them to your Better Auth server's URL or secret"
)
NOT_ENCODED = (
    "has a character that must be percent-encoded: in a user name or a password, write @ as %40, "
    "/ as %2F, ? as %3F, # as %23, [ as %5B, ] as %5D, % as %25 and a space as %20"
)
INVALID_QUERY = (
    "DATABASE_URL cannot be read by PostgreSQL's libpq; in a password, write & as %26 and = as %3D"
)
HAS_CREDENTIALS = "must not contain @: user names and passwords are not allowed in it"
INVALID_REDIS_URL = "RATE_LIMIT_STORE is not a Redis URL such as redis://:password@host:6379/0"
INVALID_ORIGIN = (
    "CORS_ORIGINS (value 1) must be origins such as https://app.example.com, separated by commas, "
    "without quotes or brackets"
)
HAS_WILDCARD = (
    "CORS_ORIGINS (value 1) must name each origin, or be * alone: there are no other wildcards"
)
INVALID_DATABASE_URL = "DATABASE_URL is not a URL such as postgresql://user:password@host/name"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("DATABASE_URL", "", INVALID_DATABASE_URL),
        ("DATABASE_URL", "s3cret", INVALID_DATABASE_URL),
        ("DATABASE_URL", "postgresql://u:s3cret@h:port/d", INVALID_DATABASE_URL),
        ("DATABASE_URL", "mysql://u:s3cret@h/d", UNSUPPORTED_DATABASE),
        ("DATABASE_URL", "postgresql+asyncpg://u:s3cret@h/d", UNSUPPORTED_DATABASE),
        ("DATABASE_URL", "sqlite://", UNSUPPORTED_DATABASE),
        (
            "TASKS_PER_USER",
            "18446744073709551616",
            "TASKS_PER_USER Input should be less than or equal to 1000000000000",
        ),
        ("RATE_LIMIT", "", INVALID_RATE),
        ("RATE_LIMIT", "0/minute", INVALID_RATE),
        ("RATE_LIMIT", "100", INVALID_RATE),
        ("RATE_LIMIT", "100/fortnight", INVALID_RATE),
        ("MCP", "perhaps", "MCP Input should be a valid boolean, unable to interpret input"),
        ("MCP_URL", "tasks.example.com", "MCP_URL is not a URL such as https://app.example.com"),
        (
            "MCP_URL",
            "https://tasks.example.com/",
            "MCP_URL must end in /mcp, such as https://tasks.example.com/mcp",
        ),
        (
            "RATE_LIMIT_STORE",
            "memcached://s3cret",
            "RATE_LIMIT_STORE must begin with redis://, rediss:// or unix://",
        ),
        ("DATABASE_URL", "sqlite:///:memory:", UNSUPPORTED_DATABASE),
        ("DATABASE_URL", "sqlite://u:s3cret@h/x.db", UNSUPPORTED_DATABASE),
        (
            "DATABASE_URL",
            "sqlite:///x.db?timeout=s3cret",
            "DATABASE_URL has a value that SQLite cannot use",
        ),
        *(
            ("DATABASE_URL", f"postgresql://{rest}", f"DATABASE_URL {NOT_ENCODED}")
            for rest in [
                "app:Sup3r@S3cretTail@db.example/db",
                "app:Sup3r/S3cretTail@db.example/db",
                "app:12/S3cretTail@db.example/db",
                "app:Sup3r?S3cretTail@db.example/db",
                "app:Sup3r?S3cretTail=1@db.example/db",
                "app:Sup3r#S3cretTail@db.example/db",
                "app:Sup3r[S3cretTail@db.example/db",
                "app:Sup3r]S3cretTail@db.example/db",
                "app:Sup3r%S3cretTail@db.example/db",
                "app:Sup3r%@db.example/db",
                "app:Sup3r S3cretTail@db.example/db",
                "app@corp:S3cretTail@db.example/db",
                "db.example/db?user=app&password=Sup3r@S3cretTail",
                "db.example/db?password=Sup3r#S3cretTail",
                "db.example/db?sslpassword=Sup3r%S3cretTail",
            ]
        ),
        *(
            ("DATABASE_URL", f"postgresql://{rest}", INVALID_DATABASE_URL)
            for rest in [
                "u:p%00@h/d",
                "u:p%ff@h/d",
                "u:p\x01@h\x01/d",
                "h:0/d",
                "h:65536/d",
                "a:1,b:2,c:3/d?port=1,2",
                ",b/d",
                "%40abstract/d",
                "[::1/d",
                "[1:x]/d",
            ]
        ),
        ("DATABASE_URL", "postgresql:app:s3cret@h/d", INVALID_DATABASE_URL),
        ("DATABASE_URL", "host=h password=s3cret", INVALID_DATABASE_URL),
        *(
            ("DATABASE_URL", f"postgresql://h/d?{query}", INVALID_QUERY)
            for query in [
                "password=Sup3r&S3cretTail",
                "password=Sup3r&S3cretTail=1",
                "password=Sup3r=S3cretTail",
                "sslpassword=Sup3r&S3cretTail=1",
                "passfile=Sup3r&S3cretTail=1",
            ]
        ),
        *(
            ("CORS_ORIGINS", text, INVALID_ORIGIN)
            for text in [
                '["http://localhost:3000"]',
                "'http://localhost:3000'",
                "localhost:3000",
                "app.example.com",
                "//app.example.com",
                "https:/app.example.com",
                "null",
                "https://",
                "https://a.example?x=1",
                "https://a.example/#x",
                "https://a.example:port",
                "https://a.example:65536",
                "https://a.example https://b.example",
                "https://a.example;https://b.example",
                "ftp://a.example",
                "wss://a.example",
                "file:///home/ann/index.html",
                "javascript:1",
            ]
        ),
        *(
            ("CORS_ORIGINS", text, HAS_WILDCARD)
            for text in [
                "http://*.vercel.app",
                "http://localhost:*",
                "https://*",
                "*.example.com",
            ]
        ),
        *(
            ("CORS_ORIGINS", text, HAS_WILDCARD.replace(" (value 1)", ""))
            for text in ["*,https://a.example", "https://a.example, *", "*,*"]
        ),
        ("CORS_ORIGINS", "https://u:s3cret@a.example", f"CORS_ORIGINS (value 1) {HAS_CREDENTIALS}"),
        ("CORS_ORIGINS", "http://a, b", INVALID_ORIGIN.replace("1", "2")),
        *(
            (name, url, f"{name} {HAS_CREDENTIALS}")
            for name in ("BETTER_AUTH_URL", "JWKS_URL", "OTEL_EXPORTER_OTLP_ENDPOINT")
            for url in [
                "https://u:s3cret@h",
                "https://u:Sup3r/S3cretTail@h",
                "https://u:1/S3cret@h",
            ]
        ),
        *(
            (name, text, f"{name} is empty: set it to a value, or remove it")
            for name in ("JWT_ISSUER", "JWT_AUDIENCE", "PROMETHEUS_MULTIPROC_DIR")
            for text in ["", " "]
        ),
        (
            "PROMETHEUS_MULTIPROC_DIR",
            "/proc",
            "PROMETHEUS_MULTIPROC_DIR must be a folder that the service can write to",
        ),
        ("JWKS_URL", "h/keys", "JWKS_URL is not a URL such as https://app.example.com"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "h:4318",
            "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL such as https://app.example.com",
        ),
        (
            "RATE_LIMIT_STORE",
            "s3cret",
            "RATE_LIMIT_STORE must begin with redis://, rediss:// or unix://",
        ),
        *(
            ("RATE_LIMIT_STORE", f"redis://{rest}", f"RATE_LIMIT_STORE {NOT_ENCODED}")
            for rest in [":Sup3r@S3cretTail@h", ":Sup3r#S3cretTail@h", "u:Sup3r/S3cretTail@h:1"]
        ),
        *(
            ("RATE_LIMIT_STORE", f"redis://{rest}", INVALID_REDIS_URL)
            for rest in ["h:s3cret", "h?password=Sup3r&S3cretTail=1", "h?db=s3cret", "[s3cret"]
        ),
        ("BETTER_AUTH_SECRET", " \t\r\n", EMPTY_SECRET),
        ("BETTER_AUTH_SECRET", "\u200b\u00a0", EMPTY_SECRET),
        ("BETTER_AUTH_SECRET", "s3cret\udcff", "BETTER_AUTH_SECRET is not in UTF-8"),
        ("DATABASE_URL", "postgresql://u:s3cret\udcff@h/d", "DATABASE_URL is not in UTF-8"),
        (
            "DATABASE_URL",
            "postgresql://u:s3cret@h/d?pgbouncer=true",
            "DATABASE_URL has an option that PostgreSQL's libpq does not know: pgbouncer",
        ),
        ("BETTER_AUTH_SECRET", "", EMPTY_SECRET),
        (
            "BETTER_AUTH_SECRET",
            "-----BEGIN PUBLIC KEY-----\ns3cret\n-----END PUBLIC KEY-----",
            "BETTER_AUTH_SECRET is a PEM key or certificate; it must be a shared secret",
        ),
        *(
            ("BETTER_AUTH_URL", url, INVALID_SERVER_URL)
            for url in [
                "",
                "localhost:3000",
                "ftp://s3cret",
                "http://",
                "http:/h",
                "http://h:port",
                "http://h?",
                "http://a;http://b",
                "http://h:0",
                "http://[s3cret",
                "http://h?s3cret",
                "http://h#s3cret",
            ]
        ),
        (
            "AUTO_MIGRATE",
            "s3cret",
            "AUTO_MIGRATE Input should be a valid boolean, unable to interpret input",
        ),
    ],
)
def test_an_invalid_setting_is_reported_with_the_reason_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    _environment(monkeypatch, **{name: value})

    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)

    assert explain(raised.value) == line
    for text in (str(raised.value), repr(raised.value)):
        assert "s3cret" not in text.lower()


@pytest.mark.parametrize("name", sorted(Settings.model_fields.keys() - {"cors_origins"}))
def test_an_empty_setting_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _environment(monkeypatch, **{name.upper(): ""})

    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)

    assert explain(raised.value).startswith(f"{name.upper()} ")


def test_without_secret_and_url_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch)
    monkeypatch.delenv("BETTER_AUTH_SECRET")

    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)

    assert explain(raised.value) == NEITHER_IS_SET


# The second values are the results of `new URL(…).origin` in Node.js.
ORIGINS = [
    ("http://localhost:3000", "http://localhost:3000"),
    ("https://A.example:443/", "https://a.example"),
    ("HTTP://a.example:80", "http://a.example"),
    ("http://a.example:443", "http://a.example:443"),
    ("http://a.example:00080", "http://a.example"),
    ("http://a.example.", "http://a.example."),
    ("http://a_b.example", "http://a_b.example"),
    ("https://a.example/app/", "https://a.example"),
    ("http://[::1]:3000", "http://[::1]:3000"),
    ("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
    ("http://[2001:DB8::0:1]", "http://[2001:db8::1]"),
    ("http://[1:0:0:4:5:6:7:8]", "http://[1::4:5:6:7:8]"),
    ("http://[::ffff:192.168.0.1]", "http://[::ffff:c0a8:1]"),
    ("http://127.1:3000", "http://127.0.0.1:3000"),
    ("https://Bücher.example", "https://xn--bcher-kva.example"),
    ("https://faß.de", "https://xn--fa-hia.de"),
    ("https://例え.テスト", "https://xn--r8jz45g.xn--zckzah"),
    ("https://\uff21\uff22\uff23.example", "https://abc.example"),
    ("https://i❤.ws", "https://xn--i-7iq.ws"),
    ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
]


@pytest.mark.parametrize(("given", "origin"), ORIGINS)
def test_the_auth_servers_origin_is_the_default_issuer_and_audience(
    monkeypatch: pytest.MonkeyPatch, given: str, origin: str
) -> None:
    _environment(monkeypatch, BETTER_AUTH_URL=given)

    settings = Settings(_env_file=None)

    assert (settings.issuer, settings.audiences) == (origin, (origin,))


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ("http://h:3000", "http://h:3000/api/auth/jwks"),
        ("http://h:3000/", "http://h:3000/api/auth/jwks"),
        ("https://h/auth", "https://h/auth/jwks"),
        ("https://H:443/api/auth/", "https://h/api/auth/jwks"),
        ("https://bücher.example", "https://xn--bcher-kva.example/api/auth/jwks"),
    ],
)
def test_a_path_in_the_auth_servers_url_is_its_base_path(
    monkeypatch: pytest.MonkeyPatch, given: str, keys: str
) -> None:
    _environment(monkeypatch, BETTER_AUTH_URL=given)

    assert Settings(_env_file=None).key_set_url == keys


def test_the_key_set_may_have_any_url(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, BETTER_AUTH_URL="https://h/auth", JWKS_URL="https://k/keys?p=1")

    settings = Settings(_env_file=None)

    assert settings.key_set_url == "https://k/keys?p=1"
    assert (settings.issuer, settings.audiences) == ("https://h", ("https://h",))


def test_a_key_set_alone_needs_the_issuer_and_the_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, JWKS_URL="https://k/keys", JWT_ISSUER="i")
    monkeypatch.delenv("BETTER_AUTH_SECRET")

    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)
    monkeypatch.setenv("JWT_AUDIENCE", "a")
    settings = Settings(_env_file=None)

    assert explain(raised.value) == (
        "JWKS_URL needs BETTER_AUTH_URL, or both JWT_ISSUER and JWT_AUDIENCE: "
        "they determine which tokens are accepted"
    )
    assert settings.key_set_url == "https://k/keys"
    assert (settings.issuer, settings.audiences) == ("i", ("a",))


@pytest.mark.parametrize(("given", "used"), [("a", ("a",)), (" a , b,,", ("a", "b"))])
def test_issuer_and_audiences_can_be_set(
    monkeypatch: pytest.MonkeyPatch, given: str, used: tuple[str, ...]
) -> None:
    _environment(monkeypatch, BETTER_AUTH_URL="http://h", JWT_ISSUER="i,j\n", JWT_AUDIENCE=given)

    settings = Settings(_env_file=None)

    assert (settings.issuer, settings.audiences) == ("i,j", used)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (" http://a.example/ , ,https://b.example// ", ("http://a.example", "https://b.example")),
        ("", ()),
        ("*", ("*",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
        ("tauri://localhost:1420", ("tauri://localhost:1420",)),
        ("chrome-extension://abcdefgh", ("chrome-extension://abcdefgh",)),
        *((given, (origin,)) for given, origin in ORIGINS),
    ],
)
def test_origins_are_separated_by_commas_and_normalized(
    monkeypatch: pytest.MonkeyPatch, given: str, used: tuple[str, ...]
) -> None:
    _environment(monkeypatch, CORS_ORIGINS=given)

    assert Settings(_env_file=None).cors_origins == used


@pytest.mark.parametrize("given", ["the secret\n", " the secret\r\n", "\ufeffthe secret"])
def test_white_space_around_the_secret_is_stripped(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    _environment(monkeypatch, BETTER_AUTH_SECRET=given)

    secret = Settings(_env_file=None).better_auth_secret

    assert secret == SecretStr("the secret")


def test_without_an_auth_server_there_is_no_issuer_and_no_audience() -> None:
    settings = settings_for(SQLITE)

    assert (settings.issuer, settings.audiences) == (None, ())


def test_settings_are_frozen_and_hide_secrets() -> None:
    settings = settings_for(
        make_url("postgresql://u:s3cret@h/d?sslpassword=s3cret"),
        better_auth_secret="s3cret" * 9,
        rate_limit="1/day",
        rate_limit_store="redis://:s3cret@h",
    )

    with pytest.raises(ValidationError, match="frozen"):
        settings.auto_migrate = False  # type: ignore[misc]  # tested here
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("1/second", (1, 1)),
        ("100/minute", (100, 60)),
        ("5000/hour", (5000, 3600)),
        ("9/day", (9, 86400)),
    ],
)
def test_a_rate_is_a_number_of_requests_per_window(
    monkeypatch: pytest.MonkeyPatch, given: str, used: tuple[int, int]
) -> None:
    _environment(monkeypatch, RATE_LIMIT=given)

    assert Settings(_env_file=None).rate_limit == used


def test_rate_limit_store_needs_the_redis_package(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, RATE_LIMIT="1/day", RATE_LIMIT_STORE="redis://u:s3cret@h")
    assert Settings(_env_file=None).rate_limit_store == "redis://u:s3cret@h"

    monkeypatch.setattr("settings.find_spec", lambda _: None)
    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)
    assert explain(raised.value) == (
        "RATE_LIMIT_STORE needs a package that is not installed: run uv sync --extra redis"
    )


def test_rate_limit_store_needs_a_rate_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, RATE_LIMIT_STORE="redis://u:s3cret@h")

    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)

    assert explain(raised.value) == (
        "RATE_LIMIT_STORE needs RATE_LIMIT: without it, requests are not counted"
    )


def test_mcp_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, MCP="true")
    assert Settings(_env_file=None).mcp is True

    monkeypatch.setattr("settings.find_spec", lambda _: None)
    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)
    assert (
        explain(raised.value)
        == "MCP needs a package that is not installed: run uv sync --extra mcp"
    )


@pytest.mark.parametrize(
    ("url", "issuer", "server"),
    [
        ("https://app.example.com", None, "https://app.example.com/api/auth"),
        ("https://app.example.com/auth", None, "https://app.example.com/auth"),
        ("http://frontend:3000", "http://localhost:3000", "http://localhost:3000/api/auth"),
        ("http://frontend:3000/auth", "http://localhost:3000", "http://localhost:3000/auth"),
        ("http://frontend:3000", "https://id.example.com/x", "https://id.example.com/x"),
        (None, None, None),
    ],
)
def test_the_authorization_server_is_better_auths_base_url_as_clients_know_it(
    url: str | None, issuer: str | None, server: str | None
) -> None:
    settings = settings_for(SQLITE, better_auth_url=url, jwt_issuer=issuer)

    assert settings.authorization_server == server


def test_the_metadata_of_mcp_have_the_prefix_of_its_url() -> None:
    settings = settings_for(SQLITE, mcp_url="https://example.com/x/mcp")

    assert settings.mcp_metadata_url == (
        "https://example.com/x/.well-known/oauth-protected-resource/mcp"
    )


VALID_ENV_FILE = "BETTER_AUTH_SECRET=the secret of the file, of 32 bytes\n"


@pytest.fixture
def env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    _environment(monkeypatch)
    monkeypatch.delenv("BETTER_AUTH_SECRET")
    for kind in (Settings, DatabaseSettings):
        monkeypatch.setitem(kind.model_config, "env_file", path)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_an_env_file_is_read_with_and_without_a_byte_order_mark(
    env_file: Path, encoding: str
) -> None:
    env_file.write_text(VALID_ENV_FILE, encoding)

    secret = read_settings(Settings).better_auth_secret

    assert secret == SecretStr("the secret of the file, of 32 bytes")


def test_an_env_file_may_be_a_named_pipe(env_file: Path) -> None:
    os.mkfifo(env_file)
    writer = threading.Thread(target=env_file.write_text, args=[VALID_ENV_FILE])
    writer.start()

    secret = read_settings(Settings).better_auth_secret

    writer.join()
    assert secret == SecretStr("the secret of the file, of 32 bytes")


@pytest.mark.parametrize("kind", [Settings, DatabaseSettings])
@pytest.mark.parametrize(
    ("encoding", "comment"),
    [
        *((encoding, "for Ann") for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        *((encoding, "für Ann") for encoding in ("utf-16-le", "latin-1")),
    ],
)
def test_an_env_file_in_another_encoding_is_refused_in_one_line(
    env_file: Path,
    capsys: pytest.CaptureFixture[str],
    kind: type[DatabaseSettings],
    encoding: str,
    comment: str,
) -> None:
    env_file.write_text(f"# {comment}\n{VALID_ENV_FILE}", encoding)

    with pytest.raises(SystemExit) as ended:
        read_settings(kind)

    assert ended.value.code == 3
    line = f"Cannot start: {env_file} is not in UTF-8: save it as UTF-8\n"
    assert capsys.readouterr() == ("", line)


def test_an_unreadable_env_file_is_named(
    env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file.mkdir()  # Docker creates a directory if a mounted file is missing

    with pytest.raises(SystemExit) as ended:
        read_settings(Settings)

    assert ended.value.code == 3
    line = f"Cannot start: {env_file} cannot be read: Is a directory\n"
    assert capsys.readouterr() == ("", line)
