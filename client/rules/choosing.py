"""Which of a message's values are for this instance. Pure."""

from __future__ import annotations

from dataclasses import replace

from config_manager.config import strict_json, wire
from config_manager.config.documents.config_update import ConfigUpdate


def chosen(update: ConfigUpdate, schema: str | None) -> ConfigUpdate:
    """The update with the values of the variant that names this schema; as it is, if none does.

    schema: the digest of the one that the service was built with; None: it published none. Of `variants` the one that was taken is left.
    """
    for one in update.variants:
        if schema in one.schemas:
            return replace(update, config=one.config, defaulted=one.defaulted, variants=(one,))
    return replace(update, variants=()) if update.variants else update


def fingerprint(update: ConfigUpdate) -> str:
    """The same for two updates, as they were chosen, that give a service the same: values, which of them are only
    filled in, and versions of secrets."""
    said = [update.config, sorted(set(update.defaulted)), dict(update.secrets)]
    return wire.digest(strict_json.dumps_sorted(said))
