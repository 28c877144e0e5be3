"""The stages of dvc.yaml, a module each, named as there.

A stage reads parameters and the outputs of earlier stages, builds the parts, calls them and writes. No
arithmetic happens here. `sweep` and `estimate` are not stages: people run them by hand.
"""
