"""How long a test waits for what must come."""

PATIENCE_S = 600.0
"""Nothing is judged by it: only what hangs gets there, and a machine that is busy with other things does not."""
