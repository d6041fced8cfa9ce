"""char-addition: gold answers, which pairs are held out, purity."""

from __future__ import annotations

import pickle

import pytest

from posttrain.core.errors import UserError
from posttrain.tasks import Problem, load_task, task_names

TASK = load_task("char-addition")


def pairs(problems: list[Problem]) -> set[tuple[int, int]]:
    return {(p.data["a"], p.data["b"]) for p in problems}


def test_a_sum_worked_by_hand() -> None:
    # 37 + 85 = 122, from the right: 2, 2, 1.  7 + 5 = 12 ends in 2 and carries, 3 + 8 + 1 = 12, then the carry.
    problem = next(p for i in range(10**5) if (p := TASK.train(i, 0)).data == {"a": 37, "b": 85})
    assert (problem.prompt, problem.answer) == ("37+85=", "221")


def test_gold_scores_one_and_wrong_scores_zero() -> None:
    for problem in TASK.heldout(200):
        gold = str(problem.data["a"] + problem.data["b"])[::-1]
        assert TASK.score(problem, gold) == TASK.score(problem, f" {gold}\n") == 1.0
        wrong = ["", gold[:-1], gold + "0", "0" + gold, f"{gold} {gold}", "zebra", str(problem.prompt) + gold]
        wrong += [gold[::-1]] * (gold != gold[::-1])
        assert [TASK.score(problem, text) for text in wrong] == [0.0] * len(wrong)


def test_all_pairs_are_divided() -> None:
    # 8,100 pairs; by chance a tenth, 810 ± 3 · √(8100 · 0.1 · 0.9) = 810 ± 81, are held out.
    heldout = pairs(TASK.heldout(10**6))
    every = {(a, b) for a in range(10, 100) for b in range(10, 100)}
    assert heldout < every
    assert 729 <= len(heldout) <= 891
    trained = pairs([TASK.train(i, 0) for i in range(20_000)])
    assert not trained & heldout
    assert len(trained) > 0.9 * len(every - heldout)  # 20,000 draws of 7,290 miss a pair with chance e^-2.7 = 6%


def test_no_answer_is_held_out_as_a_whole() -> None:
    heldout = pairs(TASK.heldout(10**6))
    trained_sums = {a + b for a in range(10, 100) for b in range(10, 100) if (a, b) not in heldout}
    assert set(range(23, 196)) <= trained_sums


def test_heldout_is_fixed_distinct_and_a_prefix() -> None:
    many = TASK.heldout(300)
    assert many == load_task("char-addition").heldout(300)
    assert TASK.heldout(7) == many[:7]
    assert len(pairs(many)) == 300
    assert TASK.heldout(0) == []


def test_training_problems_depend_on_index_and_seed_alone() -> None:
    assert TASK.train(5, 7) == load_task("char-addition").train(5, 7)
    assert len(pairs([TASK.train(i, s) for i in range(10) for s in range(10)])) > 90


def test_it_is_found_pickles_and_takes_no_argument() -> None:
    assert "char-addition" in task_names()
    assert pickle.loads(pickle.dumps(TASK)) == TASK
    with pytest.raises(UserError, match="task = 'char-addition-3': char-addition takes no argument"):
        load_task("char-addition-3")
