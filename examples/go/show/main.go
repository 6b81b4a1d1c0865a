// Everything on topics as JSON lines.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"
	"quantum.streams/examples/wire"
)

func main() {
	for _, topic := range os.Args[1:] {
		w, client := wire.New(topic), wire.Client()
		for left := wire.FromStart(client, w.Topic); len(left.Ends) > 0; {
			fetches := client.PollFetches(context.Background())
			wire.Must(0, fetches.Err())
			fetches.EachRecord(func(r *kgo.Record) {
				if r.Value != nil {
					fmt.Println(string(wire.Must(w.JSON(r.Value))))
				}
				left.Take(r)
			})
		}
		client.Close()
	}
}
