"""A headless Chromium, driven over its DevTools protocol by what is installed anyway: aiohttp's WebSocket client.

    async with browser(tmp_path) as page:
        await page.resize(390, 844)
        await page.open("http://127.0.0.1:8000/")
        assert await page.value("document.title") == "..."
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
         "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank")
PATIENCE_S = 60.0


class Page:
    """A tab. `problems` has what the console, the network and the security policy complained of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.problems: list[str] = []
        self._socket, self._ids = socket, itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session: str | None = None
        self._loaded = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def begin(self) -> None:
        """Attach to the first tab."""
        targets = (await self.send("Target.getTargets"))["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = (await self.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command and its result."""
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        session = {} if self._session is None else {"sessionId": self._session}
        await self._socket.send_json({"id": number, "method": method, "params": params, **session})
        return await asyncio.wait_for(self._answers[number], PATIENCE_S)

    async def _read(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" in data:
                future = self._answers.pop(data["id"])
                if "error" in data:
                    future.set_exception(RuntimeError(data["error"]["message"]))
                else:
                    future.set_result(data["result"])
            else:
                self._heard(data["method"], data["params"])

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            said = (str(a.get("value", a.get("description"))) for a in params["args"])
            self.problems.append("console: " + " ".join(said))
        elif method == "Runtime.exceptionThrown":
            self.problems.append("exception: " + json.dumps(params["exceptionDetails"])[:800])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"log: {params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.problems.append(f"network: {params['errorText']}")

    async def resize(self, width: int, height: int, dark: bool = False) -> None:
        """Size in CSS pixels, and the colour scheme that the user prefers."""
        await self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                        mobile=width < 500)
        await self.send("Emulation.setEmulatedMedia",
                        features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    async def open(self, url: str) -> None:
        """Go to an address; its files have come."""
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), PATIENCE_S)

    async def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to."""
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:800])
        return found["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        give_up = asyncio.get_running_loop().time() + PATIENCE_S
        while not await self.value(f"Boolean({expression})"):
            assert asyncio.get_running_loop().time() < give_up, f"{expression}: never; {self.problems}"
            await asyncio.sleep(0.05)

    async def press(self, key: str, code: int, text: str = "") -> None:
        """A key of the keyboard."""
        same = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.send("Input.dispatchKeyEvent", type="keyDown", **same, **({"text": text} if text else {}))
        await self.send("Input.dispatchKeyEvent", type="keyUp", **same)

    async def picture(self, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        found = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])

    async def close(self) -> None:
        """Hang up."""
        self._reader.cancel()
        await self._socket.close()


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """A browser with a profile of its own; its processes have ended with the block."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, f"--user-data-dir={folder / 'profile'}", *FLAGS, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        env=os.environ | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)})
    apart: Path | None = None
    try:
        url = await asyncio.wait_for(_address(process), PATIENCE_S)
        link = folder / "profile" / "SingletonSocket"  # to a socket in a folder of its own, which who is killed leaves
        apart = Path(os.readlink(link)).parent if link.is_symlink() else None
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            page = Page(socket)
            await page.begin()
            drain = asyncio.create_task(_drain(process))
            try:
                yield page
            finally:
                await page.close()
                drain.cancel()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if apart is not None and apart.name.startswith("org.chromium."):
            shutil.rmtree(apart, ignore_errors=True)


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = []
    async for line in process.stderr:
        said.append(line.decode(errors="replace"))
        if "DevTools listening on " in said[-1]:
            return said[-1].partition("DevTools listening on ")[2].strip()
    raise RuntimeError("Chromium did not start: " + "".join(said)[-800:])


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.read(65536):
        pass
