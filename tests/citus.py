"""Citus, if CITUS_URL names a single-node server that has it: see docs/scaling.md."""

import os
import re

from sqlalchemy import URL, create_engine, text

from settings import ROOT

CITUS_URL = os.environ.get("CITUS_URL")

SET_PRIMARY_KEY, *DISTRIBUTE = re.findall(
    r"^(?:ALTER TABLE task|SET citus|SELECT create_).*;$",
    (ROOT / "docs/scaling.md").read_text(),
    re.MULTILINE,
)


def distribute(url: URL, server: URL) -> None:  # pragma: no cover  # needs Citus
    """Distribute the tables of a database, which can then only be used as a template."""
    engine, other = (create_engine(of, isolation_level="AUTOCOMMIT") for of in (url, server))
    with engine.connect() as connection:
        for statement in ("CREATE EXTENSION citus", SET_PRIMARY_KEY, *DISTRIBUTE):
            connection.exec_driver_sql(statement)
    engine.dispose()
    # A template must not be in use, and Citus keeps a connection to each of its databases.
    with other.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false")
        end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = :name"
        connection.execute(text(end), {"name": url.database})
    other.dispose()
