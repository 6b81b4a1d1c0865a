// Package wire reads and writes records as Quantum Streams does: C3 01, the CRC-64-AVRO of the writer's schema, Avro.
package wire

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/linkedin/goavro/v2"
)

// Wire encodes by the newest schema of a topic and decodes what any release wrote.
type Wire struct {
	Topic   string
	newest  *goavro.Codec
	writers map[uint64]*goavro.Codec // by fingerprint
}

// New reads the schemas of a topic.
func New(topic string) *Wire {
	w := &Wire{Topic: os.Getenv("QUANTUM_TOPIC_PREFIX") + topic, writers: map[uint64]*goavro.Codec{}}
	folder := env("QUANTUM_SCHEMAS", "schemas")
	files := Must(filepath.Glob(filepath.Join(folder, "history", topic, "*.avsc")))
	for _, file := range append(files, filepath.Join(folder, "avsc", topic+".avsc")) {
		w.newest = Must(goavro.NewCodecForStandardJSONFull(string(Must(os.ReadFile(file)))))
		w.writers[w.newest.Rabin] = w.newest
	}
	return w
}

// Encode writes what has the JSON of the topic's event.
func (w *Wire) Encode(event any) ([]byte, error) {
	text, err := json.Marshal(event)
	if err != nil {
		return nil, err
	}
	native, _, err := w.newest.NativeFromTextual(text)
	if err != nil {
		return nil, err
	}
	return w.newest.SingleFromNative(nil, native)
}

// JSON is a record's value as JSON.
func (w *Wire) JSON(value []byte) ([]byte, error) {
	mark, _, err := goavro.FingerprintFromSOE(value)
	if err != nil {
		return nil, err
	}
	codec, known := w.writers[mark]
	if !known {
		return nil, fmt.Errorf("%s: no schema here has the mark %x; fetch the newest schemas", w.Topic, value[:10])
	}
	native, _, err := codec.NativeFromSingle(value)
	if err != nil {
		return nil, err
	}
	return codec.TextualFromNative(nil, native)
}
