"""`quantum policy show`: what a person sees of a policy; pure first, then on a real broker."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from matplotlib import image
from rich.console import Console

from schemas.events import Edge, PolicyRecord, Provenance
from streams import policy_view
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.policy_view import Held, newest
from tests.streams.log_fixtures import flags, own_names, policy, produce, record

PROVENANCE = Provenance(
    parent_hash="a" * 64, state_hash="b" * 64, input_topic="learning.experience", input_partition=2, from_offset=41,
    to_offset=44, config_hash="c" * 64, code_hash="d" * 64, feature_schema_hash="e" * 16, seed=7, platform="test",
)


def learned(version: int = 5, symbol: str = "BTCUSDT") -> PolicyRecord:
    """A policy whose cell bear|vol:1 has learned something."""
    plain = policy(version, symbol)
    assert plain.tabular is not None
    cells = tuple(
        msgspec.structs.replace(c, q=(-0.25, 0.0, 0.5, 0.0), se=(0.1, 2.0, 0.05, 0.2), visits=(9, 0, 33, 4),
                                probabilities=(0.02, 0.1, 0.8, 0.08), greedy="breakout")
        if c.state_key == "bear|vol:1" else c
        for c in plain.tabular.cells
    )
    return msgspec.structs.replace(plain, tabular=msgspec.structs.replace(plain.tabular, cells=cells), outcomes=46,
                                   reason="update", provenance=PROVENANCE)


def test_newest_takes_the_highest_version_and_obeys_tombstones() -> None:
    rows = [("q_learning/A", policy(1, "A"), "p@0"), ("q_learning/A", policy(3, "A"), "p@1"),
            ("q_learning/A", policy(2, "A"), "p@2"), ("q_learning/B", policy(1, "B"), "p@3"),
            ("q_learning/B", None, "p@4")]
    held = newest(rows)
    assert {k: (h.record.version, h.place) for k, h in held.items()} == {"q_learning/A": (3, "p@1")}


def test_intervals_are_estimate_and_1_96_standard_errors() -> None:
    shown = policy_view.as_dict(Held(learned(), "policy.current-1@9"))
    cell = next(c for c in shown["cells"] if c["state_key"] == "bear|vol:1")
    assert (cell["greedy"], cell["visits"]) == ("breakout", 46)
    row = cell["actions"][2]
    assert (row["action"], row["visits"], row["greedy"]) == ("breakout", 33, True)
    assert (row["q_low"], row["q"], row["q_high"]) == pytest.approx((0.402, 0.5, 0.598))
    assert shown["provenance"]["to_offset"] == 44
    json.dumps(shown)


def test_the_table_has_a_row_for_every_cell_and_says_the_greedy_action_without_colour() -> None:
    out = StringIO()
    console = Console(file=out, width=200, no_color=True)
    console.print(policy_view.q_table(learned()))
    lines = out.getvalue().splitlines()
    assert sum("|vol:" in line for line in lines) == 12
    first = next(i for i, line in enumerate(lines) if "bear|vol:1" in line)
    assert "*+0.500 [+0.40 +0.60]" in lines[first]
    assert " +0.000 [no visits]" in lines[first]
    assert [part.strip() for part in lines[first + 1].split("│")[2:6]] == ["n=9 2%", "n=0 10%", "n=33 80%", "n=4 8%"]


def test_the_head_names_version_window_inputs_and_origin() -> None:
    text = "\n".join(policy_view.head_lines(Held(learned(), "policy.current-1@9")))
    for part in ("version 5", "learning.experience-2@41..44", "CLAIMED", "46 outcomes", "policy.current-1@9",
                 "edge      not evaluated, 46 of 100 outcomes", "state bbbbbbbbbbbb", "no end"):
        assert part in text
    bare = msgspec.structs.replace(learned(), provenance=None)
    assert "no provenance" in "\n".join(policy_view.head_lines(Held(bare, "p@0")))


def test_the_edge_is_said_in_a_sentence() -> None:
    edge = Edge(n=400, mean_r=0.31, sd_r=1.02, lower_r=0.12, smallest_r=0.19)
    yes = msgspec.structs.replace(learned(), edge_claim=True, edge=edge, outcomes=400)
    assert policy_view.edge_sentence(yes) == (
        "claimed: mean +0.310 R of 400 outcomes (deviation 1.02), lower bound +0.120 R; 0.190 R is the smallest mean "
        "that 400 outcomes could have shown")
    assert policy_view.edge_sentence(msgspec.structs.replace(yes, edge_claim=False)).startswith("not claimed: mean")
    assert policy_view.edge_sentence(msgspec.structs.replace(learned(), outcomes=400)) == "not evaluated"
    assert policy_view.as_dict(Held(yes, "p@0"))["edge"] == {
        "n": 400, "mean_r": 0.31, "sd_r": 1.02, "lower_r": 0.12, "smallest_r": 0.19}


def test_the_heat_map_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "q.png"
    policy_view.heat_map(learned(), path)
    pixels = image.imread(path)
    assert pixels.shape[0] > 500
    assert pixels.shape[1] > 800
    assert pixels[..., :3].std() > 0.05, "not one flat colour"
    with pytest.raises(ValueError, match="no table"):
        policy_view.heat_map(msgspec.structs.replace(learned(), tabular=None), path)


@pytest.fixture(scope="module")
def settings(broker):
    settings = own_names(broker, "policy.current")
    produce(settings, [record("policy.current", p) for p in (policy(1), learned(5), policy(2, "ETHUSDT"))])
    return settings


def test_show_prints_the_newest_version(settings, capsys, tmp_path: Path) -> None:
    png = tmp_path / "q.png"
    code = main(["policy", "show", "q_learning", "--symbol", "BTCUSDT", "--json", "--png", str(png), *flags(settings)])
    out = capsys.readouterr()
    shown = json.loads(out.out)
    assert (code, shown["policy_id"], shown["version"]) == (Exit.GOOD, "q_learning/BTCUSDT", 5)
    assert shown["place"].startswith("policy.current-")
    assert png.stat().st_size > 10_000
    assert str(png) in out.err
    assert main(["policy", "show", "q_learning", "--symbol", "BTCUSDT", *flags(settings)]) == Exit.GOOD
    assert "n=33" in capsys.readouterr().out


def test_show_says_what_there_is_where_the_choice_is_open_or_empty(settings, capsys) -> None:
    assert main(["policy", "show", "q_learning", *flags(settings)]) == Exit.USAGE
    assert "BTCUSDT, ETHUSDT" in capsys.readouterr().err
    assert main(["policy", "show", "q_learning", "--symbol", "NONE", *flags(settings)]) == Exit.FAILED
    assert "BTCUSDT, ETHUSDT" in capsys.readouterr().err
    assert main(["policy", "show", "trees", *flags(settings)]) == Exit.FAILED
    assert "q_learning" in capsys.readouterr().err


def test_no_broker_is_unreachable(capsys) -> None:
    assert main(["policy", "show", "--broker", "127.0.0.1:1"]) == Exit.UNREACHABLE
    assert "127.0.0.1:1" in capsys.readouterr().err
