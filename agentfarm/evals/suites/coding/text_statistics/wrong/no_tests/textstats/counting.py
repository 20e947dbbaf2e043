"""Words and sentences, and how many there are."""

import re
from collections import Counter

WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def words(text):
    """The words in their order, in lower case."""
    return [word.lower() for word in WORD.findall(text)]


def sentences(text):
    """The sentences in their order."""
    parts = (part.strip() for part in SENTENCE_END.split(text))
    return [part for part in parts if WORD.search(part)]


def frequencies(text, limit=None):
    """Each word with its number, the most frequent first."""
    counted = Counter(words(text))
    ordered = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))
    return ordered[:limit]


def summary(text):
    """All numbers at once."""
    found = words(text)
    number = len(sentences(text))
    return {
        "characters": len(text),
        "words": len(found),
        "unique_words": len(set(found)),
        "sentences": number,
        "average_word_length": average(sum(map(len, found)), len(found)),
        "average_sentence_length": average(len(found), number),
    }


def average(total, count):
    """The mean with two decimals, 0.0 where there is nothing."""
    return round(total / count, 2) if count else 0.0
