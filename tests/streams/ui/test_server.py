"""The server of the page without a broker: who may ask, what comes back, and that nothing comes from elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

import streams.ui
from streams.log import NoBroker
from streams.ui.answers import NotThere
from streams.ui.guard import HEADERS, PAGE_TOKEN, Guard
from streams.ui.hub import Full, Hub, message
from streams.ui.judging import Failed, Judge
from streams.ui.serve import Parts, Server

STATIC = Path(streams.ui.__file__).parent / "static"
UNSAFE = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\(.style"
ORDER = {"topic": "t.dlq", "places": [[0, 7]], "dry_run": True}


class FakeLooker:
    def __init__(self, tell: Callable[[str, Any], None]) -> None:
        self.watched, self.tell, self.stopped = threading.Event(), tell, False

    def start(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def snapshot(self) -> dict[str, Any]:
        return {"overview": None, "trouble": None, "feed": [], "trades": [], "policies": [], "seen": {}}


class FakeAnswers:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def why(self, name: str) -> dict[str, Any]:
        raise NotThere(f"no record names {name}", ["near/1"])

    def course(self, policy_id: str) -> dict[str, Any]:
        raise NoBroker("no answer from the broker")

    def diff(self, policy_id: str, before: int, after: int) -> dict[str, Any]:
        return {"asked": [policy_id, before, after], "nan": float("nan")}

    def dead(self) -> dict[str, Any]:
        return {"topics": []}

    def letters(self, topic: str) -> dict[str, Any]:
        return {"topic": topic}

    def redrive(self, topic: str, spots: list[tuple[int, int]], dry_run: bool) -> dict[str, Any]:
        self.sent.append((topic, spots, dry_run))
        return {"redriven": []}


class Stage:
    """A server with stand-ins, and a client that knows its address."""

    def __init__(self, client: TestClient[Any, Any], answers: FakeAnswers, guard: Guard, looker: FakeLooker) -> None:
        self.client, self.answers, self.guard, self.looker = client, answers, guard, looker
        self.origin = f"http://127.0.0.1:{client.port}"

    async def get(self, path: str, **headers: str) -> ClientResponse:
        return await self.client.get(path, headers=headers, allow_redirects=False)

    async def post(self, body: Any = ORDER, path: str = "/api/redrive", **changes: str | None) -> ClientResponse:
        given = {"Origin": self.origin, PAGE_TOKEN: self.guard.page_token, "Content-Type": "application/json",
                 "Sec-Fetch-Site": "same-origin"} | {k.replace("_", "-"): v for k, v in changes.items()}
        return await self.client.post(path, data=json.dumps(body),
                                      headers={k: v for k, v in given.items() if v is not None})


def staged(test: Callable[[Stage], Awaitable[None]], guard: Guard | None = None,
           judged: Callable[[bool], dict[str, Any]] = lambda small: {"agents": [], "controls": []}) -> None:
    async def run() -> None:
        lookers: list[FakeLooker] = []

        def looking(tell: Callable[[str, Any], None]) -> FakeLooker:
            lookers.append(FakeLooker(tell))
            return lookers[-1]

        own, answers = guard or Guard(loopback=True), FakeAnswers()
        about = {"broker": "b", "prefix": "", "version": "1"}
        server = Server(Parts(about, looking, answers, judged, lambda: None, 0.0), own)
        async with TestClient(TestServer(server.app())) as client:
            await test(Stage(client, answers, own, lookers[0]))
        assert lookers[0].stopped

    asyncio.run(run())


# ---------------------------------------------------------------------- who may ask
@pytest.mark.parametrize(("host", "on_loopback", "elsewhere"), [
    ("127.0.0.1:8000", True, True), ("localhost", True, True), ("[::1]:9", True, True),
    ("192.168.1.5:8000", False, True),
    ("evil.example", False, False), ("evil.example:8000", False, False), ("127.0.0.1.evil.example", False, False),
    ("own.example:80", True, True), ("", False, False), ("[", False, False), ("localhost@evil.example", False, False)])
def test_a_host_name_that_can_be_turned_is_not_served(host: str, on_loopback: bool, elsewhere: bool) -> None:
    names = frozenset({"own.example"})
    assert Guard(True, names).host(host) is on_loopback
    assert Guard(False, names).host(host) is elsewhere


def test_every_path_asks_for_the_host() -> None:
    async def test(stage: Stage) -> None:
        for path in ("/", "/static/app.js", "/api/live", "/api/dead", "/nothing"):
            answer = await stage.get(path, Host="evil.example")
            assert (answer.status, HEADERS.keys() <= answer.headers.keys()) == (403, True)
        assert (await stage.get("/", Host="localhost:1")).status == 200

    staged(test)


def test_beyond_loopback_nothing_is_answered_without_the_token() -> None:
    async def test(stage: Stage) -> None:
        assert stage.guard.token is not None
        for path in ("/", "/static/app.js", "/api/live", "/api/dead", "/?token=wrong",
                     f"/api/dead?token={stage.guard.token}"):
            answer = await stage.get(path)
            assert answer.status == 401
            assert stage.guard.token not in await answer.text()
        assert (await stage.post()).status == 401
        assert (await stage.get("/api/dead", Authorization=f"Bearer {stage.guard.token}")).status == 200
        entered = await stage.get(f"/?token={stage.guard.token}")
        assert (entered.status, entered.headers["Location"]) == (303, "/"), "the token leaves the address"
        cookie = entered.headers["Set-Cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict"))
        assert (await stage.get("/", Cookie=cookie.partition(";")[0])).status == 200

    staged(test, Guard(loopback=False, token="s3cret"))


@pytest.mark.parametrize("changes", [
    {"Origin": None}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"}, {PAGE_TOKEN: None}, {PAGE_TOKEN: "guessed"}, {"Content_Type": "text/plain"},
    {"Content_Type": "application/x-www-form-urlencoded"}])
def test_only_the_page_itself_may_redrive(changes: dict[str, str | None]) -> None:
    async def test(stage: Stage) -> None:
        named = {name.replace("-", "_"): value for name, value in changes.items()}
        for path in ("/api/redrive", "/api/verify"):
            assert (await stage.post(path=path, **named)).status == 403
        assert (await stage.get("/api/redrive")).status == 405
        assert stage.answers.sent == []

    staged(test)


def test_the_page_may_redrive_and_says_what_and_whether() -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.post()).status == 200
        assert stage.answers.sent == [("t.dlq", [(0, 7)], True)]
        for body in ({}, ORDER | {"places": []}, ORDER | {"more": 1}, ORDER | {"dry_run": "no"}, [1]):
            assert (await stage.post(body)).status == 400
        assert len(stage.answers.sent) == 1
        page = await (await stage.get("/")).text()
        assert stage.guard.page_token in page

    staged(test)


# ---------------------------------------------------------------------- what comes back
def test_answers_and_failures_are_json_with_the_reason() -> None:
    async def test(stage: Stage) -> None:
        why = await stage.get("/api/why?id=x/1")
        assert (why.status, await why.json()) == (404, {"error": "no record names x/1", "near": ["near/1"]})
        assert (await stage.get("/api/course?policy=p")).status == 503
        diff = await stage.get("/api/diff?policy=p/S&before=3&after=4")
        assert await diff.json() == {"asked": ["p/S", 3, 4], "nan": "nan"}
        for path in ("/api/why", "/api/why?id=", "/api/diff?policy=p&before=x&after=1",
                     "/api/diff?policy=p&before=0&after=1"):
            assert (await stage.get(path)).status == 400
        for path in ("/static/index.html", "/static/../serve.py", "/static/nothing.js", "/api/nothing"):
            assert (await stage.get(path)).status == 404

    staged(test)


def test_news_come_as_they_are_told_after_a_snapshot() -> None:
    async def test(stage: Stage) -> None:
        news = await stage.get("/api/live")
        assert news.headers["Content-Type"] == "text/event-stream"
        assert HEADERS.keys() <= news.headers.keys()
        event, data = await news.content.readline(), await news.content.readline()
        assert event == b"event: snapshot\n"
        snapshot = json.loads(data.removeprefix(b"data: "))
        assert {"overview", "judged", "feed", "trades", "policies", "about", "now_ms"} <= snapshot.keys()
        assert stage.looker.watched.is_set()
        await asyncio.to_thread(stage.looker.tell, "news", {"text": "line\nbreak"})
        text = b""
        while b"event: news" not in text or not text.endswith(b"\n\n"):
            text = text[-4096:] + await news.content.readline()
        assert text.endswith(b'event: news\ndata: {"text":"line\\nbreak"}\n\n')

    staged(test)


def test_a_page_that_falls_behind_is_hung_up_on() -> None:
    async def run() -> None:
        hub = Hub(asyncio.get_running_loop(), lambda watched: None)
        with hub.joined() as queue:
            for n in range(300):
                hub.tell("news", n)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            held = [queue.get_nowait() for _ in range(queue.qsize())]
            assert (held[0], held[-1], len(held)) == (message("news", 0), None, 201)
        hub.close()
        with pytest.raises(Full), hub.joined():
            pass

    asyncio.run(run())


# ---------------------------------------------------------------------- verify in the background
def test_reports_are_kept_until_there_is_another_and_failures_stand_beside_them() -> None:
    asked: list[bool] = []

    def judged(small: bool) -> dict[str, Any]:
        asked.append(small)
        if len(asked) == 2:
            raise Failed("no answer")
        return {"at_ms": len(asked)}

    async def run() -> None:
        told: list[dict[str, Any]] = []
        judge = Judge(judged, lambda name, state: told.append(dict(state)), 0.0, lambda: True)
        task = asyncio.create_task(judge.run())

        async def ended(n: int) -> dict[str, Any]:
            while len(told) < 2 * n:
                await asyncio.sleep(0.01)
            return told[2 * n - 1]

        first = await ended(1)
        assert (first["report"], first["small"], first["error"]) == ({"at_ms": 1}, True, None)
        assert judge.ask()
        second = await ended(2)
        assert (second["report"], second["error"]) == ({"at_ms": 1}, "no answer")
        assert judge.ask()
        third = await ended(3)
        assert (third["report"], third["small"], third["error"]) == ({"at_ms": 3}, False, None)
        assert [t["running_since_ms"] is None for t in told] == [False, True] * 3
        task.cancel()

    asyncio.run(run())
    assert asked == [True, False, False]


# ---------------------------------------------------------------------- the files
def test_the_page_is_whole_without_a_network_and_without_inline_code() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")
    names = {p.name for p in STATIC.iterdir()}
    for path in STATIC.iterdir():
        text = path.read_text()
        assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(UNSAFE, text), path
        assert {n.removeprefix("/static/") for n in re.findall(r"/static/[\w.]+", text)} <= names, path
        assert set(re.findall(r"from \"\./([\w.]+)\"", text)) <= names, path
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for name in re.findall(r"<(?:input|select)[^>]*id=\"([\w-]+)\"", page):
        assert f'<label for="{name}"' in page, f"{name} has no label"


def test_the_ids_that_the_scripts_ask_for_are_on_the_page() -> None:
    page = (STATIC / "index.html").read_text()
    there = set(re.findall(r'id="([\w-]+)"', page))
    for path in STATIC.glob("*.js"):
        assert set(re.findall(r'\$\("([\w-]+)"\)', path.read_text())) <= there, path
