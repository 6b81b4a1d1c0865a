"""Which versions of a policy may be used while people's commands about it are not answered yet.

A command to retire a policy, or to roll it back, is obeyed at once by those who apply policies; only the learner can
answer it, by a new version, and it may be busy or stopped. Until the answer comes no version above the one that the
command names may be used. What a rollback undid may never be used again, however late it is asked for.

Commands and answers come over different topics, so an answer may come before its command: the newest answers are
remembered, and the command then changes nothing.
"""

from __future__ import annotations

import msgspec

ANSWERS = 16  # remembered; an answer overtakes its command by as much as one topic is read ahead of another
RANGES = 8
RETIRED, ROLLED_BACK = "policy_retired", "policy_rolled_back"
UNKNOWN = ""
"""Id of a command whose own was not kept, by an older release: any answer about its policy is taken for its."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A command that waits for its answer: versions above `above` may not be used; 0: retired, none may."""

    command_id: str
    policy_id: str
    above: int


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """Versions that a rollback undid: above the one that it took back, below the one that says so."""

    policy_id: str
    above: int
    below: int


class Commanded(msgspec.Struct, frozen=True, kw_only=True):
    """What commands say of the policies of a scope.

    Attributes:
        waiting: newest unanswered order of each kind and policy, in order of policy and kind.
        answered: ids of commands whose answers came, oldest first.
        undone: versions that were undone, oldest first.
    """

    waiting: tuple[Order, ...] = ()
    answered: tuple[str, ...] = ()
    undone: tuple[Undone, ...] = ()


NOTHING = Commanded()


def ordered(before: Commanded, command_id: str, policy_id: str, above: int) -> Commanded:
    """A command came; the same object where it changes nothing.

    >>> ordered(NOTHING, "a", "q/S", 3).waiting[0].above
    3
    """
    order = Order(command_id=command_id, policy_id=policy_id, above=above)
    if command_id in before.answered or order in before.waiting:
        return before
    others = [o for o in before.waiting if (o.policy_id, o.above > 0) != (policy_id, above > 0)]
    waiting = tuple(sorted([*others, order], key=lambda o: (o.policy_id, o.above > 0)))
    return msgspec.structs.replace(before, waiting=waiting)


def answered(before: Commanded, command_id: str, policy_id: str, version: int, restored: int | None) -> Commanded:
    """A version answered a command.

    Args:
        version: the answering one.
        restored: version whose state it took back; None where it is no rollback.
    """
    waiting = tuple([o for o in before.waiting
                     if o.command_id != command_id and (o.command_id, o.policy_id) != (UNKNOWN, policy_id)])
    undone = before.undone
    if restored is not None:
        kept = [u for u in undone if u.policy_id != policy_id or u.above < restored]
        undone = (*kept, Undone(policy_id=policy_id, above=restored, below=version))[-RANGES:]
    return Commanded(waiting=waiting, answered=(*before.answered, command_id)[-ANSWERS:], undone=undone)


def barred(now: Commanded, policy_id: str | None, version: int) -> str | None:
    """Why a version may not be used; None where it may.

    >>> barred(ordered(NOTHING, "a", "q/S", 3), "q/S", 4), barred(ordered(NOTHING, "a", "q/S", 3), "q/S", 3)
    ('policy_rolled_back', None)
    >>> barred(answered(NOTHING, "a", "q/S", 9, 3), "q/S", 8)
    'policy_rolled_back'
    """
    for order in now.waiting:
        if order.policy_id == policy_id and version > order.above:
            return ROLLED_BACK if order.above else RETIRED
    for u in now.undone:
        if u.policy_id == policy_id and u.above < version < u.below:
            return ROLLED_BACK
    return None
