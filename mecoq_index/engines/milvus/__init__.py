"""Learned codes inside Milvus, which ranks them by AQS.

Milvus cannot use codebooks. It can rank by inner product, and AQS is the inner product of the
block-normalized query with the decoded codes. A *profile* decides in which form codes are stored
and which of Milvus's indexes scans them.
"""
