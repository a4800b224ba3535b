"""From a path to its routes: the route table as a tree of segments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from config_manager.api.rest.operations import Route
from config_manager.api.server.routes import ROUTES
from config_manager.config.errors import MalformedRequest, NotFound

_PATHS_KEPT = 1024
_LONGEST_KEPT = 128


class Found(NamedTuple):
    """routes: by method. params: the path's segments that stand for a parameter, by its name."""

    routes: Mapping[str, Route]
    params: Mapping[str, str]


def find(raw_path: bytes) -> Found:
    """The routes of a path; raises NotFound, MalformedRequest. Short paths are remembered; anybody may send
    long ones."""
    return _kept_find(raw_path) if len(raw_path) <= _LONGEST_KEPT else _walk(raw_path)


class _Node:
    """One path segment of the route table."""

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.any: tuple[str, _Node] | None = None
        self.routes: dict[str, Route] = {}


def _tree() -> _Node:
    root = _Node()
    for route in ROUTES:
        node = root
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                node.any = node.any or (segment.strip("{}"), _Node())
                node = node.any[1]
            else:
                node = node.fixed.setdefault(segment, _Node())
        node.routes[route.method] = route
    return root


_ROOT = _tree()


def _walk(raw_path: bytes) -> Found:
    """Segments are split before they are decoded, so %2F stays inside one."""
    node, params = _ROOT, dict[str, str]()
    nothing = NotFound("there is nothing at this path; GET /docs shows what there is")
    for raw in raw_path.removeprefix(b"/").split(b"/"):
        try:
            segment = unquote_to_bytes(raw).decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedRequest("the path is not UTF-8") from None
        if (fixed := node.fixed.get(segment)) is not None:
            node = fixed
        elif node.any is not None:
            params[node.any[0]] = segment
            node = node.any[1]
        else:
            raise nothing
    if not node.routes:
        raise nothing
    return Found(node.routes, MappingProxyType(params))  # kept for the next caller: never changed


_kept_find = lru_cache(_PATHS_KEPT)(_walk)
