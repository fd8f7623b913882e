"""The paths that the app serves, and the methods of each."""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute
from starlette.types import Scope

# Few, because each may be as long as the head of a request.
PATHS_KEPT_MAX = 100


class Paths:
    """The path templates of an app's routes, in the order of the routes."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._methods: dict[re.Pattern[str], set[str]] = {}
        for route in iter_route_contexts(routes):
            methods = self._methods.setdefault(route.path_regex, set())
            methods |= route.methods or {"GET"}  # mounted static files list no methods
            if "GET" in methods:
                methods.add("HEAD")

        self.methods = lru_cache(PATHS_KEPT_MAX)(self._find)  # a request asks more than once

    def _find(self, path: str) -> AbstractSet[str]:
        """Return every method of a path; none if the path is unknown.

        If several templates match, the path belongs to the first one: `/api/tasks/export` is not a
        task, although `/api/tasks/{task_id}` matches it too.
        """
        matching = (methods for regex, methods in self._methods.items() if regex.match(path))
        return next(matching, frozenset())

    def similar(self, path: str) -> str | None:
        """Return the known path that differs only in superfluous slashes, if there is one."""
        single = re.sub("/+", "/", f"{path}/").rstrip("/") or "/"
        return single if single != path and self.methods(single) else None


def prefix_of(scope: Scope) -> str:
    """Return the prefix under which the app is served, such as `/x`, or an empty string."""
    # A mount, such as /docs/assets, appends its own path to root_path.
    prefix: str = scope.get("app_root_path", scope.get("root_path", ""))
    return prefix


def path_in_app(scope: Scope) -> str:
    """Return the path of a request without the prefix, as the routes define it."""
    return without_prefix(scope["path"], prefix_of(scope))


def without_prefix(path: str, prefix: str) -> str:
    """Remove the prefix from a path that begins with its segments."""
    return path[len(prefix) :] if f"{path}/".startswith(f"{prefix}/") else path
