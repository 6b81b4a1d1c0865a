"""How much may be risked: a mode from CONSERVATIVE to TURBO, and its limits as a policy that decisions obey.

What:   one scope, `global`. Points for and against (drawdown, win rate, slope of equity, losses in a row, days without
        profit, regimes) make the mode step; health and people force it. All rules stand in `table`.
Reads:  `execution.equity.marked` (drawdown from the running peak, marked each bar), `execution.trade.closed`,
        `market.regime.changed`, `system.health.alert`, `policy.commands` (OVERRIDE, CLEAR), `system.clock` (expiry,
        hold times, renewal; never evidence).
Writes: `risk.mode.changed` with every reason, its value and the ids of the records behind it; the policy
        `risk_controller/global` on `policy.ledger` whenever its limits change, and once a day.
Judged: the books of learners on symbols that are not SYNTHETIC, all together, unless configuration names others
        (docs/decisions/0092). Before there is any, the initial mode holds, and the policy says so.
Down:   at once, one mode a bar. Up: after the dwell time. CRITICAL: CONSERVATIVE at once, until the component itself
        was HEALTHY for the hold time. TURBO: by configuration or override only.
Late:   marks older than the newest of their symbol, and trades that were taken before, change nothing.
Limits: thin markets are not seen, since no volume is read. Open positions are counted at the marks: books that fill up
        within one bar may pass `max_positions` by as many symbols as decide at that bar.
"""

from agents.risk_controller.config import RiskConfig
from agents.risk_controller.core import RiskControllerAgent

__all__ = ["RiskConfig", "RiskControllerAgent"]
