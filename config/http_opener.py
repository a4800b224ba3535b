"""How a command reaches a server over HTTP, with the standard library alone."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path
from urllib.parse import SplitResult

from config_manager.config.errors import SettingsInvalid
from config_manager.config.this_machine import is_this_machine


def opener_for(
    url: SplitResult, ca_file: Path | None, *handlers: urllib.request.BaseHandler
) -> urllib.request.OpenerDirector:
    """Opens requests to this server: through no proxy if it is this machine.

    url: http or https. ca_file: the authorities of an https server's certificate, instead of the
    system's. handlers: beside those that follow from these two. Raises SettingsInvalid if the file
    can't be loaded.
    """
    own = list(handlers)
    if url.scheme == "https":
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise SettingsInvalid(f"--ca-file {ca_file}: {error.strerror or error}") from None
        own.append(urllib.request.HTTPSHandler(context=context))
    if is_this_machine(url.hostname or ""):
        own.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*own)
