"""The interpretable learner: a Q-table of 4 regimes x 3 volatility buckets over the four reference strategies.

What:   one-step (gamma 0) sample means of the net result in R, explored by Thompson sampling whose probabilities are
        published with the policy, never under 2 % for an action, so that the propensity of a decision is exact.
Reads:  `learning.experience` of its own book. Forced decisions and those not executed teach it volatilities only.
        `policy.commands` about its policies: each is answered by one version. Frozen or retired it learns nothing.
Writes: `rl.q_learning.updated` and one policy version for each learned outcome; `learning.drift.detected`; the null
        that frees the key of a retired policy on `policy.current`, 7 days of event time later.
River:  online quantiles (1/3, 2/3) for the volatility buckets, a running variance for the scale of rewards, ADWIN on
        the residual reward - Q(s, a) of each strategy: an alarm caps the outcomes that its estimates rest on at 10,
        which opens exploration again, and the policy's reason says drift.
Late:   an experience that comes late is learned from when it comes; its cell is the one that was decided in. A
        decision among the last 64 taken is not taken again.
Claim:  from 100 outcomes on each version says whether the mean of all of them is above neutral (`algorithms/edge`).
Limits: symbols do not share what they learn; the mean of a cell says nothing of its tail; with few outcomes a cell's
        best action is noise, which is why no cell claims an edge.
Sources: Watkins and Dayan 1992; Thompson 1933; Jain and Chlamtac 1985 (quantiles); Bifet and Gavalda 2007 (ADWIN).
"""

from agents.q_learning.config import QLearningConfig
from agents.q_learning.core import QLearningAgent

__all__ = ["QLearningAgent", "QLearningConfig"]
