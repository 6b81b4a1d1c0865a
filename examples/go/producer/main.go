// Closed trades to execution.trade.closed: one fill a line on standard input, JSON.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"

	"quantum.streams/examples/wire"
)

// fill has the fields that the result is reckoned from; the others pass through.
type fill struct {
	Symbol   string  `json:"symbol"`
	Side     string  `json:"side"`
	Entry    float64 `json:"entry_price"`
	Exit     float64 `json:"exit_price"`
	Stop     float64 `json:"stop_price"`
	Quantity float64 `json:"quantity"`
	Equity   float64 `json:"equity_at_open"`
	Fees     float64 `json:"fees"`
	Funding  float64 `json:"funding"`
}

// closed is the trade of a line: what follows from prices, quantity and costs is reckoned here.
func closed(line []byte) (fill, map[string]any, error) {
	var f fill
	var trade map[string]any
	if err := json.Unmarshal(line, &f); err != nil {
		return f, nil, err
	}
	if err := json.Unmarshal(line, &trade); err != nil {
		return f, nil, err
	}
	sign := -1.0
	if f.Side == "LONG" {
		sign = 1.0
	}
	risk := math.Abs(f.Entry-f.Stop) * f.Quantity
	pnl := sign*(f.Exit-f.Entry)*f.Quantity - f.Fees - f.Funding
	trade["notional_at_open"] = f.Entry * f.Quantity
	trade["leverage"] = f.Entry * f.Quantity / f.Equity
	trade["risk_at_open"] = risk
	trade["pnl_usd"] = pnl
	trade["pnl_pct"] = pnl / f.Equity
	trade["r_multiple"] = pnl / risk
	return f, trade, nil
}

func main() {
	trades, client := wire.New("execution.trade.closed"), wire.Client()
	defer client.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		f, trade, err := closed(lines.Bytes())
		wire.Must(f, err)
		at := wire.Send(client, trades, f.Symbol, trade)
		fmt.Printf("%s-%d@%d\n", at.Topic, at.Partition, at.Offset)
	}
	wire.Must(0, lines.Err())
}
