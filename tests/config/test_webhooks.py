"""Signatures of webhooks, as the library checks them that receivers use."""

from __future__ import annotations

import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from config_manager.config.secret import Secret
from config_manager.config.webhooks import make_webhook_secret, signed
from config_manager.config.world import SystemRandomness

BODY = '{"type":"revision","reason":"ünïcode"}'.encode()


def test_the_receivers_library_takes_what_we_sign_and_nothing_that_was_altered() -> None:
    secret = make_webhook_secret(SystemRandomness())
    headers = dict(signed(secret, "4f0c2d1e-1-412", time.time(), BODY))
    theirs = Webhook(secret.reveal())
    assert theirs.verify(BODY, headers)["reason"] == "ünïcode"
    for altered, body in (
        ({**headers, "webhook-id": "4f0c2d1e-1-413"}, BODY),
        ({**headers, "webhook-timestamp": str(int(time.time()) - 1)}, BODY),
        (headers, BODY.replace(b"revision", b"rollback")),
    ):
        with pytest.raises(WebhookVerificationError):
            theirs.verify(body, altered)
    with pytest.raises(WebhookVerificationError):
        Webhook(make_webhook_secret(SystemRandomness()).reveal()).verify(BODY, headers)


def test_an_old_message_can_not_be_played_back() -> None:
    secret = make_webhook_secret(SystemRandomness())
    headers = dict(signed(secret, "id", time.time() - 3600, BODY))
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secret.reveal()).verify(BODY, headers)


def test_the_signature_is_the_one_of_the_specifications_own_example() -> None:
    secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = dict(signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.9, body))
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
