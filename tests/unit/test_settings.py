"""What a setting may be, and what is said of one that is not."""

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from settings import Settings, explain
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
        ("sqlite:///tasks.db", "sqlite:///tasks.db"),
        ("sqlite:////var/lib/tasks.db", "sqlite:////var/lib/tasks.db"),
    ],
)
def test_a_database_url_is_taken_as_hosts_hand_it_out(
    monkeypatch: pytest.MonkeyPatch, given: str, used: str
) -> None:
    _environment(monkeypatch, DATABASE_URL=given)

    assert Settings(_env_file=None).database_url == make_url(used)


SHOULD_LOOK = "RATE_LIMIT must look like 100/minute; second, hour and day are known as well"
SHOULD_BEGIN = "DATABASE_URL must begin with postgresql:// or with sqlite:/// and a file's path"
NO_SERVER = "BETTER_AUTH_URL is not a URL; it looks like https://app.example.com"
NEITHER = (
    "Neither BETTER_AUTH_URL nor BETTER_AUTH_SECRET is set: "
    "put your Better Auth server's URL, or its secret, there"
)
IS_NO_URL = "DATABASE_URL is not a URL; it looks like postgresql://user:password@host/name"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("DATABASE_URL", "", IS_NO_URL),
        ("DATABASE_URL", "s3cret", IS_NO_URL),
        ("DATABASE_URL", "postgresql://u:s3cret@h:port/d", IS_NO_URL),
        ("DATABASE_URL", "mysql://u:s3cret@h/d", SHOULD_BEGIN),
        ("DATABASE_URL", "postgresql+asyncpg://u:s3cret@h/d", SHOULD_BEGIN),
        ("DATABASE_URL", "sqlite://", SHOULD_BEGIN),
        ("RATE_LIMIT", "", SHOULD_LOOK),
        ("RATE_LIMIT", "0/minute", SHOULD_LOOK),
        ("RATE_LIMIT", "100", SHOULD_LOOK),
        ("RATE_LIMIT", "100/fortnight", SHOULD_LOOK),
        (
            "RATE_LIMIT_STORE",
            "memcached://s3cret",
            "RATE_LIMIT_STORE must begin with redis://, rediss:// or unix://",
        ),
        ("DATABASE_URL", "sqlite:///:memory:", SHOULD_BEGIN),
        (
            "DATABASE_URL",
            "postgresql://u:s3cret@h/d?pgbouncer=true",
            "DATABASE_URL has an option that PostgreSQL's libpq does not know: pgbouncer",
        ),
        (
            "BETTER_AUTH_SECRET",
            "",
            "BETTER_AUTH_SECRET is empty; put the secret of your Better Auth server there",
        ),
        (
            "BETTER_AUTH_SECRET",
            "-----BEGIN PUBLIC KEY-----\ns3cret\n-----END PUBLIC KEY-----",
            "BETTER_AUTH_SECRET is a PEM key or certificate; it must be a shared secret",
        ),
        *(
            ("BETTER_AUTH_URL", url, NO_SERVER)
            for url in [
                "",
                "localhost:3000",
                "ftp://s3cret",
                "http://",
                "http://h:port",
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
def test_a_bad_setting_is_named_with_the_reason_and_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    _environment(monkeypatch, **{name: value})

    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)

    assert explain(raised.value) == line


def test_without_secret_and_url_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch)
    monkeypatch.delenv("BETTER_AUTH_SECRET")

    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)

    assert explain(raised.value) == NEITHER


@pytest.mark.parametrize(
    ("given", "url", "origin"),
    [
        ("http://localhost:3000", "http://localhost:3000", "http://localhost:3000"),
        ("https://A.example:443/", "https://A.example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example:80", "http://a.example"),
        ("https://a.example/app/", "https://a.example/app", "https://a.example"),
    ],
)
def test_the_auth_servers_origin_is_issuer_and_audience(
    monkeypatch: pytest.MonkeyPatch, given: str, url: str, origin: str
) -> None:
    _environment(monkeypatch, BETTER_AUTH_URL=given)

    settings = Settings(_env_file=None)

    assert (settings.better_auth_url, settings.issuer, settings.audience) == (url, origin, origin)


def test_issuer_and_audience_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, BETTER_AUTH_URL="http://a", JWT_ISSUER="i", JWT_AUDIENCE="a")

    settings = Settings(_env_file=None)

    assert (settings.issuer, settings.audience) == ("i", "a")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://a.example", ("http://a.example",)),
        (" http://a.example/ , ,https://b.example// ", ("http://a.example", "https://b.example")),
        ("", ()),
        ("*", ("*",)),
    ],
)
def test_origins_are_a_list_with_commas(
    monkeypatch: pytest.MonkeyPatch, given: str, used: tuple[str, ...]
) -> None:
    _environment(monkeypatch, CORS_ORIGINS=given)

    assert Settings(_env_file=None).cors_origins == used


def test_without_an_auth_server_there_is_no_issuer_and_no_audience() -> None:
    settings = settings_for(SQLITE)

    assert (settings.issuer, settings.audience) == (None, None)


def test_settings_are_frozen_and_do_not_show_their_secrets() -> None:
    settings = settings_for(make_url("postgresql://u:s3cret@h/d"), better_auth_secret="s3cret" * 9)

    with pytest.raises(ValidationError, match="frozen"):
        settings.auto_migrate = False  # type: ignore[misc]  # which is the point
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
def test_a_rate_is_so_many_requests_in_so_many_seconds(
    monkeypatch: pytest.MonkeyPatch, given: str, used: tuple[int, int]
) -> None:
    _environment(monkeypatch, RATE_LIMIT=given)

    assert Settings(_env_file=None).rate_limit == used


def test_a_store_needs_the_package_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, RATE_LIMIT_STORE="redis://u:s3cret@h")
    assert Settings(_env_file=None).rate_limit_store == "redis://u:s3cret@h"

    monkeypatch.setattr("settings.find_spec", lambda _: None)
    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)
    assert explain(raised.value) == (
        "RATE_LIMIT_STORE needs a package that is not installed: uv sync --extra redis"
    )
