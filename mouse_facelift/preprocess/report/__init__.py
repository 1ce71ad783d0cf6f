"""quality.html: one self-contained page that shows whether a run's samples can be trusted."""

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from .contents import Report
    from .page import write_quality_html

__all__ = ["Report", "write_quality_html"]

__getattr__ = lazy_exports(__name__, {"Report": "contents", "write_quality_html": "page"})
