"""Feature vectors that fall into clusters, for tests of training."""

import numpy as np


def clustered_views(n=90, width=12, clusters=6, seed=0):
    """Two noisy views of items that fall into a few clusters, and the cluster of each item."""
    rng = np.random.default_rng(seed)
    centers = 2 * rng.standard_normal((clusters, width))
    label = np.arange(n) % clusters
    items = centers[label] + 0.5 * rng.standard_normal((n, width))
    views = items + 0.3 * rng.standard_normal((2, n, width))
    return views.astype(np.float32), label
