"""Statistics of texts."""

from textstats.counting import frequencies, sentences, summary, words

__all__ = ["frequencies", "sentences", "summary", "words"]
