"""An exported model: waves to embeddings, with kaldi-native-fbank and ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np

from speakerkd.verify.card import digest_of, read_card
from speakerkd.verify.onnxsession import open_session

MISSING = (
    "tools/setup.sh --extras app installs it into tools/venv, pip install kaldi-native-fbank onnxruntime elsewhere"
)


class Features:
    """(samples,) in [-1, 1) -> (T, F): Kaldi's fbank without dither, as the card describes it."""

    def __init__(self, front_end: dict[str, Any]) -> None:
        try:
            import kaldi_native_fbank
        except ImportError as error:
            raise ValueError(f"kaldi-native-fbank is needed and can't be imported ({error}); {MISSING}") from error
        self._package = kaldi_native_fbank
        self.rate = round(front_end["sample_frequency"])
        options = kaldi_native_fbank.FbankOptions()
        frame, mel = options.frame_opts, options.mel_opts
        frame.samp_freq, frame.dither = front_end["sample_frequency"], 0.0
        frame.frame_length_ms, frame.frame_shift_ms = front_end["frame_length"], front_end["frame_shift"]
        frame.preemph_coeff = front_end["preemphasis_coefficient"]
        frame.remove_dc_offset = front_end["remove_dc_offset"]
        frame.window_type = front_end["window_type"]
        frame.blackman_coeff = front_end["blackman_coeff"]
        frame.round_to_power_of_two = front_end["round_to_power_of_two"]
        frame.snip_edges = front_end["snip_edges"]
        mel.num_bins, mel.low_freq, mel.high_freq = (front_end[x] for x in ("num_mel_bins", "low_freq", "high_freq"))
        options.use_energy, options.raw_energy = front_end["use_energy"], front_end["raw_energy"]
        options.energy_floor, options.htk_compat = front_end["energy_floor"], front_end["htk_compat"]
        options.use_log_fbank, options.use_power = front_end["use_log_fbank"], front_end["use_power"]
        self._options, self._scale = options, np.float32(front_end["waveform_scale"])

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        fbank = self._package.OnlineFbank(self._options)
        fbank.accept_waveform(float(self.rate), (wave * self._scale).tolist())
        fbank.input_finished()
        return np.array([fbank.get_frame(index) for index in range(fbank.num_frames_ready)], np.float32)


class Encoder:
    """The model of an exported folder, in fp32 or int8."""

    def __init__(self, folder: str | Path, precision: str = "fp32", threads: int = 1) -> None:
        self.folder, self.card = Path(folder), read_card(folder)
        files = self.card["files"]
        if precision not in files:
            raise ValueError(f"{folder}: has no {precision} model (it has {' '.join(files)})")
        path = self.folder / files[precision]["name"]
        if not path.is_file():
            raise ValueError(f"{path}: no such file; export the model again")
        self.digest = digest_of(path)
        if self.digest != files[precision]["sha256"]:
            raise ValueError(f"{path}: is not the file that card.json describes; export the model again")
        if self.card["front_end"].get("type") != "kaldi":
            raise ValueError(
                f"{folder}: this model hears features of type '{self.card['front_end'].get('type')}', which can't be "
                "computed without PyTorch; export a student that was trained on Kaldi's fbank"
            )
        self.features = Features(self.card["front_end"])
        self.rate, self.dim = self.features.rate, int(self.card["dim"])
        self._session = open_session(path, threads)

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        """(samples,) -> (D,), of length 1."""
        return unit(self.embed(self.features(wave)[None])[0])

    def embed(self, feats: np.ndarray) -> np.ndarray:
        """(B, T, F) -> (B, D). An input that is too short for the model is repeated."""
        least = int(self.card["min_frames"])
        if feats.shape[1] < least:
            feats = np.tile(feats, (1, -(-least // max(feats.shape[1], 1)), 1))[:, :least]
        return self._session.run(["embs"], {"feats": np.ascontiguousarray(feats, np.float32)})[0]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
