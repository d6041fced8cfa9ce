"""The contract: batches, losses, methods and what they may ask of a policy."""

from posttrain.core.batch import Batch, Groups, Payload
from posttrain.core.loss import Loss, Term
from posttrain.core.method import Method, Paper
from posttrain.core.policy import Models, Policy, Score
from posttrain.core.types import Count, Fraction, Natural, NonNegative, Positive

__all__ = ["Batch", "Count", "Fraction", "Groups", "Loss", "Method", "Models", "Natural", "NonNegative", "Paper",
           "Payload", "Policy", "Positive", "Score", "Term"]
