"""Other people's rows as ours: what they hold is kept digit by digit, or refused by name."""

from pathlib import Path
from typing import Any

import pytest

from smallwit.data.columns import map_columns, unread_columns
from smallwit.data.source import MappedRows
from smallwit.rows import BadRow, Row

PATH = Path("rows.jsonl")
TURNS = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Two."}]


def read(theirs: Row, *, columnar: bool = False, **source: Any) -> Row:
    """A row that can be read, without its id."""
    row = map_columns(theirs, MappedRows.model_validate(source), PATH, 3, columnar=columnar)
    assert not isinstance(row, BadRow), row
    return {name: value for name, value in row.items() if name != "id"}


def refused(theirs: Row, *, columnar: bool = False, **source: Any) -> str:
    """The message about a row that cannot."""
    row = map_columns(theirs, MappedRows.model_validate(source), PATH, 3, columnar=columnar)
    assert isinstance(row, BadRow), row
    assert str(row).startswith("rows.jsonl:3: ")
    assert len(str(row).splitlines()) == 1
    return row.reason


class TestAnswers:
    @pytest.mark.parametrize(
        ("given", "text"),
        [
            (2**60, "1152921504606846976"),
            (12345678901234567, "12345678901234567"),
            (5.0, "5"),
            (2.5, "2.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e-7, "0.0000001"),
            (-3, "-3"),
            (" 1,200 ", " 1,200 "),
        ],
    )
    def test_a_number_keeps_all_its_digits(self, given: Any, text: str) -> None:
        assert read({"prompt": "?", "answer": given})["answer"] == text

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            (None, "column 'answer' is null"),
            (True, "must be text or a number as an answer, this is true"),
            ([7], "this is a list"),
            (float("nan"), "this is nan"),
            (float("inf"), "this is inf"),
            (12345678901234567.0, "beyond 2^53, which has lost digits"),
            (" ", "is empty"),
        ],
    )
    def test_what_no_verifier_can_compare_with_is_refused(self, given: Any, reason: str) -> None:
        assert reason in refused({"prompt": "?", "answer": given})
        assert reason.replace("'answer'", "'gold'") in refused(
            {"prompt": "?", "gold": given}, columns={"answer": "gold"}
        )

    def test_null_is_what_columns_hold_for_nothing_unless_somebody_is_to_judge_it(self) -> None:
        theirs = {"prompt": "?", "completion": "Two.", "answer": None}
        assert "answer" not in read(theirs, columnar=True)
        assert "task math is to judge this row" in refused(theirs, columnar=True, task="math")

    @pytest.mark.parametrize("column", ["prompt", "completion"])
    def test_a_column_that_the_recipe_names_is_not_null(self, column: str) -> None:
        theirs = {"prompt": "?", "completion": "Two.", "theirs": None}
        assert "column 'theirs' is null" in refused(theirs, columns={column: "theirs"})


class TestIds:
    @pytest.mark.parametrize(("given", "text"), [("a", "a"), (7, "7"), (7.0, "7"), (2**60, "1152921504606846976")])
    def test_a_number_is_an_id_as_text(self, given: Any, text: str) -> None:
        row = map_columns({"prompt": "?", "id": given}, MappedRows(), PATH, 3)
        assert isinstance(row, dict)
        assert row["id"] == text

    @pytest.mark.parametrize("given", [True, [1], {"a": 1}, float("nan")])
    def test_other_data_is_none(self, given: Any) -> None:
        assert "must be text or a whole number as an id" in refused({"prompt": "?", "id": given})

    def test_a_row_without_one_is_named_by_file_and_line(self) -> None:
        row = map_columns({"prompt": "?"}, MappedRows(), PATH, 3, file_name="sub/rows.jsonl")
        assert isinstance(row, dict)
        assert row["id"] == "sub/rows.jsonl:3"


class TestFormatsOfTRL:
    """https://huggingface.co/docs/trl/dataset_formats, each by its columns."""

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            pytest.param({"prompt": "The sky is"}, {"prompt": "The sky is"}, id="prompt-only"),
            pytest.param({"prompt": TURNS[:1]}, {"prompt": "How many?"}, id="prompt-only, conversation"),
            pytest.param(
                {"prompt": "The sky is", "completion": " blue."},
                {"prompt": "The sky is", "completion": " blue."},
                id="prompt-completion",
            ),
            pytest.param(
                {"prompt": TURNS[:1], "completion": TURNS[1:]},
                {"prompt": "How many?", "completion": "Two."},
                id="prompt-completion, conversation",
            ),
            pytest.param({"messages": TURNS}, {"prompt": "How many?", "completion": "Two."}, id="messages"),
            pytest.param({"messages": TURNS * 2}, {"messages": TURNS * 2}, id="messages of several turns"),
        ],
    )
    def test_what_can_be_learned_from_is_read(self, theirs: Row, ours: Row) -> None:
        assert read(theirs) == ours

    @pytest.mark.parametrize(
        ("theirs", "reason"),
        [
            pytest.param({"text": "The sky is blue."}, "plain text", id="language modelling"),
            pytest.param({"prompt": "a", "chosen": "b", "rejected": "c"}, "a preference row", id="preference"),
            pytest.param({"chosen": TURNS, "rejected": TURNS}, "{messages: chosen}", id="preference, implicit prompt"),
            pytest.param(
                {"prompt": "a", "completion": "b", "label": False}, "unpaired preference", id="unpaired preference"
            ),
            pytest.param({"prompt": "a", "completion": "b", "label": "True"}, "unpaired", id="the same from a table"),
            pytest.param(
                {"prompt": "a", "completions": ["b", "c"], "labels": [True, False]},
                "stepwise",
                id="stepwise supervision",
            ),
        ],
    )
    def test_what_cannot_is_refused_by_name(self, theirs: Row, reason: str) -> None:
        assert reason in refused(theirs)

    def test_the_remedy_for_preferences_works(self) -> None:
        theirs = {"prompt": "a", "chosen": "b", "rejected": "c"}
        assert read(theirs, columns={"completion": "chosen"}) == {"prompt": "a", "completion": "b"}
        turns = {"chosen": TURNS, "rejected": TURNS}
        assert read(turns, columns={"messages": "chosen"}) == {"prompt": "How many?", "completion": "Two."}

    def test_a_label_that_is_no_verdict_is_a_column_like_others(self) -> None:
        theirs = {"prompt": "a", "completion": "b", "label": "algebra"}
        assert read(theirs) == {"prompt": "a", "completion": "b"}
        assert unread_columns(theirs, MappedRows()) == {"label"}

    def test_other_columns_are_named_where_no_prompt_is(self) -> None:
        assert "it has 'conversations', 'source'" in refused({"conversations": [], "source": "x"})
