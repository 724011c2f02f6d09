"""Learned codes inside Milvus, which ranks them by AQS.

Milvus cannot be given codebooks. What it can do is rank by inner product, and AQS is the inner
product of the block-normalised query with the decoded codes: a *profile* says in which form the
codes are stored and which of Milvus's indexes scans them.
"""
