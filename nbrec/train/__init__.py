# ruff: noqa: F401
"""Training of every neural model (thesis sections 3.2.2, 3.6.2 and 4.1): its settings, its loop for
sequence models, what graph models do otherwise, and checkpoints."""

from nbrec.train.checkpoint import CheckpointError, below
from nbrec.train.graphs import GraphTrainer, fit_graph, sample_negatives
from nbrec.train.loop import Trainer, seeded
from nbrec.train.sequences import MicroBatch, SequenceTrainer, batches, fit
from nbrec.train.settings import LearningCurve, TrainSettings
