"""Public log formats and the synthetic shop, as events.

`open_source(format, path, **options)` gives a `Source`; `SyntheticShop` also tells the truth behind its events.
"""

from streams.sources.port import Description, Skips, Source
from streams.sources.registry import FORMATS, open_source
from streams.sources.shop import ShopConfig
from streams.sources.synthetic import SyntheticShop

__all__ = ["FORMATS", "Description", "ShopConfig", "Skips", "Source", "SyntheticShop", "open_source"]
