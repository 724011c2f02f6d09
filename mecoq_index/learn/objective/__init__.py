"""What a training run minimizes: contrast, learned signs, or the distillation of a float ranking.

Nothing outside this folder asks which objective a run has: `make_objective` and `make_quantizer`
choose by the class of its settings, and the rest goes through `Objective`.
"""
