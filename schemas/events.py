"""The typed events. Generated from `schemas/avsc/` by `python -m schemas.generate`: do not edit."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of every record that has a schema; immutable."""

    SCHEMA_NAME: ClassVar[str] = ""


ControlKind = Literal["PLANTED", "REVERSED", "FAIR"]
CONTROL_KIND_SYMBOLS: tuple[ControlKind, ...] = ("PLANTED", "REVERSED", "FAIR")

Origin = Literal["CHECKED", "CLAIMED", "SYNTHETIC", "MIXED"]
ORIGIN_SYMBOLS: tuple[Origin, ...] = ("CHECKED", "CLAIMED", "SYNTHETIC", "MIXED")

OutcomeStatus = Literal["TRADED", "NEUTRAL", "NOT_EXECUTED"]
OUTCOME_STATUS_SYMBOLS: tuple[OutcomeStatus, ...] = ("TRADED", "NEUTRAL", "NOT_EXECUTED")

Side = Literal["LONG", "SHORT"]
SIDE_SYMBOLS: tuple[Side, ...] = ("LONG", "SHORT")

ExitReason = Literal["STOP", "TARGET", "SIGNAL", "HORIZON", "HALT", "LIQUIDATION", "MANUAL", "OTHER"]
EXIT_REASON_SYMBOLS: tuple[ExitReason, ...] = ("STOP", "TARGET", "SIGNAL", "HORIZON", "HALT", "LIQUIDATION", "MANUAL", "OTHER")

Strategy = Literal["trend_following", "mean_reversion", "breakout", "neutral"]
STRATEGY_SYMBOLS: tuple[Strategy, ...] = ("trend_following", "mean_reversion", "breakout", "neutral")

Regime = Literal["bull", "bear", "sideways", "volatile"]
REGIME_SYMBOLS: tuple[Regime, ...] = ("bull", "bear", "sideways", "volatile")

OrphanReason = Literal["NO_DECISION_ID", "UNKNOWN_DECISION", "LATE"]
ORPHAN_REASON_SYMBOLS: tuple[OrphanReason, ...] = ("NO_DECISION_ID", "UNKNOWN_DECISION", "LATE")

TakerSide = Literal["BUY", "SELL"]
TAKER_SIDE_SYMBOLS: tuple[TakerSide, ...] = ("BUY", "SELL")

Command = Literal["HALT", "RESUME", "FREEZE", "UNFREEZE", "ROLLBACK", "RETIRE", "OVERRIDE", "CLEAR"]
COMMAND_SYMBOLS: tuple[Command, ...] = ("HALT", "RESUME", "FREEZE", "UNFREEZE", "ROLLBACK", "RETIRE", "OVERRIDE", "CLEAR")

RiskMode = Literal["CONSERVATIVE", "MODERATE", "AGGRESSIVE", "TURBO"]
RISK_MODE_SYMBOLS: tuple[RiskMode, ...] = ("CONSERVATIVE", "MODERATE", "AGGRESSIVE", "TURBO")

PolicyStatus = Literal["ACTIVE", "FROZEN", "RETIRED"]
POLICY_STATUS_SYMBOLS: tuple[PolicyStatus, ...] = ("ACTIVE", "FROZEN", "RETIRED")

TraderMode = Literal["OFF", "SHADOW", "PRIMARY", "HYBRID"]
TRADER_MODE_SYMBOLS: tuple[TraderMode, ...] = ("OFF", "SHADOW", "PRIMARY", "HYBRID")

TraderAction = Literal["HOLD", "LONG", "SHORT", "REDUCE", "CLOSE", "EMERGENCY_FLATTEN"]
TRADER_ACTION_SYMBOLS: tuple[TraderAction, ...] = ("HOLD", "LONG", "SHORT", "REDUCE", "CLOSE", "EMERGENCY_FLATTEN")

TrainingStatus = Literal["SUCCEEDED", "SKIPPED", "FAILED"]
TRAINING_STATUS_SYMBOLS: tuple[TrainingStatus, ...] = ("SUCCEEDED", "SKIPPED", "FAILED")

Health = Literal["HEALTHY", "DEGRADED", "CRITICAL"]
HEALTH_SYMBOLS: tuple[Health, ...] = ("HEALTHY", "DEGRADED", "CRITICAL")


class ControlReveal(Event, frozen=True, kw_only=True, gc=False):
    """The key to the controls of a run, published when the run closes: until then nobody can tell their symbols from others."""

    SCHEMA_NAME: ClassVar[str] = "ControlReveal"
    run_id: str
    """Run of the controls; also the record key."""
    ts_ms: int
    """Event time of the newest candle of the controls."""
    seed: int
    """Seed from which names, order and markets follow."""
    generator: str
    """SHA-256 of the source that made the candles, hex."""
    controls: tuple[Control, ...]
    """Every control of the run."""
    source: str
    """Where the market data came from: synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class Control(Event, frozen=True, kw_only=True, gc=False):
    """One control."""

    SCHEMA_NAME: ClassVar[str] = "Control"
    symbol: str
    """Its symbol."""
    kind: ControlKind
    """What was planted; see ControlKind."""
    market_seed: int
    """Seed of its market: the generator makes its candles again."""
    bars: int
    """Bars for which its market was made: another length is another market."""
    published: int
    """How many of them were published, the first ones."""
    interval_ms: int
    """Length of a bar in milliseconds."""
    first_open_ms: int
    """Opening of its first bar."""


class DecisionOutcome(Event, frozen=True, kw_only=True, gc=False):
    """How a decision ended, as its executor saw it."""

    SCHEMA_NAME: ClassVar[str] = "DecisionOutcome"
    decision_id: str
    """The decision."""
    symbol: str
    """Instrument; also the record key."""
    book_id: str
    """Its book."""
    ts_ms: int
    """Event time: when the outcome was known."""
    status: OutcomeStatus
    """How it ended."""
    reason: str | None = None
    """Why it was not executed: position_open, no_signal, halt, daily_loss_limit, late, no_market, too_small or gap; null otherwise."""
    trade_id: str | None = None
    """The trade, where TRADED."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class EquityMarked(Event, frozen=True, kw_only=True, gc=False):
    """Equity and open position of every book of a symbol, marked at the close of a bar."""

    SCHEMA_NAME: ClassVar[str] = "EquityMarked"
    symbol: str
    """Instrument; also the record key."""
    interval_ms: int
    """Length of the bar in milliseconds."""
    ts_ms: int
    """Event time: end of the bar."""
    close: float
    """Mark price, quote currency."""
    halted: bool
    """True while a halt command is in force."""
    books: tuple[BookMark, ...]
    """Every book, the learners' and the baselines'."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class BookMark(Event, frozen=True, kw_only=True, gc=False):
    """One book at the mark."""

    SCHEMA_NAME: ClassVar[str] = "BookMark"
    book_id: str
    """Book; baseline books begin with baseline: ."""
    equity: float
    """Equity with the open position marked at the close, quote currency."""
    peak_equity: float
    """Running peak of equity."""
    drawdown: float
    """1 - equity / peak_equity."""
    day_pnl: float
    """Equity minus equity at the start of the UTC day, quote currency."""
    position: float
    """Signed quantity open, base currency."""
    entry_price: float | None = None
    """Average entry of the open position."""
    open_decision_id: str | None = None
    """Decision that opened it."""
    trades: int
    """Trades closed so far."""
    outcomes: int
    """Outcomes so far: trades and neutral decisions at their horizon."""
    sum_r: float
    """Sum of net R multiples over these outcomes."""
    sum_r2: float
    """Sum of their squares."""


class TradeClosed(Event, frozen=True, kw_only=True, gc=False):
    """A closed trade, from paper execution or an execution engine. Amounts are net where they say so."""

    SCHEMA_NAME: ClassVar[str] = "TradeClosed"
    trade_id: str
    """Unique for the writer for ever."""
    decision_id: str | None = None
    """Decision that this trade executed; null: nobody can learn from it."""
    book_id: str | None = None
    """Book that the trade belongs to."""
    symbol: str
    """Instrument; also the record key."""
    side: Side
    """Direction of the position."""
    ts_ms: int
    """Event time: when the trade closed."""
    opened_ms: int
    """When the position opened."""
    entry_price: float
    """Average fill of the entry, spread and slippage included, quote currency."""
    exit_price: float
    """Average fill of the exit, spread and slippage included, quote currency."""
    quantity: float
    """Size, base currency."""
    size_multiplier: float
    """Multiple of the unit risk that was taken."""
    leverage: float
    """Notional at open over equity at open."""
    equity_at_open: float
    """Equity of the book at open, quote currency."""
    notional_at_open: float
    """entry_price x quantity, quote currency."""
    risk_at_open: float
    """Loss at the stop before costs, quote currency: |entry_price - stop_price| x quantity."""
    stop_price: float | None = None
    """Protective stop."""
    target_price: float | None = None
    """Take-profit."""
    fees: float
    """Fees of both fills, quote currency; negative is a rebate."""
    funding: float
    """Funding paid (positive) or received (negative), quote currency."""
    spread_cost: float
    """Half spreads of both fills, already inside the fill prices, quote currency."""
    slippage: float
    """Slippage of both fills, already inside the fill prices, quote currency."""
    pnl_usd: float
    """Net result: side x (exit - entry) x quantity - fees - funding, quote currency."""
    pnl_pct: float
    """pnl_usd / equity_at_open."""
    r_multiple: float
    """pnl_usd / risk_at_open: net result in units of risk."""
    mae_pct: float | None = None
    """Worst excursion against the position, fraction of the entry price, <= 0."""
    mfe_pct: float | None = None
    """Best excursion for the position, fraction of the entry price, >= 0."""
    bars_held: int | None = None
    """Bars from the first to the last that the position saw."""
    exit_reason: ExitReason
    """Why the position was closed."""
    strategy: Strategy
    """Strategy that was executed."""
    policy_id: str | None = None
    """Policy in force at the decision."""
    policy_version: int | None = None
    """Its version."""
    model_id: str | None = None
    """Model whose forecast was used, if any."""
    experiment_variant: str | None = None
    """Variant of an experiment, if any."""
    execution: str
    """exchange:<name> or paper:<rules>: who filled it and by which assumptions."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class DriftDetected(Event, frozen=True, kw_only=True, gc=False):
    """A drift detector raised an alarm."""

    SCHEMA_NAME: ClassVar[str] = "DriftDetected"
    symbol: str
    """Instrument; also the record key."""
    ts_ms: int
    """Event time."""
    agent: str
    """Learner whose residuals are watched."""
    strategy: Strategy
    """Strategy whose residuals changed."""
    detector: str
    """Detector and parameters, e.g. ADWIN(delta=0.002)."""
    window_before: int
    """Residuals in the detector's window before the alarm."""
    window_after: int
    """Residuals kept after it."""
    mean_residual: float
    """Mean residual of the kept window, R."""
    decision_id: str
    """Experience that raised it."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class Experience(Event, frozen=True, kw_only=True, gc=False):
    """One decision and how it ended: exactly one a decision. N outcomes in any target counts TRADED and NEUTRAL."""

    SCHEMA_NAME: ClassVar[str] = "Experience"
    decision_id: str
    """The decision; also the id of the experience."""
    symbol: str
    """Instrument; also the record key."""
    book_id: str
    """Book, so the decider that learns from it on-policy."""
    ts_ms: int
    """Event time: when the outcome was known."""
    decided_ms: int
    """Event time of the decision."""
    status: OutcomeStatus
    """How it ended."""
    reason: str | None = None
    """Why it was not executed; null otherwise."""
    learnable: bool
    """False for NOT_EXECUTED and for forced decisions."""
    forced: bool
    """Whether the action did not come from a policy."""
    action: Strategy
    """The strategy that the decision chose."""
    propensity: float
    """Probability with which it was drawn."""
    policy_version: int | None = None
    """Version of the policy in force."""
    state_key: str | None = None
    """The policy's cell at the decision."""
    regime: Regime
    """Regime at the decision."""
    volatility: float
    """volatility_30 at the decision."""
    observation: tuple[float | None, ...] | None = None
    """State of the market and the learner at the decision, as it says itself: return_1, volatility_30, trend_strength, price_range, volume_ratio_20, rsi_14/100, macd, bollinger_position, adx_14/100, stochastic_k_14/100, atr_14_pct, obv_slope_14, ema_dist_14, regime bull, bear, sideways, volatile (0 or 1), model_confidence, recent_pnl_mean, recent_pnl_std, in this order; null where there is no such number. Null as a whole in records of older releases."""
    trade_id: str | None = None
    """The trade, where TRADED."""
    reward_r: float
    """Net result in units of risk at size 1; 0 where NEUTRAL or NOT_EXECUTED."""
    pnl_usd: float
    """Net result in quote currency; 0 where there was no trade."""
    size_multiplier: float
    """Multiple of the unit risk that was taken."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class Orphan(Event, frozen=True, kw_only=True, gc=False):
    """A trade or outcome that no experience can be made of, with the reason."""

    SCHEMA_NAME: ClassVar[str] = "Orphan"
    orphan_id: str
    """Trade id, or decision id of an outcome."""
    symbol: str
    """Instrument; also the record key."""
    ts_ms: int
    """Event time at which it was given up."""
    reason: OrphanReason
    """NO_DECISION_ID: the trade names no decision. UNKNOWN_DECISION: the decision never came within the grace time. LATE: its decision had already ended."""
    trade_id: str | None = None
    """The trade, if it was one."""
    decision_id: str | None = None
    """The decision that it names."""
    pnl_usd: float | None = None
    """Net result of the trade."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class Candle(Event, frozen=True, kw_only=True, gc=False):
    """One closed bar (open, high, low, close, volume) of a symbol."""

    SCHEMA_NAME: ClassVar[str] = "Candle"
    symbol: str
    """Instrument, e.g. BTCUSDT; also the record key."""
    interval_ms: int
    """Length of the bar in milliseconds."""
    open_time_ms: int
    """Start of the bar, epoch milliseconds UTC, inclusive."""
    ts_ms: int
    """Event time: end of the bar, open_time_ms + interval_ms, epoch milliseconds UTC, exclusive."""
    open: float
    """First price, quote currency."""
    high: float
    """Highest price, quote currency."""
    low: float
    """Lowest price, quote currency."""
    close: float
    """Last price, quote currency."""
    volume: float | None = None
    """Traded volume, base currency; null where the feed has none."""
    quote_volume: float | None = None
    """Traded volume, quote currency."""
    trades: int | None = None
    """Number of trades in the bar."""
    taker_buy_volume: float | None = None
    """Volume bought by takers, base currency."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class Features(Event, frozen=True, kw_only=True, gc=False):
    """Indicators and regime of a symbol at the close of a bar, from that bar and earlier ones only. Ratios and returns, never price levels. A field is null while its window is not full, where the feed lacks its input, and where it is undefined (0 / 0, e.g. in a market that does not move). Bars are counted as they come: over a short gap the windows carry on and its return counts as one bar's; after a long one (more than 12 bars and more than 4 days) all windows start anew. An exponential mean (EMA) of span n has weight 2 / (n + 1), starts at the first value and counts as full after n bars; Wilder's mean of n is the plain mean of the first n values, then has weight 1 / n."""

    SCHEMA_NAME: ClassVar[str] = "Features"
    symbol: str
    """Instrument; also the record key."""
    interval_ms: int
    """Length of the bar in milliseconds."""
    open_time_ms: int
    """Start of the bar, epoch milliseconds UTC."""
    ts_ms: int
    """Event time: end of the bar, epoch milliseconds UTC."""
    bar_count: int
    """Bars of this symbol and interval taken so far, this one included; gaps do not reset it."""
    ready: bool
    """True once every price window is full since the last long gap and a regime is labelled; no decision before. Volume windows (20 bars) are shorter and do not count: they may be null."""
    regime: Regime | None = None
    """Regime with hysteresis; null until its windows are full."""
    close: float
    """Close of the bar, quote currency; for execution and charts, not an input to a model."""
    open: float | None = None
    """Open of the bar, quote currency; for execution and charts, not an input to a model. Null in records of older releases, as high and low."""
    high: float | None = None
    """High of the bar, quote currency."""
    low: float | None = None
    """Low of the bar, quote currency."""
    return_1: float | None = None
    """Natural log of close / close 1 bar ago."""
    return_5: float | None = None
    """Natural log of close / close 5 bars ago."""
    return_15: float | None = None
    """Natural log of close / close 15 bars ago."""
    sma_dist_7: float | None = None
    """close / simple mean of 7 closes - 1."""
    sma_dist_14: float | None = None
    """close / simple mean of 14 closes - 1."""
    sma_dist_30: float | None = None
    """close / simple mean of 30 closes - 1."""
    sma_dist_50: float | None = None
    """close / simple mean of 50 closes - 1."""
    ema_dist_7: float | None = None
    """close / exponential mean (span 7) - 1."""
    ema_dist_14: float | None = None
    """close / exponential mean (span 14) - 1."""
    ema_dist_30: float | None = None
    """close / exponential mean (span 30) - 1."""
    ema_dist_50: float | None = None
    """close / exponential mean (span 50) - 1."""
    volatility_7: float | None = None
    """Standard deviation (ddof 1) of the last 7 one-bar log returns."""
    volatility_30: float | None = None
    """Standard deviation (ddof 1) of the last 30 one-bar log returns."""
    volatility_ratio: float | None = None
    """volatility_30 / its usual level; above 1 the market moves more than usual. Usual level: exponential mean (weight 2 / (min(count, 3000) + 1)) of log volatility_30 with each innovation clipped to [-.3, .1], this bar's included, so that a volatile spell of hundreds of bars does not become the usual; bars of volatility 0 do not move it. Null until it has seen 200 values."""
    rsi_14: float | None = None
    """Relative strength index: 100 * gain / (gain + loss), Wilder's means over 14 bars of upward and downward moves of the close, 0..100; full at bar 15."""
    macd: float | None = None
    """(EMA 12 - EMA 26) / close; full at bar 26."""
    macd_signal: float | None = None
    """EMA 9 of (EMA 12 - EMA 26), begun at bar 1, / close; full at bar 34."""
    macd_hist: float | None = None
    """macd - macd_signal."""
    bollinger_position: float | None = None
    """(close - middle) / (2 standard deviations) over 20 closes, population deviation (ddof 0); 1 at the upper band."""
    bollinger_width: float | None = None
    """Upper minus lower band over the middle: 4 population standard deviations / mean of 20 closes."""
    atr_14_pct: float | None = None
    """Average true range, Wilder's mean over 14 bars, as a fraction of the close; full at bar 15."""
    adx_14: float | None = None
    """Average directional index, 0..100: Wilder's mean over 14 bars of DX = 100 |P - M| / (P + M), P and M Wilder's means over 14 bars of directional movement; DX is 0 where nothing moved; full at bar 28."""
    stochastic_k_14: float | None = None
    """Stochastic %K: 100 (close - lowest low) / (highest high - lowest low) of 14 bars, this one included, 0..100."""
    range_position: float | None = None
    """(close - lowest low) / (highest high - lowest low) of the last 20 bars before this one; below 0 or above 1 is a breakout."""
    momentum_5: float | None = None
    """close / close 5 bars ago - 1."""
    momentum_10: float | None = None
    """close / close 10 bars ago - 1."""
    momentum_20: float | None = None
    """close / close 20 bars ago - 1."""
    price_range: float | None = None
    """(high - low) / close of this bar."""
    trend_strength: float | None = None
    """Sum of the last 30 log returns over (volatility_30 * sqrt(30)): a t-like trend score."""
    volume_ratio_20: float | None = None
    """Volume / mean volume of the last 20 bars, this one included; null while any of them lacks volume."""
    obv_slope_14: float | None = None
    """Volume signed by the direction of the close, sum of 14 bars, over total volume of the same bars, -1..1; null while any of them lacks volume."""
    taker_buy_share: float | None = None
    """Share of this bar's volume that takers bought; null where the feed has none or the bar no volume."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class Instrument(Event, frozen=True, kw_only=True, gc=False):
    """What an instrument costs and which calendar it keeps; the newest record before a bar applies to it."""

    SCHEMA_NAME: ClassVar[str] = "Instrument"
    symbol: str
    """Instrument; also the record key."""
    ts_ms: int
    """Event time from which this holds, epoch milliseconds UTC."""
    days_per_year: int
    """Trading days a year: 365 for crypto, 252 for exchanges with weekends."""
    fee_bps: float
    """Fee for each fill, basis points of its notional."""
    half_spread_bps: float
    """Half the bid-ask spread, paid on each fill, basis points of the price."""
    slippage_bps: float
    """Further adverse move on each fill, basis points of the price."""
    funding_bps: float | None = None
    """Funding for each funding interval paid by longs to shorts, basis points of notional; null: not a perpetual."""
    funding_interval_ms: int | None = None
    """Time between two fundings, on the UTC grid."""
    volume_cap: float | None = None
    """Largest share of a bar's volume that one fill may take; null: volume unknown, no cap."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class RegimeChanged(Event, frozen=True, kw_only=True, gc=False):
    """The regime label of a symbol changed at the close of a bar."""

    SCHEMA_NAME: ClassVar[str] = "RegimeChanged"
    symbol: str
    """Instrument; also the record key."""
    interval_ms: int
    """Length of the bar in milliseconds."""
    ts_ms: int
    """Event time: end of the bar at which the label changed."""
    previous: Regime | None = None
    """Label before; null for the first."""
    current: Regime
    """Label from now on."""
    bars_in_previous: int
    """Bars that the previous label held."""
    trend_strength: float
    """The trend score that led to the label."""
    volatility_ratio: float
    """The volatility ratio that led to the label."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class MarketTrade(Event, frozen=True, kw_only=True, gc=False):
    """One trade of the market (a tick): what somebody, somewhere, bought from somebody else."""

    SCHEMA_NAME: ClassVar[str] = "MarketTrade"
    symbol: str
    """Instrument, e.g. BTCUSDT; also the record key."""
    trade_id: int
    """The source's number of the trade: one a trade of the symbol, rising with its time. A trade that comes again is known by it."""
    ts_ms: int
    """Event time: when the trade was made, epoch milliseconds UTC."""
    price: float
    """Price, quote currency."""
    quantity: float
    """Quantity, base currency."""
    taker_side: TakerSide | None = None
    """Who took; null where the feed does not say."""
    source: str
    """Where the market data came from: a feed (binance-usdm) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class PolicyApplied(Event, frozen=True, kw_only=True, gc=False):
    """An applier reports which action it executed for a decision and what it would have done without the policy."""

    SCHEMA_NAME: ClassVar[str] = "PolicyApplied"
    decision_id: str
    """The decision."""
    symbol: str
    """Instrument; also the record key."""
    ts_ms: int
    """Event time of the execution."""
    policy_id: str
    """Policy that recommended."""
    policy_version: int
    """Its version."""
    recommended_action: str
    """What the policy recommended."""
    executed_action: str
    """What was executed."""
    baseline_action: str
    """What would have been executed without the policy."""
    applier: str
    """Who executed, e.g. paper_execution."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class PolicyCommand(Event, frozen=True, kw_only=True, gc=False):
    """A person tells the system what to do."""

    SCHEMA_NAME: ClassVar[str] = "PolicyCommand"
    command_id: str
    """Unique."""
    ts_ms: int
    """Event time from which it holds."""
    command: Command
    """HALT and RESUME: close positions and open none. The others act on a policy: FREEZE stops learning, UNFREEZE lets it go on, ROLLBACK takes an old state back, RETIRE ends it. OVERRIDE and CLEAR act on the risk policy: a mode by command until a time, and the end of that."""
    symbol: str | None = None
    """Symbol that it concerns; null: all."""
    policy_id: str | None = None
    """Policy that it concerns."""
    version: int | None = None
    """Version to roll back to."""
    actor: str
    """Who commands."""
    reason: str
    """Why."""
    freeze: bool | None = None
    """With ROLLBACK: learn nothing more from there on; null or false: learning goes on."""
    seen_version: int | None = None
    """Newest version on the ledger when the command was given; what was learned since is undone as well."""
    state: bytes | None = None
    """With ROLLBACK: the learner's state at that version, as it was encoded then; at most 512 KiB."""
    state_hash: str | None = None
    """With ROLLBACK: SHA-256 of scope, a zero byte and that state, hex; what the version's provenance names."""
    state_format: int | None = None
    """With ROLLBACK: format version of that state."""
    mode: RiskMode | None = None
    """With OVERRIDE: the risk mode."""
    until_ms: int | None = None
    """With OVERRIDE: event time at which it ends."""
    heavy: tuple[bytes, ...] | None = None
    """With ROLLBACK: the parts of that state which it names by their SHA-256 only, such as the weights of a network; null where it has none."""


class PolicyConfig(Event, frozen=True, kw_only=True, gc=False):
    """A person changes the configuration of a running agent."""

    SCHEMA_NAME: ClassVar[str] = "PolicyConfig"
    config_id: str
    """Unique."""
    agent: str
    """Agent that it concerns, in all its scopes; also the record key."""
    ts_ms: int
    """Event time from which it holds."""
    values: str
    """A JSON object: field of the agent's configuration to value. It is whole: a field that it does not name has the value with which the agent was started."""
    actor: str
    """Who changes it."""
    reason: str
    """Why."""


class PolicyRecord(Event, frozen=True, kw_only=True, gc=False):
    """A policy: an envelope and one payload that can be applied directly. Append-only: the truth."""

    SCHEMA_NAME: ClassVar[str] = "PolicyRecord"
    policy_id: str
    """<agent>/<scope>; also the record key."""
    version: int
    """1, 2, 3 ... without gap; take only versions above the one held."""
    agent: str
    """Agent that learned it."""
    scope: str
    """Symbol, or global."""
    ts_ms: int
    """Event time of the event that produced this version."""
    valid_from_ms: int
    """Decisions at or after this event time may apply it."""
    valid_until_ms: int | None = None
    """After this event time use fallback."""
    fallback: str
    """Action to take where the policy cannot be applied."""
    status: PolicyStatus
    """FROZEN: serves, learns no more. RETIRED: fall back."""
    reason: str
    """Why this version: genesis, update, drift, or the command with the person's reason; refused: where a command could not be obeyed."""
    outcomes: int
    """Outcomes learned from so far."""
    mask: tuple[str, ...]
    """Dimensions of the state that were dropped because their input is absent."""
    actions: tuple[str, ...]
    """Action names in the order of every array below."""
    tabular: Tabular | None = None
    """Payload of a tabular policy; null for other kinds."""
    limits: RiskPolicy | None = None
    """Payload of a risk policy; null for other kinds."""
    network: Network | None = None
    """Payload of a policy that is a neural network; null for other kinds."""
    edge_claim: bool | None = None
    """Whether the outcomes of this policy's own decisions show a mean above neutral (0): true while edge.lower_r is above 0, false while it is not; null where it was not evaluated (fewer than 100 outcomes, or a learner that does not evaluate it). It speaks of this version: a later one may take it back."""
    edge: Edge | None = None
    """Null where edge_claim is null."""
    command_id: str | None = None
    """Command that this version answers; null where none made it."""
    actor: str | None = None
    """Who gave that command."""
    obeyed: bool | None = None
    """Whether that command was obeyed; false: refused, and nothing but the version is new."""
    restored_version: int | None = None
    """Version whose state a rollback took back; the versions between are undone."""
    unlearned: int | None = None
    """Learnable outcomes so far from which nothing was learned, because the policy was frozen or retired; null in records of older releases."""
    provenance: Provenance | None = None
    """Which inputs and which code made this version; stamped by the fold."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class Tabular(Event, frozen=True, kw_only=True, gc=False):
    """A table from cell to action. Find the cell: regime, and the bucket of volatility_30 between the edges (bucket = number of edges <= value)."""

    SCHEMA_NAME: ClassVar[str] = "Tabular"
    volatility_edges: tuple[float, ...]
    """Ascending edges of the volatility buckets."""
    cells: tuple[Cell, ...]
    """Every cell."""


class Cell(Event, frozen=True, kw_only=True, gc=False):
    """One state."""

    SCHEMA_NAME: ClassVar[str] = "Cell"
    state_key: str
    """<regime>|vol:<bucket>."""
    probabilities: tuple[float, ...]
    """Probability of drawing each action, exploration included; sums to 1."""
    q: tuple[float, ...]
    """Estimated net result of each action, R."""
    se: tuple[float, ...]
    """Standard error of each estimate, R; large where unvisited."""
    visits: tuple[int, ...]
    """Outcomes of each action."""
    greedy: str
    """Action with the highest estimate."""


class RiskPolicy(Event, frozen=True, kw_only=True, gc=False):
    """Limits in force, and those that take their place past the policy's end."""

    SCHEMA_NAME: ClassVar[str] = "RiskPolicy"
    now: RiskLimits
    """Limits in force."""
    otherwise: RiskLimits
    """Limits past valid_until_ms: those of the mode that fallback names."""
    synthetic: bool
    """Whether they bind symbols of origin SYNTHETIC too; false: those are judged by nothing here and bound by nothing."""
    full_books: tuple[str, ...]
    """Books that held max_positions positions or more at the newest marks: they open nothing more."""
    closed_until_ms: int | None = None
    """No book opens anything before this event time: the daily loss of all judged books together has reached its limit; null where it has not."""


class RiskLimits(Event, frozen=True, kw_only=True, gc=False):
    """Limits of a risk mode."""

    SCHEMA_NAME: ClassVar[str] = "RiskLimits"
    mode: RiskMode
    """The mode."""
    risk_per_trade: float
    """Largest loss of a trade at its stop, before costs, as a fraction of the book's equity."""
    min_confidence: float
    """Smallest confidence of a decision, where it states one."""
    max_positions: int
    """Symbols in which a book may hold a position at a time."""
    max_leverage: float
    """Largest notional of a position over the book's equity."""
    stop_atr: float
    """Distance of the stop in average true ranges."""
    daily_loss_limit: float
    """Loss since the start of the UTC day, fraction of the equity then, from which on nothing more is opened that day."""


class Network(Event, frozen=True, kw_only=True, gc=False):
    """A policy as a neural network: x = clip((observation - means) / deviations, -clip, clip) over the named inputs; actor(x) gives one logit an action, critic(x) the value in R. A network is layer by layer x @ weight + bias, with the activation behind every layer but the last. Probabilities are the softmax of the logits."""

    SCHEMA_NAME: ClassVar[str] = "Network"
    inputs: tuple[str, ...]
    """Names of the inputs in their order; those of the state that mask names are dropped."""
    means: tuple[float, ...]
    """Taken off each input."""
    deviations: tuple[float, ...]
    """Each input is divided by its own."""
    clip: float
    """Scaled inputs are held within plus and minus this."""
    activation: str
    """tanh or relu."""
    residual_deviation: float
    """How far results lay from the critic's values in the last round, root mean square, R; 1 before the first."""
    weights: bytes
    """Tensors actor.<i>.weight [in, out], actor.<i>.bias [out], critic.<i>.weight, critic.<i>.bias in the safetensors format: u64 length of the header, header as JSON (name to dtype F32 or F64, shape, data_offsets), then the numbers, little-endian, row by row."""
    weights_sha256: str
    """SHA-256 of weights, hex."""


class Edge(Event, frozen=True, kw_only=True, gc=False):
    """What edge_claim rests on: all outcomes learned from so far (TRADED and NEUTRAL), net of costs, in R at size 1."""

    SCHEMA_NAME: ClassVar[str] = "Edge"
    n: int
    """Outcomes."""
    mean_r: float
    """Their mean."""
    sd_r: float
    """Their standard deviation (ddof 1)."""
    lower_r: float
    """Anytime lower bound of the mean: two-sided normal mixture, alpha .01, v_opt 500, one unseen loss of 1 R counted in."""
    smallest_r: float
    """Smallest mean that n outcomes of this deviation could have shown to be above 0."""


class Provenance(Event, frozen=True, kw_only=True, gc=False):
    """Which inputs and which code made this version."""

    SCHEMA_NAME: ClassVar[str] = "Provenance"
    parent_hash: str | None = None
    """SHA-256 of the state before the first input since the parent; null at genesis."""
    state_hash: str
    """SHA-256 of the state after the last input."""
    input_topic: str
    """Topic that was folded."""
    input_partition: int
    """Its partition."""
    from_offset: int
    """First offset consumed since the parent."""
    to_offset: int
    """Last offset consumed."""
    config_hash: str
    """SHA-256 of the agent's configuration."""
    code_hash: str
    """SHA-256 of the agent's code, the algorithms it imports, the schemas and the versions of numerical libraries."""
    feature_schema_hash: str
    """Fingerprint of market.features' schema."""
    seed: int
    """Seed of the run."""
    platform: str
    """Python version, machine, operating system, and a print of how floating point comes out there."""


class RiskModeChanged(Event, frozen=True, kw_only=True, gc=False):
    """The risk mode changed, or what forces it did, with every reason."""

    SCHEMA_NAME: ClassVar[str] = "RiskModeChanged"
    scope: str
    """Whose mode: global; also the record key."""
    ts_ms: int
    """Event time of the event that let it change."""
    previous: RiskMode | None = None
    """Mode before; null for the first."""
    current: RiskMode
    """Mode from now on."""
    scored: RiskMode
    """Mode that the scores alone give; another than current where it is forced."""
    forced: str | None = None
    """CRITICAL or OVERRIDE where the mode is forced; null where the scores give it."""
    defensive: int
    """Defensive points."""
    aggressive: int
    """Aggressive points."""
    reasons: tuple[RiskReason, ...]
    """All that counted, those that force first."""
    judged: tuple[str, ...]
    """Symbols whose books were judged; empty: none, and the mode is the initial one."""
    basis: str
    """What was judged, in words: which books, of which origin, and what was not judged."""
    policy_version: int
    """Version of risk_controller/<scope> that brings it into force."""
    command_id: str | None = None
    """Command that let it change; null where none did."""
    actor: str | None = None
    """Who gave that command."""
    until_ms: int | None = None
    """Event time at which an override ends; null without one."""
    provenance: Provenance | None = None
    """Which inputs and which code made this version; stamped by the fold."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class RiskReason(Event, frozen=True, kw_only=True, gc=False):
    """One thing that spoke for a mode, with the value measured."""

    SCHEMA_NAME: ClassVar[str] = "RiskReason"
    name: str
    """What it is, e.g. drawdown; the rules stand in agents/risk_controller/table.py."""
    points: int
    """Points: below 0 defensive, above 0 aggressive, 0 where it forces or only informs."""
    value: float | None = None
    """Value measured; null where it has none."""
    threshold: float | None = None
    """Value from which on it counts."""
    n: int | None = None
    """Records that the value rests on."""
    evidence: tuple[str, ...]
    """Records behind it, at most 8, newest last: topic/key@event time, or topic/id where they have one."""


class Decision(Event, frozen=True, kw_only=True, gc=False):
    """A strategy chosen for a symbol and book at the close of a bar, with everything that the choice rested on."""

    SCHEMA_NAME: ClassVar[str] = "Decision"
    decision_id: str
    """<symbol>/<book_id>/<ts_ms>: a function of the input, equal in every replay."""
    symbol: str
    """Instrument; also the record key."""
    book_id: str
    """Paper book that this decision is for; one a decider."""
    decider: str
    """Agent whose policy decides."""
    ts_ms: int
    """Event time: close of the bar that the decision was taken on."""
    interval_ms: int
    """Length of the bar in milliseconds."""
    next_ts_ms: int
    """Event time of this book's next decision; execution waits for it."""
    action: Strategy
    """The strategy chosen."""
    greedy_action: Strategy
    """The strategy that the policy holds best; action differs from it where it explored."""
    baseline_action: Strategy
    """What would have been chosen without the policy."""
    propensity: float
    """Probability with which action was drawn, exploration and tie-breaking included."""
    forced: bool
    """True where the action did not come from a policy; never learned from."""
    forced_reason: str | None = None
    """no_policy, policy_expired, policy_retired, policy_rolled_back, halt, missing_feature, risk_max_positions, risk_daily_loss or risk_min_confidence; null where not forced."""
    policy_id: str | None = None
    """Policy that was in force; null where none was."""
    policy_version: int | None = None
    """Its version."""
    state_key: str | None = None
    """The policy's cell, e.g. bull|vol:1; null where forced without a policy, and for a policy without cells."""
    regime: Regime
    """Regime at the decision."""
    volatility: float
    """volatility_30 at the decision."""
    close: float
    """Close of the bar, quote currency."""
    atr_pct: float
    """ATR 14 as a fraction of the close."""
    signals: tuple[int, ...]
    """Direction (-1, 0, 1) that each strategy would take, in the order of Strategy's symbols."""
    size_multiplier: float
    """Multiple of the unit risk, set by the sizing rule and clipped by the risk limits."""
    limits: RiskLimits | None = None
    """Risk limits in force at the decision, which its execution keeps; null where no risk policy binds the symbol."""
    limits_version: int | None = None
    """Version of risk_controller/global that they are of."""
    observation: tuple[float | None, ...] | None = None
    """State of the market and the learner at the decision: return_1, volatility_30, trend_strength, price_range, volume_ratio_20, rsi_14/100, macd, bollinger_position, adx_14/100, stochastic_k_14/100, atr_14_pct, obv_slope_14, ema_dist_14, regime bull, bear, sideways, volatile (0 or 1), model_confidence, recent_pnl_mean, recent_pnl_std, in this order; null where there is no such number. Null as a whole in records of older releases."""
    log_probability: float | None = None
    """Natural logarithm of propensity, as the policy's network gave it; null where no network chose."""
    value: float | None = None
    """Net result that the policy's critic expects of the state, R; null where no network chose."""
    default_book: bool | None = None
    """Whether the default book follows this decision too: whoever follows one decider only takes these. Which decider drives it is configuration of the agent decision (default_decider), on policy.config. Null in records of older releases."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class MetaUpdated(Event, frozen=True, kw_only=True, gc=False):
    """One update of the meta strategy's networks from one round of experiences. Figures are means over the minibatches of the last epoch, unless they say otherwise."""

    SCHEMA_NAME: ClassVar[str] = "MetaUpdated"
    symbol: str
    """Instrument; also the record key."""
    ts_ms: int
    """Event time of the experience that filled the round."""
    policy_version: int
    """Version that this update produced."""
    decision_ids: tuple[str, ...]
    """The experiences learned from, each used this once."""
    n: int
    """How many they are."""
    mean_reward_r: float
    """Their mean net result, R."""
    policy_loss: float
    """Clipped objective, negated."""
    value_loss: float
    """Squared error of the critic, R^2."""
    entropy: float
    """Of the policy, nats; ln 4 where it is blind."""
    approx_kl: float
    """From the policy that acted to the one that learned, nats."""
    clip_fraction: float
    """Share of probability ratios outside of the clip range."""
    explained_variance: float
    """1 - Var(result - value) / Var(result), of the critic before the update; 0 where the results do not vary."""
    grad_norm: float
    """Largest norm of a gradient before it was scaled down."""
    lr: float
    """Learning rate."""
    gradient_steps: int
    """Of this update."""
    stopped_early: bool
    """Whether the limit of the KL ended it."""
    used: int
    """Experiences learned from since the beginning."""
    stale: int
    """Of these, those that an old version chose, and the newest would have chosen much alike."""
    dropped: int
    """Experiences left out since the beginning: an old version chose what the newest would not, or a rollback undid the version that chose."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class QUpdated(Event, frozen=True, kw_only=True, gc=False):
    """One update of one cell of a Q-table."""

    SCHEMA_NAME: ClassVar[str] = "QUpdated"
    symbol: str
    """Instrument; also the record key."""
    ts_ms: int
    """Event time of the experience learned from."""
    decision_id: str
    """The experience learned from."""
    policy_version: int
    """Version that this update produced."""
    state_key: str
    """Cell."""
    action: Strategy
    """Strategy."""
    reward_r: float
    """Net result in units of risk."""
    q_before: float
    """Estimate before, in R."""
    q_after: float
    """Estimate after, in R."""
    visits: int
    """Outcomes of this cell and action, this one included."""
    step_size: float
    """Step that was used."""
    residual: float
    """reward_r - q_before; what the drift detector watches."""
    drift: bool
    """Whether this outcome raised a drift alarm for the strategy."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class TraderDecision(Event, frozen=True, kw_only=True, gc=False):
    """What the PPO trader does at the close of a bar, executed at the next open; and the account on paper that it does it for."""

    SCHEMA_NAME: ClassVar[str] = "TraderDecision"
    decision_id: str
    """<symbol>/ppo_trader/<ts_ms>; the same in every replay."""
    symbol: str
    """Instrument; also the record key."""
    ts_ms: int
    """Close of the bar that it rests on."""
    interval_ms: int
    """Length of a bar."""
    mode: TraderMode
    """Mode of the adapter."""
    binding: bool
    """Whether an executor must follow it; false in mode SHADOW, and in HYBRID where it is forced or confidence is too low."""
    action: TraderAction
    """What is done."""
    recommended: TraderAction | None = None
    """Most probable valid action of the policy; null where none was asked."""
    forced: bool
    """Whether action is not what the policy recommends."""
    forced_reason: str | None = None
    """no_policy, policy_expired, policy_retired, missing_feature, halt, low_confidence, rate_limit, risk_closed, ruined; null where not forced."""
    probabilities: tuple[float, ...]
    """Of every action in the order of TraderAction; empty where no policy was asked."""
    valid: tuple[str, ...]
    """Actions that were valid."""
    log_probability: float | None = None
    """Of the recommended action."""
    value: float | None = None
    """What the critic expects."""
    entropy: float | None = None
    """Of the probabilities, nats."""
    confidence: float | None = None
    """1 - entropy / ln(number of valid actions); 1 where only one is valid. Not the size of value, which says nothing of how sure the policy is."""
    min_confidence: float
    """Below it nothing is opened."""
    policy_id: str | None = None
    """The policy; null where there is none yet."""
    policy_version: int | None = None
    """Its version."""
    observation: tuple[float, ...]
    """What the networks were given; empty where none was asked."""
    close: float
    """Close of the bar."""
    side: int
    """Position of the account on paper before the action: 1 long, -1 short, 0 none."""
    quantity: float
    """Its size, base currency."""
    equity: float
    """Of the account on paper, marked at the close."""
    risk_pct: float
    """Loss at the stop that a new position may bring, fraction of the balance."""
    max_leverage: float
    """Notional over balance that it may not pass."""
    stop_distance: float
    """Distance of its stop, price; 0: no position can be opened."""
    limits_policy: str | None = None
    """Risk policy whose limits hold, <policy id>@<version>; null where there is none."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class TrainingCompleted(Event, frozen=True, kw_only=True, gc=False):
    """How a slot of the training schedule ended: the result of a run, the failure of an attempt, or why there was no run. The wall time of a run is not in it: the same log gives the same record."""

    SCHEMA_NAME: ClassVar[str] = "TrainingCompleted"
    symbol: str
    """Instrument; also the record key."""
    run_id: str
    """Training run: ppo_trader/<symbol>/<start of the slot>; the same in every replay."""
    ts_ms: int
    """Event time."""
    slot_start_ms: int
    """Start of the slot, on the UTC grid."""
    slot_end_ms: int
    """End of the slot, not in it."""
    slots: int
    """Slots that the record speaks of, the last of them this one; above 1 only where many in a row had no bar."""
    job_id: str | None = None
    """Attempt that it answers; null where there was none."""
    attempt: int
    """Number of the attempt; 0 where there was none."""
    status: TrainingStatus
    """How it ended."""
    success: bool
    """Whether status is SUCCEEDED."""
    skipped: str | None = None
    """no_new_data: no bar came in the slot; warm_up: too few bars whose windows are full; disabled, frozen, retired, rolled_back: by command or configuration; backlog: too many slots waited; synthetic: the symbol is a made one, and these are left out."""
    error: str | None = None
    """How an attempt failed."""
    episodes: int
    """Episodes that were played to their end."""
    rows: int | None = None
    """Bars in the window that is learned from."""
    first_open_ms: int | None = None
    """Opening time of the oldest of them."""
    last_open_ms: int | None = None
    """Opening time of the newest of them."""
    mask: tuple[str, ...]
    """Inputs that were dropped because their data is absent."""
    parent_version: int | None = None
    """Policy version whose weights it went on from."""
    steps: int | None = None
    """Bars that the episodes lasted, together."""
    avg_reward: float | None = None
    """Mean over the episodes of the sum of rewards, percent."""
    final_reward: float | None = None
    """Sum of rewards of the episode that ended last, percent."""
    growth: float | None = None
    """Part of the rewards: 100 ln(equity / equity before), summed over all episodes."""
    drawdown: float | None = None
    """Part of the rewards: what shaping took for new drawdown; at most 0."""
    gross: float | None = None
    """Result before costs, of all episodes, quote currency; each begins with the same money."""
    fees: float | None = None
    """Fees paid, quote currency."""
    spread_cost: float | None = None
    """Half the spread, paid in prices, quote currency."""
    slippage: float | None = None
    """Slippage, paid in prices, quote currency."""
    funding: float | None = None
    """Funding paid, quote currency; received where below 0."""
    turnover: float | None = None
    """Notional traded, quote currency."""
    gradient_steps: int | None = None
    """Gradient steps taken."""
    policy_loss: float | None = None
    """Of the last update, as the next seven."""
    value_loss: float | None = None
    """Mean squared error of the critic."""
    entropy: float | None = None
    """Nats."""
    approx_kl: float | None = None
    """From the policy that acted to the one that learned, nats."""
    clip_fraction: float | None = None
    """Share of probability ratios outside of the clip range."""
    explained_variance: float | None = None
    """1 - Var(return - value) / Var(return)."""
    grad_norm: float | None = None
    """Largest norm of a gradient."""
    learner: bytes | None = None
    """The learner after the run: header, parameters and Adam's moments, as agents/algorithms/learner.py writes them; null unless it succeeded."""
    learner_sha256: str | None = None
    """SHA-256 of learner, hex."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class TrainingStarted(Event, frozen=True, kw_only=True, gc=False):
    """A training run of the PPO trader was opened: from here on it is work of a trainer process."""

    SCHEMA_NAME: ClassVar[str] = "TrainingStarted"
    symbol: str
    """Instrument; also the record key."""
    run_id: str
    """Training run: ppo_trader/<symbol>/<start of the slot>; the same in every replay."""
    ts_ms: int
    """Event time."""
    slot_start_ms: int
    """Start of the slot, on the UTC grid."""
    slot_end_ms: int
    """End of the slot, not in it."""
    job_id: str
    """Attempt of the run: <run_id>/<attempt>."""
    attempt: int
    """Number of the attempt, from 1."""
    episodes: int
    """Episodes to be played."""
    rows: int | None = None
    """Bars in the window that is learned from."""
    first_open_ms: int | None = None
    """Opening time of the oldest of them."""
    last_open_ms: int | None = None
    """Opening time of the newest of them."""
    new_rows: int
    """Bars that came in the slot."""
    mask: tuple[str, ...]
    """Inputs that are dropped because their data is absent."""
    parent_version: int | None = None
    """Policy version whose weights it goes on from; null: new weights."""
    seed: int
    """Seed of the run."""
    settings: str
    """Settings of learner and run, as JSON."""
    source: str
    """Where the market data came from: a feed (binance) or synthetic:<seed>."""
    origin: Origin
    """How far the source is proved; see Origin."""


class PartitionHead(Event, frozen=True, kw_only=True, gc=False):
    """What a partition of an agent has taken; a record of the changelog, keyed head, written last in each flush, or as kept at a checkpoint (checkpoint:<slot>:head) or where an epoch began (root:head)."""

    SCHEMA_NAME: ClassVar[str] = "PartitionHead"
    agent: str
    """Agent."""
    format_version: int
    """Version of this layout."""
    input_topic: str
    """Topic that is folded."""
    input_partition: int
    """Its partition."""
    input_topic_id: str | None = None
    """Kafka's id of the input topic, another one when a topic is made anew under its name; null where unknown."""
    input_offset: int
    """Last input offset taken."""
    digest: str
    """Order-independent digest of all scopes: sum of SHA-256(scope, state) modulo 2^256, hex."""
    fences: tuple[Fence, ...]
    """Owner of each source partition and the last source offset taken."""
    seen: tuple[Seen, ...]
    """Highest output id taken of each writer."""
    sticky: tuple[Sticky, ...]
    """Broadcast events that a scope born later must still see."""
    applied: int
    """Steps of scopes since genesis; a broadcast steps every scope of the partition."""
    repeated: int
    """Records skipped as repeats."""
    refused: int
    """Records sent to dead letters."""
    emitted: int
    """Records published."""
    code_hash: str | None = None
    """Code that folded this epoch, as in Provenance; null in records of older releases."""
    config_hash: str | None = None
    """Its configuration."""
    root_offset: int
    """Input offset behind which the epoch began: the state there is kept under root keys; -1 where it began with nothing."""
    root_reason: str | None = None
    """Who began the epoch and why, where a person did (quantum refold, quantum reset); null where other code or configuration took over."""


class Fence(Event, frozen=True, kw_only=True, gc=False):
    """A source partition of the inbox."""

    SCHEMA_NAME: ClassVar[str] = "Fence"
    topic: str
    """Source topic."""
    partition: int
    """Source partition."""
    owner: str
    """Relay that holds it."""
    offset: int
    """Last source offset taken."""
    topic_id: str | None = None
    """Kafka's id of the source topic, as its newest relay saw it; null where unknown."""


class Seen(Event, frozen=True, kw_only=True, gc=False):
    """Highest output id taken of a writer."""

    SCHEMA_NAME: ClassVar[str] = "Seen"
    topic: str
    """Topic on which the writer writes."""
    writer: str
    """Agent."""
    partition: int
    """Its input partition."""
    offset: int
    """Input offset in the id."""
    n: int
    """Number in the id."""
    source_partition: int
    """Partition of the topic: a writer's ids ascend within one, and not from one to the next."""


class Sticky(Event, frozen=True, kw_only=True, gc=False):
    """A remembered broadcast event."""

    SCHEMA_NAME: ClassVar[str] = "Sticky"
    key: str
    """What it replaces: the newest of a key counts."""
    topic: str
    """Its topic."""
    value: bytes
    """The record as it was read."""


class ScopeState(Event, frozen=True, kw_only=True, gc=False):
    """State of one scope of an agent, whole by itself; a record of the changelog, keyed scope:<scope>, or as kept at a checkpoint (checkpoint:<slot>:scope:<scope>) or where an epoch began (root:scope:<scope>)."""

    SCHEMA_NAME: ClassVar[str] = "ScopeState"
    agent: str
    """Agent."""
    scope: str
    """Symbol, or global."""
    format_version: int
    """Version of the state's layout."""
    input_offset: int
    """Last input offset that this state contains."""
    anchor_offset: int
    """Input offset of the newest policy version published from this state; -1 before the first."""
    anchor_hash: str | None = None
    """SHA-256 of the state at that version."""
    previous_hash: str | None = None
    """SHA-256 of scope and state as the newest head before this record counts it; null where that head does not know the scope. So a flush that was cut short can still be held against its head."""
    state: bytes
    """The agent's state, Avro by the state schema of that agent and format version."""


class Tick(Event, frozen=True, kw_only=True, gc=False):
    """Event time has reached this moment. A tick is never evidence of learning."""

    SCHEMA_NAME: ClassVar[str] = "Tick"
    ts_ms: int
    """Event time, epoch milliseconds UTC."""
    writer: str
    """Who owns the clock: live or ingest:<run id>."""
    symbol: str | None = None
    """The one symbol that this tick is for, which has a clock of its own; null: all that have none."""


class HealthAlert(Event, frozen=True, kw_only=True, gc=False):
    """Health of a component changed."""

    SCHEMA_NAME: ClassVar[str] = "HealthAlert"
    component: str
    """Component; also the record key."""
    ts_ms: int
    """Event time."""
    status: Health
    """Its health now."""
    reason: str
    """What was seen, with topic-partition@offset where there is one."""
    writer: str
    """Who says so."""


__all__ = [
    "Event",
    "BookMark",
    "Candle",
    "Cell",
    "Command",
    "Control",
    "ControlKind",
    "ControlReveal",
    "Decision",
    "DecisionOutcome",
    "DriftDetected",
    "Edge",
    "EquityMarked",
    "ExitReason",
    "Experience",
    "Features",
    "Fence",
    "Health",
    "HealthAlert",
    "Instrument",
    "MarketTrade",
    "MetaUpdated",
    "Network",
    "Origin",
    "Orphan",
    "OrphanReason",
    "OutcomeStatus",
    "PartitionHead",
    "PolicyApplied",
    "PolicyCommand",
    "PolicyConfig",
    "PolicyRecord",
    "PolicyStatus",
    "Provenance",
    "QUpdated",
    "Regime",
    "RegimeChanged",
    "RiskLimits",
    "RiskMode",
    "RiskModeChanged",
    "RiskPolicy",
    "RiskReason",
    "ScopeState",
    "Seen",
    "Side",
    "Sticky",
    "Strategy",
    "Tabular",
    "TakerSide",
    "Tick",
    "TradeClosed",
    "TraderAction",
    "TraderDecision",
    "TraderMode",
    "TrainingCompleted",
    "TrainingStarted",
    "TrainingStatus",
]
