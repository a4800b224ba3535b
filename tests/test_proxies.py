"""Nothing of ours asks a proxy of the environment for this machine: not a command, and not a test or a
benchmark, which would measure the proxy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.installed import ROOT

ROOMS = ("actors", "api", "client", "config", "storage")
BESIDE = ("bench", "examples", "tests")
HTTPX = {
    *("Client", "AsyncClient", "request", "stream"),
    *("get", "options", "head", "post", "put", "patch", "delete"),
}


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


@pytest.mark.parametrize("folder", BESIDE)
def test_httpx_is_told_not_to_look_at_the_environment(folder: str) -> None:
    asking = {f"httpx.{name}" for name in HTTPX}
    diverted = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in (ROOT / folder).rglob("*.py")
        for call in calls(path)
        if name_of(call) in asking
        and "trust_env=False" not in [ast.unparse(keyword) for keyword in call.keywords]
    ]
    assert diverted == []


def test_urllib_is_used_only_where_this_machine_is_asked_without_a_proxy() -> None:
    """`urlopen` has no say in it; who makes an opener of their own says when there is no proxy."""
    diverted = []
    for folder in (*ROOMS, *BESIDE):
        for path in (ROOT / folder).rglob("*.py"):
            made = {name_of(call).rpartition(".")[2] for call in calls(path)}
            if "urlopen" in made or ("build_opener" in made and "ProxyHandler" not in made):
                diverted.append(str(path.relative_to(ROOT)))
    assert diverted == []
