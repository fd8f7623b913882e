# The service as one image; compose.yaml runs it beside PostgreSQL, CONTRIBUTING.md says how it is checked.

FROM python:3.13-slim-trixie AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
# The image's own Python, and modules compiled now: the container cannot write them later.
ENV UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
WORKDIR /app
# Apart from the code, so that a change of it does not install everything again.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev --all-extras
COPY . ./
RUN python -m compileall -q ./*.py routes migrations

FROM python:3.13-slim-trixie
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1
# By number, since Kubernetes' runAsNonRoot cannot see that a name is not root's. It owns no file.
USER 10001:10001
EXPOSE 8000
# Whether the process lives; a balancer asks /ready, which also needs the database.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
CMD ["python", "main.py", "--host", "0.0.0.0", "--port", "8000"]
