"""The spans of statements, and what they must not contain. tests/e2e has a real collector."""

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.types import Receive, Scope, Send

from telemetry import HiddenQuery, trace_statements


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exported: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return provider.get_tracer("tests")


def _attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_a_statement_is_a_span_without_its_values(
    database_url: URL, exported: InMemorySpanExporter, tracer: Tracer
) -> None:
    engine = create_engine(database_url)
    trace_statements(engine, tracer)

    with engine.connect() as connection:
        connection.execute(text("SELECT :value"), {"value": "s3cret"})
    engine.dispose()

    *_, span = exported.get_finished_spans()
    assert (span.name, span.kind, span.status.status_code) == (
        "SELECT",
        SpanKind.CLIENT,
        StatusCode.UNSET,
    )
    assert _attributes(span) == {
        "db.system.name": engine.dialect.name,
        "db.query.text": {"sqlite": "SELECT ?", "postgresql": "SELECT %(value)s"}[
            engine.dialect.name
        ],
    }


def test_a_failed_statement_is_a_span_with_an_error(
    database_url: URL, exported: InMemorySpanExporter, tracer: Tracer
) -> None:
    engine = create_engine(database_url)
    trace_statements(engine, tracer)

    with engine.connect() as connection, pytest.raises(DBAPIError):
        connection.execute(text("SELECT s3cret"))
    engine.dispose()

    *_, span = exported.get_finished_spans()
    assert span.status.status_code == StatusCode.ERROR
    assert span.status.description is None
    assert span.events == ()
    assert _attributes(span)["error.type"] in {"OperationalError", "UndefinedColumn"}


def test_a_failed_connection_is_not_a_span(exported: InMemorySpanExporter, tracer: Tracer) -> None:
    engine = create_engine(make_url("sqlite:////nonexistent/todo.db"))
    trace_statements(engine, tracer)

    with pytest.raises(OperationalError):
        engine.connect()

    assert exported.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("query", "attributes"), [(b"", {}), (b"q=s3cret", {"url.query": "REDACTED"})]
)
def test_the_query_string_is_not_in_the_span(
    exported: InMemorySpanExporter, tracer: Tracer, query: bytes, attributes: dict[str, str]
) -> None:
    called: list[Scope] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        called.append(scope)

    scope = {"type": "http", "query_string": query}
    with tracer.start_as_current_span("GET"):
        asyncio.run(HiddenQuery(app)(scope, *[None, None]))  # type: ignore[arg-type]

    (span,) = exported.get_finished_spans()
    assert _attributes(span) == attributes
    assert called == [scope]
    assert trace.get_current_span() is trace.INVALID_SPAN
