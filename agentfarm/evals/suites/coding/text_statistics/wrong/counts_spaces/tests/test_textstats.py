from textstats import frequencies, sentences, summary, words


def test_words():
    assert words("One two, three.") == ["one", "two", "three"]


def test_sentences():
    assert len(sentences("One. Two!")) == 2


def test_frequencies():
    assert frequencies("a b a") == [("a", 2), ("b", 1)]


def test_summary():
    assert summary("One two.")["words"] == 2
