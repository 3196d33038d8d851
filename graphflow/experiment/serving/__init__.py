"""Experiments on serving many workflows at once: beside what one would take instead, and by scheduler and arrivals."""
