import subprocess
import sys

_CODE = """
import sys, config_manager.client as c
c.follow, c.Applied
import config_manager.client.cli
heavy = {"quart", "hypercorn", "sqlcipher3", "trio_asyncio", "aiomqtt"} & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_the_client_loads_no_server_no_database_no_broker_client() -> None:
    subprocess.run([sys.executable, "-c", _CODE], check=True, timeout=30)
