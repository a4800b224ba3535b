"""Standard Webhooks 1.0: how a message to a webhook is signed (standardwebhooks.com).

HMAC-SHA256 over `id.timestamp.body`. The id is the same each time a message is sent again, so a receiver that keeps
the ids it has seen takes each message once; the timestamp is that of the sending, so an old one can't be played back.
"""

from __future__ import annotations

import base64
import hmac

from config_manager.config.secret import Secret
from config_manager.config.world import Randomness

PREFIX = "whsec_"
_KEY_BYTES = 32


def make_webhook_secret(randomness: Randomness) -> Secret:
    """256 bits, as libraries for receivers take them: `whsec_` and base64."""
    return Secret(PREFIX + base64.b64encode(randomness.token(_KEY_BYTES)).decode())


def signed(secret: Secret, message_id: str, at: float, body: bytes) -> list[tuple[str, str]]:
    """The headers of a message. at: Unix seconds of this sending. message_id: without a dot."""
    key = base64.b64decode(secret.reveal().removeprefix(PREFIX))  # the receiver has the same
    timestamp = str(int(at))
    mac = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", f"v1,{base64.b64encode(mac).decode()}"),
    ]
