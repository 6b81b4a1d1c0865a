"""Policies over time, from `policy.ledger`: their versions, what changed between two, and each of them made again.

`ledger` reads the versions, `rederive` makes them again from their input and `blame` finds the event at which that goes
another way; `difference` and `course` say what changed between two versions and over event time.
"""
