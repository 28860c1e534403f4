"""Captioners: a network, or an ensemble of them, with vocabulary and preprocessing, as objects and as directories."""

from model.captioner.base import Candidate, Caption
from model.captioner.captioner import Captioner
from model.captioner.ensemble import Ensemble

__all__ = ["Candidate", "Caption", "Captioner", "Ensemble"]
