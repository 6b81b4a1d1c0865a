"""Text of records that every fold reads: output ids and headers, against plainer ways to say the same."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.catalogue import AGENTS
from streams.records import header, headers_of, output_id, text_of

OUTPUT_ID = re.compile(r"([a-z0-9_]+):([0-9]{1,9})-([0-9]{1,18}):([0-9]{1,9})")
DIGITS = st.text("0123456789", max_size=20)
NEARLY = st.builds("{}:{}-{}:{}".format, st.sampled_from([*AGENTS, "", "nobody", "Decision"]), DIGITS, DIGITS, DIGITS)
IDS = NEARLY | st.from_regex(OUTPUT_ID) | st.text(":-0123456789n\u0664", max_size=20).map("decision".__add__)


@given(IDS)
@example("decision:1-2:3\n")
@example("decision:\u0661-2:3")
@example("decision:1-2:\u00b2")
@example("decision:1-2-3:4")
@example("decision:1-2:3:4")
@example("decision:+1-2:3")
@example("decision: 1-2:3")
@example("decision:1_0-2:3")
@example("decision:999999999-999999999999999999:999999999")
@example("decision:1000000000-1:1")
@example("decision:1-1000000000000000000:1")
@example("decision:1-1:1000000000")
def test_an_output_id_is_what_the_pattern_says(ce_id: str) -> None:
    match = OUTPUT_ID.fullmatch(ce_id)
    known = match is not None and match[1] in AGENTS
    assert output_id(ce_id) == ((match[1], *map(int, match.groups()[1:])) if match and known else None)


def test_agents_have_names_that_an_output_id_can_hold() -> None:
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in AGENTS)
    assert output_id(None) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.binary(max_size=3) | st.text(max_size=3)), max_size=6))
def test_the_last_header_of_a_name_counts_however_it_is_looked_up(raw: list[tuple[str, bytes | str | None]]) -> None:
    headers = headers_of(raw)
    plain = tuple((k, v.encode() if isinstance(v, str) else v or b"") for k, v in raw)
    assert headers == headers_of(iter(raw)) == plain
    for name in "abcd":
        assert header(headers, name) == text_of(dict(headers).get(name))
