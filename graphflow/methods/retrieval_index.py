"""Texts found by words and by meaning: half TF-IDF, half sentence embedding (AgentKB's hybrid search).

As in ``agent_kb_retrieval.py`` of AgentKB's repository: cosine of TF-IDF vectors without English stop words plus cosine
of sentence embeddings, half each. The original adds the two lists of the best 2k only, so that a text in one list gets
no score from the other; here every text has both (our choice). Its encoder is all-MiniLM-L6-v2, here it is the encoder
of the generator's features, which may be that one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import linear_kernel

from graphflow.generator.features import Encoder

WORDS, MEANING = 0.5, 0.5


class RetrievalIndex:
    """Texts with both kinds of vectors.

    Args:
        texts: At least one, with at least one word that is no stop word.
        encoder: Gives unit vectors.

    Raises:
        ValueError: There is no text, or none with a word.
    """

    def __init__(self, texts: Sequence[str], encoder: Encoder) -> None:
        if not texts:
            raise ValueError("an index needs at least one text, got none")
        self.encoder = encoder
        self._words = TfidfVectorizer(stop_words="english")
        self._word_rows = self._words.fit_transform(texts)
        self._meaning_rows = encoder.encode(texts).numpy()

    def scores(self, query: str) -> np.ndarray:
        """Hybrid similarity of a query to every text, float (texts,)."""
        words = linear_kernel(self._word_rows, self._words.transform([query])).ravel()  # rows have length one
        meaning = self._meaning_rows @ self.encoder.encode([query])[0].numpy()
        return WORDS * words + MEANING * meaning

    def nearest(self, query: str, count: int, among: Sequence[int] | None = None) -> list[int]:
        """Places of the best texts, the best first; of equal ones the first.

        Args:
            query: The text to compare with.
            count: How many at most.
            among: Places that count; None for all.
        """
        scores = self.scores(query)
        places = range(len(scores)) if among is None else among
        return sorted(places, key=lambda place: (-scores[place], place))[:count]
