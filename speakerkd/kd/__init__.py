"""The methods of distillation: a batch goes in, named losses come out. METHODS lists them by the --type of a conf file."""

from speakerkd.kd.attention import AttentionTransfer
from speakerkd.kd.base import Clock, Components, Distiller, Needs, Outcome
from speakerkd.kd.dino import DINO
from speakerkd.kd.embed import MSE, Cosine, Relation
from speakerkd.kd.ge2e import GE2E
from speakerkd.kd.label import DKD, KLD
from speakerkd.kd.mkd import MKD
from speakerkd.kd.nessa import NESSA
from speakerkd.kd.none import NoTeacher
from speakerkd.kd.rkd import RKD
from speakerkd.kd.sdpn import SDPN
from speakerkd.kd.skdfe import SKDFE

METHODS: dict[str, type[Distiller]] = {
    "attention": AttentionTransfer,
    "cosine": Cosine,
    "dino": DINO,
    "dkd": DKD,
    "ge2e": GE2E,
    "kld": KLD,
    "mkd": MKD,
    "mse": MSE,
    "nessa": NESSA,
    "none": NoTeacher,
    "relation": Relation,
    "rkd": RKD,
    "sdpn": SDPN,
    "skdfe": SKDFE,
}

__all__ = ["METHODS", "Clock", "Components", "Distiller", "Needs", "Outcome"]
