"""A Faust transport on librdkafka (confluent-kafka) whose agents see micro-batches of one partition.

Stock faust-streaming, subclasses only. One idea a module:

- `poll`: a thread per consumer polls, groups by partition, hands over; every consumer call runs in it.
- `consume`: a partition has at most one token in its agent's queue, and the batch is cut when the agent touches it, so
  batches grow with the load.
- `produce`: one idempotent producer a process, with pipelined acknowledgements.
- `assign`: nothing is assigned before its owner has taken it up and named the offset to start at.
- `commit`: offsets of finished work, coalesced, committed without waiting.
- `recover`: changelog partitions read to their end.
- `murmur2`: the partitioner of Java's clients.
- `app`: the Faust app that puts these together.

What is relied on inside of Faust, mode and confluent-kafka is held down by `tests/streams/test_contract.py`.
"""
