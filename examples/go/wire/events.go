package wire

import (
	"slices"
	"strings"
	"time"
)

var strategies = []string{"trend_following", "mean_reversion", "breakout", "neutral"}

// Policy is what a subscriber needs of policy.current.
type Policy struct {
	ID         string `json:"policy_id"`
	Version    int64  `json:"version"`
	Status     string `json:"status"`
	Fallback   string `json:"fallback"`
	ValidUntil *int64 `json:"valid_until_ms"`
}

// Decision is what a subscriber needs of rl.meta.strategy_selected; PolicyID is empty where no policy was in force.
type Decision struct {
	ID       string    `json:"decision_id"`
	Symbol   string    `json:"symbol"`
	Book     string    `json:"book_id"`
	TsMs     int64     `json:"ts_ms"`
	PolicyID string    `json:"policy_id"`
	Version  int64     `json:"policy_version"`
	Action   string    `json:"action"`
	Baseline string    `json:"baseline_action"`
	Signals  []int     `json:"signals"`
	Source   string    `json:"source"`
	Origin   string    `json:"origin"`
	Until    time.Time `json:"-"` // how long it waits for its policy
}

// Choose is the action to execute of a decision, its direction (1 long, -1 short, 0 none), and why.
func (d Decision) Choose(held Policy, known bool) (action string, side int, why string) {
	action, why = held.Fallback, "as recommended"
	switch {
	case d.PolicyID == "":
		action, why = d.Action, "no policy yet"
	case !known:
		action, why = d.Baseline, "its policy is unknown"
	case held.Status == "RETIRED":
		why = "its policy is retired"
	case held.ValidUntil != nil && d.TsMs > *held.ValidUntil:
		why = "its policy is past its end"
	default:
		action = d.Action
	}
	if side = d.Signals[slices.Index(strategies, action)]; side == 0 {
		action = "neutral"
	}
	return action, side, why
}

// Outcome is the record for decision.outcome; nil where the decision's trade will end it.
func (d Decision) Outcome(side int, why string) map[string]any {
	out := map[string]any{"decision_id": d.ID, "symbol": d.Symbol, "book_id": d.Book, "ts_ms": d.TsMs,
		"status": "NEUTRAL", "source": d.Source, "origin": d.Origin}
	if strings.HasPrefix(why, "its policy") { // something else than the decision was executed
		out["status"], out["reason"] = "NOT_EXECUTED", why
	} else if side != 0 {
		return nil
	}
	return out
}

// Report is the record for policy.applied.
func (d Decision) Report(action, applier string) map[string]any {
	return map[string]any{"decision_id": d.ID, "symbol": d.Symbol, "ts_ms": d.TsMs, "policy_id": d.PolicyID,
		"policy_version": d.Version, "recommended_action": d.Action, "executed_action": action,
		"baseline_action": d.Baseline, "applier": applier, "source": d.Source, "origin": d.Origin}
}
