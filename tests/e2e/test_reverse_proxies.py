"""A server behind nginx, Caddy and HAProxy, each set up by the text of docs/proxies.md: who calls, where it is found,
and what becomes of requests while the server restarts."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import trustme

from config_manager.api.rest.limits import FAILED_LOGINS, MAX_BODY_BYTES
from tests.kit import reverse_proxies
from tests.kit.pages import Page
from tests.kit.processes import (
    MOSQUITTO,
    TOKEN,
    Processes,
    Server,
    eventually,
    free_port,
    workshop,
)

pytestmark = [pytest.mark.torture, pytest.mark.timeout(300)]

DOOR = "/api/v1/config/door"
ADA, BOB, EVE = "127.0.0.2", "127.0.0.3", "127.0.0.4"
"""Callers, each at an address of its own."""


class House:
    """A server, and one proxy before it, once by itself and once at a path."""

    def __init__(self, kind: str, processes: Processes, directory: Path) -> None:
        self.processes = processes
        self.directory = directory
        self.authority = trustme.CA()
        self.port = free_port()
        self.server: Server = processes.server(
            directory / "data",
            processes.broker(directory / "broker").url,
            *("--bind", f"127.0.0.1:{self.port}", "--trusted-proxies", "127.0.0.1"),
        )
        self.url, self.url_at_path = (
            reverse_proxies.started(
                *(processes, kind, self.authority, directory / name, self.port),
                at_path=name == "path",
            )
            for name in ("site", "path")
        )
        self.server.put("door", {}).raise_for_status()

    def caller(self, address: str, url: str | None = None, token: str = TOKEN) -> httpx.Client:
        """Somebody at this address, who keeps their connections."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        transport = httpx.HTTPTransport(verify=context, local_address=address)
        client = self.processes.client(url or self.url, transport=transport)
        client.headers["Authorization"] = f"Bearer {token}"
        return client

    def clients_in_the_log(self) -> set[str]:
        return {line["client"] for line in self.server.process.lines if line["event"] == "request"}

    def audited(self) -> list[dict[str, Any]]:
        rows = self.server.get("/api/v1/audit", params={"limit": 1000}).json()["entries"]
        return [json.loads(row["body"]) for row in rows]


@pytest.fixture(scope="module", params=list(reverse_proxies.KINDS))
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    if MOSQUITTO is None or not reverse_proxies.is_installed(request.param):
        pytest.skip(f"{request.param} or mosquitto is not installed")
    with workshop() as (processes, directory):
        yield House(request.param, processes, directory)


def test_log_and_audit_show_the_caller_and_not_who_it_says_it_is(house: House) -> None:
    spoofed = {
        "X-Forwarded-For": "198.51.100.1, 127.0.0.1",
        "X-Forwarded-Prefix": "/spoofed",
        "X-Forwarded-Proto": "http",
        "Forwarded": "for=198.51.100.1",
    }
    written = house.caller(ADA).put(DOOR, json={"a": 1}, headers=spoofed)
    assert written.status_code == 200
    row = next(row for row in reversed(house.audited()) if row["action"] == "put")
    assert (row["client"], row["correlation_id"]) == (ADA, written.json()["correlation_id"])
    page = house.caller(ADA).get("/docs", headers=spoofed).text
    assert f"curl -X PUT {house.url}/api/v1" in page
    assert {line for line in house.clients_in_the_log() if line.startswith("198.")} == set()
    listed, told = house.processes.run(
        *("audit", "list", "--last", "100"),
        env={"CONFIG_MANAGER_URL": house.server.url, "CONFIG_MANAGER_TOKEN": TOKEN},
    )
    assert listed == 0
    assert any(ADA in line.split() and "put" in line.split() for line in told.text)


@pytest.mark.parametrize("where", ["site", "path"])
def test_a_stream_comes_through_piece_by_piece_and_ends_with_its_caller(
    house: House, where: str
) -> None:
    url = house.url if where == "site" else house.url_at_path
    with house.caller(ADA, url).stream("GET", "/api/v1/watch") as stream:
        text, said = stream.iter_text(), ""
        while "event: health" not in said:
            said += next(text)
        revision = house.server.put("door", {"seen": where}).json()["revision"]
        while f"id: {revision}\n" not in said.partition("event: revision")[2]:
            said += next(text)
        began = len(house.server.process.lines)

    def gone() -> bool:
        house.server.put(
            "door", {"unseen": where}
        )  # HAProxy notices when it has something to pass on
        lines = house.server.process.lines[began:]
        return any(one.get("path") == "/api/v1/watch" for one in lines)

    eventually(gone, within=5, what="its caller has left")


def test_one_who_guesses_tokens_locks_out_nobody_else_behind_the_same_proxy(house: House) -> None:
    guesser = house.caller(EVE, token="a-guess")
    answers = [
        guesser.get(DOOR, headers={"X-Forwarded-For": f"198.51.100.{number}"})
        for number in range(60)
    ]
    assert [a.status_code for a in answers] == [401] * FAILED_LOGINS + [429] * (60 - FAILED_LOGINS)
    assert house.caller(BOB, token="a-guess").get(DOOR).status_code == 401
    assert house.caller(EVE).get(DOOR).status_code == 200, "a valid token gets in"
    refused = house.server.process.line(
        lambda line: line.get("status") == 429 and line.get("client") == EVE
    )
    assert refused["error"] == "too-many-requests"

    house.server.stop()  # what was refused within the last minute is written now
    house.server.start()
    rows = [row for row in house.audited() if row["action"] == "access.refused"]
    clients = {one["client"] for row in rows for one in row["details"]["refusals"]}
    assert clients == {BOB, EVE}


def test_under_a_path_it_finds_itself_and_commands_find_it(house: House) -> None:
    caller = house.caller(ADA, house.url_at_path)
    assert caller.get("/health").json()["ok"]
    assert caller.put("/api/v1/config/at-a-path", json={"a": 1}).status_code in (200, 201)
    page = caller.get("/docs", headers={"X-Forwarded-Prefix": "/spoofed"})
    assert f"curl -X PUT {house.url_at_path}/api/v1" in page.text
    at = f"{house.url_at_path}/docs"
    links = {urljoin(at, link) for link in re.findall(r'href="([^"]+)"', page.text)}
    leading = {link for link in links if link.startswith(house.url_at_path)}
    assert {link for link in links - leading if not link.startswith("data:")} == set()
    assert len(leading) > 5
    assert {link: caller.get(link).status_code for link in leading} == dict.fromkeys(leading, 200)
    (described,) = caller.get("/openapi.json").json()["servers"]
    server = urljoin(f"{house.url_at_path}/openapi.json", described["url"]).rstrip("/")
    assert caller.get(f"{server}/api/v1/config/at-a-path").status_code == 200
    authority = house.directory / "authority.pem"
    house.authority.cert_pem.write_to_path(authority)
    code, told = house.processes.run(
        *("get", "at-a-path", "--json"),
        env={
            "CONFIG_MANAGER_URL": house.url_at_path,
            "CONFIG_MANAGER_TOKEN": TOKEN,
            "CONFIG_MANAGER_CA_FILE": str(authority),
        },
    )
    assert code == 0, told.text


def test_a_write_that_waits_for_the_broker_is_answered_once_it_is_there(house: House) -> None:
    query = {"wait": "confirmed", "timeout": "30"}
    answer = house.caller(ADA).put(DOOR, json={"a": 2}, params=query)
    assert answer.json()["propagation"] == "confirmed"


def test_a_body_that_is_too_large_is_refused_in_our_words(house: House) -> None:
    caller = house.caller(ADA)
    json_type = {"Content-Type": "application/json"}
    too_large = b'{"a": "' + b"x" * MAX_BODY_BYTES + b'"}'
    whole = caller.put(DOOR, content=too_large, headers=json_type)
    parts = (too_large[at : at + 65536] for at in range(0, len(too_large), 65536))
    in_parts = caller.put(DOOR, content=parts, headers=json_type)
    for answer in (whole, in_parts):
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
    fits = b'{"a": "' + b"x" * 100_000 + b'"}'
    assert caller.put(DOOR, content=fits, headers=json_type).status_code == 200


def test_a_body_of_many_times_that_size_is_refused_too_and_the_next_request_is_answered(
    house: House,
) -> None:
    caller = house.caller(ADA)
    content = b'{"a": "' + b"x" * 6 * MAX_BODY_BYTES + b'"}'
    refused = caller.put(DOOR, content=content, headers={"Content-Type": "application/json"})
    assert refused.status_code == 413  # nginx says so itself
    assert caller.put(DOOR, json={"a": 1}).status_code == 200


def test_thousands_of_requests_over_kept_connections_and_not_one_fails(house: House) -> None:
    def ask(number: int) -> set[int]:
        with house.caller(ADA) as caller:
            found: set[int] = set()
            for turn in range(200):
                if turn % 10:
                    found.add(caller.get(f"{DOOR}-{number}").status_code)
                else:
                    found.add(caller.put(f"{DOOR}-{number}", json={"n": turn}).status_code)
            return found

    with ThreadPoolExecutor(12) as pool:
        statuses = set().union(*pool.map(ask, range(12)))
    assert statuses == {200, 201}


def test_while_the_server_restarts_the_proxy_says_so_and_then_all_is_well(house: House) -> None:
    caller = house.caller(ADA)
    assert caller.put(DOOR, json={"a": 3}).status_code == 200
    house.server.stop()
    assert caller.put(DOOR, json={"a": 4}).status_code in (502, 503)
    house.server.flags += ("--public-url", "https://config.example.org/config/")
    house.server.start()
    assert house.server.ready["public_url"] == "https://config.example.org/config"
    eventually(
        lambda: caller.put(DOOR, json={"a": 5}).status_code == 200,
        within=10,
        what="the proxy reaches the server again",
    )
    assert {caller.put(DOOR, json={"n": n}).status_code for n in range(100)} == {200}
    assert "curl -X PUT https://config.example.org/config/api" in caller.get("/docs").text
    # nobody asked while it was away: the proxy keeps connections that lead nowhere any more
    house.server.stop()
    house.server.start()
    assert {caller.put(DOOR, json={"n": n}).status_code for n in range(100)} == {200}


def test_through_two_proxies_the_caller_is_still_the_caller(
    shop: tuple[Processes, Path],
) -> None:
    """The outer one overwrites, the inner one adds, and both are named."""
    if not reverse_proxies.is_installed("nginx"):
        pytest.skip("nginx is not installed")
    processes, directory = shop
    authority = trustme.CA()
    page = Page("proxies.md")
    block = page.block("upstream config-manager {")
    inner, outer = (
        reverse_proxies.Setting(directory / name, free_port(), upstream, at_path=False)
        for name, upstream in (("inner", free_port()), ("outer", 0))
    )
    outer = reverse_proxies.Setting(outer.directory, outer.port, inner.port, at_path=False)
    kept = block.replace(" ssl;", ";")
    for line in page.block("$proxy_add_x_forwarded_for").splitlines():
        header, ours = line.split()[1:3]
        kept, found = re.subn(rf"({header}) .*;", rf"\1 {ours}", kept)
        assert found == 1
    kept = re.sub(r" *ssl_certificate.*\n", "", kept)
    # an address of its own, as if it were another machine
    bound = block.replace("proxy_pass", "proxy_bind 127.0.0.10;\n        proxy_pass")
    server = processes.server(
        *(directory / "data", "none:", "--bind", f"127.0.0.1:{inner.upstream}"),
        *("--trusted-proxies", "127.0.0.1,127.0.0.10"),
    )
    for setting, text in ((inner, kept), (outer, bound)):
        reverse_proxies.certify(authority, setting.directory)
        file = setting.directory / "nginx.conf"
        file.write_text(reverse_proxies.in_nginx(setting, text))
        reverse_proxies.start(processes, ["nginx", "-e", "stderr", "-c", str(file)], setting)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    url = f"https://{reverse_proxies.NAME}:{outer.port}"
    for address in (ADA, BOB):
        transport = httpx.HTTPTransport(verify=context, local_address=address)
        caller = processes.client(url, transport=transport)
        caller.put(DOOR, json={}, headers={"X-Forwarded-For": "198.51.100.1"}).raise_for_status()
        row = server.get("/api/v1/audit", params={"after": 1, "limit": 100}).json()["entries"][-1]
        assert json.loads(row["body"])["client"] == address
        assert f"curl -X PUT {url}/api" in caller.get("/docs").text
