"""The version of a task as an ETag, and what a request asks of it (RFC 9110, 8.8.3 and 13.1)."""

import re
from typing import NamedTuple, Self

from fastapi import Request

from errors import documented, invalid
from statements import ANY_VERSION

PRECONDITION_FAILED = documented(
    412,
    "The task has changed since the version that you sent",
    "The task has another version by now",
)

# Servers that compress on the way add the coding: Apache and Caddy `-gzip`, Jetty `--gzip`.
VERSION = re.compile(r"([1-9][0-9]{0,17})(?:(?:--?|;)(?:gzip|deflate|br|zstd))?")
# RFC 9110, 8.8.3; `w/`, which it does not allow, can mean nothing else.
ENTITY_TAG = re.compile(r'(?:[Ww]/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def _documented(**descriptions: str) -> dict[str, object]:
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


# For the contract. As parameters of the handlers they would cost each a tenth of its time.
DOCUMENTED = _documented(
    If_Match="An `ETag` of the task: the request takes effect only if the task still has this "
    "version, and gets a 412 otherwise.",
    If_None_Match="An `ETag` of the task: the request takes effect only if the task has another "
    "version, and gets a 412 otherwise.",
)
DOCUMENTED_READ = _documented(
    If_None_Match="The `ETag` that you have: as long as the task still has this version, you get a "
    "304 without a body."
)


def etag(version: int) -> str:
    """Name the version. It is a strong tag: the answer is the same, byte for byte."""
    return f'"{version}"'


class Preconditions(NamedTuple):
    """The versions that a request asks for: one of `match`, none of `none_match`; None is any."""

    match: frozenset[int] | None
    none_match: frozenset[int] | None

    @classmethod
    def of(cls, request: Request) -> Self:
        """Read the headers If-Match and If-None-Match."""
        return cls(_versions(request, "If-Match"), _versions(request, "If-None-Match"))


def is_current(request: Request, version: int) -> bool:
    """Tell whether the caller has this version already, so that a 304 is enough."""
    versions = _versions(request, "If-None-Match")
    return versions is not None and (versions == ANY_VERSION or version in versions)


def _versions(request: Request, name: str) -> frozenset[int] | None:
    """Read the versions out of the tags of a header; None where it is not there.

    A weak tag counts in If-Match too, although RFC 9110, 13.1.1 asks for a strong comparison: a
    proxy that compresses makes `W/"1"` of our `"1"`, and both name the same version of the row,
    which is what a change must not overwrite unseen.
    """
    header = ", ".join(request.headers.getlist(name))
    if not header:
        return None
    if header.strip() == "*":
        return ANY_VERSION
    if ENTITY_TAG.sub("", header).strip(" \t,") or not ENTITY_TAG.search(header):
        raise invalid("header", name, message='must be * or ETags as they were given: "1", "2"')
    # What is not a version of ours matches none.
    found = (VERSION.fullmatch(tag) for tag in ENTITY_TAG.findall(header))
    return frozenset(int(version[1]) for version in found if version)
