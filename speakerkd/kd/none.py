"""No distillation: how teachers and baselines are trained."""

from dataclasses import dataclass
from typing import ClassVar

from speakerkd.kd.base import Supervised


@dataclass(frozen=True)
class NoneConf:
    """No options. The classifier has its own (conf/head.conf)."""


class NoTeacher(Supervised):
    Conf: ClassVar[type] = NoneConf
