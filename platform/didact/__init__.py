"""didact (to instruct): an instruction-finetuning platform on Ray.

dataset -> mixture -> tokens -> base model + adapter -> train -> evaluate -> register -> serve
                         Ray Tune runs many such stories; MLflow remembers them all
"""

__version__ = "0.1.0"
