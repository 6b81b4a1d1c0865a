"""`quantum demo`: the main job from an empty machine to a policy that changes decisions, watched live."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from schemas.catalogue import AGENTS, built_agents
from streams import broker as embedded
from streams import controls, topics
from streams.cli import demo_trader
from streams.cli.demo_files import sources
from streams.cli.demo_proof import prove, ready, red, second_judge, self_test
from streams.cli.demo_view import LiveTable, closing_screen, summary
from streams.cli.exits import Exit
from streams.cli.options import json_option, settings_options
from streams.ingest import Costs, Loaded, Published, load, publish
from streams.ingest.earlier import earlier
from streams.ingest.monthly import BASE_URL
from streams.observer import Observer
from streams.settings import ENV_PREFIX, Settings

WORKERS: tuple[tuple[str, ...], ...] = (("features", "decision", "meta_strategy", "risk_controller"),
                                        ("paper_execution", "experience", "q_learning", "ppo_trader"))
"""Agents by worker process: two of about equal load, since the machine to aim at has two cores."""
STOP_S = 20.0
REPLAY_LINGER_MS = 20  # fewer, larger requests: a tenth less processor time than at 5; at 60 the loop waits for itself
MOST, SAMPLE = 15_000, 4_000
"""Candles that are published at most, and of the package's file: the controls take three times as many each."""
SAMPLE_COSTS = Costs(fee_bps=0.35, half_spread_bps=0.25, slippage_bps=0.1)
"""EURUSD at a broker with raw spreads: half of .5 pip, and a commission of 3.50 USD for 100,000 EUR a side."""


@click.command("demo")
@click.option("--klines", type=click.Path(exists=True, path_type=Path), multiple=True,
              help="File or folder with candles (csv, zip, parquet, feather). Default: hourly EURUSD as the package "
                   "gym-anytrading ships it.")
@click.option("--symbols", metavar="A,B",
              help="Fetch the last 12 whole months of hourly candles of these pairs, as BTCUSDT,ETHUSDT: Binance's "
                   "public files, held against their checksums.")
@click.option("--base-url", metavar="URL", default=BASE_URL, show_default=True, help="Where --symbols fetches from.")
@click.option("--candles", type=click.IntRange(min=500),
              help="Publish at most this many candles, oldest first. Default: 15,000, and 4,000 of the package's file.")
@click.option("--partitions", type=click.IntRange(1, 1000),
              help="Of topics that are spread by symbol. Default: as the log has, and 1 for a new one: an agent runs "
                   "in one of the two workers here, so more would only cost.")
@click.option("--lead", type=click.IntRange(min=1), default=96, show_default=True,
              help="Bars that the candles may run ahead of the slowest agent.")
@click.option("--outcomes", type=click.IntRange(min=0), default=controls.OUTCOMES, show_default=True,
              help="Outcomes of each of the three controls: markets with a known answer; 0: no controls.")
@click.option("--keep", is_flag=True, help="Leave the broker up at the end.")
@click.option("--resume", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Keep the log in this folder. Where one is there, of a demo that was killed, go on from it.")
@json_option
@settings_options
def command(settings: Settings, klines: tuple[Path, ...], symbols: str | None, base_url: str, candles: int | None,
            partitions: int | None, lead: int, outcomes: int, keep: bool, resume: Path | None, as_json: bool) -> int:
    """Run the main job: Kafka, every agent, real candles, live.

    Starts an embedded Apache Kafka with an empty log (or uses --broker), makes the topics, starts the agents in two
    worker processes, publishes real candles and three controls through them and shows what the log shows. Ends with
    the result after costs beside buy-and-hold, with what `quantum verify` says of it all, one trade followed by
    topic-partition@offset, and what is not built yet. Exit code 1: a check failed, or verify is red.

    Killed on the way, by whatever, it goes on where it was: the same command with --resume and the folder that it
    named. What stands on the log is not published again, and every agent goes on from its state.
    """
    console = Console(stderr=True)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    own = bool(klines or symbols)
    loaded = load(sources(settings, klines, symbols, base_url, console), limit=candles or (MOST if own else SAMPLE))
    costs = Costs() if own else SAMPLE_COSTS
    with ThreadPoolExecutor(1) as aside, ExitStack() as stack:
        drawn = aside.submit(controls.draw, settings.seed, taken=loaded.symbols) if outcomes else None
        here = stack.enter_context(_broker(settings, keep, resume, console))
        up_s = time.monotonic() - started
        topics.apply(here.replace(partitions=partitions or here.partitions), otherwise=1)
        before = earlier(here)
        workers = stack.enter_context(_workers(here))
        demo_trader.configure(here, loaded)
        observer = Observer(here)
        stack.callback(observer.stop)
        lab = None if drawn is None else drawn.result()
        feeds = [Feed(here, loaded, costs=costs, lead=lead, before=before)]
        if lab is not None:
            feeds.append(Feed(here, lab.loaded, costs=lab.costs, lead=controls.LEAD, own_clocks=True,
                              outcomes=outcomes, before=before))
        observer.start()
        demo_trader.await_taken(here, lambda: _alive(workers))
        testing = stack.enter_context(self_test())  # not before: it would keep the broker and the workers from starting
        second = stack.enter_context(second_judge())
        result = _run(feeds, LiveTable(len(loaded), loaded.symbols, outcomes), observer, workers, console, started,
                      fed=lambda: second.submit(ready))
        result["broker_up_s"] = round(up_s, 1)
        if lab is not None:
            controls.reveal(here, lab, Counter(before.candles) + Counter(feeds[1].published.candles))
        with console.status("holding it against the log"):
            proof = prove(here, settings.seed, second, testing)
        result["total_s"] = round(time.monotonic() - started, 1)
        report = summary(here, observer.seen, result, loaded.symbols, settings.seed)
        report["ppo_trader"] = demo_trader.told(here, loaded.symbols)
        report["checks"]["verify finds nothing red"] = not red(proof["report"])
        report["checks"]["verify catches every planted cheat"] = proof["self_test"].get("exit_code") == 0
        report["healthy"] = all(report["checks"].values())
        if as_json:
            told = {"verify": proof["report"].as_dict(), "self_test": proof["self_test"]}
            click.echo(json.dumps(report | told))
        else:
            closing_screen(Console(), report, proof, here)
        if keep or (sys.stdin.isatty() and sys.stdout.isatty() and not as_json):
            _linger(here, keep, console)
    return Exit.GOOD if report["healthy"] else Exit.FAILED


class Feed(threading.Thread):
    """Publishes candles in a thread; started by the run.

    Args:
        settings: broker and names.
        loaded: what to publish.
        how: arguments of `publish`.
    """

    def __init__(self, settings: Settings, loaded: Loaded, **how: Any) -> None:
        super().__init__(name="ingest", daemon=True)
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._done: Published | None = None
        self._settings, self._loaded, self._how = settings, loaded, how

    @property
    def published(self) -> Published:
        """What was published; it must have ended without an error."""
        assert self._done is not None, "it has not ended"
        return self._done

    def run(self) -> None:
        """Publish."""
        try:
            self._done = publish(self._settings, self._loaded, stop=self.stop, **self._how)
        except Exception as exc:  # shown and turned into the exit code by the main thread
            self.error = exc
            if self._settings.log_level == "debug":
                traceback.print_exc()


def _interrupt(number: int, frame: object) -> None:
    """A demo that is told to stop cleans up like one that is interrupted: no broker and no worker stays behind."""
    raise KeyboardInterrupt


@contextmanager
def _broker(settings: Settings, keep: bool, resume: Path | None, console: Console) -> Iterator[Settings]:
    """Settings for a broker: the one named, or an embedded one of the demo's own, with an empty log or a kept one.

    Raises:
        click.UsageError: both are named.
    """
    if "broker" in settings.model_fields_set:
        if resume is not None:
            raise click.UsageError("--resume is for the demo's own broker: with --broker the log is where it is, and "
                                   "the same command goes on from it")
        yield settings
        return
    with ExitStack() as stack:
        if resume is not None:
            data_dir = resume.expanduser().absolute()
        elif keep:
            data_dir = Path(tempfile.mkdtemp(prefix="quantum-demo-"))
        else:
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quantum-demo-")))
        own = settings.replace(data_dir=data_dir)
        running = embedded.up(own, ephemeral_dir=data_dir, console=console)
        if not keep:
            stack.callback(embedded.down, own, ephemeral_dir=data_dir)
        console.print(f"The log is in {data_dir}. Should this be killed, go on: the same command with --resume "
                      f"{data_dir}", soft_wrap=True)
        yield own.replace(broker=running.address)


@contextmanager
def _workers(settings: Settings) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Worker processes that end with this one."""
    processes = []
    flags = ["--broker", settings.broker, "--topic-prefix", settings.topic_prefix, "--app-id", settings.app_id,
             "--data-dir", str(settings.data_dir), "--seed", str(settings.seed), "--log-level", "warning"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                                ENV_PREFIX + "LINGER_MS": str(settings.linger_ms or REPLAY_LINGER_MS)}
    try:
        for agents in WORKERS:
            line = [sys.executable, "-m", "streams.cli.main", "worker", "--until-eof", "--agents", ",".join(agents),
                    *flags]
            processes.append(subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, start_new_session=True))
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _run(feeds: list[Feed], table: LiveTable, observer: Observer, workers: list[subprocess.Popen[bytes]],
         console: Console, started: float, fed: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Publish everything while the table is live, call `fed`, wait for the agents; returns the timings."""
    for feed in feeds:
        feed.start()
    fed_at = time.monotonic()
    try:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while any(feed.is_alive() for feed in feeds):
                live.update(table.view(observer.seen))
                _alive(workers)
                _unfailed(feeds)
                time.sleep(0.25)
        _unfailed(feeds)  # one may have failed since it was last asked
    except BaseException:
        for feed in feeds:
            feed.stop.set()
        for feed in feeds:
            feed.join(10)
        raise
    fed()
    observer.settle()
    first = observer.seen.versions_first_s
    return {
        "run_s": round(observer.seen.last_s - fed_at, 1),
        "first_policy_s": None if first is None else round(first - started, 1),
    }


def _unfailed(feeds: list[Feed]) -> None:
    for feed in feeds:
        if feed.error is not None:
            raise click.ClickException(f"ingest stopped: {feed.error}") from feed.error


def _alive(workers: list[subprocess.Popen[bytes]]) -> None:
    for agents, process in zip(WORKERS, workers, strict=True):
        if process.poll() is not None:
            raise click.ClickException(f"the worker of {', '.join(agents)} ended with exit code {process.returncode}; "
                                       "its last words are above")


def _linger(settings: Settings, keep: bool, console: Console) -> None:
    if keep:
        console.print(f"The broker stays up on {settings.broker}. Stop it: "
                      f"quantum broker down --data-dir {settings.data_dir}")
        return
    console.print(f"The broker is up on {settings.broker} until you press Enter.")
    sys.stdin.readline()


WITHOUT = frozenset({"bars"})
"""Agents that the demo leaves out: it brings candles, and no trades to make them of."""
assert {a.name for a in built_agents()} - WITHOUT == {name for group in WORKERS for name in group} <= set(AGENTS)
