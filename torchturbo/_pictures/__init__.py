"""Pictures of what has been found: bars in a terminal, a page of HTML on its own, and files by matplotlib.

What is to be seen is said once, as charts; each form draws them in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchturbo._pictures.charts import Bar, Chart
from torchturbo._pictures.page import Part, document, fragment
from torchturbo._told import Told

__all__ = ["Bar", "Chart", "Pictured"]


class Pictured(Told):
    """The forms that have pictures. What they show is in files beside the data: words, text and pictures."""

    __slots__ = ()

    def to_html(self) -> str:
        """It as one page of HTML, which needs no network, script or other file; light or dark as its reader has it."""
        return document(self._title(), self._page())

    def plot(self, path: str | Path) -> None:
        """Draws it into a file, by matplotlib: ``pip install "torchturbo[plot]"``.

        Args:
            path: the file, whose ending names the format, as .png, .svg or .pdf. What is there is written over.

        Raises:
            MissingPackageError: matplotlib is not installed.
            OptionValueError: the file's ending names no format that matplotlib knows.
            OSError: the file cannot be written.
        """
        from torchturbo._pictures.plot import save

        save(self._title(), self._charts(), path)

    def _repr_html_(self) -> str:
        return fragment(self._page())

    def _title(self) -> str:
        """One line on what was found."""
        title: str = self._beside("words").heading(self)
        return title

    def _charts(self) -> Sequence[Chart]:
        """What there is to see."""
        charts: Sequence[Chart] = self._beside("pictures").charts(self)
        return charts

    def _page(self) -> Sequence[Part]:
        """What a page says, from its heading on."""
        return list(self._beside("pictures").page(self))
