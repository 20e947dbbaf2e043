"""The old names: mere aliases, and one warning at import instead of one a call."""

import warnings

from inventory import items_below as itemsBelow
from inventory import read_inventory as readInventory
from inventory import total_value as totalValue
from inventory import write_inventory as writeInventory

warnings.warn("legacy_inventory is deprecated", DeprecationWarning, stacklevel=2)
