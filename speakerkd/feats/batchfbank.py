"""Kaldi's filterbanks of a batch of waves of one length, on whatever device they lie; equal to fbank.py's up to rounding."""

import dataclasses

import torch
from torch import Tensor

from speakerkd.feats.fbank import Fbank, FbankConf, log_energy, log_floored


class BatchFbank:
    """(B, samples) -> (B, T, F), whole frames alone. The dither must be in the waves already (Fbank.dithered)."""

    def __init__(self, conf: FbankConf) -> None:
        self.conf = dataclasses.replace(conf, snip_edges=True)
        self._fbank = Fbank(self.conf)
        self._tables = self._fbank.window, self._fbank.mel

    def __call__(self, waves: Tensor) -> Tensor:
        conf = self.conf
        if self._tables[0].device != waves.device:
            self._tables = self._tables[0].to(waves.device), self._tables[1].to(waves.device)
        window, mel = self._tables
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            frames = waves.float().unfold(1, self._fbank.length, self._fbank.shift) * 32768  # (B, T, length)
            if conf.remove_dc_offset:
                frames = frames - frames.mean(2, keepdim=True)
            raw = frames
            before = torch.cat([frames[..., :1], frames[..., :-1]], 2)
            frames = (frames - conf.preemphasis_coefficient * before) * window
            spectrum = torch.fft.rfft(frames, self._fbank.padded)
            bins = (torch.view_as_real(spectrum).flatten(2).square() if conf.use_power else spectrum.abs()) @ mel
            columns = [log_floored(bins) if conf.use_log_fbank else bins]
            if conf.use_energy:
                energy = log_energy(raw if conf.raw_energy else frames, conf.energy_floor).unsqueeze(2)
                columns.insert(len(columns) if conf.htk_compat else 0, energy)
            return torch.cat(columns, 2)
