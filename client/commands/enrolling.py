"""An instance enrols: it shows the one-time token and its public keys, and proves that it has them."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from config_manager.client.rules.identity import Identity
from config_manager.config.enrolment import Enrolment
from config_manager.config.errors import (
    ServerSays,
    ServerUnreachable,
    SettingsInvalid,
)
from config_manager.config.http_opener import opener_for
from config_manager.config.secret import Secret

_TIMEOUT_S = 30.0
_PATH = "/api/v1/devices/enroll"


def enrol(
    identity: Identity,
    service: str,
    instance: str,
    *,
    url: str,
    token: Secret,
    ca_file: Path | None = None,
) -> str:
    """Enrol over REST; the time at which the server noted it.

    Raises SettingsInvalid (url, file), ServerUnreachable, ServerSays (refused; says why).
    """
    enrolment = Enrolment(
        hashlib.sha256(token.reveal().encode()).hexdigest(),  # the proof covers the token's hash
        service,
        instance,
        SigningKey(identity.sign_key).verify_key.encode(),
        bytes(PrivateKey(identity.seal_key).public_key),
    )
    body = {
        "token": token.reveal(),  # its one use
        "service": service,
        "instance": instance,
        "sign_public": base64.b64encode(enrolment.sign_public).decode(),
        "seal_public": base64.b64encode(enrolment.seal_public).decode(),
        "proof": base64.b64encode(enrolment.prove(identity.sign_key)).decode(),
    }
    return str(_post(url, body, ca_file)["enrolled_at"])


def _post(url: str, body: dict[str, str], ca_file: Path | None) -> dict[str, object]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise SettingsInvalid("--url: expected http://host:port or https://host:port")
    opener = opener_for(parts, ca_file)
    request = urllib.request.Request(  # noqa: S310  http(s), see above
        url.rstrip("/") + _PATH,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
        method="POST",
    )
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as response:
            value: dict[str, object] = json.loads(response.read())
            return value
    except urllib.error.HTTPError as answer:
        with answer:
            raise _said(answer.code, answer.read()) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ServerUnreachable(f"no answer from {url} ({reason})") from None


def _said(status: int, content: bytes) -> ServerSays:
    try:
        problem = json.loads(content)
        name, detail = str(problem["type"]).rpartition("/")[2], str(problem["detail"])
    except (ValueError, LookupError, TypeError):
        name, detail = "no-problem", f"the server answered {status}, and not in our words"
    printable = "".join(c if c.isprintable() else " " for c in detail)
    return ServerSays(printable, name, status)
