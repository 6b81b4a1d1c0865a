// A trading service: applies q_learning's policies to the decisions of its symbols, and reports on policy.applied.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	. "quantum.streams/examples/wire"
)

const grace = 5 * time.Second // how long a decision waits for the policy version that it names

var (
	ctx, client       = context.Background(), Client()
	current, decided  = New("policy.current"), New("rl.meta.strategy_selected")
	applied, outcomes = New("policy.applied"), New("decision.outcome")
	policies, waiting = map[string]Policy{}, []Decision{}
)

// execute chooses the action, trades it, and says what was done.
func execute(d Decision, applier string) {
	held, known := policies[d.PolicyID]
	action, side, why := d.Choose(held, known)
	// Here the orders go out.
	if d.PolicyID != "" {
		Send(client, applied, d.Symbol, d.Report(action, applier))
	}
	if ended := d.Outcome(side, why); ended != nil {
		Send(client, outcomes, d.Symbol, ended)
	}
	fmt.Printf("%s: %s %+d, %s\n", d.ID, action, side, why)
}

func take(r *kgo.Record) {
	var p Policy
	if r.Topic == decided.Topic {
		d := Decision{Until: time.Now().Add(grace)}
		Must(0, json.Unmarshal(Must(decided.JSON(r.Value)), &d))
		if d.Book == "q_learning" && slices.Contains(os.Args[2:], d.Symbol) {
			waiting = append(waiting, d)
		}
	} else if r.Value == nil {
		delete(policies, string(r.Key)) // retired seven days ago: its key is freed
	} else if Must(0, json.Unmarshal(Must(current.JSON(r.Value)), &p)); p.Version > policies[p.ID].Version {
		policies[p.ID] = p
	}
}

func main() {
	ends := Must(kadm.NewClient(client).ListEndOffsets(ctx, decided.Topic))
	client.AddConsumePartitions(ends.KOffsets()) // decisions from now on; older ones are too late to execute
	left := FromStart(client, current.Topic)
	for ready := false; ; {
		poll, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		fetches := client.PollFetches(poll)
		if poll.Err() == nil {
			Must(0, fetches.Err())
		}
		cancel()
		fetches.EachRecord(func(r *kgo.Record) { take(r); left.Take(r) })
		if !ready && len(left.Ends) == 0 { // read to the end: now it may act
			ready = true
			fmt.Printf("ready with %d policies\n", len(policies))
		}
		for ready && len(waiting) > 0 && (waiting[0].PolicyID == "" || time.Now().After(waiting[0].Until) ||
			policies[waiting[0].PolicyID].Version >= waiting[0].Version) {
			execute(waiting[0], os.Args[1])
			waiting = waiting[1:]
		}
	}
}
