"""Engines hold codes and rank them by AQS. `base` has the contract; one module or folder each."""
