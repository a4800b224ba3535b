"""docs/rest.md by copy and paste, and the client that it generates doing a real job."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

import httpx
import pytest

from tests.kit.pages import Page
from tests.kit.prefix_front import below
from tests.kit.processes import Process, Processes, free_port

PACKAGE = "config_manager_client"


class Ran(NamedTuple):
    """What the page left behind: a server that still runs, and a generated package."""

    directory: Path
    url: str
    process: Process

    @property
    def admin(self) -> str:
        return (self.directory / "data" / "keys" / "admin.token").read_text().strip()


@pytest.fixture(scope="module")
def page(module_shop: tuple[Processes, Path]) -> Iterator[Ran]:
    """Every block of the page, in order, in one shell, and what the shell started is left running."""
    for tool in ("bash", "curl", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    processes, directory = module_shop
    text = Page("rest.md")
    text.write(directory)
    url = f"http://127.0.0.1:{free_port()}"
    blocks = [block for language, block in text.blocks if language == "bash"]
    script = "\n".join([*blocks, """echo '{"event": "the end of the page"}'; wait"""])
    assert "http://127.0.0.1:8081" in script
    process = processes.start(
        ["bash", "-e", "-o", "pipefail", "-c", script.replace("http://127.0.0.1:8081", url)],
        cwd=directory,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CONFIG_MANAGER_BIND": url.removeprefix("http://"),
        },
    )
    process.event("the end of the page", within=60)
    sys.path.insert(0, str(directory))
    try:
        yield Ran(directory, url, process)
    finally:
        sys.path.remove(str(directory))
        for name in [one for one in sys.modules if one.split(".")[0] == PACKAGE]:
            del sys.modules[name]


class Generated:
    """The package's functions by tag and name, with one client."""

    def __init__(self, url: str, token: str, stack: ExitStack) -> None:
        """stack: closes the client."""
        self.models = importlib.import_module(f"{PACKAGE}.models")
        package = importlib.import_module(PACKAGE)
        client = package.AuthenticatedClient(
            base_url=url, token=token, httpx_args={"trust_env": False}
        )
        self.client: Any = stack.enter_context(client)

    def ask(self, operation: str, *path: str, **more: Any) -> Any:
        """operation: `config.put_config`. The response, with `status_code`, `headers` and `parsed`."""
        module = importlib.import_module(f"{PACKAGE}.api.{operation}")
        return module.sync_detailed(*path, client=self.client, **more)

    def get(self, operation: str, *path: str, **more: Any) -> Any:
        """What a call that has to succeed answers."""
        response = self.ask(operation, *path, **more)
        assert 200 <= response.status_code < 300, response.content
        assert type(response.parsed).__name__ != "Problem"
        return response.parsed

    def values(self, **values: Any) -> Any:
        return self.models.Values.from_dict(values)


def test_the_page_runs_and_every_operation_is_generated_without_a_warning(page: Ran) -> None:
    said = "\n".join(page.process.text)
    assert "large-v3" in said, said
    assert not re.search("warning|error|unable|skipp|will not", said, re.IGNORECASE), said
    described = httpx.get(f"{page.url}/openapi.json", trust_env=False).json()
    wanted = {
        f"{operation['tags'][0]}/{_in_snake_case(operation['operationId'])}"
        for operations in described["paths"].values()
        for operation in operations.values()
    }
    made = {
        f"{path.parent.name}/{path.stem}"
        for path in (page.directory / PACKAGE / "api").glob("*/*.py")
        if path.stem != "__init__"
    }
    assert made == wanted
    assert len(made) > 35


def _in_snake_case(name: str) -> str:
    return re.sub("([A-Z])", r"_\1", name).lower()


@pytest.mark.parametrize("prefix", ["", "/config"])
def test_a_generated_client_does_a_day_s_work(page: Ran, prefix: str) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(below(prefix, page.url)) if prefix else page.url
        _a_day_s_work(url, page.admin, "gate" if prefix else "door", stack)


def _a_day_s_work(url: str, admin_token: str, service: str, stack: ExitStack) -> None:
    admin = Generated(url, admin_token, stack)
    models = admin.models
    assert admin.get("server.health").ok

    # a token of one's own, for two services
    made = admin.get(
        "tokens.create_token",
        body=models.TokenRequest(
            name=f"for-{service}",
            role=models.TokenRequestRole.WRITE,
            services=[service, "stt-*"],
            expires="1h",
        ),
    )
    me = Generated(url, made.token, stack)
    assert me.ask("tokens.list_tokens").status_code == 403

    # written, merged into, read
    first = me.get("config.put_config", service, body=me.values(open_=False, hours=[8, 18.5]))
    assert (first.version, first.updated_by) == (1, f"for-{service}")
    patch = me.values(hours=None, motd={"en": "é", "nested": [None, {"x": 2**53 - 1}]})
    merged = me.get("config.patch_config", service, body=patch, reason="as asked")
    wanted = {"open_": False, "motd": {"en": "é", "nested": [None, {"x": 2**53 - 1}]}}
    assert merged.config.to_dict() == wanted
    read = me.ask("config.get_config", service)
    etag = read.headers["etag"]
    assert read.parsed.config.to_dict() == wanted
    assert me.ask("config.get_config", service, if_none_match=etag).status_code == 304

    # somebody else was faster
    me.get("config.put_config", service, body=me.values(open_=True), if_match=etag)
    late = me.ask("config.put_config", service, body=me.values(open_=False), if_match=etag)
    assert (late.status_code, late.parsed.type_) == (412, "/problems/revision-conflict")
    assert late.parsed.current_revision == merged.revision + 1

    # repeated, tried, refused
    once = {"body": me.values(open_=True, again=1), "idempotency_key": f"once-{service}"}
    one, two = (me.get("config.put_config", service, **once) for _ in range(2))
    assert one.revision == two.revision
    tried = me.get("config.put_config", service, body=me.values(), dry_run=True)
    changes = {change.key: (change.old, change.new) for change in tried.changes}
    assert changes == {"again": (1, None), "open_": (True, None)}
    wrong = me.ask("config.put_config", "stt-worker", body=me.values(vad_threshold=7))
    assert wrong.status_code == 422
    assert isinstance(wrong.parsed, models.Problem)
    assert [(e.pointer, "from 0 to 1" in e.detail) for e in wrong.parsed.errors] == [
        ("/vad_threshold", True)
    ]
    assert me.ask("config.put_config", "llm-worker", body=me.values()).status_code == 403
    explained = me.get("server.problem", wrong.parsed.type_.rpartition("/")[2])
    assert explained.title == wrong.parsed.title

    # two services as one, and back to what was there
    both = models.EpochRequest.from_dict(
        {"services": {service: {"open_": False}, "stt-worker": {}}, "reason": "night"}
    )
    epoch = me.get("config.new_epoch", body=both)
    assert sorted(epoch.services) == sorted([service, "stt-worker"])
    history = me.get("config.get_history", service, limit=2)
    assert [entry.reason for entry in history.entries] == ["night", None]
    change = next(one for one in history.entries[0].changes if one.key == "open_")
    back = me.get("config.patch_config", service, body=me.values(open_=change.old))
    assert back.config["open_"] is True
    older = me.get("config.get_history", service, before=history.next_before)
    assert older.entries[0].revision < history.entries[1].revision

    # secrets: stored, listed, revealed for a reason, masked, deleted
    secret = models.SecretRequest(service=service, name="pin", value="1234")
    assert admin.get("secrets.set_secret", body=secret).version == 1
    listed = admin.get("secrets.list_secrets", service=service).secrets
    assert [(one.name, one.kept) for one in listed] == [("pin", 1)]
    why = models.RevealRequest(reason="a test")
    assert admin.get("secrets.reveal_secret", service, "pin", body=why).value == "1234"
    assert me.get("config.get_config", service).config["pin"] == "********"
    assert admin.get("secrets.delete_secret", service, "pin").deleted is True

    # devices, what runs, the root, the audit
    ticket = admin.get(
        "devices.allow_enrolment",
        body=models.EnrolmentTokenRequest(service=service, instance="front", expires="5m"),
    )
    assert (ticket.instance, ticket.expires_at.tzinfo is not None) == ("front", True)
    assert admin.get("devices.list_devices").devices == []
    assert me.get("status.status", service=service).instances == []
    assert admin.get("trust.trust_root").payload_type.endswith("root.v1+json")
    assert admin.get("trust.pending_root").pending is None
    verdict = admin.get("audit.verify_audit")
    assert (verdict.ok, verdict.problem, verdict.not_audited) == (True, None, [])
    rows = admin.get("audit.get_audit", after=verdict.rows - 1).entries
    assert json.loads(rows[0].body)["action"] == "device.allow"
    assert admin.get("audit.export_audit").signatures[0].keyid

    # done
    assert me.get("config.delete_config", service).deleted is True
    assert me.ask("config.get_config", service).parsed.status == 404
    assert admin.get("tokens.revoke_token", made.name).revoked is True
    assert me.ask("config.list_configs").parsed.type_ == "/problems/not-authenticated"


def test_behind_a_path_prefix_the_document_and_the_page_lead_to_what_is_there(page: Ran) -> None:
    with below("/config", page.url) as url, httpx.Client(trust_env=False) as http:
        document = http.get(f"{url}/openapi.json").json()
        base = urljoin(f"{url}/openapi.json", document["servers"][0]["url"])
        assert base == url + "/"
        assert http.get(urljoin(base, "health")).json()["ok"] is True
        shown = http.get(f"{url}/docs")
        links = sorted({*re.findall('href="([^"]+)"', shown.text)} - {"data:,"})
        assert "openapi.json" in links
        assert len(links) > 15
        found = {link: http.get(urljoin(f"{url}/docs", link)).status_code for link in links}
        assert set(found.values()) == {200}, found
