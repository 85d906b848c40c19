"""What a training step costs, and where its time goes; the timer of all benchmarks."""
