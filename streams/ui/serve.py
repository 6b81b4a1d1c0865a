"""The server of the page: routes, the stream of news, start and end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from ipaddress import ip_address
from typing import Any, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from confluent_kafka import KafkaException

from schemas.codec import Codec
from streams.log import NoBroker, NoTopic
from streams.settings import Settings
from streams.ui import guard
from streams.ui.answers import Answer, Answers, NotThere
from streams.ui.guard import Guard
from streams.ui.hub import Full, Hub, as_json, message
from streams.ui.judging import Judge, Judged, Roster, Verifier
from streams.ui.looking import Looker, Tell

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
BODY_BYTES = 64 * 1024
BEAT_S = 15.0  # a comment on a stream without news, so that both sides see whether the other is there
AT_ONCE = 4  # questions that read the log at a time
STOP_S = 2.0


class CannotListen(Exception):
    """The address cannot be bound to; the message says why and what to do."""


class Looking(Protocol):
    """What follows the log: `streams.ui.looking.Looker`."""

    watched: threading.Event

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...


class Asked(Protocol):
    """What answers: `streams.ui.answers.Answers`."""

    def why(self, name: str) -> Answer: ...
    def course(self, policy_id: str) -> Answer: ...
    def diff(self, policy_id: str, before: int, after: int) -> Answer: ...
    def dead(self) -> Answer: ...
    def letters(self, topic: str) -> Answer: ...
    def redrive(self, topic: str, spots: list[tuple[int, int]], dry_run: bool) -> Answer: ...


@dataclass(frozen=True)
class Parts:
    """What the server stands on.

    Attributes:
        about: what the page says of itself: broker, prefix, version.
        looking: makes what follows the log, from where it tells news.
        answers: answers what is asked for once.
        judged: makes a report of verify.
        stop_judging: ends one that runs.
        every_s: time between runs of verify; 0: once, and when asked.
    """

    about: Mapping[str, str]
    looking: Callable[[Tell], Looking]
    answers: Asked
    judged: Judged
    stop_judging: Callable[[], None]
    every_s: float


def parts(settings: Settings, codec: Codec, roster: Roster, every_s: float, version: str) -> Parts:
    """What serves a broker."""
    verifier = Verifier(settings, roster)
    about = {"broker": settings.broker, "prefix": settings.topic_prefix, "version": version}
    return Parts(about, lambda tell: Looker(settings, codec, tell), Answers(settings, codec), verifier, verifier.stop,
                 every_s)


class Redrive(msgspec.Struct, forbid_unknown_fields=True):
    """What a page asks to send again; each place as partition and offset."""

    topic: str
    places: list[tuple[int, int]]
    dry_run: bool


class Server:
    """The handlers. Made in the event loop that serves them."""

    def __init__(self, parts: Parts, own: Guard) -> None:
        self._parts, self._guard = parts, own
        self._files = _static(own.page_token)
        self._hub = Hub(asyncio.get_running_loop(), self._watch)
        self._looker = parts.looking(self._hub.tell)
        self._judge = Judge(parts.judged, self._hub.tell, parts.every_s, self._looker.watched.is_set)
        self._places = asyncio.Semaphore(AT_ONCE)

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[guard.middleware(self._guard), self._errors], client_max_size=BODY_BYTES)
        app.on_response_prepare.append(guard.headers)
        app.on_shutdown.append(self._hang_up)
        app.cleanup_ctx.append(self._running)
        app.add_routes([
            web.get("/", self._page), web.get("/static/{name}", self._static),
            web.get("/api/live", self._live), web.get("/api/why", self._why), web.get("/api/course", self._course),
            web.get("/api/diff", self._diff), web.get("/api/dead", self._dead), web.get("/api/letters", self._letters),
            web.post("/api/redrive", self._redrive), web.post("/api/verify", self._verify),
        ])
        return app

    # ------------------------------------------------------------------ begin and end
    async def _running(self, _: web.Application) -> AsyncIterator[None]:
        self._watch(True)
        self._hub.linger()
        self._looker.start()
        judging = asyncio.create_task(self._judge.run())
        yield
        self._parts.stop_judging()
        judging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await judging
        await asyncio.to_thread(self._looker.stop)

    async def _hang_up(self, _: web.Application) -> None:
        self._hub.close()

    def _watch(self, watched: bool) -> None:
        (self._looker.watched.set if watched else self._looker.watched.clear)()

    # ------------------------------------------------------------------ files
    async def _page(self, _: web.Request) -> web.Response:
        return self._files["index.html"]()

    async def _static(self, request: web.Request) -> web.Response:
        made = self._files.get(request.match_info["name"])
        if made is None or request.match_info["name"] == "index.html":
            raise web.HTTPNotFound
        return made()

    # ------------------------------------------------------------------ news
    async def _live(self, request: web.Request) -> web.StreamResponse:
        try:
            with self._hub.joined() as news:
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                snapshot = self._looker.snapshot() | {"judged": self._judge.state, "about": dict(self._parts.about),
                                                      "now_ms": int(time.time() * 1000)}
                await response.write(message("snapshot", snapshot))
                with contextlib.suppress(ConnectionError):
                    while (text := await _next(news)) is not None:
                        await response.write(text)
                return response
        except Full:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n") from None

    # ------------------------------------------------------------------ questions
    async def _why(self, request: web.Request) -> web.Response:
        return await self._answer(self._parts.answers.why, _text(request, "id"))

    async def _course(self, request: web.Request) -> web.Response:
        return await self._answer(self._parts.answers.course, _text(request, "policy"))

    async def _diff(self, request: web.Request) -> web.Response:
        return await self._answer(self._parts.answers.diff, _text(request, "policy"), _number(request, "before"),
                                  _number(request, "after"))

    async def _dead(self, _: web.Request) -> web.Response:
        return await self._answer(self._parts.answers.dead)

    async def _letters(self, request: web.Request) -> web.Response:
        return await self._answer(self._parts.answers.letters, _text(request, "topic"))

    # ------------------------------------------------------------------ doing
    async def _redrive(self, request: web.Request) -> web.Response:
        try:
            order = msgspec.json.decode(await request.read(), type=Redrive)
        except msgspec.MsgspecError as exc:
            return _json(400, {"error": f"no order to redrive: {exc}"})
        if not order.places:
            return _json(400, {"error": "no dead letter is chosen"})
        return await self._answer(self._parts.answers.redrive, order.topic, order.places, order.dry_run)

    async def _verify(self, _: web.Request) -> web.Response:
        return _json(202, {"begun": self._judge.ask()})

    async def _answer(self, question: Callable[..., Answer], *values: Any) -> web.Response:
        async with self._places:
            return _json(200, await asyncio.to_thread(question, *values))

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Failures of the log in words that say what to do."""
        try:
            return await handler(request)
        except NotThere as exc:
            return _json(404, {"error": str(exc.args[0]), "near": exc.near})
        except NoTopic as exc:
            return _json(404, {"error": str(exc)})
        except NoBroker as exc:
            return _json(503, {"error": str(exc)})
        except TimeoutError as exc:
            return _json(504, {"error": f"{exc}; do it again: what arrived is skipped"})
        except KafkaException as exc:
            return _json(502, {"error": f"the broker says: {exc.args[0].str()}"})


def _json(status: int, data: Any) -> web.Response:
    return web.Response(status=status, text=as_json(data), content_type="application/json")


async def _next(news: asyncio.Queue[bytes | None]) -> bytes | None:
    try:
        return await asyncio.wait_for(news.get(), BEAT_S)
    except TimeoutError:
        return b": nothing new\n\n"


def _text(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if not 0 < len(value) <= 1024:
        raise web.HTTPBadRequest(text=f"{name} is missing, or too long\n")
    return value


def _number(request: web.Request, name: str) -> int:
    value = request.query.get(name, "")
    if not (value.isascii() and value.isdecimal() and 0 < len(value) <= 18 and int(value)):
        raise web.HTTPBadRequest(text=f"{name} is no version\n")
    return int(value)


def _static(page_token: str) -> dict[str, Callable[[], web.Response]]:
    """Answers with the files of the page, by name. They are small, and held."""
    found = {}
    for file in resources.files("streams.ui").joinpath("static").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            body = file.read_bytes().replace(b"{{page_token}}", page_token.encode())
            found[file.name] = _answering(body, kind)
    return found


def _answering(body: bytes, kind: str) -> Callable[[], web.Response]:
    return lambda: web.Response(body=body, content_type=kind, charset="utf-8")


def address(host: str, port: int) -> str:
    """HOST:PORT as it stands in an address.

    >>> address("::1", 80), address("127.0.0.1", 80)
    ('[::1]:80', '127.0.0.1:80')
    """
    with contextlib.suppress(ValueError):
        if ip_address(host).version == 6:
            return f"[{host}]:{port}"
    return f"{host}:{port}"


async def serve(parts: Parts, own: Guard, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        parts: what is served.
        own: who may ask.
        host: address to bind to.
        port: 0: a free one.
        ready: called with the address once it answers, token included where one is needed.

    Raises:
        CannotListen: the address cannot be bound to.
    """
    listening = _bound(host, port)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(Server(parts, own).app(), access_log=None, handler_cancellation=True,
                           shutdown_timeout=STOP_S)
    try:
        await runner.setup()
        await web.SockSite(runner, listening).start()
        bound = int(listening.getsockname()[1])
        ready(f"http://{address(host, bound)}/" + ("" if own.token is None else f"?token={own.token}"))
        await stop.wait()
    finally:
        await runner.cleanup()
        listening.close()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything else begins."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as exc:
        raise CannotListen(f"cannot listen on {address(host, port)}: {exc.strerror or exc}. Choose another with --port "
                           "or --host; --port 0 takes a free one") from None
