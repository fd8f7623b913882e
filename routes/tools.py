"""The tools that assistants call through /mcp. Their docstrings are what an assistant reads.

No tool has an argument for the user: the token alone says whose tasks these are.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from inspect import cleandoc
from typing import Annotated, Any, NamedTuple, Required, cast

from mcp.types import Tool as ToolDefinition
from mcp.types import ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, with_config
from pydantic.config import JsonDict
from sqlmodel import Session

import statements
from models import (
    TaskCreate,
    TaskPublic,
    TaskStatus,
    TaskUpdate,
    User,
    new_columns,
)
from routes.paging import Page, task_of
from routes.tasks import KeyedBody, TaskId, found, insert_task, total_of

# What differs from the query parameters of GET /api/tasks.
LIST_ARGUMENTS = {
    "status": "Only tasks with one of these statuses.",
    "priority": "Only tasks with one of these priorities.",
    "tag": "Only tasks with at least one of these tags; case is ignored.",
    "offset": "How many tasks to skip. To read page after page, use `cursor` instead.",
    "cursor": "The `next_cursor` of the previous page, to get the next one. Leave all other "
    "arguments as they were.",
    "total": "`false` skips counting the tasks, so that `total` is null.",
}


def _describe_arguments(schema: JsonDict) -> None:
    properties: Any = schema["properties"]
    for argument in properties.values():
        if "default" in argument and argument["default"] is None:
            del argument["default"]  # `without_null` has removed null from the type
    for name, description in LIST_ARGUMENTS.items():
        properties[name]["description"] = description


class TaskQuery(Page):
    """Which tasks to list. Unknown filters are refused: the list would be longer than meant."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_describe_arguments)


ListedTaskId = Annotated[
    TaskId, Field(description="The `id` of the task, from `list_tasks` or `add_task`.")
]


@with_config(json_schema_extra={"examples": [{"task_id": 1, "status": "in_progress"}]})
class TaskChange(TaskUpdate):
    """The fields to change. A field that is absent keeps its value."""

    task_id: Required[ListedTaskId]


class TaskChoice(BaseModel):
    """One task."""

    task_id: ListedTaskId


class TaskList(BaseModel):
    """One page of tasks."""

    tasks: list[TaskPublic]
    total: Annotated[
        int | None, Field(description="The number of matching tasks on all pages.", examples=[1])
    ]
    next_cursor: Annotated[
        str | None, Field(description="The `cursor` of the next page; null on the last one.")
    ]


class DeletedTask(BaseModel):
    """The id of the deleted task."""

    deleted_id: Annotated[int, Field(description="The `id` that the task had.", examples=[1])]


class Caller(NamedTuple):
    """The user, their session, and the limit on the number of their tasks."""

    user: User
    session: Session
    tasks_max: int


def add_task(task: TaskCreate, caller: Caller) -> dict[str, object]:
    """Create a task and return it with its `id`.

    Use it when the user wants to be reminded of something or to plan it. Only `title` is required;
    put details into `description`. Write `due_date` in the user's local time, without a time zone:
    `2026-01-31` for a whole day, `2026-01-31T17:00` for a time. Words such as "tomorrow" are not
    understood: work out the date yourself. Calling it twice creates two tasks.
    """
    user, session, tasks_max = caller
    columns = new_columns(task, datetime.now(UTC))
    return task_of(insert_task(columns, KeyedBody(), user, session, tasks_max))


def list_tasks(page: TaskQuery, caller: Caller) -> dict[str, object]:
    """Find tasks, and get the `id` that the other tools need.

    Without arguments it returns all tasks, newest first. With several filters, a task must match
    each of them. For tasks that are due today, send tomorrow's date as `due_before` and yesterday's
    with `T23:59` as `due_after`; for overdue ones, send today's date as `due_before` and the
    statuses `pending` and `in_progress`. If `next_cursor` is not null, there are more tasks.
    """
    read = caller.session.exec(page.statement(), params=page.parameters(caller.user)).all()
    return {
        "tasks": [task_of(row) for row in page.rows(read)],
        "total": total_of(page, read, caller.user, caller.session) if page.total else None,
        "next_cursor": page.cursors(read).get("next"),
    }


def update_task(change: TaskChange, caller: Caller) -> dict[str, object]:
    """Change some fields of a task and return the task.

    Send only what changes: other fields keep their values. null clears `description` or `due_date`.
    `tags` replaces all tags of the task. Write dates as for `add_task`.
    """
    fields = {name: value for name, value in change.items() if name != "task_id"}
    return _change(change["task_id"], cast("TaskUpdate", fields), caller)


def complete_task(choice: TaskChoice, caller: Caller) -> dict[str, object]:
    """Mark a task as done and return it.

    To reopen it, call `update_task` with the status `pending`.
    """
    return _change(choice.task_id, {"status": TaskStatus.COMPLETED}, caller)


def delete_task(choice: TaskChoice, caller: Caller) -> dict[str, object]:
    """Delete a task for good. It cannot be restored.

    Use it only if the user wants the task to be gone; for a task that is done, use `complete_task`.
    """
    parameters = {"owner": caller.user.id, "task_id": choice.task_id, "now": datetime.now(UTC)}
    found(caller.session.exec(statements.DELETE, params=parameters).one_or_none())
    return {"deleted_id": choice.task_id}


def _change(task_id: int, changes: TaskUpdate, caller: Caller) -> dict[str, object]:
    statement = statements.update_one(frozenset(changes)) if changes else statements.READ
    parameters = {"owner": caller.user.id, "task_id": task_id, **statements.new_values(changes)}
    return task_of(found(caller.session.exec(statement, params=parameters).one_or_none()))


class Tool(NamedTuple):
    """A tool: its function, the models of its arguments and its result, and hints for clients."""

    run: Callable[[Any, Caller], dict[str, object]]
    arguments: TypeAdapter[Any]
    result: type[BaseModel]
    hints: ToolAnnotations

    @property
    def name(self) -> str:
        """The name by which clients call it."""
        return self.run.__name__

    def definition(self) -> ToolDefinition:
        """Return what clients and their models read."""
        return ToolDefinition(
            name=self.name,
            title=self.name.replace("_", " ").capitalize(),
            description=cleandoc(self.run.__doc__ or ""),
            input_schema=self.arguments.json_schema(),
            output_schema=self.result.model_json_schema(mode="serialization"),
            annotations=self.hints,
        )


def _hints(
    *, read_only: bool = False, destructive: bool = False, idempotent: bool = True
) -> ToolAnnotations:
    return ToolAnnotations(
        read_only_hint=read_only,
        destructive_hint=destructive,
        idempotent_hint=idempotent,
        open_world_hint=False,
    )


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(add_task, TypeAdapter(TaskCreate), TaskPublic, _hints(idempotent=False)),
        Tool(list_tasks, TypeAdapter(TaskQuery), TaskList, _hints(read_only=True)),
        Tool(update_task, TypeAdapter(TaskChange), TaskPublic, _hints(destructive=True)),
        Tool(complete_task, TypeAdapter(TaskChoice), TaskPublic, _hints()),
        Tool(delete_task, TypeAdapter(TaskChoice), DeletedTask, _hints(destructive=True)),
    )
}
# What clients read of the tools, the same for every request.
DEFINITIONS = [tool.definition() for tool in TOOLS.values()]
