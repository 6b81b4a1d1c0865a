"""The topic catalogue: every topic's name, event, key, partitions, retention, size limit, writers and readers.

It is the one list of names: folders under `agents/`, consumer groups, inboxes, changelogs and what `quantum topics`
holds against the broker all follow from `AGENTS` and `TOPICS` here.

Every topic uses LogAppendTime: retention then counts from arrival, so a replay of old candles is not deleted as it is
written. Event time is the field `ts_ms` of every event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

DAY_MS = 86_400_000
FOREVER = -1
MARKET_PARTITIONS = 4
KIB = 1024

Route = Literal["by_scope", "global", "broadcast", "gather"]
"""Where a record goes: to its scope, of the scope `global` to all; those of the scope `global` only; to all; to one."""
Cleanup = Literal["delete", "compact"]
GLOBAL = "global"


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One topic.

    Attributes:
        event: name of the event in `schemas.events`; None where the topic carries raw copies or is not built yet.
        key: what the record key holds.
        external: True where people outside of this project may produce; their partitioner is not ours to choose.
        built: False where the writer does not exist yet; such a topic is listed, never created.
    """

    name: str
    event: str | None
    key: str
    doc: str
    partitions: int = MARKET_PARTITIONS
    cleanup: Cleanup = "delete"
    retention_ms: int = 90 * DAY_MS
    max_bytes: int = 1024 * KIB
    external: bool = False
    built: bool = True

    def configs(self) -> dict[str, str]:
        """Kafka topic configs that this topic must have."""
        base = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_bytes),
            "message.timestamp.type": "LogAppendTime",
            "compression.type": "producer",
        }
        if self.cleanup == "compact":
            return base | {"min.compaction.lag.ms": "60000", "max.compaction.lag.ms": str(7 * DAY_MS)}
        return base | {"retention.ms": str(self.retention_ms), "retention.bytes": "-1"}


@dataclass(frozen=True, kw_only=True)
class AgentIO:
    """What an agent reads and writes.

    Attributes:
        reads: source topic to route.
        direct: True where the one source is written by us and keyed by scope, so it is folded without an inbox.
    """

    name: str
    reads: Mapping[str, Route]
    writes: tuple[str, ...]
    direct: bool = False
    built: bool = True
    partitions: int = MARKET_PARTITIONS

    @property
    def input_topic(self) -> str:
        """Topic whose partitions the agent folds."""
        return next(iter(self.reads)) if self.direct else f"{self.name}.inbox"

    @property
    def changelog(self) -> str:
        """Compacted topic of the agent's state."""
        return f"{self.name}.changelog"


_EXTERNAL_BYTES = 4096 * KIB  # a record of this size is still taken whole into the dead letters, with its reason


def _t(name: str, event: str | None, key: str, doc: str, **kw: object) -> Topic:
    return Topic(name=name, event=event, key=key, doc=doc, **kw)  # type: ignore[arg-type]


_BASE: tuple[Topic, ...] = (
    _t("market.trades", "MarketTrade", "symbol", "Ticks of the feeds.", external=True, max_bytes=_EXTERNAL_BYTES),
    _t("market.candles", "Candle", "symbol", "Closed bars.", external=True, max_bytes=_EXTERNAL_BYTES),
    _t("market.instruments", "Instrument", "symbol", "Costs and calendar of instruments.", external=True,
       retention_ms=FOREVER, max_bytes=_EXTERNAL_BYTES),
    _t("market.features", "Features", "symbol", "Indicators and regime at each close."),
    _t("market.regime.changed", "RegimeChanged", "symbol", "Regime labels that changed."),
    _t("system.clock", "Tick", "clock", "Event time, as ticks.", partitions=1, retention_ms=7 * DAY_MS),
    _t("rl.meta.strategy_selected", "Decision", "symbol", "Decisions; written by the agent decision alone."),
    _t("execution.trade.closed", "TradeClosed", "symbol", "Closed trades.", external=True,
       retention_ms=FOREVER, max_bytes=_EXTERNAL_BYTES),
    _t("decision.outcome", "DecisionOutcome", "symbol", "How decisions ended.", external=True,
       max_bytes=_EXTERNAL_BYTES),
    _t("policy.applied", "PolicyApplied", "symbol", "What appliers did with a policy.", external=True,
       max_bytes=_EXTERNAL_BYTES),
    _t("execution.equity.marked", "EquityMarked", "symbol", "Equity and open position of every book at each close."),
    _t("learning.experience", "Experience", "symbol", "One record a decision: what it was and how it ended.",
       retention_ms=FOREVER),
    _t("learning.orphan", "Orphan", "symbol", "Trades and outcomes that nothing can be learned from."),
    _t("learning.drift.detected", "DriftDetected", "symbol", "Alarms of drift detectors."),
    _t("rl.q_learning.updated", "QUpdated", "symbol", "Updates of Q-table cells."),
    _t("policy.ledger", "PolicyRecord", "policy_id", "Every version of every policy: the truth.",
       retention_ms=FOREVER),
    _t("policy.current", "PolicyRecord", "policy_id", "Newest version of every policy: a view.", cleanup="compact"),
    _t("policy.commands", "PolicyCommand", "command_id", "Commands of people.", partitions=1, external=True,
       retention_ms=FOREVER, max_bytes=_EXTERNAL_BYTES),
    _t("policy.config", "PolicyConfig", "agent", "Configuration of running agents, changed by people.", partitions=1,
       external=True, retention_ms=FOREVER, max_bytes=_EXTERNAL_BYTES),
    _t("system.health.alert", "HealthAlert", "component", "Health of components.", partitions=1, external=True,
       max_bytes=_EXTERNAL_BYTES),
    _t("rl.meta.updated", "MetaUpdated", "symbol", "Updates of the meta strategy's networks."),
    _t("rl_v3.training.started", "TrainingStarted", "symbol", "Training runs of the PPO trader begun."),
    _t("rl_v3.training.completed", "TrainingCompleted", "symbol", "How slots of its schedule ended, with the weights.",
       max_bytes=2048 * KIB),
    _t("rl_v3.decision", "TraderDecision", "symbol", "Decisions of the PPO trader."),
    _t("clm.predictions", None, "symbol", "Forecasts of models.", built=False),
    _t("clm.fit.requested", None, "model_id", "Fits asked for.", built=False),
    _t("clm.model.registered", None, "model_id", "Models in the registry.", built=False),
    _t("model.promoted", None, "model_id", "Promotions and rollbacks of models.", built=False),
    _t("shadow.comparisons", None, "symbol", "Shadow against production.", built=False),
    _t("shadow.recommendations", None, "symbol", "Recommendations of the shadow tests.", built=False),
    _t("experiment.definitions", None, "experiment_id", "A/B tests as defined.", built=False),
    _t("experiment.assignments", None, "symbol", "Variants assigned.", built=False),
    _t("experiment.verdicts", None, "experiment_id", "Results of A/B tests.", built=False),
    _t("risk.mode.changed", "RiskModeChanged", "scope", "Risk modes, with the reasons for each change.", partitions=1,
       retention_ms=FOREVER),
    _t("control.reveal", "ControlReveal", "run_id", "Key of the blind controls.", partitions=1, retention_ms=FOREVER),
    _t("state.blobs", None, "agent:scope:sha256:i/n", "Heavy state in chunks; see streams/blobs.py.",
       cleanup="compact"),
)


def _io(name: str, reads: Mapping[str, Route], writes: tuple[str, ...], **kw: object) -> AgentIO:
    return AgentIO(name=name, reads=reads, writes=writes, **kw)  # type: ignore[arg-type]


AGENTS: Mapping[str, AgentIO] = {
    a.name: a
    for a in (
        _io("bars", {"market.trades": "by_scope"}, ("market.candles",)),
        _io("features", {"market.candles": "by_scope"}, ("market.features", "market.regime.changed")),
        _io("decision",
            {"policy.commands": "broadcast", "policy.config": "broadcast", "policy.ledger": "by_scope",
             "market.features": "by_scope"},
            ("rl.meta.strategy_selected",)),
        _io("paper_execution",
            {"policy.commands": "broadcast", "market.instruments": "by_scope", "market.candles": "by_scope",
             "policy.ledger": "by_scope", "rl.meta.strategy_selected": "by_scope"},
            ("execution.trade.closed", "decision.outcome", "policy.applied", "execution.equity.marked")),
        _io("experience",
            {"execution.trade.closed": "by_scope", "decision.outcome": "by_scope",
             "rl.meta.strategy_selected": "by_scope"},
            ("learning.experience", "learning.orphan")),
        _io("q_learning", {"policy.commands": "broadcast", "learning.experience": "by_scope"},
            ("rl.q_learning.updated", "learning.drift.detected", "policy.ledger")),
        _io("meta_strategy", {"policy.commands": "broadcast", "learning.experience": "by_scope"},
            ("rl.meta.updated", "policy.ledger")),
        _io("ppo_trader",
            {"policy.commands": "broadcast", "policy.config": "broadcast", "policy.ledger": "global",
             "rl_v3.training.completed": "by_scope", "market.features": "by_scope"},
            ("rl_v3.training.started", "rl_v3.training.completed", "rl_v3.decision", "policy.ledger")),
        _io("trees", {"market.features": "by_scope"}, ("clm.predictions",), built=False),
        _io("forecast", {"market.features": "by_scope"}, ("clm.predictions",), built=False),
        _io("model_lifecycle", {"decision.outcome": "gather"}, ("clm.fit.requested",), built=False),
        _io("shadow", {"clm.predictions": "by_scope"}, ("shadow.comparisons",), built=False),
        _io("experiments", {"experiment.definitions": "broadcast"}, ("experiment.assignments",), built=False),
        _io("risk_controller",
            {"system.health.alert": "gather", "policy.commands": "gather", "execution.trade.closed": "gather",
             "execution.equity.marked": "gather", "market.regime.changed": "gather", "system.clock": "gather"},
            ("risk.mode.changed", "policy.ledger"), partitions=1),
    )
}


def _derived() -> Iterator[Topic]:
    for agent in AGENTS.values():
        if not agent.built:
            continue
        if not agent.direct:
            yield _t(agent.input_topic, None, "scope", f"Inputs of {agent.name}, copied as bytes in one order.",
                     partitions=agent.partitions, retention_ms=FOREVER, max_bytes=_EXTERNAL_BYTES + 64 * KIB)
        yield _t(agent.changelog, "ScopeState", "scope:<scope> or head", f"State of {agent.name}.",
                 partitions=agent.partitions, cleanup="compact", max_bytes=_EXTERNAL_BYTES)
    for topic in _BASE:
        if topic.built and any(topic.name in a.reads for a in AGENTS.values() if a.built):
            yield _t(f"{topic.name}.dlq", None, "as refused", f"Records of {topic.name} that were refused.",
                     partitions=1, retention_ms=FOREVER, max_bytes=_EXTERNAL_BYTES + 64 * KIB)


TOPICS: Mapping[str, Topic] = {t.name: t for t in (*_BASE, *_derived())}


def built_topics() -> list[Topic]:
    """Topics that exist on a broker, in catalogue order."""
    return [t for t in TOPICS.values() if t.built]


def built_agents() -> list[AgentIO]:
    """Agents that run."""
    return [a for a in AGENTS.values() if a.built]


def scope_of(topic: str, key: str) -> str:
    """Scope that a record belongs to: the part of a policy id behind the slash, else the key.

    >>> scope_of("policy.ledger", "q_learning/BTCUSDT"), scope_of("market.candles", "BTCUSDT")
    ('BTCUSDT', 'BTCUSDT')
    """
    if topic in ("policy.ledger", "policy.current"):
        return key.partition("/")[2]
    return key
