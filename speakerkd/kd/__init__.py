"""The methods, by the name that a conf file gives: --type=none."""

from speakerkd.kd.base import Clock, Distiller, Needs, Outcome, Parts
from speakerkd.kd.dino import DINO
from speakerkd.kd.embed import MSE, Cosine
from speakerkd.kd.label import DKD, KLD
from speakerkd.kd.none import NoTeacher
from speakerkd.kd.sdpn import SDPN

METHODS: dict[str, type[Distiller]] = {
    "cosine": Cosine,
    "dino": DINO,
    "dkd": DKD,
    "kld": KLD,
    "mse": MSE,
    "none": NoTeacher,
    "sdpn": SDPN,
}

__all__ = ["METHODS", "Clock", "Distiller", "Needs", "Outcome", "Parts"]
