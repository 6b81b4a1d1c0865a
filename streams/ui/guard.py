"""Who may ask: names of hosts against DNS rebinding, a token beyond loopback, origin and page token where something is
done, headers that let the page load nothing from anywhere else."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

PAGE_TOKEN = "X-Quantum-Token"
COOKIE = "quantum_ui"
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer."""


@dataclass(frozen=True)
class Guard:
    """What is asked of a request.

    Attributes:
        loopback: bound to loopback: only its names may stand in the Host header.
        names: further host names that may.
        token: what every request must show, as a cookie, once as `?token=`, or as a bearer; None: nothing.
        page_token: what a request that does something must show in `X-Quantum-Token`; it stands in the page.
    """

    loopback: bool
    names: frozenset[str] = frozenset()
    token: str | None = None
    page_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def host(self, header: str | None) -> bool:
        """Whether a Host header may be answered. A page of somebody else whose name was turned to our address sends
        that name; an address literal cannot be turned.

        >>> Guard(loopback=True).host("localhost:8000"), Guard(loopback=True).host("evil.example:8000")
        (True, False)
        """
        name = _name(header)
        if name is None:
            return False
        if name == "localhost" or name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback

    def known(self, request: web.Request) -> bool:
        """Whether a request shows the token."""
        if self.token is None:
            return True
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return any(_same(given, self.token) for given in (request.cookies.get(COOKIE, ""), bearer))

    def own(self, request: web.Request) -> bool:
        """Whether a request that does something comes from the page that this server gave out."""
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
        return (site == "same-origin" and origin is not None and urlsplit(origin).netloc == request.headers.get("Host")
                and request.content_type == "application/json"
                and _same(request.headers.get(PAGE_TOKEN, ""), self.page_token))


def middleware(guard: Guard) -> Middleware:
    """The guard before every handler."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not guard.host(request.headers.get("Host")):
            return _refused(403, "This host name is not served. Open the address that quantum ui printed; other names: "
                                 "quantum ui --name NAME")
        if not guard.known(request):
            token = request.query.get("token")
            if guard.token is not None and token is not None and request.path == "/" and _same(token, guard.token):
                return _let_in(guard.token, request.secure)
            return _refused(401, "A token is needed. Open the address that quantum ui printed: it has the token.")
        if request.method not in ("GET", "HEAD") and not guard.own(request):
            return _refused(403, "Only the page of this server may do that; load it again.")
        return await handler(request)

    return guarded


async def headers(_: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on an answer."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")


def is_loopback(host: str) -> bool:
    """Whether an address to bind to is this machine's own.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _let_in(token: str, secure: bool) -> web.Response:
    """The token as a cookie, and away from the address."""
    answer = web.Response(status=303, headers={"Location": "/"})
    answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict", secure=secure, path="/")
    return answer


def _refused(status: int, why: str) -> web.Response:
    return web.Response(status=status, text=why + "\n")


def _name(header: str | None) -> str | None:
    """Host name of a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{header}").hostname if header else None
    except ValueError:
        return None


def _same(given: str, right: str) -> bool:
    return secrets.compare_digest(given.encode(), right.encode())
