"""Phrases of mini-gsm8k: a small regular language from which stories are composed (our choice)."""

from __future__ import annotations

HE = frozenset(
    "Anton Bruno Cato Dario Edgar Elias Emil Fabio Felix Franz Gino Hector Hugo Igor Ivan Jonas Karl Lars Leo Linus "
    "Marco Nils Noah Olaf Oscar Ralf Samir Simon Sven Theo Timo Tom Viktor Yusuf Zeno".split()
)
NUMBER_WORDS = dict(enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2))
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# What may stand before an event; a story keeps to one row, so that its time runs forward.
CONNECTORS = (
    tuple(f"On {day}" for day in WEEKDAYS),
    ("In the morning", "At noon", "In the afternoon", "In the evening", "At night"),
    ("Then", "After that", "Later", "Next", "After lunch", "Then", "After that"),
    ("The next day", "A day later", "The day after", "A week later", "A month later"),
)

OPENINGS = (
    "{p} has {n} {t}.",
    "{p} owns {n} {t}.",
    "{p} starts with {n} {t}.",
    "There are {n} {t} on the desk of {p}.",
    "A shelf of {p} holds {n} {t}.",
    "{p} has a collection of {n} {t}.",
    "{p} keeps {n} {t} at home.",
)
TWO_PARTS = (
    "{p} has {n} red {t} and {m} blue {t}.",
    "{p} has {n} {t} at home and {m} {t} at school.",
    "There are {n} old {t} and {m} new {t} on the desk of {p}.",
    "One shelf of {p} holds {n} {t}, and another holds {m} {t}.",
)
BOXES_OF = (
    "{p} has {n} {b} with {m} {t} in each.",
    "{p} owns {n} {b} of {m} {t} each.",
    "{p} fills {n} {b} and puts {m} {t} into every one.",
    "A shelf of {p} holds {n} {b} with {m} {t} in each.",
    "There are {n} {b} on the desk of {p}, and each holds {m} {t}.",
)
BOXES_AND_LOOSE = (
    "{p} has {n} {b} of {m} {t} each and {k} more {t}.",
    "{p} keeps {n} {b} with {m} {t} in each and {k} other {t} at home.",
)

GAIN = (
    ("buys", ("", " at the market", " in a shop", " with a friend")),
    ("finds", ("", " in the garden", " on the way home", " under the bed")),
    ("gets", ("", " as a gift", " at school")),
    ("wins", (" in a game", " at the fair")),
    ("picks up", ("", " on the way home", " at the market")),
    ("receives", ("", " as a gift", " by mail")),
    ("collects", ("", " at school", " with a friend")),
)
LOSE = (
    ("loses", ("", " on the way home", " in a game", " in the garden")),
    ("sells", ("", " at the market", " at the fair", " to a friend")),
    ("uses", ("", " at school", " for a game")),
    ("throws away", ("", " by accident", " because they are old")),
    ("gives away", ("", " at school", " as a gift")),
    ("breaks", ("", " by accident", " on the way home")),
)
TIMES = {2: "doubles", 3: "triples"}
TIMES_TAILS = ("", " in a game", " by mail", " at the fair")
HALF = ("gives half of the {t} to {q}", "loses half of the {t}", "sells half of the {t}", "uses half of the {t}")

HAVE = (
    "How many {t} does {p} have now?",
    "How many {t} does {p} have in the end?",
    "How many {t} does {p} own after all this?",
    "How many {t} are left with {p}?",
    "What is the number of {t} that {p} has in the end?",
    "Find the number of {t} that {p} has now.",
)
TOGETHER = (
    "How many {t} do {p} have together?",
    "How many {t} do {p} own in all?",
    "What is the total number of {t} that {p} have?",
    "Find how many {t} {p} have together.",
)
DIFFERENCE = (
    "How many more {t} does {p} have than {q}?",
    "How many {t} more than {q} does {p} have?",
    "By how many {t} is {p} ahead of {q}?",
    "How many fewer {t} does {q} have than {p}?",
)
MONEY_OPENINGS = (
    "{p} has {n} dollars.",
    "{p} starts with {n} dollars.",
    "{p} goes to the market with {n} dollars.",
    "There are {n} dollars in the pocket of {p}.",
)
GOODS = ("a lunch", "a bus ride", "a book", "a lamp", "a coat", "a cake", "a toy", "a chair")
WORK = ("for washing a car", "for a day of work", "by painting a wall", "in the garden of a friend")

SCENES = (
    "It is a warm day.",
    "It rains all day.",
    "{r} comes to see {p}.",
    "{p} likes {t} very much.",
    "{p} and {r} are good friends.",
    "{p} keeps a list of everything.",
    "The school is closed today.",
)
QUESTION_FIRST = ("{} Here is the story.", "{} Read the story.", "Here is a question. {} Now the story.")
ANSWER_LINES = (
    "End with the number.",
    "Answer with a number.",
    "Give the number at the end.",
    "Write the number at the end.",
)

# Sentences with a number that does not matter: about {p}, about {r} who has no part in the story, or about nobody.
ASIDES = (
    ("age", "{p} is {n} years old."),
    ("age", "{r} is {n} years old and watches."),
    ("house", "{p} lives in house number {n}."),
    ("house", "The bus of {p} has the number {n}."),
    ("date", "It is May {n}."),
    ("date", "The shop closes on June {n}."),
    ("minutes", "The way home takes {n} minutes."),
    ("minutes", "{p} waits {n} minutes for {r}."),
    ("price", "A kite in the shop costs {n} dollars, but nobody buys it."),
    ("price", "{r} sees a clock for {n} dollars but does not buy it."),
    ("object", "{p} also has {n} {u}."),
    ("object", "{p} also buys {n} {u}."),
    ("object", "{p} gives {n} {u} to {r}."),
    ("object", "{p} loses {n} {u}."),
    ("other", "{r} has {n} {t}."),
    ("other", "{r} buys {n} {t} too."),
    ("other", "{r} loses {n} {t}."),
    ("other", "{r} sees {n} {t} in a book."),
)
