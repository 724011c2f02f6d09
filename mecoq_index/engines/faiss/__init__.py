"""FAISS: learned codebooks put, unchanged, into the product quantizers of FAISS indexes.

`factory` reads factory strings, `inject` writes the codebooks, `coarse` trains IVF lists, and
`engine` is the adapter behind the engine protocol.
"""
