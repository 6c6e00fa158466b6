"""The one place where a session of ONNX Runtime is opened. onnxruntime is optional, so it is imported only when needed."""

from pathlib import Path
from typing import Any

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(path: str | Path, threads: int = 1, device: str = "cpu") -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"onnxruntime is needed and can't be imported ({error}); tools/setup.sh --extras onnx installs it into "
            "tools/venv, pip install onnxruntime into an environment of your own"
        ) from error
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; give a network in ONNX")
    provider = PROVIDERS.get(device)
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"--device={device}: this onnxruntime has no such device; cuda needs onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime's errors have no common class that it exports
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: onnxruntime can't load it ({reason}); is it an ONNX model?") from error
