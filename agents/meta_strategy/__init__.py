"""RL Meta Strategy: PPO over the four reference strategies, one network a symbol.

What:   actor and critic over the state of a decision (`algorithms/observation`). Each decision is an episode of one
        step: its advantage is the net result in R minus the critic's value. After every 64 outcomes one update, and one
        version of the policy with its weights, the scaling of its inputs and the names of those it uses.
Reads:  `learning.experience` of its own book. Forced decisions and those not executed teach it the scale of the inputs
        only. `policy.commands` about its policies: each is answered by one version. Frozen or retired it learns
        nothing.
Writes: `rl.meta.updated` and one policy version for each update; the null that frees the key of a retired policy on
        `policy.current`, 7 days of event time later.
Inputs: those that were there at every decision of the warm-up. The others are dropped for good and named in the
        policy's mask; a decision at which a kept one is missing takes the fallback.
Late:   an experience that comes late waits for the next round. What a version more than 2 older chose, and the newest
        would not, is dropped and counted. A decision among the last 128 taken is not taken again.
Claim:  from 100 outcomes on each version says whether the mean of all of them is above neutral (`algorithms/edge`).
Limits: symbols do not share what they learn. Exploration is the policy's own: where its entropy has gone, a changed
        market is learned slowly, and no drift detector opens it again. Weights beyond 256 KB are refused.
Sources: Schulman et al. 2017 (PPO); see `algorithms/ppo` for the details; `docs/decisions/0085` for the defaults.
"""

from agents.meta_strategy.config import MetaStrategyConfig
from agents.meta_strategy.core import MetaStrategyAgent

__all__ = ["MetaStrategyAgent", "MetaStrategyConfig"]
