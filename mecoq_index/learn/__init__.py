"""Learn codebooks by the MeCoQ method in torch, from pairs of views to a codebook file."""
