"""The files of a run's result: what the method exports."""

from collections.abc import Mapping

from speakerkd.kd import Distiller
from speakerkd.models import SpeakerNet, load_net, save_net
from speakerkd.models.vectormap import VectorMap, load_map, save_map, system_of
from speakerkd.train.runfolder import RunFolder


def save_results(method: Distiller, folder: RunFolder, vectors: Mapping[str, str]) -> None:
    """vectors: the files given by --vectors; maps record which systems these belong to."""
    exports = method.exports()
    assert tuple(exports) == method.results, f"{type(method).__name__}.results doesn't name what exports() gives"
    for name, module in exports.items():
        if isinstance(module, VectorMap):
            save_map(
                folder.path / f"{name}.pt", module, name, {side: system_of(path) for side, path in vectors.items()}
            )
        else:
            assert isinstance(module, SpeakerNet)
            save_net(folder.path / f"{name}.pt", module)


def require_loadable(folder: RunFolder) -> None:
    """A run is not complete if its result is damaged."""
    for name in folder.results:
        (load_net if name == "final.pt" else load_map)(folder.path / name)
