"""The tables of the version that still recorded its revisions in Alembic's default table."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from unicodedata import normalize

from sqlalchemy import Connection, text

VERSION = """
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO alembic_version VALUES ('0001')
"""
FIRST = """
CREATE TABLE task ({id}, user_id VARCHAR(255) NOT NULL, title VARCHAR(200) NOT NULL,
    description VARCHAR(2000), status VARCHAR(16) NOT NULL, created_at {time} NOT NULL,
    updated_at {time} NOT NULL,
    CONSTRAINT ck_task_status CHECK (status IN ('pending', 'in_progress', 'completed')));
CREATE INDEX ix_task_user_id_id ON task (user_id, id)
"""
SECOND = """
ALTER TABLE task ADD COLUMN version BIGINT DEFAULT '1' NOT NULL;
ALTER TABLE task ADD COLUMN title_folded {text} DEFAULT '' NOT NULL;
ALTER TABLE task ADD COLUMN description_folded {text};
ALTER TABLE task ADD COLUMN idempotency_key VARCHAR(255);
ALTER TABLE task ADD COLUMN idempotency_digest VARCHAR(64);
ALTER TABLE task ADD COLUMN replayed BOOLEAN DEFAULT {false} NOT NULL;
CREATE INDEX ix_task_user_id_created_at_id ON task (user_id, created_at, id);
CREATE UNIQUE INDEX uq_task_user_id_idempotency_key ON task (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
DROP INDEX ix_task_user_id_id
"""
TO_SECOND = "UPDATE alembic_version SET version_num = '0002'"
TYPES = {
    "sqlite": {
        "id": "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT",
        "time": "DATETIME",
        "text": "TEXT",
        "false": "0",
    },
    "postgresql": {
        "id": "id BIGSERIAL NOT NULL PRIMARY KEY",
        "time": "TIMESTAMP WITH TIME ZONE",
        "text": 'TEXT COLLATE "C"',
        "false": "false",
    },
}

INSERT = text(
    "INSERT INTO task (user_id, title, description, status, created_at, updated_at, version,"
    " title_folded, description_folded, idempotency_key, replayed) VALUES (:user_id, :title,"
    " :description, 'pending', :now, :now, 1, :title_folded, :description_folded, :key, false)"
)


def execute(connection: Connection, script: str) -> None:
    """Execute a script statement by statement, because SQLite accepts only one at a time."""
    types = TYPES[connection.dialect.name]
    for statement in script.split(";"):
        connection.exec_driver_sql(statement.format(**types))


def insert(connection: Connection, tasks: Iterable[dict[str, Any]]) -> None:
    """Insert tasks like that version."""
    now = datetime.fromisoformat("2026-01-31T12:00:00+00:00")
    stored = now if connection.dialect.name == "postgresql" else "2026-01-31 12:00:00.000000"
    rows = [{"user_id": "ann", "description": None, "key": None, "now": stored} | t for t in tasks]
    for row in rows:
        for name in ("title", "description"):
            row[f"{name}_folded"] = row[name] and _folded(row[name])
    connection.execute(INSERT, rows)


def _folded(words: str) -> str:
    return normalize("NFC", normalize("NFD", words).casefold())
