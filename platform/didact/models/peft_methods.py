"""Importing this lets PEFT open bottleneck adapters, outside of this library too.

    import didact.models.peft_methods
    model = PeftModel.from_pretrained(base, "runs/mine/adapter")

It works when it is imported, unlike other modules here, so that one line is enough.
"""

from didact.models.methods.bottleneck import register_bottleneck

register_bottleneck()
