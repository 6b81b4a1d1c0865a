"""The story of one trade, decision or policy version, told from the log: `quantum why`, and the demo's last screen.

`finding` looks for records without decoding what it does not need, `gathering` tells apart what names an id, `verdict`
says what became of it, `arithmetic` does the sums of a trade again, `descent` follows a policy version to the outcomes
it was learned from, `tracing` puts the story together, `telling` and `descended` turn it into steps for people and
plain data for programs.
"""

from streams.story.descended import policy_dict, policy_steps
from streams.story.descent import PolicyStory, Reach, trace_version
from streams.story.gathering import Unknown
from streams.story.telling import as_dict, steps
from streams.story.tracing import Story, trace
from streams.story.wording import Step

__all__ = ["PolicyStory", "Reach", "Step", "Story", "Unknown", "as_dict", "policy_dict", "policy_steps", "steps",
           "trace", "trace_version"]
