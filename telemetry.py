"""What a collector is told: a span for each request, which is FastAPI's, and for each statement."""

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext, ExecutionContext
from starlette.types import ASGIApp, Receive, Scope, Send


def trace_statements(engine: Engine, tracer: Tracer) -> None:
    """Make each statement a span, with its text, which holds placeholders, without its values."""
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
        if failure.execution_context is None:  # the connection failed
            return
        span: Span = vars(failure.execution_context)["span"]
        span.set_attribute("error.type", type(failure.original_exception).__name__)
        span.set_status(StatusCode.ERROR)
        span.end()


class HiddenQuery:
    """Takes what follows the `?`, where users write what they look for, out of FastAPI's span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with its span open."""
        if scope.get("query_string"):
            trace.get_current_span().set_attribute("url.query", "REDACTED")
        await self._app(scope, receive, send)
