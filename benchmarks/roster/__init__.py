"""What the benchmarks of the roster share: real inputs, worker processes, how figures are shown."""
