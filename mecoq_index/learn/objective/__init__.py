"""What a training run minimizes: contrast, or the distillation of a float ranking."""
