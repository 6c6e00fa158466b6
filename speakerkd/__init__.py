"""Models, losses and distillation methods for the recipes in egs/."""
