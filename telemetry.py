"""OpenTelemetry traces: a span for each SQL statement, within FastAPI's span for each request."""

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext, ExecutionContext
from starlette.types import ASGIApp, Receive, Scope, Send


def trace_statements(engine: Engine, tracer: Tracer) -> None:
    """Create a span for each statement, with its text. The text has placeholders, not values."""
    attributes = {"db.system.name": engine.dialect.name}

    @event.listens_for(engine, "before_cursor_execute", named=True)
    def begin(statement: str, context: ExecutionContext, **_: object) -> None:
        vars(context)["span"] = tracer.start_span(
            statement.partition(" ")[0],
            kind=SpanKind.CLIENT,
            attributes={**attributes, "db.query.text": statement},
        )

    @event.listens_for(engine, "after_cursor_execute", named=True)
    def end(context: ExecutionContext, **_: object) -> None:
        vars(context)["span"].end()

    @event.listens_for(engine, "handle_error")
    def fail(failure: ExceptionContext) -> None:
        if failure.execution_context is None:  # connecting failed, so no statement was executed
            return
        span: Span = vars(failure.execution_context)["span"]
        span.set_attribute("error.type", type(failure.original_exception).__name__)
        span.set_status(StatusCode.ERROR)
        span.end()


class HiddenQuery:
    """Removes the query string, which may contain what users search for, from FastAPI's span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Redact the query string in the current span, and pass the request on."""
        if scope.get("query_string"):
            trace.get_current_span().set_attribute("url.query", "REDACTED")
        await self._app(scope, receive, send)
