"""Which prefix paths are used: traffic with exponential decay, the smallest covering set, hysteresis.

The paper keeps residuals of valid, frequent transitions only. The covering set, the decay (a shifted workload re-forms
the set) and the hysteresis (the set does not flap) are our choice.
"""

from __future__ import annotations

from collections.abc import Iterable

Key = tuple[str, tuple[str, ...]]
"""An operation and the prefix path before it."""

_RENORMALISE_AT = 2.0**40
_FORGET_BELOW = 1e-3


class PathStatistics:
    """Decayed traffic of (operation, path) pairs.

    Every touch adds 1 to its pair after all pairs were multiplied by the decay. The multiplication is lazy: a touch
    adds a weight that grows by 1/decay each time, and traffic is divided by it when read.

    Args:
        decay: Factor per touch in (0, 1]; 1 never forgets.

    Raises:
        ValueError: ``decay`` out of range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay <= 1:
            raise ValueError(f"decay must be in (0, 1], got {decay}")
        self.decay = decay
        self._weight = 1.0
        self._sums: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._sums)

    @property
    def nbytes(self) -> int:
        """Bytes of the counts: one float64 a pair (names left out)."""
        return 8 * len(self._sums)

    @property
    def total(self) -> float:
        """Decayed traffic of all pairs."""
        return sum(self._sums.values()) / self._weight

    def touch(self, key: Key) -> None:
        """Count one transition."""
        self._weight /= self.decay
        self._sums[key] = self._sums.get(key, 0.0) + self._weight
        if self._weight > _RENORMALISE_AT:
            self._renormalise()

    def traffic(self, key: Key) -> float:
        """Decayed traffic of one pair; 0 if it was never seen or is forgotten."""
        return self._sums.get(key, 0.0) / self._weight

    def coverage(self, share: float) -> set[Key]:
        """The smallest set of pairs that covers a share of the traffic.

        Args:
            share: In (0, 1].

        Returns:
            The most used pairs, just enough of them; of equally used ones those seen first.

        Raises:
            ValueError: ``share`` out of range.
        """
        if not 0 < share <= 1:
            raise ValueError(f"coverage share must be in (0, 1], got {share}")
        covered = 0.0
        # A sum of decayed counts is rounded; without the slack a share of exactly .75 could ask for one pair too many.
        goal = (share - 1e-9) * sum(self._sums.values())
        chosen: set[Key] = set()
        for key, value in sorted(self._sums.items(), key=lambda item: -item[1]):
            if covered >= goal:
                break
            covered += value
            chosen.add(key)
        return chosen

    def retained(self, held: Iterable[Key], share: float, hysteresis: float) -> set[Key]:
        """Which of the pairs that are held now may stay.

        A pair stays while its traffic is at least ``hysteresis`` times that of the least used pair of the covering set,
        so it enters at one level and leaves at a lower one.

        Args:
            held: Pairs whose state is held.
            share: Share that the covering set covers, in (0, 1].
            hysteresis: In [0, 1]; 1 is none, 0 keeps everything that is held.

        Raises:
            ValueError: ``hysteresis`` or ``share`` out of range.
        """
        if not 0 <= hysteresis <= 1:
            raise ValueError(f"hysteresis must be in [0, 1], got {hysteresis}")
        level = hysteresis * min((self._sums[key] for key in self.coverage(share)), default=0.0)
        return {key for key in held if self._sums.get(key, 0.0) >= level}

    def _renormalise(self) -> None:
        """Bring the growing weight back to 1 and forget pairs without traffic, so that new paths never pile up."""
        scaled = {key: value / self._weight for key, value in self._sums.items()}
        self._sums = {key: value for key, value in scaled.items() if value >= _FORGET_BELOW}
        self._weight = 1.0
