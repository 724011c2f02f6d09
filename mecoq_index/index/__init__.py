"""An index on disk: building, opening, changing and merging it."""
