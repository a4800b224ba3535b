"""A small client that is wrong in one way: `python wrong_client.py HOW MQTT_URL SERVICE ROOT`.

HOW: `in-nothing` it judges configurations as it should (no root but the first, no freshness, no disk).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.trust import Distrust, Seen, judge_root, judge_update


class Client:
    def __init__(self, how: str, service: str, root: Path) -> None:
        self._how = how
        self._service = service
        self._root = judge_root(root.read_bytes(), None, time.time())
        self._seen: Seen | None = None

    def hears(self, message: paho.MQTTMessage) -> None:
        if self._how == "deaf" and self._seen is not None:
            return
        try:
            update, digest = self._judged(message)
        except Distrust as verdict:
            if self._how != "silent":
                reason = "model" if self._how == "wrong-reason" else verdict.reason
                says(event="refused", reason=reason, detail=verdict.detail)
            return
        known = self._seen is not None and self._seen.mark >= update.mark
        self._seen = Seen(update.mark, digest)
        if update.deleted:
            says(event="deleted", epoch_seq=update.epoch_seq, revision=update.revision)
        elif not known or self._how in ("believes-everything", "forgets-marks"):
            says(
                event="applied",
                epoch_seq=update.epoch_seq,
                revision=update.revision,
                config=update.config,
            )

    def _judged(self, message: paho.MQTTMessage) -> tuple[ConfigUpdate, str]:
        if self._how == "believes-everything":
            envelope = wire.parse_envelope(bytes(message.payload))
            return ConfigUpdate.parse(envelope.payload), envelope.digest
        accepted = judge_update(
            bytes(message.payload),
            topic=message.topic,
            service=self._service,
            root=self._root,
            seen=None if self._how == "forgets-marks" else self._seen,
            now=time.time(),
        )
        return accepted.update, accepted.envelope.digest


def says(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def main(how: str, mqtt_url: str, service: str, root: str) -> None:
    client = Client(how, service, Path(root))
    address = urlsplit(mqtt_url)
    connection = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)

    def subscribe(*_: Any) -> None:
        connection.subscribe(wire.config_topic(service), 1)

    connection.on_connect = subscribe
    connection.on_message = lambda _, __, message: client.hears(message)
    connection.connect(str(address.hostname), address.port or 1883)
    connection.loop_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
