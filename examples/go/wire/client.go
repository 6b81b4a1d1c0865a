package wire

import (
	"context"
	"log"
	"os"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Client connects to the broker. Keys are put where Java's clients put them (murmur2); writes are idempotent.
func Client() *kgo.Client {
	lz4 := kgo.ProducerBatchCompression(kgo.Lz4Compression()) // every reader here knows it
	return Must(kgo.NewClient(kgo.SeedBrokers(env("QUANTUM_BROKER", "127.0.0.1:19092")), lz4))
}

// Send sends what has the JSON of a topic's event, and waits for the acknowledgement.
func Send(client *kgo.Client, w *Wire, symbol string, event any) *kgo.Record {
	record := &kgo.Record{Topic: w.Topic, Key: []byte(symbol), Value: Must(w.Encode(event))}
	return Must(client.ProduceSync(context.Background(), record).First())
}

func env(name, other string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return other
}

// Must ends the program on an error.
func Must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// Left is what is left to read of a topic, to the end that it had: end offsets by partition.
type Left struct {
	topic string
	Ends  map[int32]int64
}

// FromStart has a client read a topic from its start.
func FromStart(client *kgo.Client, topic string) Left {
	ctx, left := context.Background(), Left{topic, map[int32]int64{}}
	starts := Must(kadm.NewClient(client).ListStartOffsets(ctx, topic))
	Must(kadm.NewClient(client).ListEndOffsets(ctx, topic)).Each(func(end kadm.ListedOffset) {
		if start, _ := starts.Lookup(topic, end.Partition); end.Offset > start.Offset {
			left.Ends[end.Partition] = end.Offset
		}
	})
	client.AddConsumePartitions(starts.KOffsets())
	return left
}

// Take takes a record off.
func (l Left) Take(r *kgo.Record) {
	if end, waits := l.Ends[r.Partition]; r.Topic == l.topic && waits && r.Offset+1 >= end {
		delete(l.Ends, r.Partition)
	}
}
