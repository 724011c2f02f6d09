"""FAISS: learned codebooks put, unchanged, into the product quantizers of FAISS indexes.

`grammar` says what a factory string means, `factory` makes and reads indexes, and `inject` writes
the codebooks into them. `coarse` makes IVF lists, `items` puts codes in and reads them back, in the
forms that `layout` knows. `search` asks an index, `engine` is the adapter behind the engine
protocol, and `tuning` finds its nprobe. `plain` and `gpu` hand an index over to FAISS alone and to
GPUs.
"""
