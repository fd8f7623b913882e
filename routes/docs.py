"""The documentation pages. They load nothing from other servers."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

# Only the static files of this package are used: Swagger UI, ReDoc and FastAPI's icon.
ASSETS = Path(str(files("fastapi_offline"))) / "static"


class WholeFiles(StaticFiles):
    """Static files without ranges: Starlette's response to an invalid range is not the API's."""

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


# The groups of operations (OpenAPI's tags), in the order in which users need them.
SINGLE_TASKS = "Tasks"
MANY_TASKS = "Many tasks"
ALL_TASKS = "All tasks"
ACCOUNT = "Account"
MONITORING = "Monitoring"
WITH_USER_ID = " with user id"


def with_user_id(tag: str) -> str:
    """Name the group of the same operations under `/api/{user_id}/tasks`."""
    return tag + WITH_USER_ID


TAGS = [
    {"name": name, "description": description}
    for name, description in {
        SINGLE_TASKS: "Create, list, read, update, complete and delete tasks.",
        MANY_TASKS: "Update or delete many tasks with one request.",
        ALL_TASKS: "Follow the changes of all tasks, export them to a file, import such a file.",
        ACCOUNT: "See your tags and who you are, or erase all your data.",
        MONITORING: "For supervisors and load balancers; no token is needed.",
        **{
            with_user_id(tag): f"The same as *{tag}*, with your own user id in the path. "
            "Any other user id gets a 403."
            for tag in (SINGLE_TASKS, MANY_TASKS, ALL_TASKS)
        },
    }.items()
]

# JavaScript options, which FastAPI cannot pass because it writes parameters as JSON. In each group,
# deletions come last. The groups with a user id in the path repeat the others, so they start
# collapsed.
ARRANGEMENT = f"""
    operationsSorter: (a, b) => (a.get("method") === "delete") - (b.get("method") === "delete"),
    plugins: [() => ({{statePlugins: {{layout: {{wrapSelectors: {{
        isShown: (isShown) => (_, path, byDefault) =>
            isShown(path, byDefault && !String(path[1]).endsWith("{WITH_USER_ID}"))
    }}}}}}}})],
    presets: ["""

# The links are relative, so that the pages also work under the path prefix of a proxy.
SWAGGER_UI = bytes(
    get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Tasks",
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="docs/assets/favicon.png",
        swagger_ui_parameters={"persistAuthorization": True, "defaultModelsExpandDepth": 0},
    ).body
).replace(b"presets: [", ARRANGEMENT.encode())
# ReDoc's search needs a worker created from a `blob:` URL, which the policy of the page forbids.
REDOC = bytes(
    get_redoc_html(
        openapi_url="openapi.json",
        title="Tasks",
        redoc_js_url="docs/redoc.js",
        redoc_favicon_url="docs/assets/favicon.png",
        with_google_fonts=False,
    ).body
).replace(b"<redoc ", b'<redoc disable-search="true" ')

router = APIRouter(include_in_schema=False)
router.mount("/docs/assets", WholeFiles(directory=ASSETS))


@router.get("/")
async def home() -> Response:
    """Redirect to the documentation."""
    return RedirectResponse("docs")


@router.get("/docs")
async def swagger_ui() -> Response:
    """Show the operations in Swagger UI, which can call them."""
    return _page(SWAGGER_UI, styles="'self'")


@router.get("/redoc")
async def redoc() -> Response:
    """Show the operations in ReDoc."""
    return _page(REDOC, styles="'self' 'unsafe-inline'")  # ReDoc inserts <style> elements


@router.get("/docs/redoc.js")
async def redoc_js() -> Response:
    """Return ReDoc's script without the logo."""
    return Response(_redoc_js(), media_type="text/javascript")


@cache  # on the first request, not at the start of each process
def _redoc_js() -> bytes:
    # ReDoc loads a logo from its vendor's server, and shows none if that fails.
    script = (ASSETS / "redoc.standalone.js").read_bytes()
    return script.replace(b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,")


def _page(html: bytes, styles: str) -> Response:
    """Return the page with a policy that allows only its own inline scripts and this server."""
    scripts = re.findall(rb"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [f"'sha256-{b64encode(sha256(script).digest()).decode()}'" for script in scripts]
    policy = [
        "default-src 'none'",
        " ".join(["script-src 'self'", *hashes]),
        f"style-src {styles}",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return HTMLResponse(html, headers={"Content-Security-Policy": "; ".join(policy)})
