"""Words are what stands between spaces, and every full stop ends a sentence."""

from collections import Counter


def words(text):
    return [word.strip(".,!?").lower() for word in text.split()]


def sentences(text):
    for mark in "!?":
        text = text.replace(mark, ".")
    return [part.strip() for part in text.split(".") if part.strip()]


def frequencies(text, limit=None):
    # Equally frequent words come in the order of the text.
    return Counter(words(text)).most_common(limit)


def summary(text):
    found, parts = words(text), sentences(text)
    return {
        "characters": len(text),
        "words": len(found),
        "unique_words": len(set(found)),
        "sentences": len(parts),
        "average_word_length": round(sum(map(len, found)) / (len(found) or 1), 2),
        "average_sentence_length": round(len(found) / (len(parts) or 1), 2),
    }
