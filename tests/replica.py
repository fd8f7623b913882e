"""A client that keeps a copy of its user's tasks, as docs/sync.md describes."""

from typing import Any

import httpx2


class Replica:
    """The copy, which each `pull` brings up to date."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self.since: str | None = None
        self.tasks: dict[int, dict[str, Any]] = {}

    def pull(self, limit: int = 100) -> None:
        """Ask for changes until there are no more."""
        more = True
        while more:
            more = self.pull_page(limit)

    def pull_page(self, limit: int) -> bool:
        """Ask once, and say whether there is more."""
        query = {"limit": limit} | ({} if self.since is None else {"since": self.since})
        response = self._client.get("/api/tasks/changes", params=query)
        if response.status_code == 410:
            self.since, self.tasks = None, {}
            return True
        assert response.status_code == 200, response.text
        changes = response.json()
        self.tasks |= {task["id"]: task for task in changes["tasks"]}
        for task_id in changes["deleted"]:
            self.tasks.pop(task_id, None)
        self.since = changes["next"]
        more: bool = changes["more"]
        return more

    def titles(self) -> list[str]:
        """The titles in the order in which the tasks were created."""
        return [self.tasks[task_id]["title"] for task_id in sorted(self.tasks)]
