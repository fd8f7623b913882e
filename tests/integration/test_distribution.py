"""The schema can be distributed by owner, as docs/scaling.md describes; no Citus is needed here."""

from sqlalchemy import URL, create_engine, inspect
from starlette.testclient import TestClient

from main import create_app
from tests.actors import bearer, settings_for
from tests.citus import SET_PRIMARY_KEY


def test_every_unique_index_except_the_primary_key_contains_the_owner(postgresql_url: URL) -> None:
    engine = create_engine(postgresql_url)
    catalog = inspect(engine)

    unique = {
        index["name"]: index["column_names"]
        for table in catalog.get_table_names()
        for index in catalog.get_indexes(table)  # with those of the constraints
        if index["unique"]
    }
    engine.dispose()

    assert "uq_task_user_id_idempotency_key" in unique
    assert [name for name, columns in unique.items() if "user_id" not in columns] == []


def test_the_app_works_with_the_primary_key_of_a_distributed_table(empty_postgresql: URL) -> None:
    app = create_app(settings_for(empty_postgresql))
    engine = create_engine(empty_postgresql, isolation_level="AUTOCOMMIT")

    with TestClient(app, headers=bearer("ann")) as ann:
        assert ann.get("/ready").status_code == 200
        with engine.connect() as connection:
            connection.exec_driver_sql(SET_PRIMARY_KEY)
        key = inspect(engine).get_pk_constraint("task")["constrained_columns"]
        codes = [
            ann.post(
                "/api/tasks", json={"title": "x"}, headers={"Idempotency-Key": "k"}
            ).status_code
            for _ in "12"
        ]
    engine.dispose()
    with TestClient(create_app(settings_for(empty_postgresql)), headers=bearer("ann")) as ann:
        ready = ann.get("/ready").status_code

    assert key == ["id", "user_id"]
    assert codes == [201, 200]
    assert ready == 200
