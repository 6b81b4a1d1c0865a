"""The actor: applies the policies in force to the features of a symbol. It is the only writer of decisions.

What:   every `decide_every_bars` bars of a symbol's primary interval (the first interval seen), one decision for
        each decider's paper book. A table's cell is (regime, bucket of volatility_30); a network is applied to the
        state, which the decision carries. The action is drawn with the published or computed probabilities, so the
        logged propensity is exact; its size is what its expected result is worth (`algorithms/sizing`).
Reads:  `market.features`, `policy.ledger` (policies of the configured deciders, risk limits), `policy.commands`,
        `policy.config`.
Writes: `rl.meta.strategy_selected`.
Forced: no policy in force yet (`no_policy`), past its end (`policy_expired`), RETIRED (`policy_retired`), undone
        (`policy_rolled_back`), or an input absent (`missing_feature`; without a signal's all are 0). Commands to retire
        or roll back are obeyed at once, before the learner answers them. Forced decisions take the declared fallback,
        while halted (`halt`) the baseline action, with propensity 1, and nobody learns from them.
Limits of risk: the size is clipped; where a book or the day is closed (`risk_max_positions`, `risk_daily_loss`) the
        decision is forced to neutral. They travel with the decision (`limits`), past their end those of the fallback.
Default book: each decision says whether its decider drives it (`default_book`). It is no account of its own: whoever
        follows one decider only follows it. Which one that is may be changed while the agent runs, by event time.
Late:   features at or before the last decided bar change nothing; a repeated bar is not decided twice. A policy
        version at or below the newest one held is ignored.
Limits: one action a book and decision. Policies that come in further ahead of the features than `pending_limit`
        versions (`pending_networks` of networks) lose the oldest: the decisions there are forced, never guessed.
Sources: actor and learner apart: Espeholt and others 2018, IMPALA. Logged propensities: Bottou and others 2013,
        Counterfactual reasoning and learning systems.
"""

from agents.decision.core import DecisionAgent, DecisionConfig

__all__ = ["DecisionAgent", "DecisionConfig"]
