"""Task versions as ETags, and the preconditions of requests (RFC 9110, 8.8.3 and 13.1)."""

import re
from typing import NamedTuple, Self

from fastapi import Request

from errors import documented, invalid
from statements import ANY_VERSION

NOT_SATISFIED = "The task's version does not satisfy If-Match or If-None-Match"
PRECONDITION_FAILED = documented(
    412, "The task's version does not satisfy `If-Match` or `If-None-Match`", NOT_SATISFIED
)

# Proxies that compress append the coding: Apache and Caddy `-gzip`, Jetty `--gzip`.
VERSION = re.compile(r"([1-9][0-9]{0,17})(?:(?:--?|;)(?:gzip|deflate|br|zstd))?")
# RFC 9110, 8.8.3. Also accept `w/`, which the RFC does not allow but is unambiguous.
ENTITY_TAG = re.compile(r'(?:[Ww]/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def _headers(**descriptions: str) -> dict[str, object]:
    return {
        "parameters": [
            {
                "name": name.replace("_", "-"),
                "in": "header",
                "required": False,
                "schema": {"type": "string", "examples": ['"1"']},
                "description": f'{description} For example `"1"`.',
            }
            for name, description in descriptions.items()
        ]
    }


# For the contract. If handlers declared them as parameters, each request would take a tenth longer.
WRITE_HEADERS = _headers(
    If_Match="An `ETag` of the task: the request takes effect only if the task still has this "
    "version, and gets a 412 otherwise.",
    If_None_Match="An `ETag` of the task: the request takes effect only if the task has another "
    "version, and gets a 412 otherwise.",
)
READ_HEADERS = _headers(
    If_None_Match="The `ETag` that you have: as long as the task still has this version, you get a "
    "304 without a body."
)


def etag(version: int) -> str:
    """Return the ETag of a version. It is strong: responses are the same, byte for byte."""
    return f'"{version}"'


class Preconditions(NamedTuple):
    """The task's version must be in `match` and not in `none_match`; None means no condition."""

    match: frozenset[int] | None
    none_match: frozenset[int] | None

    @classmethod
    def of(cls, request: Request) -> Self:
        """Parse the headers If-Match and If-None-Match."""
        return cls(_versions(request, "If-Match"), _versions(request, "If-None-Match"))


async def refuse_preconditions(request: Request) -> None:
    """Refuse conditions on the version of a task where there are many tasks (RFC 9110, 13.1.1)."""
    for name in ("If-Match", "If-None-Match"):
        if name in request.headers:
            raise invalid("header", name, message="is supported for a single task only")


def is_current(request: Request, version: int) -> bool:
    """Return whether the client already has this version, and a 304 is enough."""
    versions = _versions(request, "If-None-Match")
    return versions is not None and (versions == ANY_VERSION or version in versions)


def _versions(request: Request, name: str) -> frozenset[int] | None:
    """Return the versions in the tags of a header, or None without the header.

    Weak tags match in If-Match too, although RFC 9110, 13.1.1 requires a strong comparison: proxies
    that compress turn our `"1"` into `W/"1"`, and both identify the same version of the row, which
    is what prevents lost updates.
    """
    lines = request.headers.getlist(name)
    if not lines:
        return None
    header = ", ".join(lines)
    if header.strip() == "*":
        return ANY_VERSION
    if ENTITY_TAG.sub("", header).strip(" \t,") or not ENTITY_TAG.search(header):
        raise invalid("header", name, message='must be * or ETags from responses, such as "1", "2"')
    # Other tags match no version.
    found = (VERSION.fullmatch(tag) for tag in ENTITY_TAG.findall(header))
    return frozenset(int(version[1]) for version in found if version)
