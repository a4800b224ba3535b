"""What ends a process: a command failed, or a server or client can't start or go on as it was asked to.

The tree of all errors, and their docstrings' use, are in `config.errors`, which has these, too.
"""

from __future__ import annotations

from config_manager.config.error_table import (
    DESCRIPTIONS,
    ConfigManagerError,
    Description,
    describe,
)


class ServerUnreachable(ConfigManagerError): ...


class ServerSays(ConfigManagerError):
    """A server's problem, which keeps its name and status."""

    def __init__(self, detail: str, name: str, status: int) -> None:
        super().__init__(detail)
        self.name = name
        self.status = status

    @property
    def description(self) -> Description:
        """Of the error that became this problem in the server; if it is unknown here, of its status."""
        generic: Description | None = None
        for description in DESCRIPTIONS.values():
            if description.name == self.name:
                return description
            if generic is None and description.status == self.status:
                generic = description
        exit_code = generic.exit_code if generic is not None else 1
        return Description(self.name, "The server refused", self.status, exit_code)


class AuditBroken(ConfigManagerError): ...


class ReportBroken(ConfigManagerError):
    """A report, or evidence in it, does not verify, or it claims what its evidence does not say."""


class OpenDrift(ConfigManagerError):
    """Instances do not run what they should (`drift`)."""


class NotConformant(ConfigManagerError):
    """A client that was tried (`conformance`) does not do what docs/wire.md says."""


class NotDelivered(ConfigManagerError):
    """A test of a notification did not come to 2xx."""


class StartError(ConfigManagerError):
    """The process can't start, or can't go on, as it was asked to."""


class SettingsInvalid(StartError): ...


class PortTaken(StartError): ...


class DataDirUnusable(StartError):
    """A data directory can't be made, entered or written, and holds no database: another one will do."""


class DiskFailed(StartError):
    """A disk can't be read or written, beside a database or in a command's work."""


class DatabaseUnopenable(StartError): ...


class KeyFileUnsafe(StartError): ...


class DataDirInUse(StartError): ...


class RecoveryRefused(StartError):
    """A recovery key is mistyped or another's, or the sealed keys were altered."""


class RootRefused(StartError): ...


class NothingKept(StartError): ...


class NothingDelivered(StartError):
    """A service requires its configuration, and found neither a publisher nor a last-known-good file."""


class ConfigurationStale(StartError):
    """For longer than `max_stale_s` nothing has proved that the service runs what the publisher wants."""


class ForkedAway(StartError):
    """Raised by `current`, `changes()` and `hold()` in a child process if the configuration was opened before
    the fork: only the parent follows it. Open it in the child."""


describe(
    {
        ServerUnreachable: Description("server-unreachable", "No server answers", 500, 1, "error"),
        ServerSays: Description("server-says", "The server refused", 500, 1, "error"),
        AuditBroken: Description("audit-broken", "The audit does not verify", 500, 5, "error"),
        ReportBroken: Description("report-broken", "The report does not verify", 500, 5, "error"),
        OpenDrift: Description("open-drift", "Instances drift", 500, 7, "error"),
        NotConformant: Description(
            "not-conformant", "The client does not conform", 500, 5, "error"
        ),
        NotDelivered: Description("not-delivered", "Nobody was notified", 500, 1, "error"),
        StartError: Description("start-failed", "Cannot start", 500, 1, "error"),
        SettingsInvalid: Description(
            "settings-invalid", "A setting does not parse", 500, 2, "error"
        ),
        PortTaken: Description("port-taken", "The port is taken", 500, 2, "error"),
        DataDirUnusable: Description(
            "data-dir-unusable", "The data directory can't be used", 500, 2, "error"
        ),
        DiskFailed: Description("disk-failed", "The disk refused", 500, 3, "error"),
        DatabaseUnopenable: Description(
            "database-unopenable", "The database cannot be opened", 500, 3, "error"
        ),
        KeyFileUnsafe: Description(
            "key-file-unsafe", "Others can read a key file", 500, 3, "error"
        ),
        DataDirInUse: Description(
            "data-dir-in-use", "The data directory is in use", 500, 4, "error"
        ),
        RecoveryRefused: Description(
            "recovery-refused", "The recovery key does not open it", 500, 5, "error"
        ),
        RootRefused: Description("root-refused", "The trust root does not verify", 500, 5, "error"),
        NothingKept: Description("nothing-kept", "No configuration was kept", 500, 6, "error"),
        NothingDelivered: Description(
            "nothing-delivered", "No configuration was delivered", 500, 6, "error"
        ),
        ConfigurationStale: Description(
            "configuration-stale", "The configuration is out of date", 500, 1, "error"
        ),
        ForkedAway: Description("forked-away", "Opened before a fork", 500, 1, "error"),
    }
)
