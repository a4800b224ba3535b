"""`plain`: the same service as a competent engineer writes it in an afternoon, for comparison.

FastAPI on uvicorn with everything `uvicorn[standard]` brings, sqlite3 in WAL with FULL, paho. It
validates, commits, publishes retained at QoS 1 and answers. It does not encrypt, sign, chain, read
back, lock optimistically or survive its broker: the comparison shows what these cost.

`python -m bench.plain DIRECTORY MQTT_PORT`
"""

from __future__ import annotations

import json
import socket
import sqlite3
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import uvicorn
from fastapi import FastAPI, HTTPException
from paho.mqtt.enums import CallbackAPIVersion

from config_manager.config.services import SAMPLE_CATALOGUE


def make_app(directory: Path, mqtt_port: int) -> FastAPI:
    app = FastAPI()
    database = sqlite3.connect(directory / "plain.db", check_same_thread=False)
    database.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        "CREATE TABLE configs (service TEXT PRIMARY KEY, version INT, config TEXT, at TEXT);"
        "CREATE TABLE history (service TEXT, version INT, config TEXT, at TEXT, id TEXT);"
        "CREATE INDEX by_service ON history (service, version);"
    )
    lock = threading.Lock()
    mqtt = paho.Client(CallbackAPIVersion.VERSION2)
    mqtt.connect("127.0.0.1", mqtt_port)
    mqtt.loop_start()

    def effective(service: str, config: dict[str, Any]) -> dict[str, Any]:
        shape = SAMPLE_CATALOGUE.shape(service)
        return config if shape is None else shape.effective(config).config

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ok": mqtt.is_connected()}

    @app.get("/api/v1/config/{service}")
    async def get(service: str) -> dict[str, Any]:
        row = database.execute(
            "SELECT version, config, at FROM configs WHERE service = ?", (service,)
        ).fetchone()
        if row is None:
            raise HTTPException(404)
        config = effective(service, json.loads(row[1]))
        return {"service": service, "config": config, "version": row[0], "updated_at": row[2]}

    @app.put("/api/v1/config/{service}")
    def put(service: str, config: dict[str, Any]) -> dict[str, Any]:
        shape = SAMPLE_CATALOGUE.shape(service)
        if shape is not None and shape.errors(config):
            raise HTTPException(422)
        text, at, change = json.dumps(config), datetime.now(UTC).isoformat(), str(uuid.uuid4())
        with lock, database:
            (version,) = database.execute(
                "INSERT INTO configs VALUES (?, 1, ?, ?) ON CONFLICT (service) DO UPDATE SET"
                " version = version + 1, config = excluded.config, at = excluded.at"
                " RETURNING version",
                (service, text, at),
            ).fetchone()
            database.execute(
                "INSERT INTO history VALUES (?, ?, ?, ?, ?)", (service, version, text, at, change)
            )
        full = effective(service, config)
        message = {"service": service, "version": version, "config": full, "correlation_id": change}
        mqtt.publish(f"plain/config/{service}", json.dumps(message), qos=1, retain=True)
        return {**message, "updated_at": at}

    return app


def main() -> None:
    app = make_app(Path(sys.argv[1]), int(sys.argv[2]))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    print(json.dumps({"event": "ready", "url": url}), flush=True)
    config = uvicorn.Config(app, log_level="info")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
