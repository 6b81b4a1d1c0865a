package wire

import "time"

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
	Source   string    `json:"source"`
	Origin   string    `json:"origin"`
	Until    time.Time `json:"-"` // how long it waits for its policy
}

// Choose is the action to execute of a decision, and why.
func (d Decision) Choose(held Policy, known bool) (action, why string) {
	switch {
	case d.PolicyID == "":
		return d.Action, "no policy yet"
	case !known:
		return d.Baseline, "its policy is unknown"
	case held.Status == "RETIRED":
		return held.Fallback, "its policy is retired"
	case held.ValidUntil != nil && d.TsMs > *held.ValidUntil:
		return held.Fallback, "its policy is past its end"
	}
	return d.Action, "as recommended"
}
