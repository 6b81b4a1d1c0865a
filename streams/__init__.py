"""The transport: everything between Kafka and the pure folds."""
