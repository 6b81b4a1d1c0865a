"""The thinking: one folder a learning system, each a pure fold. No Faust, Kafka, wall clock, environment or disk."""
