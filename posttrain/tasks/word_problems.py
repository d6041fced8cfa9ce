"""word-problems: grade-school stories of two to four steps, whose answer is a whole number from 0 up.

Twelve stories; names, things and numbers vary.  A story with given numbers is either a training or a held-
out one (20%), whoever it is told of.  `data["solution"]` is a worked solution that ends with "#### ANSWER",
fit as a demonstration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.rewards.verifiers import number
from posttrain.tasks.split import Split, draws
from posttrain.tasks.task import Problem, Task

HELDOUT_SHARE = 0.2
_REQUEST = "Work it out step by step and end with #### and the number."
_NAMES = ("Ada", "Ben", "Chen", "Dina", "Emil", "Fatima", "George", "Hana", "Ivan", "Julia", "Karim", "Lena",
          "Marco", "Nora", "Omar", "Priya", "Quinn", "Rosa", "Sam", "Tara")
_THINGS = ("pencils", "apples", "marbles", "stickers", "books", "shells", "buttons", "cards", "oranges",
           "stamps", "cookies", "balloons", "coins", "beads", "toy cars", "eggs")


@dataclass(frozen=True)
class Story:
    """One problem: the text, the numbers it was made from, and a line for each step."""

    text: str
    numbers: tuple[int, ...]
    steps: tuple[str, ...]
    answer: int


def task(argument: str) -> Task:
    if argument:
        raise UserError(f"task = 'word-problems-{argument}': word-problems takes no argument")
    return WordProblems()


@dataclass(frozen=True)
class WordProblems:
    """Stories drawn from `STORIES`."""

    name: str = "word-problems"
    trusted: bool = True
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"max_new_tokens": 128})

    def train(self, index: int, seed: int) -> Problem:
        return _SPLIT.first_for_training(draws(_draw, f"word-problems/train/{seed}/{index}"), self.name)

    def heldout(self, count: int) -> list[Problem]:
        return _SPLIT.distinct_heldout(draws(_draw, "word-problems/heldout"), count)

    def score(self, problem: Problem, completion: str) -> float:
        """1.0 when the last number of the completion is the answer; see the verifier `number`."""
        return number.verify(completion, problem.answer)

    def process(self, problem: Problem, completion: str) -> float:
        """The share of the worked steps whose results it states in their order, up to the first missing."""
        said = iter(re.findall(r"\d+", completion))
        results = re.findall(r"= (\d+)", problem.data["solution"])
        return len(list(takewhile(lambda result: result in said, results))) / len(results)

    def gold(self, problem: Problem) -> str:
        """The worked solution, as the prompt asks for it."""
        return str(problem.data["solution"])


def _draw(rng: Random) -> Problem:
    template = rng.choice(STORIES)
    name, other = rng.sample(_NAMES, 2)
    story = template(rng, name, other, rng.choice(_THINGS))
    solution = "\n".join([*story.steps, f"#### {story.answer}"])
    data = {"template": template.__name__, "numbers": list(story.numbers), "solution": solution}
    return Problem(f"{story.text} {_REQUEST}", story.answer, data)


def _numbers_key(problem: Problem) -> str:
    return f"{problem.data['template']}{problem.data['numbers']}"


_SPLIT = Split(HELDOUT_SHARE, _numbers_key)


def boxes(rng: Random, name: str, other: str, things: str) -> Story:
    count, each, given = rng.randint(2, 12), rng.randint(3, 15), rng.randint(2, 5)
    total = count * each
    return Story(
        f"{name} has {count} boxes with {each} {things} in each. {name} gives {given} {things} to {other}. "
        f"How many {things} does {name} have left?",
        (count, each, given),
        (f"{count} * {each} = {total} {things} at first.", f"{total} - {given} = {total - given} are left."),
        total - given)


def two_shelves(rng: Random, name: str, other: str, things: str) -> Story:
    upper, more, share = rng.randint(3, 20), rng.randint(1, 10), rng.randint(2, 5)
    lower = upper + more
    total = upper + lower
    full, left = divmod(total, share)
    return Story(
        f"On the upper shelf are {upper} {things}, on the lower shelf {more} more than on the upper one. "
        f"{name} packs all of them into bags of {share}, as many full bags as possible. "
        f"How many {things} are left over?",
        (upper, more, share),
        (f"{upper} + {more} = {lower} on the lower shelf.", f"{upper} + {lower} = {total} in all.",
         f"{full} * {share} = {full * share} in full bags.", f"{total} - {full * share} = {left} left over."),
        left)


def shopping(rng: Random, name: str, other: str, things: str) -> Story:
    count, price, change = rng.randint(2, 9), rng.randint(2, 12), rng.randint(0, 20)
    cost = count * price
    money = cost + change
    return Story(
        f"{name} has {money} dollars and buys {count} {things} for {price} dollars each. "
        f"How many dollars does {name} have left?",
        (money, count, price),
        (f"{count} * {price} = {cost} dollars spent.", f"{money} - {cost} = {change} dollars left."),
        change)


def sharing(rng: Random, name: str, other: str, things: str) -> Story:
    friends, share, first = rng.randint(2, 8), rng.randint(2, 12), rng.randint(1, 20)
    total = friends * share
    found = total + first
    return Story(
        f"{name} finds {found} {things}, keeps {first} of them, and shares the others equally among "
        f"{friends} friends. How many {things} does each friend get?",
        (found, first, friends),
        (f"{found} - {first} = {total} to share.", f"{total} / {friends} = {share} for each friend."),
        share)


def times_as_many(rng: Random, name: str, other: str, things: str) -> Story:
    own, times, lost = rng.randint(3, 15), rng.randint(2, 6), rng.randint(1, 5)
    others = own * times
    total = own + others
    return Story(
        f"{name} has {own} {things}. {other} has {times} times as many. Together they lose {lost}. "
        f"How many {things} do they have now?",
        (own, times, lost),
        (f"{own} * {times} = {others} for {other}.", f"{own} + {others} = {total} together.",
         f"{total} - {lost} = {total - lost} now."),
        total - lost)


def bus(rng: Random, name: str, other: str, things: str) -> Story:
    start, on_first, on_second = rng.randint(5, 30), rng.randint(2, 12), rng.randint(2, 12)
    after_first = start + on_first
    off = rng.randint(2, after_first)
    after_off = after_first - off
    end = after_off + on_second
    return Story(
        f"{name} drives a bus with {start} passengers. At the first stop {on_first} get on. "
        f"At the second stop {off} get off and {on_second} get on. How many passengers are on the bus then?",
        (start, on_first, off, on_second),
        (f"{start} + {on_first} = {after_first} after the first stop.",
         f"{after_first} - {off} = {after_off} stay.",
         f"{after_off} + {on_second} = {end} at the end."),
        end)


def wages(rng: Random, name: str, other: str, things: str) -> Story:
    hours, pay, days, spent = rng.randint(2, 8), rng.randint(5, 15), rng.randint(2, 6), rng.randint(1, 20)
    a_day = hours * pay
    earned = a_day * days
    return Story(
        f"{name} works {hours} hours a day for {pay} dollars an hour. After {days} days {name} spends "
        f"{spent} dollars on {things}. How many dollars of that pay are left?",
        (hours, pay, days, spent),
        (f"{hours} * {pay} = {a_day} dollars a day.", f"{a_day} * {days} = {earned} dollars earned.",
         f"{earned} - {spent} = {earned - spent} dollars left."),
        earned - spent)


def two_prices(rng: Random, name: str, other: str, things: str) -> Story:
    adults, children = rng.randint(2, 6), rng.randint(2, 9)
    dear, cheap = rng.randint(6, 15), rng.randint(2, 5)
    for_adults, for_children = adults * dear, children * cheap
    return Story(
        f"A ticket costs {dear} dollars for an adult and {cheap} dollars for a child. {name} buys tickets "
        f"for {adults} adults and {children} children. How many dollars does {name} pay?",
        (dear, cheap, adults, children),
        (f"{adults} * {dear} = {for_adults} dollars for adults.",
         f"{children} * {cheap} = {for_children} dollars for children.",
         f"{for_adults} + {for_children} = {for_adults + for_children} dollars in all."),
        for_adults + for_children)


def half(rng: Random, name: str, other: str, things: str) -> Story:
    quarter, bought = rng.randint(2, 15), rng.randint(1, 15)
    start = 4 * quarter
    return Story(
        f"{name} starts with {start} {things}, gives half of them to {other}, then loses half of the rest "
        f"and at last buys {bought} more. How many {things} does {name} have now?",
        (start, bought),
        (f"{start} / 2 = {2 * quarter} remain after the gift.",
         f"{2 * quarter} / 2 = {quarter} remain after the loss.",
         f"{quarter} + {bought} = {quarter + bought} in the end."),
        quarter + bought)


def reading(rng: Random, name: str, other: str, things: str) -> Story:
    a_day, days, rest = rng.randint(4, 20), rng.randint(2, 7), rng.randint(1, 9)
    left = a_day * rest
    done = a_day * days
    pages = done + left
    return Story(
        f"{name} reads a book of {pages} pages, {a_day} pages a day. {days} days have passed. "
        f"How many more days does {name} need?",
        (pages, a_day, days),
        (f"{a_day} * {days} = {done} pages read.", f"{pages} - {done} = {left} pages left.",
         f"{left} / {a_day} = {rest} more days."),
        rest)


def garden(rng: Random, name: str, other: str, things: str) -> Story:
    rows, per_row, bad, basket = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 4), rng.randint(2, 5)
    plants = rows * per_row
    good = plants - bad
    fruit = good * basket
    return Story(
        f"{name} plants {rows} rows of {per_row} tomato plants. {bad} plants do not grow. Each of the others "
        f"bears {basket} tomatoes. How many tomatoes are there?",
        (rows, per_row, bad, basket),
        (f"{rows} * {per_row} = {plants} plants.", f"{plants} - {bad} = {good} plants bear.",
         f"{good} * {basket} = {fruit} tomatoes."),
        fruit)


def ages(rng: Random, name: str, other: str, things: str) -> Story:
    younger, older_by, years = rng.randint(3, 15), rng.randint(2, 12), rng.randint(2, 10)
    older = younger + older_by
    then_younger, then_older = younger + years, older + years
    return Story(
        f"{name} is {younger} years old. {other} is {older_by} years older. What will be the sum "
        f"of their ages in {years} years?",
        (younger, older_by, years),
        (f"{younger} + {older_by} = {older} is the age of {other}.",
         f"{younger} + {years} = {then_younger} then.", f"{older} + {years} = {then_older} then.",
         f"{then_younger} + {then_older} = {then_younger + then_older}."),
        then_younger + then_older)


STORIES: tuple[Callable[[Random, str, str, str], Story], ...] = (
    boxes, two_shelves, shopping, sharing, times_as_many, bus, wages, two_prices, half, reading, garden, ages)
