"""`quantum verify --self-test`: can it still see the cheats that it was built for?"""

from __future__ import annotations

from rich.text import Text

from streams.cli.options import data_console, print_json


def run_self_test(as_json: bool, jobs: int) -> int:
    """Judge the planted cheats in one or two processes, a line for each as it comes; returns the exit code."""
    from streams.verify.planted.selftest import Caught, SelfTest, honest_red, self_test, self_test_of_two

    console = data_console()
    items: list[Caught] = []
    for item in self_test() if jobs == 1 else self_test_of_two():
        items.append(item)
        if not as_json:
            word, style = ("caught", "green") if item.caught else ("NOT CAUGHT", "red")
            place = "" if item.place is None else f"  [{item.place}]"
            console.print(Text(word, style=style).append(f" {item.name}: {item.what}. {item.cell} {item.state}: "
                                                         f"{item.why}{place}"))
    done = SelfTest(tuple(items), honest_red())
    if as_json:
        print_json(done.as_dict())
    else:
        red = ", ".join(done.honest_red) or "nothing"
        console.print(Text(f"\n{done.caught}/{len(items)} caught; of an honest run {red} is red"))
    return done.exit_code
