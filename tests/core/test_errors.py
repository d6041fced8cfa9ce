"""Errors name the field, the value, what is allowed and the nearest valid name."""

import pytest

from posttrain.core.errors import PosttrainError, UserError, nearest, unknown

NAMES = ["addition", "retention", "word-problems"]


def test_nearest() -> None:
    assert nearest("aditon", NAMES) == ["addition"]
    assert nearest("zzz", NAMES) == []
    assert nearest("retentions", [*NAMES, "attention"], 2) == ["retention", "attention"]


def test_unknown_names_the_nearest_and_the_few() -> None:
    with pytest.raises(UserError) as caught:
        unknown("task", "aditon", NAMES)
    assert str(caught.value) == ("task = 'aditon': no such task; did you mean 'addition'? "
                                 "allowed: addition, retention, word-problems")


def test_unknown_lists_the_few_where_none_is_near() -> None:
    with pytest.raises(UserError) as caught:
        unknown("reward_model", "zzz", NAMES)
    assert str(caught.value) == ("reward_model = 'zzz': no such reward model; "
                                 "allowed: addition, retention, word-problems")


def test_unknown_does_not_list_the_many() -> None:
    with pytest.raises(UserError) as caught:
        unknown("task", "zzz", [f"name{i}" for i in range(13)])
    assert str(caught.value) == "task = 'zzz': no such task"


def test_wrong_use_is_also_a_value_error() -> None:
    assert issubclass(UserError, PosttrainError)
    assert issubclass(UserError, ValueError)


def test_swapped_letters_are_nearest() -> None:
    # "gpro" shares three letters in order with both; only "grpo" has its letters.
    assert nearest("gpro", ["gspo", "grpo", "gpg"]) == ["grpo"]
