"""No distillation: how teachers and baselines are trained."""

from dataclasses import dataclass
from typing import ClassVar

from speakerkd.kd.base import Supervised


@dataclass(frozen=True)
class NoneConf:
    """The classifier's options are the head's own (conf/head.conf)."""


class NoTeacher(Supervised):
    Conf: ClassVar[type] = NoneConf
