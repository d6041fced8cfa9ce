"""The update alone: both sides are given the same, and what is told of them."""

from dataclasses import replace

import pytest
import torch
import update
from test_grpo_step import report
from versus import posttrain_update, trl_update
from versus.summary import Pair, compare
from versus.workload import Drawn, UpdateWorkload

from posttrain.core.errors import PosttrainError, UserError
from posttrain.ops import group_normalize

WORK = UpdateWorkload("model", 2, 3, 9, 6, "fp32", 1, False, 6, False, prompt_tokens=5, shared_tokens=3, vocabulary=50)
DRAWN = Drawn([[1, 2, 3], [1, 4]], [[5], [6, 7], [8, 9], [10]], [1.0, 0.0, 0.25, 0.75])


def test_both_sides_draw_the_same_and_every_step_anew():
    drawn = WORK.draw(0)
    assert UpdateWorkload.load(WORK.dump()).draw(0) == drawn
    assert WORK.draw(1) != drawn
    assert [len(prompt) for prompt in drawn.prompts] == [5, 5]
    assert drawn.prompts[0][:3] == drawn.prompts[1][:3]
    assert drawn.prompts[0][3:] != drawn.prompts[1][3:]
    assert len(drawn.completions) == len(set(drawn.rewards)) == 6
    assert all(3 <= len(row) <= 9 for row in drawn.completions)


def test_what_posttrain_is_given():
    batch = posttrain_update.batch(DRAWN, 2)
    assert batch.payload.prompts == ((1, 2, 3), (1, 4))
    assert batch.payload.tokens.tolist() == [[5, 0], [6, 7], [8, 9], [10, 0]]
    assert batch.mask.tolist() == [[True, False], [True, True], [True, True], [True, False]]
    assert batch.unit.tolist() == batch.group.tolist() == [0, 0, 1, 1]


def test_what_trl_is_given():
    batch = trl_update.batch(DRAWN, 2)
    assert batch["prompt_ids"].tolist() == [[1, 2, 3], [1, 2, 3], [0, 1, 4], [0, 1, 4]]
    assert batch["prompt_mask"].tolist() == [[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1]]
    assert batch["completion_ids"].tolist() == [[5, 0], [6, 7], [8, 9], [10, 0]]
    assert batch["completion_mask"].tolist() == [[1, 0], [1, 1], [1, 1], [1, 0]]
    assert int(batch["num_items_in_batch"]) == 6
    ours = group_normalize(torch.tensor(DRAWN.rewards), torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(batch["advantages"], ours)


def test_further_values_vary_one_option_at_a_time():
    args = update.parse(["--prompts", "4", "8", "--new-tokens", "24", "100", "200"])
    base = {"prompts": 4, "samples": 8, "prompt_tokens": 46, "new_tokens": 24}
    assert list(update.sizes(args)) == [base, base | {"prompts": 8}, base | {"new_tokens": 100},
                                        base | {"new_tokens": 200}]


@pytest.mark.parametrize(("argv", "size", "field"), [
    (["--trl-micro-batch", "7"], {}, "trl_micro_batch = 7"), ([], {"samples": 1}, "samples = 1")])
def test_sizes_that_cannot_be_are_refused(argv, size, field):
    machine = {"precision": "fp32", "threads": 1}
    with pytest.raises(UserError, match=field):
        update.workload(update.parse(argv), update.SIZES | size, "model", machine, 50)


def apart(norm, tokens=1000):
    return Pair(report(1.0, lengths=(tokens,)), report(1.0) | {"grad_norm": norm})


def test_norms_may_differ_by_more_where_there_are_few_tokens():
    for norm, tokens in [(1.04, 1000), (1.09, 128)]:  # 5% of 512 tokens or more, 10% of a quarter of them
        assert not update.norms_differ(apart(norm, tokens), 0.05)
    for norm, tokens in [(1.06, 1000), (1.12, 128), (0.89, 128)]:
        assert update.norms_differ(apart(norm, tokens), 0.05)


@pytest.mark.parametrize(("precision", "in_bf16", "in_fp32", "runs", "void"), [
    ("bf16", 1.04, 1.0, ["bf16"], False), ("bf16", 1.06, 1.005, ["bf16", "fp32"], False),
    ("bf16", 1.06, 1.02, ["bf16", "fp32"], True), ("fp32", 1.0, 1.06, ["fp32"], True)])
def test_gradients_of_different_norm_void_the_comparison(monkeypatch, precision, in_bf16, in_fp32, runs, void):
    """In bf16 more may be rounding, so fp32 decides; what counts is measured before that."""
    ran = []

    def beside(work, timeout):
        ran.append(work.precision)
        return [apart(in_bf16 if work.precision == "bf16" else in_fp32)]

    monkeypatch.setattr(update, "beside", beside)
    work = replace(WORK, precision=precision)
    if void:
        with pytest.raises(PosttrainError, match="not the same update"):
            update.measure(work, 1.0, False)
    else:
        assert [pair.theirs["grad_norm"] for pair in update.measure(work, 1.0, False)] == [in_bf16]
    assert ran == runs


def test_a_row_has_a_cell_under_every_column():
    pair = Pair(report(2.0, gib=1), report(9.0, gib=4))
    stages = {"loss and gradient": 1.0, "optimizer": 0.5}
    pair = Pair(pair.ours | {"stages": stages}, pair.theirs)
    least = {"loss and gradient": lambda prompts, lengths: 0.5, "optimizer": lambda prompts, lengths: 0.1}
    found = {"size": update.SIZES, "alone": False, "result": compare([pair], [least])}
    # floor 0.6 s: 30% of 2, 6.7% of 9; of the gradient 0.5 / 1, of AdamW 0.1 / 0.5
    assert update.row(found)[4:] == ["2.00", "9.00", "4.50×", "1.00", "4.00", "30.0%", "50.0%", "20.0%", "6.7%"]
    assert update.row(found | {"alone": True})[4:] == ["2.00", "", "", "1.00", "", "30.0%", "50.0%", "20.0%", ""]
    assert len(update.row(found)) == len(update.HEADS)


def test_the_first_update_may_be_short():
    work = replace(WORK, warm_tokens=3, fixed_length=True)
    assert {len(row) for row in work.draw(0).completions} == {3}
    assert {len(row) for row in work.draw(1).completions} == {9}
