"""Training: recipes, loop, step, stage, cascade, validation, choice of sigma."""
