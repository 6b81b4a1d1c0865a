"""Looking at the log without changing it: records as people read them, dead letters, the standing of every agent.

`shown` turns a record into plain data, `deadletters` reads the reasons of refused records, `standing` gathers lag, last
evidence and counters of the agents. All rest on `streams.log`; the commands `tail`, `dlq` and `status` print them.
"""
