"""What a service pays for importing us: nothing of the server, and no event loop but its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from config_manager.api import extra

SERVER = tuple(package.replace("-", "_") for package in extra.SERVER)
TRIO = ("trio", "trio_asyncio", "outcome")
BROKER = ("aiomqtt", "paho")

_CODE = """
import sys
{code}
found = sorted(set({without!r}) & {{name.partition(".")[0] for name in sys.modules}})
sys.exit(f"loaded: {{found}}" if found else 0)
"""


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import config_manager.client", (*SERVER, *TRIO, *BROKER, "pydantic", "nacl", "click")),
        (
            "from config_manager.client import open_config, Change, NotNow, Explanation",
            (*SERVER, *TRIO, *BROKER, "click"),
        ),
        (
            "import config_manager.client.drivers.asyncio_driver; config_manager.client.open_config",
            (*SERVER, *TRIO, *BROKER, "click"),
        ),
        ("from config_manager.client import Config", (*SERVER, *TRIO, *BROKER, "click")),
        (
            """
from pydantic import BaseModel
from config_manager.client import Config
class Settings(BaseModel): n: int = 0
try: Config(Settings, service="x", state_dir="none", mqtt_url="none:").__enter__()
except Exception as error: assert "trust init" in str(error)
from config_manager.client.drivers.opening import read_layers
read_layers(Settings, "X_", environment={"X_N": "5"})
""",
            (*SERVER, "pydantic_settings"),  # for who has a BaseSettings only
        ),
        (
            "import config_manager.client as c; c.follow, c.Applied; import config_manager.client.commands.client",
            (*SERVER, "trio_asyncio", *BROKER),
        ),
    ],
)
def test_importing_the_client_loads_no_server_no_foreign_loop_and_no_broker_client(
    code: str, without: tuple[str, ...]
) -> None:
    program = _CODE.format(code=code, without=without)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
