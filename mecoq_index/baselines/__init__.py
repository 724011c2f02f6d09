"""What learned codes are compared with: binary hashing with Hamming search, PQ and OPQ, floats."""
