"""card.md: the card of an exported model for people."""

from typing import Any

from speakerkd.verify.card import conditions_of


def markdown_of(card: dict[str, Any]) -> str:
    parts = [f"# {card['name']}", "", *_facts(card), "", "## Error rates", "", *_rates(card)]
    parts += ["", "## Thresholds", "", *_thresholds(card), "", "## Input and output", ""]
    front, mean = card["front_end"], card.get("mean", "")  # older cards have no mean
    parts += [
        f"`model.onnx` takes `feats`, float32 of shape (batch, frames, {card['feat_dim']}): {front['type']} features at "
        f"{front['sample_frequency']:g} Hz, scaled by {front.get('waveform_scale', 1):g}, without dither. "
        + ("The graph subtracts the utterance's mean itself. " if card["subtracts_mean"] else "")
        + f"It gives `embs` of shape (batch, {card['dim']}); compare them by the cosine. "
        + (f"The mean embedding of the training speakers is subtracted already (`{mean}`). " if mean else "")
        + f"Give at least {card['min_frames']} frames. `card.json` has all options of the features.",
        "",
        "`verify_example.py` compares two recordings with nothing but this folder, numpy, soundfile, kaldi-native-fbank and "
        "onnxruntime.",
        "",
        "## How it was made",
        "",
        "```",
        card["command"],
        "```",
        "",
        f"Commit {card['commit'] or 'not known'}, seed {card['seed']}. Training:",
        "",
        "```",
        card["training_command"] or "not known",
        "```",
        "",
        f"Commit {card['training_commit'] or 'not known'}.",
    ]
    return "\n".join(parts) + "\n"


def _facts(card: dict[str, Any]) -> list[str]:
    files, speed = card["files"], card["real_time_factor"]
    rows = [
        (
            "model",
            f"{card['model']}, {card['parameters'] / 1e6:.2f} M parameters, embeddings of {card['dim']} dimensions",
        ),
        ("cost", f"{card['macs_per_second'] / 1e6:.1f} M multiply-accumulates per second of speech"),
        ("taught by", card["taught_by"] or "no teacher is recorded"),
        ("training data", card["data"] or "not recorded"),
        ("licence", card["licence"] or "not recorded"),
    ]
    for precision, file in files.items():
        size = f"{file['bytes'] / 1e6:.2f} MB"
        rows.append((precision, f"`{file['name']}`, {size}, real-time factor {speed[precision]:.4f} on one thread"))
    if "checkpoint" in card:  # older cards have none
        size = f"{card['checkpoint']['bytes'] / 1e6:.2f} MB"
        lacks = "without the classifier" + (" and the subtraction of the mean embedding" if card.get("mean") else "")
        rows.append(("for PyTorch", f"`{card['checkpoint']['name']}`, {size}, {lacks}"))
    if card.get("int8_kept_in_fp32"):
        rows.append(
            (
                "layer with int8 weights that is computed in fp32",
                ", ".join(f"`{name}`" for name in card["int8_kept_in_fp32"]),
            )
        )
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]


def _rates(card: dict[str, Any]) -> list[str]:
    if not card["eer"]:
        return ["Not measured: no trials were given."]
    lines = ["| trials | speakers | system | EER % |", "|---|---|---|---|"]
    for row in card["eer"]:
        interval = f" [{row['low']:.2f}, {row['high']:.2f}]" if row["low"] is not None else ""
        lines.append(f"| {row['trials']} | {row['speakers']} | {row['system']} | {row['eer']:.2f}{interval} |")
    return [*lines, "", "Brackets: 95 % intervals over the speakers of the trials."]


def _thresholds(card: dict[str, Any]) -> list[str]:
    conditions = conditions_of(card)
    if not conditions:
        return ["Not measured: no recordings for calibration were given."]
    lines = [
        f"Measured on {conditions[0].speakers} speakers of {card['calibration_data']}. "
        "Log likelihood ratio = scale × score + offset. FAR is the false-acceptance rate.",
        "",
        "| recording (speech in it) | noise | EER % | scale | offset | threshold at FAR 5 % | at FAR 1 % | at FAR 0.1 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in conditions:
        cells = []
        for rate in (0.05, 0.01, 0.001):
            measured = [known for known, _ in each.false_accepts]
            inside = measured and min(measured) <= rate <= max(measured)
            cells.append(f"{each.threshold_of_false_accepts(rate):.3f}" if inside else "not measured")
        line = f"{each.scale:.2f} | {each.offset:.2f}"
        about = f"{each.label} ({each.seconds:.1f} s) | {each.noise} | {each.eer:.2f}"
        lines.append(f"| {about} | {line} | {' | '.join(cells)} |")
    return lines
