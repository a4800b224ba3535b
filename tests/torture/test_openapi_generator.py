"""The Python client of openapi-generator, which is stricter than the suite's generator, does the same job:
what is written, read, refused and taken back, straight and behind a path prefix."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.kit.prefix_front import below
from tests.kit.processes import TOKEN, Processes, workshop

GENERATOR = Path(sys.executable).with_name("openapi-generator-cli")
PACKAGE = "generated_by_openapi_generator"

pytestmark = [
    pytest.mark.torture,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed"),
]


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Processes, Path]]:
    with workshop() as both:
        yield both


@pytest.fixture(scope="module")
def url(shop: tuple[Processes, Path]) -> Iterator[str]:
    """Of a server. The client is generated from its own document, as it is served below a prefix."""
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    with below("/config", server.url) as front:
        done = subprocess.run(
            [
                *(str(GENERATOR), "generate", "-i", f"{front}/openapi.json", "-g", "python"),
                *("-o", str(directory / "out"), "--package-name", PACKAGE),
            ],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        settings = (directory / "out" / PACKAGE / "configuration.py").read_text()
        assert f'"{front}"' in settings, "the relative server is the place of the document"
    sys.path.insert(0, str(directory / "out"))
    yield server.url
    sys.path.remove(str(directory / "out"))


class Generated:
    def __init__(self, url: str, token: str, stack: ExitStack) -> None:
        self.package = importlib.import_module(PACKAGE)
        settings = self.package.Configuration(host=url, access_token=token)
        settings.proxy = None
        self._client = stack.enter_context(self.package.ApiClient(settings))

    def __getattr__(self, tag: str) -> Any:
        """The calls of a tag."""
        return getattr(self.package, f"{tag.capitalize()}Api")(self._client)

    def problem(self, call: Any, *arguments: Any, **more: Any) -> Any:
        """The problem with which a call is refused; its `status` is that of the answer."""
        with pytest.raises(self.package.ApiException) as caught:
            call(*arguments, **more)
        problem = caught.value.data
        assert isinstance(problem, self.package.Problem)
        assert problem.status == caught.value.status
        return problem


@pytest.mark.parametrize("prefix", ["", "/config"])
def test_the_generated_client_does_a_day_s_work(url: str, prefix: str) -> None:
    service = "gate" if prefix else "door"
    with ExitStack() as stack:
        base = stack.enter_context(below(prefix, url)) if prefix else url
        admin = Generated(base, TOKEN, stack)
        models = admin.package
        assert admin.server.health().ok

        wanted = models.TokenRequest(
            name=f"for-{service}", role="write", services=[service, "stt-*"], expires="1h"
        )
        made = admin.tokens.create_token(wanted)
        me = Generated(base, made.token, stack)
        assert me.problem(me.tokens.list_tokens).type == "/problems/forbidden"

        assert me.config.put_config(service, {"open": False, "hours": [8, 18.5]}).version == 1
        values = {"motd": {"en": "é", "nested": [None, {"x": 2**53 - 1}]}}
        me.config.patch_config(service, {**values, "hours": None}, reason="as asked")
        read = me.config.get_config_with_http_info(service)
        assert read.data.config == {"open": False, **values}

        etag = read.headers[
            "etag"
        ]  # as it is spelled on the wire: this client keeps a plain dictionary
        newer = me.config.put_config(service, {"open": True}, if_match=etag)
        late = me.problem(me.config.put_config, service, {"open": False}, if_match=etag)
        assert (late.status, late.current_revision) == (412, newer.revision)
        once = [
            me.config.put_config(service, {"open": True, "again": 1}, idempotency_key=service)
            for _ in range(2)
        ]
        assert once[0].revision == once[1].revision
        wrong = me.problem(me.config.put_config, "stt-worker", {"vad_threshold": 7})
        assert (wrong.status, [one.pointer for one in wrong.errors]) == (422, ["/vad_threshold"])
        assert me.problem(me.config.put_config, "llm-worker", {}).status == 403

        both = models.EpochRequest(
            services={service: {"open": False}, "stt-worker": {}}, reason="night"
        )
        assert sorted(me.config.new_epoch(both).services) == sorted([service, "stt-worker"])
        newest = me.config.get_history(service, limit=1).entries[0]
        assert (newest.reason, newest.config_epoch != made.name) == ("night", True)
        before = {change.key: change.old for change in newest.changes}
        assert me.config.patch_config(service, before).config["open"] is True

        secret = models.SecretRequest(service=service, name="pin", value="1234")
        assert admin.secrets.set_secret(secret).version == 1
        why = models.RevealRequest(reason="a test")
        assert admin.secrets.reveal_secret(service, "pin", why).value == "1234"
        assert me.config.get_config(service).config["pin"] == "********"

        ticket = models.EnrolmentTokenRequest(service=service, instance="front", expires="5m")
        assert admin.devices.allow_enrolment(ticket).instance == "front"
        assert admin.devices.list_devices().devices == []
        assert me.status.status(service=service).instances == []
        assert admin.trust.trust_root().payload_type.endswith("root.v1+json")
        assert admin.audit.verify_audit().ok
        assert admin.audit.get_audit(limit=1).entries[0].seq == 1

        assert me.config.delete_config(service).deleted is True
        assert me.problem(me.config.get_config, service).type == "/problems/not-found"
        assert admin.tokens.revoke_token(made.name).revoked is True
        assert me.problem(me.config.list_configs).status == 401
