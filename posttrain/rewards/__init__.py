"""What a completion is worth: verifiers, and the bounded scoring that runs them."""
