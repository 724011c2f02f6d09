"""Objectives of training: contrast, learned signs, and the distillation of a float ranking.

To add one, write a class of settings (settings.py, listed in ``KINDS``) and a subclass of
`Objective` (base.py), and let making.py build it from the settings. The trainer knows an objective
only as an `Objective` and its quantizer; no file outside this folder asks which one a run has.
"""
