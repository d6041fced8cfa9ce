"""The parts of a step-by-step comparison with another library; `benchmarks/grpo_step.py` assembles them."""
