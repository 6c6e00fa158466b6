#!/usr/bin/env python3
"""Do two recordings have the same speaker? An app needs only numpy, soundfile, kaldi-native-fbank and onnxruntime.

Usage: python verify_example.py a.wav b.wav   (16 kHz, one channel, beside model.onnx and card.json)
"""

import json
import sys
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import onnxruntime
import soundfile

folder = Path(__file__).resolve().parent
card = json.loads((folder / "card.json").read_text())
session = onnxruntime.InferenceSession(str(folder / card["files"]["fp32"]["name"]))
options = knf.FbankOptions()
front = card["front_end"]
frame, mel = options.frame_opts, options.mel_opts
frame.dither, frame.samp_freq = 0, front["sample_frequency"]
frame.frame_length_ms, frame.frame_shift_ms = front["frame_length"], front["frame_shift"]
frame.preemph_coeff, frame.blackman_coeff = front["preemphasis_coefficient"], front["blackman_coeff"]
mel.num_bins, mel.low_freq, mel.high_freq = front["num_mel_bins"], front["low_freq"], front["high_freq"]
for name in ("window_type", "snip_edges", "remove_dc_offset", "round_to_power_of_two"):
    setattr(frame, name, front[name])
for name in ("use_energy", "raw_energy", "energy_floor", "htk_compat", "use_log_fbank", "use_power"):
    setattr(options, name, front[name])


def embedding(path: str) -> np.ndarray:
    wave, rate = soundfile.read(path, dtype="float32")
    assert rate == front["sample_frequency"] and wave.ndim == 1, (
        f"{path}: {front['sample_frequency']:.0f} Hz, one channel"
    )
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(rate, (wave * front["waveform_scale"]).tolist())
    fbank.input_finished()
    feats = np.array([fbank.get_frame(i) for i in range(fbank.num_frames_ready)], np.float32)
    vector = session.run(["embs"], {"feats": feats[None]})[0][0]
    return vector / np.linalg.norm(vector)


score = float(embedding(sys.argv[1]) @ embedding(sys.argv[2]))
print(f"score {score:.3f}")
for line in card["conditions"]:
    print(
        f"log likelihood ratio {line['scale'] * score + line['offset']:+.2f}, as for {line['label']}, {line['noise']}"
    )
