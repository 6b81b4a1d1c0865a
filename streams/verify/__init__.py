"""Proof from the log: is what each agent claims shown by records, and do the records follow from one another?

It takes nobody's word. It shares the pure folds and the codec with what it judges, never the host that ran them: the
state is folded again from the input, policies are made again from their parents, trades are computed again from their
candles. What the cells mean, what they take as evidence and what they cannot see is in `docs/proof.md`.

    cells     what a cell is, the states, exit codes
    view      the log as a protocol; a log in memory
    brokered  the log of a broker
    evidence  what was read, in an order that a running system cannot outrun
    refold    one input partition folded again, its outputs held against the published ones
    flow, learning, durable, applied, origin   the cells
    decided, sized, trades, paper, candles, copied, labels, claims    what they hold records against
    controls  markets with a known answer, once their key is out
    shown     the records that a cell shows
    judge     all cells of all agents
    evidence_file, recheck   cells as claims in a file, and their records looked up again
    junit     cells for continuous integration
    tape      a log in memory, written by the driver
    planted   cheats that must be caught; the judge imports none of it
"""
