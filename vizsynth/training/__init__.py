"""Fitting and fine-tuning classifiers."""

from vizsynth.training.data import Examples as Examples
from vizsynth.training.data import Parts as Parts
from vizsynth.training.data import Source as Source
from vizsynth.training.data import split as split
from vizsynth.training.fitting import Diverged as Diverged
from vizsynth.training.fitting import Fitted as Fitted
from vizsynth.training.fitting import Progress as Progress
from vizsynth.training.fitting import fit as fit
from vizsynth.training.freezing import up_to as up_to
from vizsynth.training.history import Record as Record
from vizsynth.training.history import read_history as read_history
from vizsynth.training.history import write_history as write_history
from vizsynth.training.predictions import Predictions as Predictions
from vizsynth.training.predictions import predict as predict
from vizsynth.training.schedules import SCHEDULES as SCHEDULES
from vizsynth.training.schedules import adamw as adamw
from vizsynth.training.schedules import constant as constant
from vizsynth.training.schedules import cosine as cosine
from vizsynth.training.schedules import one_cycle as one_cycle
from vizsynth.training.schedules import sgd as sgd
from vizsynth.training.schedules import stairs as stairs
