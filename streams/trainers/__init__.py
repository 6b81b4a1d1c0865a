"""Long work of agents, in trainer processes: what a state asks for, who performs it, how its result comes back.

    state with open jobs --flushed--> queue --> trainer process --> result on its topic --> inbox --> fold

`jobs` finds the open jobs of a fold and makes records of results, `child` is the trainer process, `process` starts one
and waits for it, `trainers` is the host's side: each open job once, on time killed, failures told.
"""
