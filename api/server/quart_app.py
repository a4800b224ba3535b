"""Quart around the pipeline: one catch-all view, because the route table is the pipeline's.

Imported late (api/server/app.py): it and what it brings are a third of the time that a start takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quart import Response, request
from quart_trio import QuartTrio

from config_manager.api.rest.limits import DRAIN_BYTES
from config_manager.api.rest.request import Api
from config_manager.api.server.arriving import ArrivingBody, Room
from config_manager.api.server.asgi_request import QUART_METHODS, asked_of
from config_manager.api.server.pipeline import HttpAnswer, admit, answer


class _ByPathAlone(QuartTrio):
    """Quart reads `Host` before any handler of ours is there, and fails on a name like `a..b`. Here it decides
    nothing."""

    def create_url_adapter(self, request: Any) -> Any:
        """As Quart's own, for the path of this request at whatever host."""
        if request is None:
            return super().create_url_adapter(None)
        return self.url_map.bind(
            "localhost", "/", None, request.scheme, request.method, request.path
        )


def make_quart(api: Api, room: Room) -> QuartTrio:
    """The application. Takes a while the first time; best called in a thread."""
    # given, because Flask can't find a namespace package's folder
    here = str(Path(__file__).parent)
    quart = _ByPathAlone(__name__, static_folder=None, root_path=here, instance_path=here)
    quart.config["MAX_CONTENT_LENGTH"] = None  # counted while it is read
    quart.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    quart.config["BODY_TIMEOUT"] = None  # the server cuts slow requests (api/server/listening.py)

    async def view(path: str = "") -> Response:  # noqa: ARG001
        asked = asked_of(request.scope, api)
        with ArrivingBody(*admit(asked, api), room) as body:
            async for chunk in request.body:
                body.take(chunk)
                if body.size > DRAIN_BYTES:
                    break
            asked.body = bytes(body.data)
            return _as_quart(await answer(asked, api, unkept=body.refusal))

    for rule in ("/", "/<path:path>"):
        quart.add_url_rule(rule, "api", view, methods=QUART_METHODS, merge_slashes=False)
    quart.url_map.merge_slashes = False

    async def not_from_a_route(error: Exception) -> Response:  # noqa: ARG001
        """Quart's own refusals (a method it does not know, a path it can't read) as our problems."""
        return _as_quart(await answer(asked_of(request.scope, api), api))

    quart.register_error_handler(Exception, not_from_a_route)
    return quart


def _as_quart(result: HttpAnswer) -> Response:
    response = Response(result.body, status=result.status)
    response.headers.clear()
    for name, value in result.headers:
        response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
    return response
