"""One change of an index on disk: open it, add or remove, save."""

import numpy as np

from mecoq_index.index.index import open_index


def add_items(path, codes, ids=None):
    """Add codes under ids, or under names; return the ids."""
    index = open_index(path)
    are_names = ids is not None and not isinstance(ids, np.ndarray)
    added = index.add(codes, names=ids) if are_names else index.add(codes, ids=ids)
    index.save()
    return added


def remove_items(path, items):
    """Remove items by ids or names; return how many there were."""
    index = open_index(path)
    removed = index.remove(items)
    index.save()
    return removed
