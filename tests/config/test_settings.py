"""The service's own settings: where each comes from, and what stops the start."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from config_manager.config.errors import SettingsInvalid
from config_manager.config.settings import ENV_PREFIX, Settings, load_settings, parse_bind


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours, and a working directory of the test's own: both are the input here."""
    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write_env_file(text: str) -> None:
    Path(".env").write_text(text)


def message_of(**flags: Any) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(**flags)
    assert caught.value.description.exit_code == 2
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_without_anything_the_defaults_are_the_contracts() -> None:
    settings = load_settings()
    assert settings.model_dump(exclude={"dev"}) == {
        "data_dir": Path("data"),
        "bind": "127.0.0.1:8081",
        "mqtt_url": "auto:",
        "tls_cert_file": None,
        "tls_key_file": None,
        "allow_plain_http": False,
        "trusted_proxies": "",
        "public_url": None,
        "db_key_file": None,
        "credentials_dir": None,
        "bootstrap_token": None,
        "heartbeat_seconds": 10.0,
        "receipts_keep": "90d",
        "otlp_url": None,
        "home_assistant": "off",
        "writes_per_minute": None,
        "log_format": None,
        "log_level": "info",
    }
    assert settings.dev is False


def test_flags_win_over_the_environment_and_that_over_the_env_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_env_file(
        "CONFIG_MANAGER_LOG_LEVEL=error\nCONFIG_MANAGER_BIND=localhost:1\nCONFIG_MANAGER_DATA_DIR=file\n"
    )
    monkeypatch.setenv("CONFIG_MANAGER_BIND", "localhost:2")
    monkeypatch.setenv("CONFIG_MANAGER_DATA_DIR", "environment")
    settings = load_settings(data_dir=Path("flag"), bind=None)
    assert (settings.log_level, settings.bind, settings.data_dir) == (
        "error",
        "localhost:2",
        Path("flag"),
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("DATA_DIR", "/srv/data", Path("/srv/data")),
        ("BIND", "[::1]:0", "[::1]:0"),
        ("MQTT_URL", "mqtt://a,none:", "mqtt://a,none:"),
        ("DB_KEY_FILE", "/run/key", Path("/run/key")),
        ("HEARTBEAT_SECONDS", "0.5", 0.5),
        ("LOG_FORMAT", "console", "console"),
        ("LOG_LEVEL", "debug", "debug"),
        ("TRUSTED_PROXIES", "10.0.0.1, fd00::/8", "10.0.0.1, fd00::/8"),
        ("OTLP_URL", "http://collector:4318/otel", "http://collector:4318/otel"),
        ("PUBLIC_URL", "https://example.org/config/", "https://example.org/config"),
    ],
)
def test_each_variable_of_the_contract_is_read(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: object
) -> None:
    monkeypatch.setenv(ENV_PREFIX + name, text)
    assert getattr(load_settings(), name.lower()) == expected


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(ENV_PREFIX + name.upper(), "")
    assert load_settings() == Settings()
    assert load_settings().bootstrap_token is None


def test_what_is_not_ours_in_the_env_file_is_nobodys_business() -> None:
    write_env_file("OTHER=1\nCONFIG_MANAGER_TOKEN=x\nBARE\n# a comment\nexport MORE='a\nb'\n")
    assert load_settings().bind == "127.0.0.1:8081"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('CONFIG_MANAGER_DATA_DIR="./canary\n', 1),
        ("OTHER=1\n\n  CONFIG_MANAGER_DATA_DIR ./canary\n", 3),
        ("CONFIG_MANAGER_DATA_DIR\n", 1),
        ("A='one\ntwo'\r\n# more\r\n\r\ncanary canary\r\nB=1\r\n", 5),
    ],
)
def test_a_line_of_the_env_file_that_does_not_parse_is_named_and_not_repeated(
    text: str, line: int
) -> None:
    """Skipped in silence, the server would start on another, fresh directory of data."""
    write_env_file(text)
    with pytest.raises(SettingsInvalid, match=rf"^\.env: line {line} does not parse") as caught:
        load_settings()
    assert "canary" not in caught.value.detail


def test_a_home_directory_is_meant_where_no_shell_has_looked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_env_file("CONFIG_MANAGER_DATA_DIR=~/mydata\nCONFIG_MANAGER_DB_KEY_FILE=~/db.key\n")
    settings = load_settings()
    assert (settings.data_dir, settings.db_key_file) == (tmp_path / "mydata", tmp_path / "db.key")
    assert load_settings(data_dir=Path("~/flag")).data_dir == tmp_path / "flag"
    with pytest.raises(SettingsInvalid, match="^--data-dir: ~no-such-user-here"):
        load_settings(data_dir=Path("~no-such-user-here/data"))


def test_a_broker_url_that_does_not_parse_is_said_before_anything_is_made() -> None:
    with pytest.raises(SettingsInvalid, match="^CONFIG_MANAGER_MQTT_URL"):
        load_settings(mqtt_url="ftp://x")


BAD = {
    "BIND": ["8081", ":8081", "127.0.0.1", "h:", "h:x", "h:-1", "h:65536", "h:\u0663", "h:" + "9" * 5000],
    "HEARTBEAT_SECONDS": ["soon", "0", "-1", "3601", "nan", "inf", "1e999"],
    "LOG_FORMAT": ["JSON", "xml"],
    "LOG_LEVEL": ["warn", "10"],
    "BOOTSTRAP_TOKEN": ["two words", "tab\tbed", "caf\xe9", "line\nfeed", "\x7f"],
    "TRUSTED_PROXIES": [
        *("localhost", "10.0.0.1,other", "192.0.2.1:80", "[::1]", "fe80::1%eth0", "unix:", "*"),
        *("10.0.0.1/8", "10.0.0.0/33", "fd00::1/8", "0.0.0.0/0", "::/0", "10.0.0.0/8 fd00::/8"),
    ],
    "OTLP_URL": ["collector:4318", "grpc://collector", "http://", "http://a@b", "http://a#b", "http://a b"],
    "PUBLIC_URL": [
        *("http://example.org", "example.org", "https://", "https://user@example.org", "https:/x"),
        *("https://example.org:0", "https://example.org:65536", "https://example.org:", "https://a b"),
        *("https://example.org?", "https://example.org/a?b", "https://example.org#", "https://[::1"),
        *("https://example.org//a", "https://example.org/a/../b", "https://example.org/a//b"),
        *("https://example.org/%2e", "https://example.org/<b>", "https://ex\u00e4mple.org", "https://[v]"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in BAD.items() for t in texts])
def test_a_value_that_does_not_parse_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(ENV_PREFIX + name, text)
    assert message_of().startswith(f"{ENV_PREFIX}{name}: ")


@pytest.mark.parametrize("port", ["65536", "9" * 5000])
def test_a_port_that_is_too_large_is_told_how_large_one_is(port: str) -> None:
    assert message_of(bind="h:" + port) == "--bind: a port is 0 to 65535"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"bind": "nowhere"}, "--bind: "),
        ({"heartbeat_seconds": "soon"}, "--heartbeat-seconds: "),
        ({"log_level": "loud"}, "--log-level: "),
        ({"trusted_proxies": "a,b"}, "--trusted-proxies: "),
        ({"public_url": "ftp://a"}, "--public-url: "),
    ],
)
def test_a_flag_that_does_not_parse_is_named_as_a_flag(flags: dict[str, Any], name: str) -> None:
    assert message_of(**flags).startswith(name)


def test_an_env_file_that_is_no_text_stops_the_start_in_one_line() -> None:
    Path(".env").write_bytes(b"CONFIG_MANAGER_BIND=\xff:1\n")
    assert message_of().startswith(".env: cannot be read")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_env_file_that_cannot_be_read_stops_the_start_in_one_line() -> None:
    write_env_file("")
    Path(".env").chmod(stat.S_IWUSR)
    assert message_of().startswith(".env: cannot be read")


def test_a_bad_value_of_the_env_file_names_its_variable_too() -> None:
    write_env_file("CONFIG_MANAGER_LOG_LEVEL=loud\n")
    assert message_of().startswith("CONFIG_MANAGER_LOG_LEVEL: ")


def test_the_bootstrap_token_shows_neither_when_good_nor_when_bad(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONFIG_MANAGER_BOOTSTRAP_TOKEN", "hunter2")
    settings = load_settings()
    assert settings.bootstrap_token is not None
    assert settings.bootstrap_token.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump_json()}"
    monkeypatch.setenv("CONFIG_MANAGER_BOOTSTRAP_TOKEN", "hunter2 and more")
    assert "hunter2" not in message_of()


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8081", "127.0.0.1", 8081, True),
        ("127.8.9.10:0", "127.8.9.10", 0, True),
        ("localhost:65535", "localhost", 65535, True),
        ("[::1]:80", "::1", 80, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("192.168.0.1:80", "192.168.0.1", 80, False),
        ("example.com:80", "example.com", 80, False),
        ("127.example.com:80", "127.example.com", 80, False),
        ("localhost.example.com:80", "localhost.example.com", 80, False),
        ("127.1:80", "127.1", 80, False),  # a name to us: some resolvers take it for 127.0.0.1
    ],
)
def test_an_address_is_parsed_and_known_for_loopback(
    text: str, host: str, port: int, loopback: bool
) -> None:
    bind = parse_bind(text)
    assert (bind.host, bind.port, bind.is_loopback) == (host, port, loopback)


@pytest.mark.parametrize("bind", ["0.0.0.0:80", "[::]:80", "example.com:1", "127.example.com:80"])
def test_dev_listens_on_loopback_only(bind: str) -> None:
    assert "--dev listens on loopback only" in message_of(dev=True, bind=bind)
    assert load_settings(dev=False, bind=bind, allow_plain_http=True).bind == bind


@pytest.mark.parametrize("bind", ["0.0.0.0:80", "[::]:80", "example.com:1"])
def test_what_others_can_reach_is_not_served_in_the_clear_without_a_word(bind: str) -> None:
    said = message_of(bind=bind)
    assert "CONFIG_MANAGER_BIND" in said
    assert "--tls-cert-file" in said
    assert "--allow-plain-http" in said
    assert load_settings(bind=bind, tls_cert_file=Path("cert.pem")).bind == bind


def test_only_the_flag_says_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens the door to whoever is on this machine: no file lying about may do that."""
    write_env_file("CONFIG_MANAGER_DEV=true\nDEV=1\n")
    monkeypatch.setenv("CONFIG_MANAGER_DEV", "1")
    assert load_settings().dev is False


def test_dev_takes_loopback() -> None:
    assert load_settings(dev=True).bind_address.is_loopback


def test_settings_do_not_change_while_the_service_runs() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().bind = "h:1"
