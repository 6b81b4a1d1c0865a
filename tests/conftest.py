"""Fixtures for tests that need a broker: one embedded Apache Kafka for the whole session, xdist's workers included.

    def test_something(prefix):          # Settings with a topic prefix and app id of its own, all topics there
    @pytest.mark.topics("market.candles")  # ... or only these topics, or none: topics()
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock

from schemas import catalogue
from streams import broker as embedded
from streams import topics
from streams.settings import ENV_PREFIX, Settings

_KEPT = {"QUANTUM_TEST_DATA", "QUANTUM_CACHE_DIR", "QUANTUM_TEST_RUN"}
_RUN = "QUANTUM_TEST_RUN"  # folder of this run's broker; xdist's workers inherit it from their controller
_OWNED = pytest.StashKey[Path]()

# A run of the tests is the same everywhere; `HYPOTHESIS_PROFILE=explore make test` draws other examples each time.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_configure(config: pytest.Config) -> None:
    """Keep the user's settings out of the tests; where data lie and what is cached stays."""
    config.addinivalue_line("markers", "topics(*names): topics that the fixture `prefix` makes; default all")
    for name in [n for n in os.environ if n.startswith(ENV_PREFIX) and n not in _KEPT]:
        del os.environ[name]
    if _RUN not in os.environ:  # not in pytest's own temporary folder: other runs may tidy that up
        config.stash[_OWNED] = Path(tempfile.gettempdir()) / f"quantum-tests-{uuid.uuid4().hex[:12]}"
        os.environ[_RUN] = str(config.stash[_OWNED])


@pytest.fixture(scope="session")
def broker() -> Settings:
    """Settings for a running Apache Kafka with the catalogue's topics, shared by all tests of the run."""
    folder = Path(os.environ[_RUN])
    folder.mkdir(exist_ok=True)
    settings = Settings(data_dir=folder)
    with FileLock(folder / "tests.lock"):
        try:
            running = embedded.up(settings, ephemeral_dir=folder)
        except (embedded.NoJava, embedded.FetchFailed) as exc:
            pytest.skip(f"no embedded broker: {str(exc).splitlines()[0]}")
        settings = settings.replace(broker=running.address, app_id="tests")
        topics.apply(settings)
    return settings


@pytest.fixture
def prefix(broker: Settings, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Settings with a topic prefix and app id of the test's own; its topics are deleted behind it."""
    name = f"t{uuid.uuid4().hex[:10]}"
    settings = broker.replace(topic_prefix=f"{name}.", app_id=name)
    marker = request.node.get_closest_marker("topics")
    topics.apply(settings, only=marker.args if marker else None)
    yield settings
    client, there = topics.connect(settings)
    own = [topic for topic in there if topic.startswith(settings.topic_prefix)]
    if own:
        for future in client.delete_topics(own).values():
            future.exception()  # resolved, or the client is collected too early


@pytest.fixture
def direct_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue with `q_learning` as an agent without an inbox: one input, ours, keyed by its scope."""
    agents: Any = catalogue.AGENTS
    io = dataclasses.replace(catalogue.AGENTS["q_learning"], reads={"learning.experience": "by_scope"}, direct=True)
    monkeypatch.setitem(agents, "q_learning", io)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the broker by its pid and remove its data: once, by the process that began the run."""
    folder = config.stash.get(_OWNED, None)
    if folder is None:
        return
    os.environ.pop(_RUN, None)
    if folder.is_dir():
        embedded.down(Settings(data_dir=folder), ephemeral_dir=folder)
        shutil.rmtree(folder, ignore_errors=True)
