"""Methods to compare learned codes with: binary hashing with Hamming search, PQ, OPQ, floats."""
