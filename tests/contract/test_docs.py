"""The documentation pages. tests/e2e/test_docs.py opens them in a browser."""

import re

import pytest
from starlette.testclient import TestClient


def test_the_root_redirects_to_the_docs_whatever_the_host(anonymous: TestClient) -> None:
    answer = anonymous.get("/", headers={"Host": "evil.example"}, follow_redirects=False)

    assert (answer.status_code, answer.headers["Location"]) == (307, "docs")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_links_only_to_this_server(anonymous: TestClient, path: str) -> None:
    page = anonymous.get(path)

    links = re.findall(r'(?:href|src|spec-url)="([^"]*)"', page.text)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert {anonymous.get(f"/{link}").status_code for link in links} == {200}
    assert anonymous.get("/docs/redoc.js").content.count(b"cdn.redoc.ly") == 0


@pytest.mark.parametrize(
    ("path", "styles"), [("/docs", "'self'"), ("/redoc", "'self' 'unsafe-inline'")]
)
def test_a_page_runs_only_its_own_scripts(anonymous: TestClient, path: str, styles: str) -> None:
    policy = anonymous.get(path).headers["Content-Security-Policy"]

    directives = dict(directive.split(" ", 1) for directive in policy.split("; "))
    scripts = directives.pop("script-src")
    assert re.fullmatch(r"'self'( 'sha256-[A-Za-z0-9+/]{43}=')*", scripts)
    assert directives == {
        "default-src": "'none'",
        "style-src": styles,
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
