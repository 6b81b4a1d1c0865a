"""The page in a browser, over a broker: it shows what the topics hold, at the width of a desk and of a phone."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import matplotlib.image
import numpy as np
import pytest

from schemas.events import PolicyApplied, QUpdated
from streams.cli.main import main
from streams.log import read
from streams.settings import Settings
from tests.streams.log_fixtures import T0_MS, candles, features, flags, produce, record, refused
from tests.streams.test_why import FROM, decision, experience, name_of, outcome, sharper, trade
from tests.streams.ui.chromium import CHROMIUM, Page, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
POLICY, TRADE = "q_learning/BTCUSDT", f"{name_of(10)}/t"
WIDTHS = {"desk": (1280, 900, False), "phone": (390, 844, True)}
LETTERS = 3
TIMELESS = ("LEARNS", "PERSISTS", "APPLIED", "ORIGIN")  # nobody runs here: the others turn red after a while


@pytest.fixture
def log(prefix: Settings) -> Settings:
    """One trade from its candle to the version that was learned from it, and some dead letters."""
    produce(prefix, candles(20))
    produce(prefix, [record("market.features", features(bar=9))])
    for version, p in ((1, (0.25,) * 4), (2, (0.4, 0.3, 0.2, 0.1))):
        for topic in ("policy.ledger", "policy.current"):
            produce(prefix, [record(topic, sharper(version, p), f"q_learning:0-{version}:0")])
    produce(prefix, [
        record("rl.meta.strategy_selected", decision(10)), record("execution.trade.closed", trade(10)),
        record("decision.outcome", outcome(10)), record("learning.experience", experience(10)),
        record("policy.applied", PolicyApplied(
            decision_id=name_of(10), symbol="BTCUSDT", ts_ms=T0_MS, policy_id=POLICY, policy_version=1,
            recommended_action="breakout", executed_action="breakout", baseline_action="neutral",
            applier="paper_execution", **FROM)),
        record("rl.q_learning.updated", QUpdated(
            symbol="BTCUSDT", ts_ms=T0_MS, decision_id=name_of(10), policy_version=2, state_key="bull|vol:1",
            action="breakout", reward_r=-0.341099, q_before=0.0, q_after=-0.341099, visits=1, step_size=1.0,
            residual=-0.341099, drift=False, **FROM))])
    produce(prefix, [refused(candles(1)[0], n, partition=0) for n in range(LETTERS)])
    return prefix


@pytest.fixture
def url(log: Settings, tmp_path: Path) -> Iterator[str]:
    """`quantum ui` on that log."""
    with (tmp_path / "ui.log").open("w") as said:
        process = subprocess.Popen([sys.executable, "-m", "streams.cli.main", "ui", "--json", "--verify-every", "0",
                                    *flags(log)], stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (tmp_path / "ui.log").read_text()
            yield json.loads(line)["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(30)
            finally:
                process.kill()
                process.wait()
    assert code == 0, (tmp_path / "ui.log").read_text()


def there(name: str) -> str:
    return f"document.documentElement.dataset.{name}"


async def text(page: Page, selector: str) -> str:
    return str(await page.value(f"document.querySelector({json.dumps(selector)})?.textContent"))


async def figure(page: Page, name: str) -> str:
    return await text(page, f'[data-figure="{name}"] b')


async def opened(page: Page, url: str) -> None:
    await page.open(url)
    for name in ("live", "overview", "judged", "course", "dead"):
        await page.until(there(name))


async def fits(page: Page, folder: Path, name: str) -> None:
    """Nothing stands out to the right, and there is something to be seen."""
    wide, inner = await page.value("[document.documentElement.scrollWidth, innerWidth]")
    assert (wide, inner) == (pytest.approx(inner, abs=16), WIDTHS[name][0])
    png = await page.picture()
    (folder / f"{name}.png").write_bytes(png)
    image = matplotlib.image.imread(io.BytesIO(png), format="png")
    assert len(np.unique((image[..., :3] * 255).astype(int).reshape(-1, 3), axis=0)) > 50, f"{name}.png is blank"


def test_the_page_shows_what_the_topics_hold(log: Settings, url: str, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", "--json", *flags(log)])
    said = by_agent(json.loads(capsys.readouterr().out))

    async def run() -> None:
        async with browser(tmp_path) as page:
            for name, size in WIDTHS.items():
                await page.resize(*size)
                await opened(page, url)
                await cells(page, await reported(url))
                await numbers(page, log)
                await followed(page)
                await compared(page)
                await fits(page, tmp_path, name)
            assert timeless(await reported(url)) == timeless(said)
            await keys(page)
            await redriven(page, log)
            await news(page, log)
            assert page.problems == []

    asyncio.run(run())


def by_agent(report: dict[str, Any]) -> dict[str, Any]:
    return {a["agent"]: a["cells"] for a in report["agents"]}


def timeless(cells: dict[str, Any]) -> dict[tuple[str, str], tuple[str, str | None]]:
    return {(a, k): (c["state"], c["place"]) for a, of in cells.items() for k, c in of.items() if k in TIMELESS}


async def reported(url: str) -> dict[str, Any]:
    """The report that the server holds."""
    async with aiohttp.ClientSession(read_bufsize=1 << 22) as session, session.get(f"{url}api/live") as news:
        await news.content.readline()
        snapshot = json.loads((await news.content.readline()).removeprefix(b"data: "))
    return by_agent(snapshot["judged"]["report"])


async def cells(page: Page, said: dict[str, Any]) -> None:
    """Every cell as the report has it, with the place of its evidence."""
    rows = await page.value("""Object.fromEntries([...document.querySelectorAll('.matrix tbody tr')].map((row) => [
        row.querySelector('.agent').textContent, Object.fromEntries([...row.querySelectorAll('td')].map((cell) => [
        cell.dataset.kind ?? 'RUNS', [cell.querySelector('.state')?.textContent ?? cell.textContent,
        cell.querySelector('.place')?.textContent ?? null]]))]))""")
    assert rows.keys() == said.keys()
    for agent, of in said.items():
        for kind, cell in of.items():
            if cell["state"] == "NOT BUILT":
                assert rows[agent]["RUNS"][0].startswith("NOT BUILT")
                continue
            state, place = rows[agent][kind]
            assert state.split(" ", 1)[1] == cell["state"].replace("NOT APPLICABLE", "n/a"), (agent, kind)
            assert place == cell["place"], (agent, kind)
    assert (await text(page, "#judged-age")).startswith("judged ")


async def numbers(page: Page, log: Settings) -> None:
    """Counts, rows and curves against the topics."""
    assert await figure(page, "policies") == str(len({r.key for r in read(log, "policy.current")}))
    assert await figure(page, "dead letters") == str(sum(1 for _ in read(log, "market.candles.dlq"))) == str(LETTERS)
    (closed,) = read(log, "execution.trade.closed")
    assert await text(page, "#trade-list .place") == closed.place
    assert await text(page, "#trade-list .r") == "\u22120.341 R"
    rows = await page.value("[...document.querySelectorAll('#feed > li .place')].map((x) => x.textContent)")
    assert set(rows) == {r.place for t in ("policy.current", "rl.q_learning.updated") for r in read(log, t)}
    titles = await page.value("[...document.querySelectorAll('#course .title')].map((x) => x.textContent)")
    assert titles == ["outcomes", "edge, R", "greedy flips", "reward, R"]
    assert "2 versions, 1 to 2" in await text(page, "#course .note")
    assert await page.value("document.querySelector('#course .said').textContent.trim()") == "0"


async def followed(page: Page) -> None:
    """A click on a trade tells its story."""
    await page.value("document.querySelector('[data-trade]').click()")
    await page.until(f"{there('story')} === {json.dumps(TRADE)}")
    assert await text(page, ".verdict.main b") == "accepted"
    assert "agrees in" in await text(page, ".steps")
    assert await text(page, ".cellbars .greedy th") == "neutral"


async def compared(page: Page) -> None:
    """Two versions side by side: the four probabilities of one cell moved."""
    await page.value("document.querySelector('#diff-form').requestSubmit()")
    await page.until(f"{there('diff')} === '1..2'")
    assert await page.value("document.querySelectorAll('.moves tbody tr').length") == 3 + 1
    assert "0.250 \u2192 0.400" in await text(page, ".moves")


async def keys(page: Page) -> None:
    """By keyboard alone: a cell opens and closes, and the focus is where it was; it is seen."""
    await page.value("document.querySelector('button.cell').focus()")
    await page.press("Enter", 13, "\r")
    await page.until("document.getElementById('cell').open")
    assert "evidence" in await text(page, "#cell-body")
    await page.press("Escape", 27)
    await page.until("!document.getElementById('cell').open")
    assert await page.value("document.activeElement === document.querySelector('button.cell')")
    await page.press("Tab", 9)
    assert await page.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await page.value("document.querySelector('.chart svg').focus()")
    await page.press("ArrowRight", 39)
    assert (await text(page, "#course .said")).startswith("v1, ")


async def redriven(page: Page, log: Settings) -> None:
    """Letters are sent after a question that was answered with yes, and never before."""
    def back() -> int:
        return sum(any(name == "redriven_from" for name, _ in r.headers) for r in read(log, "market.candles"))

    await page.value("document.querySelector('details.topic').open = true")
    await page.until("document.querySelectorAll('.letters input').length === 3")
    await page.value("document.querySelectorAll('.letters input')[0].click()")
    for answer, sent in (("no", 0), ("yes", 1)):
        await page.value("document.querySelector('#dead button.act').click()")
        await page.until("document.getElementById('confirm').open")
        assert "1 would be sent, 0 skipped" in await text(page, "#confirm-body")
        assert back() == 0, "nothing is sent before the answer"
        await page.value(f"document.querySelector('#confirm [value={answer}]').click()")
        await page.until("!document.getElementById('confirm').open")
        if sent:
            await page.until("document.querySelector('.result').textContent.includes('1 sent, 0 skipped')")
        assert back() == sent
    await page.value("document.querySelector('#dead button.act').click()")
    await page.until("document.getElementById('confirm').open")
    assert "sent before" in await text(page, "#confirm-body")
    await page.press("Escape", 27)


async def news(page: Page, log: Settings) -> None:
    """A version that comes while the page is open stands on it."""
    (place,) = produce(log, [record("policy.current", sharper(3, (0.7, 0.1, 0.1, 0.1)), "q_learning:0-3:0")])
    await page.until(f"document.querySelector('#feed .place').textContent === {json.dumps(place)}")
    assert "v3" in await text(page, "#feed li")
    await page.until("document.getElementById('course-note').textContent === '1 newer version since it was read'")
