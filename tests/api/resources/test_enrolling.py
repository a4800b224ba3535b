"""Each answer to an enrolment, as the table in docs/wire.md has them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from config_manager.config.enrolment import Enrolment
from config_manager.config.wire import keyid
from tests.kit.asgi import Answer, Caller, running


class Device:
    def __init__(self, rest: Caller, seed: int) -> None:
        self._rest = rest
        self.signs = SigningKey(bytes([seed]) * 32)

    async def enrols(
        self, token: str, instance: str = "north", *, opens: int = 9, **odd: Any
    ) -> Answer:
        seal_public = bytes(PrivateKey(bytes([opens]) * 32).public_key)
        hashed = hashlib.sha256(token.encode()).hexdigest()
        public = self.signs.verify_key.encode()
        what = Enrolment(hashed, "door", instance, public, seal_public)
        body = {
            "token": token, "service": "door", "instance": instance,
            "sign_public": base64.b64encode(public).decode(),
            "seal_public": base64.b64encode(seal_public).decode(),
            "proof": base64.b64encode(what.prove(bytes(self.signs))).decode(), **odd,
        }  # fmt: skip
        left = {name: value for name, value in body.items() if value is not ...}
        return await self._rest.ask("POST", "/api/v1/devices/enroll", left, token=None)


async def test_an_enrolment_is_answered_as_the_page_says(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)

        async def token(**of: str) -> str:
            body = {"service": "door", **of}
            given = await rest.ask("POST", "/api/v1/devices/tokens", body)
            return str(given.json["token"])

        ours, others = Device(rest, 1), Device(rest, 2)
        first = await token()
        refused = {
            "no token": await ours.enrols("unknown"),
            "no proof": await ours.enrols(first, proof=base64.b64encode(bytes(64)).decode()),
            "no name": await ours.enrols(first, "North!"),
            "nothing signed": await ours.enrols(first, proof=...),
            "unknown field": await ours.enrols(first, colour="red"),
            "low order": await ours.enrols(first, seal_public="A" * 43 + "="),
            "another's token": await ours.enrols(await token(instance="south")),
        }
        assert {name: answer.status for name, answer in refused.items()} == {
            "no token": 401, "no proof": 401, "no name": 400, "nothing signed": 422,
            "unknown field": 422, "low order": 422, "another's token": 403,
        }  # fmt: skip
        assert {one.headers["content-type"] for one in refused.values()} == {
            "application/problem+json"
        }
        enrolled = await ours.enrols(first)  # no refusal has used it up
        assert enrolled.status == 201
        told = enrolled.json
        assert told.pop("enrolled_at").endswith("Z")
        assert told == {
            "service": "door", "instance": "north", "revoked_at": None, "secrets": [],
            "sign_keyid": keyid(ours.signs.verify_key.encode()), "enrolled_by": "bootstrap",
        }  # fmt: skip
        assert (await ours.enrols(first)).status == 401
        assert (await others.enrols(await token())).status == 409
        assert (await ours.enrols(await token(), opens=8)).status == 201
