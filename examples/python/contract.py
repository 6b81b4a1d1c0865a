"""What a subscriber owes: which action to execute, and how a decision ends that leads to no trade."""

STRATEGIES = ("trend_following", "mean_reversion", "breakout", "neutral")


def choose(decision, policy):
    """The action to execute, its direction (1 long, -1 short, 0 none), and why; `policy`: the newest held, or None."""
    action, why = decision["action"], "as recommended"
    if decision["policy_id"] is None:
        why = "no policy yet"
    elif policy is None:
        action, why = decision["baseline_action"], "its policy is unknown"
    elif policy["status"] == "RETIRED":
        action, why = policy["fallback"], "its policy is retired"
    elif policy["valid_until_ms"] is not None and decision["ts_ms"] > policy["valid_until_ms"]:
        action, why = policy["fallback"], "its policy is past its end"
    side = decision["signals"][STRATEGIES.index(action)]
    return (action, side, why) if side else ("neutral", 0, why)


def report(decision, action, applier):
    """The record for policy.applied."""
    same = {name: decision[name] for name in ("decision_id", "symbol", "ts_ms", "policy_id", "policy_version",
                                              "baseline_action", "source", "origin")}
    return same | {"recommended_action": decision["action"], "executed_action": action, "applier": applier}


def outcome(decision, side, why):
    """The record for decision.outcome; None where the decision's trade will end it."""
    same = {name: decision[name] for name in ("decision_id", "symbol", "book_id", "ts_ms", "source", "origin")}
    if why.startswith("its policy"):  # something else than the decision was executed
        return same | {"status": "NOT_EXECUTED", "reason": why}
    return None if side else same | {"status": "NEUTRAL"}
