"""The command line: its output and the arguments of uvicorn. The e2e tests run real processes."""

import asyncio
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jose import jwt
from sqlalchemy import make_url

import main
from auth import TokenVerifier
from settings import ROOT, Settings
from telemetry import HiddenQuery
from tests.actors import SECRET, settings_for


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The arguments passed to uvicorn.run, which is replaced. Only the test's settings apply."""
    arguments: dict[str, Any] = {}

    def note(app: str, **others: object) -> None:
        arguments.update(others, app=app)

    monkeypatch.setattr("uvicorn.run", note)
    # It would affect the whole process; tests/unit/test_logs.py tests it.
    monkeypatch.setattr(main, "configure_logging", lambda level: arguments.update(log=level))
    monkeypatch.setattr(main, "ENV_FILE", tmp_path / ".env")
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.delenv("BETTER_AUTH_SECRET", raising=False)
    monkeypatch.delenv("BETTER_AUTH_URL", raising=False)
    return arguments


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["main.py", *arguments])
    main.main()


def test_without_arguments_it_serves_on_loopback(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _run(monkeypatch)

    assert served == {
        "app": "main:app",
        "host": "127.0.0.1",
        "port": 8000,
        "workers": 1,
        "reload": False,
        "root_path": "",
        "log": "INFO",
        "loop": "asyncio",
        "http": "protocol:Protocol",
        "ws": "none",
        "log_config": None,
        "timeout_graceful_shutdown": 8,
        "timeout_worker_healthcheck": 60,
    }
    assert (tmp_path / ".env").read_text().startswith("BETTER_AUTH_SECRET=")


def test_a_configured_secret_is_not_replaced(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BETTER_AUTH_SECRET", SECRET.get_secret_value())

    _run(monkeypatch, "--host", "0.0.0.0", "--port", "1", "--workers", "3", "--reload")  # noqa: S104

    assert (served["host"], served["port"]) == ("0.0.0.0", 1)  # noqa: S104
    assert (served["workers"], served["reload"]) == (3, True)
    assert not (tmp_path / ".env").exists()


@pytest.mark.parametrize("prefix", ["/x", "/x/", "x", "/a/b-c.d_e~1", "/"])
def test_a_path_prefix_is_passed_on(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    _run(monkeypatch, "--root-path", prefix)

    assert served["root_path"] == prefix


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("prefix", ["/ä", "/a b", "/a%20b", "/x?y", "/x\r\nX: y", "https://h/x"])
def test_a_path_prefix_that_would_be_encoded_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch, "--root-path", prefix)

    assert ended.value.code == 2
    assert "argument --root-path: may contain only letters" in capsys.readouterr().err


@pytest.mark.parametrize(("port", "workers"), [("0", "1"), ("65535", "999")])
def test_the_least_and_the_greatest_numbers_are_passed_on(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch, port: str, workers: str
) -> None:
    _run(monkeypatch, "--port", port, "--workers", workers)

    assert (served["port"], served["workers"]) == (int(port), int(workers))


USER_ID_REFUSED = (
    "argument user: must be 1 to 255 characters in UTF-8, at least one of them visible\n"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            (["--port", text], "argument --port: must be a whole number from 0 to 65535\n")
            for text in ["-1", "65536", "99999", "http", "1.5", "", "8_000", "٨٠٠٠", "9" * 5000]
        ),
        *(
            (["--workers", text], "argument --workers: must be a whole number from 1 to 999\n")
            for text in ["0", "-1", "1000", "x"]
        ),
        *(
            (
                ["token", "ann", "--minutes", text],
                "argument --minutes: must be a whole number from 1 to 999999\n",
            )
            for text in ["0", "-5", "1000000", "9" * 400, "x"]
        ),
        *(
            (["token", user], USER_ID_REFUSED)
            for user in ["", " ", "\u200b", "a" * 256, "ann\udcff"]
        ),
    ],
)
def test_an_invalid_argument_is_refused_with_the_reason(
    served: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch, *arguments)

    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f" error: {message}")
    assert served == {}


@pytest.mark.usefixtures("served")
def test_an_env_file_without_the_secret_is_not_changed_and_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("AUTO_MIGRATE=false\n")

    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch)

    assert ended.value.code == 3
    assert capsys.readouterr().err.startswith("Cannot start: Neither BETTER_AUTH_URL nor ")
    assert (tmp_path / ".env").read_text() == "AUTO_MIGRATE=false\n"


@pytest.mark.usefixtures("served")
def test_token_prints_a_token_that_is_valid_for_the_given_minutes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BETTER_AUTH_SECRET", SECRET.get_secret_value())

    _run(monkeypatch, "token", "ann", "--minutes", "7")

    token = capsys.readouterr().out.strip()
    verifier = TokenVerifier(settings_for(make_url("sqlite:///unused.db")))
    assert asyncio.run(verifier.verify(token)).id == "ann"
    claims = jwt.get_unverified_claims(token)
    assert claims == {"sub": "ann", "iat": claims["iat"], "exp": claims["iat"] + 7 * 60}


def test_help_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch, "--help")

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: main.py")


def test_a_short_secret_causes_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    main.create_app(settings_for(make_url("sqlite:///unused.db"), better_auth_secret="short"))

    assert caplog.messages == ["BETTER_AUTH_SECRET is shorter than 32 bytes"]


def test_the_fastapi_command_finds_the_app() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert pyproject["tool"]["fastapi"]["entrypoint"] == "main:app"


@pytest.mark.usefixtures("served")
def test_token_needs_the_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BETTER_AUTH_URL", "http://localhost:3000")

    with pytest.raises(SystemExit):
        _run(monkeypatch, "token", "ann")

    assert "token needs BETTER_AUTH_SECRET, which is not set" in capsys.readouterr().err


def test_the_app_is_created_on_first_access(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BETTER_AUTH_SECRET", "short")
    monkeypatch.setenv("LOG_LEVEL", "warning")

    app = main.app

    assert main.app is app
    assert served == {"log": "WARNING"}
    assert app.title == "Tasks"
    del main.app


@pytest.mark.usefixtures("served")
def test_settings_of_libraries_may_be_in_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {
        "BETTER_AUTH_SECRET": SECRET.get_secret_value(),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    monkeypatch.setattr("os.environ", {})

    app = main.app
    del main.app

    assert os.environ == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
    }
    assert isinstance(app.middleware_stack, HiddenQuery)


def test_the_module_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="module 'main' has no attribute 'application'"):
        _ = main.application
