"""From items to embeddings and codes: backbones, the image network, rows on disk."""
