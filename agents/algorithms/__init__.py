"""Numerical building blocks on plain numbers and arrays: they know no event, no clock, no disk and no Kafka."""
