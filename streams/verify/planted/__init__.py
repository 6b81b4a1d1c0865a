"""Planted cheats: runs of the real roster in memory in which one part does not do what it says, for verify to catch.

    actors, learners, networks, trainers
                agents that cheat, each in place of the honest one of its name
    records     records that are changed on their way, or on the log afterwards
    stage       a run on the made market, and its log
    selftest    all of them judged: `quantum verify --self-test`

Nothing of this runs on a broker, and the judge imports none of it.
"""
