"""retention: 64 short prompts on skills that no training task teaches, to see what training destroyed.

Eight skills, eight prompts each, easy enough that a model of 135M parameters has a chance.  There is
nothing to train on.  A completion scores 1 when an accepted answer occurs in it as a whole word or phrase,
in any case; it measures what is lost between two states of one model, not how good a model is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from posttrain.core.errors import UserError
from posttrain.rewards.verifiers import contains
from posttrain.tasks.task import Problem, Task

_CAPITALS = {
    "What is the capital of France?": ["Paris"],
    "What is the capital of Japan?": ["Tokyo"],
    "What is the capital of Italy?": ["Rome"],
    "What is the capital of Germany?": ["Berlin"],
    "What is the capital of Spain?": ["Madrid"],
    "What is the capital of Egypt?": ["Cairo"],
    "What is the capital of Russia?": ["Moscow"],
    "What is the capital of England?": ["London"],
}
_OPPOSITES = {
    "What is the opposite of hot?": ["cold", "cool"],
    "What is the opposite of up?": ["down"],
    "What is the opposite of big?": ["small", "little", "tiny"],
    "What is the opposite of fast?": ["slow"],
    "What is the opposite of day?": ["night"],
    "What is the opposite of happy?": ["sad", "unhappy"],
    "What is the opposite of open?": ["closed", "close", "shut"],
    "What is the opposite of left?": ["right"],
}
_SPELLING = {
    "What is the plural of the word dog?": ["dogs"],
    "What is the plural of the word cat?": ["cats"],
    "What is the past tense of the word walk?": ["walked"],
    "What is the plural of the word child?": ["children"],
    "Correct the spelling of this word: freind": ["friend"],
    "Correct the spelling of this word: becuase": ["because"],
    "What is the past tense of the word go?": ["went"],
    "Spell the word dog with a hyphen between the letters.": ["d-o-g"],
}
_ORDER = {
    "Continue the list: Monday, Tuesday, Wednesday,": ["Thursday"],
    "How many days are in a week?": ["7", "seven"],
    "What is the next number: 1, 2, 3, 4?": ["5", "five"],
    "Which letter comes after B in the alphabet?": ["c"],
    "Which season comes after winter?": ["spring"],
    "How many months are in a year?": ["12", "twelve"],
    "Which day comes after Friday?": ["Saturday"],
    "Which month comes after January?": ["February"],
}
_TRANSLATION = {
    "Translate the French word 'bonjour' into English.": ["hello", "good morning", "good day", "hi"],
    "Translate the Spanish word 'gracias' into English.": ["thank you", "thanks"],
    "Translate the Spanish word 'casa' into English.": ["house", "home"],
    "Translate the Spanish word 'agua' into English.": ["water"],
    "What does the Spanish word 'hola' mean in English?": ["hello", "hi"],
    "Translate the English word 'hello' into Spanish.": ["hola"],
    "What does the Spanish word 'adios' mean in English?": ["goodbye", "good-bye", "bye", "farewell"],
    "Translate the French word 'merci' into English.": ["thank you", "thanks"],
}
_YES_OR_NO = {
    "Is the sun a star? Answer yes or no.": ["yes"],
    "Can a fish breathe under water? Answer yes or no.": ["yes"],
    "Is ice colder than fire? Answer yes or no.": ["yes"],
    "Do cows give milk? Answer yes or no.": ["yes"],
    "Is the moon made of cheese? Answer yes or no.": ["no"],
    "Can a stone talk? Answer yes or no.": ["no"],
    "Is an elephant smaller than a mouse? Answer yes or no.": ["no"],
    "Do humans have three eyes? Answer yes or no.": ["no"],
}
_INSTRUCTIONS = {
    "Reply with the word blue.": ["blue"],
    "Say hello.": ["hello", "hi"],
    "Repeat this word: banana": ["banana"],
    "Write one sentence about a dog.": ["dog", "dogs"],
    "Name one colour of the rainbow.": ["red", "orange", "yellow", "green", "blue", "indigo", "violet"],
    "Name an animal that barks.": ["dog", "dogs"],
    "Write one sentence about the rain.": ["rain", "raindrops", "rainfall", "rainy"],
    "Name a fruit that is yellow.": ["banana", "bananas", "lemon", "lemons", "pineapple", "mango", "mangoes"],
}
_DEFINITIONS = {
    "What do bees make?": ["honey", "wax"],
    "Which planet do we live on?": ["Earth"],
    "What is frozen water called?": ["ice"],
    "Which organ pumps blood through the body?": ["heart"],
    "What do you call a baby dog?": ["puppy", "pup"],
    "Which gas do people need to breathe?": ["oxygen"],
    "What is the name of the star at the centre of our solar system?": ["sun"],
    "What is a place with many books to borrow called?": ["library"],
}
_SKILLS = {
    "capitals": _CAPITALS, "opposites": _OPPOSITES, "spelling": _SPELLING, "order": _ORDER,
    "translation": _TRANSLATION, "yes or no": _YES_OR_NO, "instructions": _INSTRUCTIONS,
    "definitions": _DEFINITIONS,
}


def task(argument: str) -> Task:
    if argument:
        raise UserError(f"task = 'retention-{argument}': retention takes no argument")
    return Retention()


@dataclass(frozen=True)
class Retention:
    """The fixed list; its first n prompts hold every skill as evenly as n allows."""

    name: str = "retention"
    trusted: bool = True
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"max_new_tokens": 24})

    def train(self, index: int, seed: int) -> NoReturn:
        raise UserError("task = 'retention': is for evaluation only; it has nothing to train on")

    def heldout(self, count: int) -> list[Problem]:
        by_skill = [[Problem(prompt, accepted, {"skill": skill}) for prompt, accepted in prompts.items()]
                    for skill, prompts in _SKILLS.items()]
        rounds = zip(*by_skill, strict=True)
        return [problem for one_of_each in rounds for problem in one_of_each][:count]

    def score(self, problem: Problem, completion: str) -> float:
        """1.0 when one of the accepted answers occurs in the completion; see the verifier `contains`."""
        return contains.verify(completion, problem.answer)
