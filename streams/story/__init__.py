"""The story of one trade or decision, told from the log: `quantum why`, and the demo's last screen.

`finding` looks for records without decoding what it does not need, `gathering` tells apart what names an id, `verdict`
says what became of it, `arithmetic` does the sums of a trade again, `tracing` puts the story together, `telling` turns
it into steps for people and plain data for programs.
"""

from streams.story.gathering import Unknown
from streams.story.telling import Step, as_dict, steps
from streams.story.tracing import Story, trace

__all__ = ["Step", "Story", "Unknown", "as_dict", "steps", "trace"]
