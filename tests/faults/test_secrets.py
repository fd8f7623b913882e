"""Faults and hostile input reveal no secrets, neither in responses nor in the log."""

import re

import httpx2

from tests import actors
from tests.actors import bearer
from tests.faults.conftest import Serve
from tests.faults.postgres import PostgreSQL
from tests.hostile_tokens import VALID_TOKEN, hs256

PASSWORD = "a-passw0rd-that-nobody-may-see"
WRITTEN = "what-a-user-wrote"
HOSTILE = [
    VALID_TOKEN[:-1],
    hs256({"sub": "ann", "exp": 1}),
    hs256({"sub": WRITTEN}),
    "a-session-token.of-two-segments",
]
SQL = re.compile(r"\b(SELECT .* FROM|INSERT INTO|UPDATE task|DELETE FROM|SET LOCAL)\b")


def test_responses_and_logs_contain_no_secrets(serve: Serve, postgres: PostgreSQL) -> None:
    url = postgres.url.set(password=PASSWORD).render_as_string(hide_password=False)
    server = serve(url)
    authorization = bearer("ann")
    responses: list[httpx2.Response] = []

    def request_everything() -> None:
        task = {"title": WRITTEN, "description": WRITTEN}
        for method, path in [("POST", ""), ("GET", ""), ("PUT", "/1"), ("GET", "/1")]:
            address = f"{server.url}/api/tasks{path}"
            responses.append(httpx2.request(method, address, json=task, headers=authorization))
        for body in [b"{", b"\xff", b'{"title": "\\ud800 ' + WRITTEN.encode() + b'"}', b"[" * 9000]:
            headers = authorization | {"Content-Type": "application/json"}
            responses.append(httpx2.post(f"{server.url}/api/tasks", content=body, headers=headers))
        for token in HOSTILE:
            headers = {"Authorization": f"Bearer {token}"}
            responses.append(httpx2.get(f"{server.url}/api/tasks", headers=headers))

    request_everything()
    postgres.demote()
    request_everything()
    postgres.kill()
    request_everything()
    postgres.start()
    server.stop()

    codes = {response.status_code for response in responses}
    assert codes == {200, 201, 400, 401, 422, 503}
    secret = actors.SECRET.get_secret_value()
    token = authorization["Authorization"].removeprefix("Bearer ")
    log = server.log.read_text()
    for hidden in (secret, PASSWORD, token, *HOSTILE):
        assert hidden not in log
        assert all(hidden not in response.text for response in responses)
    failed = [response.text for response in responses if response.status_code >= 400]
    for text in [*failed, log]:
        assert WRITTEN not in text
        assert "Traceback" not in text
        assert not SQL.search(text)
