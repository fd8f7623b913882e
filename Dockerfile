# The image of the service. compose.yaml runs it with PostgreSQL; CONTRIBUTING.md describes how it is tested.

FROM python:3.13-slim-trixie AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
# Use the image's own Python, and compile modules now: the container's file system is read-only.
ENV UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
WORKDIR /app
# Before the code, so that a change of the code does not install everything again.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev --all-extras
COPY . ./
RUN python -m compileall -q ./*.py routes migrations

FROM python:3.13-slim-trixie
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1
# A number, because Kubernetes' runAsNonRoot cannot verify a name. This user owns no files.
USER 10001:10001
EXPOSE 8000
# Checks only that the process is alive. Load balancers should use /ready, which also checks the database.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
CMD ["python", "main.py", "--host", "0.0.0.0", "--port", "8000"]
