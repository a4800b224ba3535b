"""The fast path and Quart are two ways to one behaviour: the same answers, to the byte."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.asgi import Answer, Caller, running

BIG = b'{"a":"' + b"x" * 1_100_000 + b'"}'
A = "/api/v1/config/a"

CASES: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("GET", A, None, {}),
    ("GET", "/api/v1/config/stt-worker", None, {}),
    ("GET", "/api/v1/config/stt-worker?view=stored", None, {}),
    ("GET", "/api/v1/config/stt-worker?view=other", None, {}),
    ("GET", "/api/v1/config/stt-worker?unknown=1", None, {}),
    ("GET", "/api/v1/config/nobody", None, {}),
    ("GET", "/api/v1/config/NOBODY", None, {}),
    ("GET", "/api/v1/config/a%2Fb", None, {}),
    ("GET", "/api/v1/config/%ff", None, {}),
    ("GET", "/api/v1/config/", None, {}),
    ("GET", "/api/v1/config/epoch", None, {}),
    ("GET", "/api/v1/config/a/history", None, {}),
    ("GET", "/api/v1/config/a/nothing", None, {}),
    ("GET", "/openapi.json", None, {}),
    ("GET", "/api/v1/trust/root", None, {"token": None}),
    ("GET", A, None, {"headers": {"If-Match": '"999"'}}),
    ("PUT", A, {"x": 1}, {"headers": {"Content-Encoding": "gzip"}}),
    ("GET", A, None, {"token": None}),
    ("GET", A, None, {"token": "wrong"}),
    ("GET", A, None, {"headers": {"X-Request-ID": "mine-1"}}),
    ("PUT", A, {"x": 1}, {}),
    ("PUT", A, {"x": 1}, {"chunks": 3}),
    ("PUT", A, {"x": 1}, {"token": None}),
    ("PUT", A, {"x": 1}, {"headers": {"Content-Type": "text/plain"}}),
    ("PUT", A, {"x": 1}, {"headers": {"If-Match": '"999"'}}),
    ("PUT", A, {"x": 1}, {"headers": {"If-Match": "rubbish"}}),
    ("PUT", A, {"x": 1}, {"headers": {"If-None-Match": "*"}}),
    ("PUT", A, {"x": 1}, {"headers": {"If-None-Match": "rubbish"}}),
    ("PUT", A, b"", {}),
    ("PUT", A, b"{", {}),
    ("PUT", A, b"[1]", {}),
    ("PUT", A, b'{"a":NaN}', {}),
    ("PUT", A, b'{"a":1,"a":2}', {}),
    ("PUT", A, b'{"a":"\xff"}', {}),
    ("PUT", A, b'{"A":1}', {}),
    ("PUT", A, b"[" * 100_000, {}),
    ("PUT", A, BIG, {}),
    ("PUT", A, BIG, {"chunks": 40}),
    ("PUT", A, BIG, {"token": None, "chunks": 40}),
    ("PUT", A, {"x": 1}, {"headers": {"Idempotency-Key": "x" * 300}}),
    ("PUT", A + "?dry_run=true", {"x": 2}, {}),
    ("PUT", A + "?wait=sometime", {"x": 2}, {}),
    ("PUT", "/api/v1/config/stt-worker", {"vad_threshold": 7, "nothing": 1}, {}),
    ("PUT", "/api/v1/config/epoch", {"x": 1}, {}),
    *(
        ("GET", A, None, {"headers": {"Host": host}})
        for host in (
            ".localhost",
            "a..b",
            "..",
            "a" * 70,
            "[::1",
            "a b",
            "xn--a",
            "a:b",
            "\xff",
            "",
        )
    ),
]


def told_apart(answer: Answer) -> tuple[int, Any, Any]:
    """The answer without what differs from one request to the next anyhow."""
    body = re.sub(rb"[0-9a-f]{8}-[0-9a-f-]{27}", b"UUID", answer.body)
    body = re.sub(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z", b"TIME", body)
    body = re.sub(rb'"(revision|version)":\d+', b'"N":0', body)
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("x-request-id", "traceparent", "etag", "content-length")
    }
    return answer.status, headers, json.loads(body) if body else None


@pytest.mark.parametrize(
    ("method", "target", "body", "options"),
    CASES,
    ids=[f"{c[0]} {c[1][:40]} {str(c[2])[:20]} {c[3]}"[:90] for c in CASES],
)
async def test_both_answer_alike(
    tmp_path: Path, method: str, target: str, body: Any, options: dict[str, Any]
) -> None:
    async with running(tmp_path) as system:
        fast, through_quart = Caller(system), Caller(system, fast_path=False)
        assert (await fast.ask("PUT", A, {"x": 0})).status == 201
        first = await fast.ask(method, target, body, **options)
        second = await through_quart.ask(method, target, body, **options)
        assert first.names == second.names
        assert told_apart(first) == told_apart(second)
        assert first.headers["content-length"] == str(len(first.body))
        assert second.headers["content-length"] == str(len(second.body))
        assert first.status < 500


def test_a_start_does_not_load_quart() -> None:
    program = "import sys, config_manager.api.serving; sys.exit('quart' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
