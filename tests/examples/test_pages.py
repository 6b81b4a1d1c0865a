"""docs/producing.md and docs/subscribing.md: every command line runs; what they say of code is what it does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

from agents.experience.memory import ExperienceConfig
from agents.q_learning.config import QLearningConfig
from schemas.events import STRATEGY_SYMBOLS, PolicyApplied
from schemas.pages import example_of
from streams import topics
from streams.settings import Settings
from streams.story.verdict import MEANING
from tests.examples.programs import BUILD, LANGUAGES, ROOT, RUN, Tree, line_of
from tests.streams.log_fixtures import features, own_names, policy, produce, record, refused
from tests.streams.test_why import decision, name_of, orphan, trade

PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("producing", "subscribing")}
LINES = [(name, line) for name, page in PAGES.items()
         for block in re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
         for line in block.splitlines() if not line.startswith("export ") and line not in BUILD.values()]
LINES = [(page, line) for i, (page, line) in enumerate(LINES) if line not in [x for _, x in LINES[:i]]]  # each once
DECISION = "BTCUSDT/q_learning/1769918400000"


def language_of(line: str) -> str | None:
    """Language whose program a line runs."""
    return next((x for x in LANGUAGES if line.startswith(RUN[x].partition("{")[0])), None)


@pytest.fixture(scope="module")
def tree(broker: Settings) -> Tree:
    return Tree()


@pytest.fixture(scope="module")
def settings(broker: Settings) -> Iterator[Settings]:
    """A log on which every line has something to print."""
    own = own_names(broker)
    topics.apply(own)
    its = decision(1, decision_id=DECISION, ts_ms=1_769_918_400_000, next_ts_ms=1_769_932_800_000)
    report = msgspec.convert(example_of("policy.applied"), PolicyApplied)
    sent = record("execution.trade.closed", trade(1))
    produce(own, [
        record("rl.meta.strategy_selected", its), sent, record("market.features", features()),
        record("learning.orphan", orphan(f"{name_of(1)}/t", "NO_DECISION_ID", None)),
        refused(sent, 7, "UNKNOWN_SCHEMA", "experience"),
        *(record(topic, policy(1)) for topic in ("policy.ledger", "policy.current")), record("policy.applied", report)])
    yield own
    client, there = topics.connect(own)
    for future in client.delete_topics([t for t in there if t.startswith(own.topic_prefix)]).values():
        future.exception()


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}:{line[:60]}" for page, line in LINES])
def test_every_line_runs_and_prints(page: str, line: str, tree: Tree, settings: Settings) -> None:
    language = language_of(line)
    if language is not None:
        tree.build(language)
    if "ubscriber" in line:  # goes on until it is ended
        assert language is not None
        args = line.removeprefix(line_of(language, "subscriber")).split()
        with tree.started(language, "subscriber", settings, *args) as running:
            running.until(lambda lines: "ready with 1 policies" in lines)
        return
    whole = f"{line} --until-eof --json < /dev/null" if line.startswith("quantum worker") else line
    if line.startswith("quantum ingest"):
        whole = f"{line} --limit 20 --json"  # two seconds of it
    done = tree.shell(whole, settings)
    judged = line.startswith("quantum verify")  # these few records prove little: it is for the command, not for them
    assert done.returncode in ((0, 1, 3) if judged else (0,)), done.stderr[-3000:]
    assert done.stdout.strip()


@pytest.mark.parametrize("language", LANGUAGES)
def test_building_is_what_the_pages_say(language: str, tree: Tree) -> None:
    assert all(f"\n{BUILD[language]}\n" in page for page in PAGES.values())
    tree.build(language)


def test_the_pages_have_every_verdict_and_bound() -> None:
    page = " ".join(PAGES["producing"].split())
    assert f"there may be several: {', '.join(list(MEANING)[:-1])} or {list(MEANING)[-1]}." in page
    bounds = ExperienceConfig()
    assert f"{bounds.horizon_bars + bounds.grace_bars} bars further" in page
    assert f"{bounds.waiting_size:,} trades" in page
    assert f"{bounds.memory_size} trades a symbol at most" in page
    assert bounds.memory_ms == 7 * 86_400_000
    warm_up = QLearningConfig().warmup_decisions
    assert f"first policy only when {warm_up} decisions have ended" in page
    other = " ".join(PAGES["subscribing"].split())
    assert f"first policy when {warm_up} decisions of the symbol have ended" in other
    assert f"{', '.join(STRATEGY_SYMBOLS[:-1])} and {STRATEGY_SYMBOLS[-1]}, in this order" in other
