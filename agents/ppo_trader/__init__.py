"""RL v3: a PPO policy that trades one symbol, trained on a schedule of event time in a simulated market.

What:   every slot of 30 minutes (UTC grid) with new bars opens a training run: some episodes of at most 1000 bars on
        the newest bars, from the weights of the run before. The newest policy acts at every close on an account on
        paper; simulator and live share actions, observation and rules (`agents/algorithms/trading*.py`).
Reads:  `market.features`; its own `rl_v3.training.completed`, which trainer processes write; `policy.config`;
        `policy.commands`; `policy.ledger` for the limits of the risk policy.
Writes: `rl_v3.training.started` for every attempt, `rl_v3.training.completed` for every slot without a run,
        `rl_v3.decision` at every close whose windows are full, one policy version for every run.
Runs:   one at a time; slots that end meanwhile wait, with their own bars only. A failed attempt is made once more, 5
        minutes of event time later; then the slot is given up, and the old policy goes on serving.
Made:   symbols of origin SYNTHETIC are left out, unless `synthetic` is set: their slots are skipped, which is told.
Modes:  OFF decides nothing; SHADOW decides on paper; PRIMARY binds; HYBRID binds where confidence reaches its minimum.
        Confidence is 1 - entropy / ln(valid actions). Below its minimum (.6) and beyond 10 trades an hour nothing is
        opened; reducing and closing always go.
Late:   a bar that is not newer than the newest is refused, a repeat ignored; a result whose job is not open is ignored.
Limits: of the risk policy risk, leverage, stop, confidence and a closed day are obeyed; its count of positions and the
        daily loss are those of books that it judges, and the account here is none. One interval a symbol, the first
        that comes. Bars are the simulator's finest time. With a log a policy serves from the bar behind its result.
Sources: Schulman et al. 2017 (PPO), 2016 (GAE); `docs/decisions/0115`.
"""

from agents.ppo_trader.config import PpoTraderConfig
from agents.ppo_trader.core import PpoTraderAgent

__all__ = ["PpoTraderAgent", "PpoTraderConfig"]
