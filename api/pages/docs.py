"""The page about the API, made of the OpenAPI document: it needs no script and nothing from outside."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from importlib import resources

from config_manager.api.rest.openapi import openapi
from config_manager.api.rest.operations import Route, undescribed
from config_manager.api.rest.problems import names_of, problem_type
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse
from config_manager.config.strict_json import JsonObject

_TOKEN = b"""     -H "Authorization: Bearer $CONFIG_MANAGER_TOKEN" \\
"""
"""The line of the example that a server without --dev wants."""
_CSP = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"
_CODE = re.compile(r"`([^`]+)`")
_HEADERS = ((b"content-security-policy", _CSP), *NO_STORE)
"""A cache that kept the page could show one caller's `Host` to another, who would send a token there."""


@undescribed
async def page(request: ApiRequest, api: Api) -> ApiResponse:
    base = api.proxies.base_url(request.peer, request.scheme, request.headers)
    shown = (
        _page(api.routes)
        .replace(b"<!-- base -->", escape(str(base)).encode())
        .replace(b"<!-- token -->", b"" if api.dev else _TOKEN)
    )
    return ApiResponse(200, shown, _HEADERS, b"text/html; charset=utf-8")


@cache
def _page(routes: tuple[Route, ...]) -> bytes:
    template = resources.files("config_manager.api.pages").joinpath("docs.html").read_text("utf-8")
    articles = [
        _article(path, method, described)
        for path, operations in openapi(routes)["paths"].items()
        for method, described in operations.items()
    ]
    return template.replace("<!-- operations -->", "\n".join(articles)).encode()


def _article(path: str, method: str, described: JsonObject) -> str:
    rows = [
        f"<tr><td><code>{escape(p['name'])}</code> ({escape(p['in'])})</td>"
        f"<td>{_html(p['description'])}</td></tr>"
        for p in described.get("parameters", [])
    ]
    refusals: list[str] = []
    for code, response in described["responses"].items():
        if "$ref" in response:
            refusals.append(_problem_links(int(code)))
        else:
            rows.append(f"<tr><td>{code}</td><td>{_html(response['description'])}</td></tr>")
    if refusals:
        rows.append(f"<tr><td>refused</td><td>{', '.join(refusals)}</td></tr>")
    told = "".join(f"<p>{_html(one)}</p>" for one in described["description"].split("\n\n"))
    return (
        f"<article><h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>"
        f"<p>{_html(described['summary'])}.</p>{told}<table>{''.join(rows)}</table></article>"
    )


def _html(text: str) -> str:
    """A description, whose only markup is `code`."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _problem_links(status: int) -> str:
    """A status, and the problems that come with it; each leads to its explanation."""
    links = " or ".join(
        f'<a href="{problem_type(name).removeprefix("/")}">{name}</a>' for name in names_of(status)
    )
    return f"{status} {links}" if links else str(status)
