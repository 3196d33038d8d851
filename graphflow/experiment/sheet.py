"""A small table of ready texts: printed in a terminal and shown in the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        title: What it shows.
        columns: Names of the columns.
        rows: A text for every column.
        texts: How many of the first columns hold words; the others hold numbers.
        note: What a reader has to know beside it; may be empty.
        folded: Whether a report shows it only when it is opened.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    note: str = ""
    folded: bool = False

    def printed(self) -> Table:
        """The table for a terminal, as narrow as it goes."""
        table = Table(
            title=self.title,
            title_justify="left",
            caption=self.note or None,
            caption_justify="left",
            header_style="bold",
            box=None,
            padding=(0, 1, 0, 0),
        )
        for place, name in enumerate(self.columns):
            table.add_column(name, justify="left" if place < self.texts else "right")
        for row in self.rows:
            table.add_row(*row)
        return table
