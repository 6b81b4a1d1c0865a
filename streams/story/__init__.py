"""The story of one trade, decision or policy version, told from the log: `quantum why`, and the demo's last screen.

`finding` looks for records without decoding what it does not need, `gathering` tells apart what names an id, `verdict`
says what became of it, `arithmetic` does the sums of a trade again, `descent` follows a policy version to the outcomes
it was learned from, `tracing` puts the story together, `telling` and `descended` turn it into steps for people and
plain data for programs. `asked` takes any name. The PPO trader learns from no outcome: its decisions have a story of
their own, `trader` and `trader_telling`.
"""

from streams.story.asked import plain, trace_name
from streams.story.descended import policy_steps
from streams.story.descent import PolicyStory, Reach
from streams.story.gathering import Unknown
from streams.story.telling import as_dict, steps
from streams.story.tracing import Story, trace
from streams.story.trader import TraderStory, trace_trader
from streams.story.trader_telling import trader_steps
from streams.story.wording import Step

__all__ = ["PolicyStory", "Reach", "Step", "Story", "TraderStory", "Unknown", "as_dict", "plain", "policy_steps",
           "steps", "trace", "trace_name", "trace_trader", "trader_steps"]
